//! The 12-byte header, the fourteen frame types and an incremental decoder.

use std::fmt;

pub const HEADER_LEN: usize = 12;
/// A whole frame is at most 256 KiB.
pub const MAX_FRAME: usize = 256 * 1024;
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER_LEN;
/// Bytes that one DATA frame carries beside its offset.
pub const MAX_DATA: usize = MAX_PAYLOAD - 8;

const FLAG_MORE: u8 = 1;

/// Why the peer's bytes are not the protocol. The connection that carried them is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Violation {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    Hello = 1,
    Welcome = 2,
    Request = 3,
    Response = 4,
    Exit = 5,
    Ping = 6,
    Pong = 7,
    Data = 8,
    End = 9,
    Reset = 10,
    Credit = 11,
    Attach = 12,
    Gap = 13,
    Detach = 14,
}

impl FrameType {
    pub const ALL: [FrameType; 14] = [
        FrameType::Hello,
        FrameType::Welcome,
        FrameType::Request,
        FrameType::Response,
        FrameType::Exit,
        FrameType::Ping,
        FrameType::Pong,
        FrameType::Data,
        FrameType::End,
        FrameType::Reset,
        FrameType::Credit,
        FrameType::Attach,
        FrameType::Gap,
        FrameType::Detach,
    ];

    pub fn from_byte(byte: u8) -> Option<FrameType> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn is_message(self) -> bool {
        matches!(self, FrameType::Request | FrameType::Response)
    }

