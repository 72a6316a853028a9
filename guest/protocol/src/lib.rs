//! Frames and messages of the agent channel, generation 1. No I/O, no clock, no threads.
//!
//! The wire format is described in `docs/agent-channel.md`; `golden/gen-1.json` and `schema/gen-1.json` are shared with the
//! Python side, and the tests of this crate hold it to them.
#![forbid(unsafe_code)]

pub mod errno;
mod extent;
pub mod frame;
pub mod message;
pub mod methods;
pub mod signal;
pub mod text;

pub use frame::{Frame, FrameBuffer, Violation};
pub use message::{Assembler, Envelope, Exit, Failure, Hello, Token, Welcome};
pub use text::{EnvMap, Text};

/// The only protocol generation there is.
pub const GENERATION: u32 = 1;
