//! Messages inside frames: handshake, request and response envelopes, EXIT and RESET bodies.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::errno;
use crate::extent::is_one_value;
use crate::frame::Violation;
use crate::methods::or_default;
use crate::text::Text;

/// One message is at most 8 MiB.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Unfinished messages of a connection together.
pub const MAX_UNFINISHED: usize = 16 * 1024 * 1024;
/// At most so many requests may be unanswered, so no more messages than that can be under way.
pub const MAX_UNANSWERED: usize = 1024;
/// Longest text of an error, in bytes.
pub const MAX_ERROR_TEXT: usize = 1024;

/// msgpack with maps keyed by field names.
pub fn to_msgpack<T: Serialize>(value: &T) -> Vec<u8> {
    // Only a map or sequence of unknown length or a failing writer make this fail; there are none.
    rmp_serde::to_vec_named(value).unwrap_or_default()
}

/// Reads exactly one value; bytes after it are an error.
pub fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    if !is_one_value(bytes) {
        return Err(serde::de::Error::custom("not exactly one value"));
    }
    rmp_serde::from_slice(bytes)
}

/// Sixteen random bytes that travel as `bin`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

struct TokenVisitor;

impl Visitor<'_> for TokenVisitor {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Token, E> {
        bytes.try_into().map(Token).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
        deserializer.deserialize_bytes(TokenVisitor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub generations: Vec<u32>,
    pub agent: String,
    pub boot: Token,
    pub key: Token,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub generation: u32,
    pub epoch: u64,
    pub reattach_window_ms: u32,
}

/// A spawned process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub pid: u32,
    pub code: u8,
    #[serde(default)]
    pub signal: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub oom: bool,
}

/// Why a request failed, or (body of RESET) why a stream was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: Cow<'static, str>,
    pub message: String,
}

impl Failure {
    pub const UNKNOWN_METHOD: &'static str = "UNKNOWN_METHOD";
    pub const BAD_PARAMS: &'static str = "BAD_PARAMS";
    pub const TOO_LARGE: &'static str = "TOO_LARGE";
    pub const UNKNOWN_STREAM: &'static str = "UNKNOWN_STREAM";
    pub const UNKNOWN_PROCESS: &'static str = "UNKNOWN_PROCESS";
    pub const BAD_SIGNAL: &'static str = "BAD_SIGNAL";
    pub const BUDGET: &'static str = "BUDGET";
    pub const RESET: &'static str = "RESET";
    pub const INTERNAL: &'static str = "INTERNAL";

    pub fn new(code: &'static str, message: impl Into<String>) -> Failure {
        let mut message = message.into();
        if message.len() > MAX_ERROR_TEXT {
            let end = (0..=MAX_ERROR_TEXT).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        Failure { code: Cow::Borrowed(code), message }
    }

    /// An errno, told with what was being done: "open /tmp/x".
    pub fn errno(number: i32, doing: &str, what: &Text) -> Failure {
        let mut shown = String::from_utf8_lossy(&what.0).into_owned();
        if shown.len() > 512 {
            shown = shown.chars().take(256).collect::<String>() + "…";
        }
        let name = errno::name(number);
        Failure::new(name, format!("{doing} {shown}: {name}"))
    }
}

/// A request's parts; `params` is still msgpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub id: u64,
    pub acked: u64,
    pub method: &'a str,
    pub params: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Envelope<'a>, Violation> {
        const BAD: Violation = Violation("REQUEST is not [id, acked, method, params]");
        let mut rest = message;
        if rmp::decode::read_array_len(&mut rest).map_err(|_| BAD)? != 4 {
            return Err(BAD);
        }
        let id: u64 = rmp::decode::read_int(&mut rest).map_err(|_| BAD)?;
        let acked: u64 = rmp::decode::read_int(&mut rest).map_err(|_| BAD)?;
        let (method, params) = rmp::decode::read_str_from_slice(rest).map_err(|_| BAD)?;
        if id == 0 || acked >= id || !is_one_value(params) {
            return Err(BAD);
        }
        Ok(Envelope { id, acked, method, params })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.params.len() + self.method.len() + 32);
        put(rmp::encode::write_array_len(&mut out, 4));
        put(rmp::encode::write_uint(&mut out, self.id));
        put(rmp::encode::write_uint(&mut out, self.acked));
        put(rmp::encode::write_str(&mut out, self.method));
        out.extend_from_slice(self.params);
        out
    }
}

/// Writing to a `Vec` cannot fail.
fn put<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok());
}

/// `[id, ok, value]`.
pub fn encode_response<T: Serialize>(id: u64, result: &Result<T, Failure>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put(rmp::encode::write_array_len(&mut out, 3));
    put(rmp::encode::write_uint(&mut out, id));
    put(rmp::encode::write_bool(&mut out, result.is_ok()));
    match result {
        Ok(value) => put(rmp_serde::encode::write_named(&mut out, value)),
        Err(failure) => put(rmp_serde::encode::write_named(&mut out, failure)),
    }
    out
}

/// A response's parts; `value` is still msgpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    pub id: u64,
    pub ok: bool,
    pub value: &'a [u8],
}

impl<'a> Response<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Response<'a>, Violation> {
        const BAD: Violation = Violation("RESPONSE is not [id, ok, value]");
        let mut rest = message;
        if rmp::decode::read_array_len(&mut rest).map_err(|_| BAD)? != 3 {
            return Err(BAD);
        }
        let id: u64 = rmp::decode::read_int(&mut rest).map_err(|_| BAD)?;
        let ok = rmp::decode::read_bool(&mut rest).map_err(|_| BAD)?;
        if id == 0 || !is_one_value(rest) {
            return Err(BAD);
        }
        Ok(Response { id, ok, value: rest })
    }
}

/// Puts messages together that came in several frames.
#[derive(Default)]
pub struct Assembler {
    unfinished: HashMap<u32, Vec<u8>>,
    held: usize,
}

impl Assembler {
    /// Takes a frame's part; answers the message when it was the last one.
    pub fn push<'a>(
        &mut self,
        number: u32,
        more: bool,
        part: &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, Violation> {
        if more && part.is_empty() {
            return Err(Violation("an empty frame that is not the last"));
        }
        let earlier = self.unfinished.remove(&number);
        let mut message = match earlier {
            None if !more => return Ok(Some(Cow::Borrowed(part))),
            None if self.unfinished.len() >= MAX_UNANSWERED => {
                return Err(Violation("too many unfinished messages"));
            }
            None => Vec::new(),
            Some(message) => message,
        };
        self.held -= message.len();
        if message.len() + part.len() > MAX_MESSAGE {
            return Err(Violation("message too long"));
        }
        if self.held + message.len() + part.len() > MAX_UNFINISHED {
            return Err(Violation("unfinished messages too long"));
        }
        message.try_reserve(part.len()).map_err(|_| Violation("no memory for a message"))?;
        message.extend_from_slice(part);
        if !more {
            return Ok(Some(Cow::Owned(message)));
        }
        self.held += message.len();
        self.unfinished.insert(number, message);
        Ok(None)
    }

    pub fn clear(&mut self) {
        self.unfinished.clear();
        self.held = 0;
    }
}