    fn is_of_stream(self) -> bool {
        self as u8 >= FrameType::Data as u8
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub length: usize,
    pub kind: FrameType,
    pub more: bool,
    /// Stream ID, message number of REQUEST and RESPONSE, else 0.
    pub stream: u32,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, Violation> {
        let [l0, l1, l2, l3, kind, flags, r0, r1, s0, s1, s2, s3] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        if length > MAX_PAYLOAD {
            return Err(Violation("frame too long"));
        }
        let kind = FrameType::from_byte(kind).ok_or(Violation("unknown frame type"))?;
        if flags & !FLAG_MORE != 0 || (flags != 0 && !kind.is_message()) {
            return Err(Violation("unknown flags"));
        }
        if r0 != 0 || r1 != 0 {
            return Err(Violation("reserved bytes are not zero"));
        }
        if !kind.is_message() && kind.is_of_stream() == (stream == 0) {
            return Err(Violation("stream ID missing or not wanted"));
        }
        Ok(Header { length, kind, more: flags & FLAG_MORE != 0, stream })
    }

    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [l0, l1, l2, l3] = (self.length as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let flags = if self.more { FLAG_MORE } else { 0 };
        [l0, l1, l2, l3, self.kind as u8, flags, 0, 0, s0, s1, s2, s3]
    }
}

/// One frame; messages and byte strings are borrowed from the buffer it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    Hello(&'a [u8]),
    Welcome(&'a [u8]),
    Request { number: u32, more: bool, part: &'a [u8] },
    Response { number: u32, more: bool, part: &'a [u8] },
    Exit(&'a [u8]),
    Ping([u8; 8]),
    Pong([u8; 8]),
    Data { stream: u32, offset: u64, bytes: &'a [u8] },
    End { stream: u32, total: u64 },
    Reset { stream: u32, body: &'a [u8] },
    Credit { stream: u32, consumed: u64, limit: u64 },
    Attach { stream: u32, from: u64, limit: u64 },
    Gap { stream: u32, from: u64, to: u64 },
    Detach { stream: u32 },
}

fn eight(payload: &[u8]) -> Result<[u8; 8], Violation> {
    payload.try_into().map_err(|_| Violation("payload is not 8 bytes"))
}

fn two_numbers(payload: &[u8]) -> Result<(u64, u64), Violation> {
    let both: [u8; 16] = payload.try_into().map_err(|_| Violation("payload is not 16 bytes"))?;
    let (a, b) = both.split_at(8);
    Ok((u64::from_be_bytes(eight(a)?), u64::from_be_bytes(eight(b)?)))
}

impl<'a> Frame<'a> {
    /// Reads a payload whose header was accepted; `payload` has exactly `header.length` bytes.
    pub fn parse(header: Header, payload: &'a [u8]) -> Result<Frame<'a>, Violation> {
        let Header { more, stream, .. } = header;
        Ok(match header.kind {
            FrameType::Hello => Frame::Hello(payload),
            FrameType::Welcome => Frame::Welcome(payload),
            FrameType::Request => Frame::Request { number: stream, more, part: payload },
            FrameType::Response => Frame::Response { number: stream, more, part: payload },
            FrameType::Exit => Frame::Exit(payload),
            FrameType::Ping => Frame::Ping(eight(payload)?),
            FrameType::Pong => Frame::Pong(eight(payload)?),
            FrameType::Data => {
                let (offset, bytes) = payload.split_at_checked(8).ok_or(Violation("DATA without offset"))?;
                let offset = u64::from_be_bytes(eight(offset)?);
                if bytes.is_empty() || offset.checked_add(bytes.len() as u64).is_none() {
                    return Err(Violation("DATA is empty or beyond any stream"));
                }
                Frame::Data { stream, offset, bytes }
            }
            FrameType::End => Frame::End { stream, total: u64::from_be_bytes(eight(payload)?) },
            FrameType::Reset => Frame::Reset { stream, body: payload },
            FrameType::Credit => {
                let (consumed, limit) = two_numbers(payload)?;
                Frame::Credit { stream, consumed, limit }
            }
            FrameType::Attach => {
                let (from, limit) = two_numbers(payload)?;
                Frame::Attach { stream, from, limit }
            }
            FrameType::Gap => {
                let (from, to) = two_numbers(payload)?;
                if from >= to {
                    return Err(Violation("GAP is empty"));
                }
                Frame::Gap { stream, from, to }
            }
            FrameType::Detach if payload.is_empty() => Frame::Detach { stream },
            FrameType::Detach => return Err(Violation("DETACH has a payload")),
        })
    }

    /// Appends the frame. Payloads longer than [`MAX_PAYLOAD`] are a bug of the caller.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Frame::Hello(body) => put(out, FrameType::Hello, false, 0, &[body]),
            Frame::Welcome(body) => put(out, FrameType::Welcome, false, 0, &[body]),
            Frame::Request { number, more, part } => put(out, FrameType::Request, more, number, &[part]),
            Frame::Response { number, more, part } => put(out, FrameType::Response, more, number, &[part]),
            Frame::Exit(body) => put(out, FrameType::Exit, false, 0, &[body]),
            Frame::Ping(token) => put(out, FrameType::Ping, false, 0, &[&token]),
            Frame::Pong(token) => put(out, FrameType::Pong, false, 0, &[&token]),
            Frame::Data { stream, offset, bytes } => {
                put(out, FrameType::Data, false, stream, &[&offset.to_be_bytes(), bytes]);
            }
            Frame::End { stream, total } => {
                put(out, FrameType::End, false, stream, &[&total.to_be_bytes()]);
            }
            Frame::Reset { stream, body } => put(out, FrameType::Reset, false, stream, &[body]),
            Frame::Credit { stream, consumed, limit } => {
                put(out, FrameType::Credit, false, stream, &[&consumed.to_be_bytes(), &limit.to_be_bytes()]);
            }
            Frame::Attach { stream, from, limit } => {
                put(out, FrameType::Attach, false, stream, &[&from.to_be_bytes(), &limit.to_be_bytes()]);
            }
            Frame::Gap { stream, from, to } => {
                put(out, FrameType::Gap, false, stream, &[&from.to_be_bytes(), &to.to_be_bytes()]);
            }
            Frame::Detach { stream } => put(out, FrameType::Detach, false, stream, &[]),
        }
    }
}

fn put(out: &mut Vec<u8>, kind: FrameType, more: bool, stream: u32, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum();
    debug_assert!(length <= MAX_PAYLOAD);
    out.extend_from_slice(&Header { length, kind, more, stream }.to_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The header and offset of a DATA frame whose `length` bytes the caller appends itself.
pub fn data_prefix(stream: u32, offset: u64, length: usize) -> [u8; HEADER_LEN + 8] {
    debug_assert!(length <= MAX_DATA);
    let header = Header { length: length + 8, kind: FrameType::Data, more: false, stream };
    let mut prefix = [0; HEADER_LEN + 8];
    prefix[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    prefix[HEADER_LEN..].copy_from_slice(&offset.to_be_bytes());
    prefix
}

/// Splits a message into the frames that carry it, each but the last with `MORE`.
pub fn encode_message(kind: FrameType, number: u32, message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    loop {
        let (part, after) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        put(out, kind, !after.is_empty(), number, &[part]);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

/// Collects bytes as they come from the peer and hands out whole frames.
///
/// Holds at most one frame more than was asked of it, so a peer can make it grow to [`MAX_FRAME`] and no further.
#[derive(Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// Space at first: enough for what small messages need, so that an idle connection costs little.
    const INITIAL: usize = 16 * 1024;

    /// Where the next bytes go; never empty. Tell [`FrameBuffer::filled`] how many were put there.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let wanted = self.missing();
        if self.bytes.len() - self.end < wanted && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < wanted {
            // Either the first bytes or a frame larger than any before: go to the full size at once.
            let size = if self.bytes.is_empty() { Self::INITIAL } else { MAX_FRAME };
            self.bytes.resize(size.max(self.end + wanted), 0);
        }
        &mut self.bytes[self.end..]
    }

    /// How many bytes the frame at the front still lacks (at least 1).
    fn missing(&self) -> usize {
        let held = self.end - self.start;
        match self.bytes[self.start..self.end].first_chunk::<4>() {
            Some(length) => {
                let length = (u32::from_be_bytes(*length) as usize).min(MAX_PAYLOAD);
                (HEADER_LEN + length).saturating_sub(held).max(1)
            }
            None => HEADER_LEN - held,
        }
    }

    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Violation> {
        let held = &self.bytes[self.start..self.end];
        let Some((header, rest)) = held.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::parse(header)?;
        let Some(payload) = rest.get(..header.length) else { return Ok(None) };
        self.start += HEADER_LEN + header.length;
        Frame::parse(header, payload).map(Some)
    }

    /// Forgets everything, as when the connection is gone.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}
