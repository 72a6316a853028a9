//! What the tests of the shared files have in common.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skerry_protocol::message::{Response, encode_response, from_msgpack, to_msgpack};
use skerry_protocol::methods::*;
use skerry_protocol::{Envelope, Exit, Failure, Frame, FrameBuffer, Hello, Violation, Welcome};

pub fn load(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

pub fn from_hex(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().expect("hex digits");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Any msgpack value as JSON; byte strings are `{"$bin": hex}`.
pub struct Any(pub Value);

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
        Ok(Any(json!(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Any, E> {
        Ok(Any(json!(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Any, E> {
        Ok(Any(json!(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Any, E> {
        Ok(Any(json!(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Any, E> {
        Ok(Any(json!(value)))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Any, E> {
        Ok(Any(json!({ "$bin": to_hex(value) })))
    }

    fn visit_unit<E>(self) -> Result<Any, E> {
        Ok(Any(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Any, A::Error> {
        let mut list = Vec::new();
        while let Some(Any(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Any(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Any, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some((name, Any(value))) = entries.next_entry::<String, Any>()? {
            map.insert(name, value);
        }
        Ok(Any(Value::Object(map)))
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Any, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Object(map) if map.contains_key("$bin") => {
                serializer.serialize_bytes(&from_hex(&map["$bin"]))
            }
            Value::Object(map) => {
                let mut out = serializer.serialize_map(Some(map.len()))?;
                for (name, value) in map {
                    out.serialize_entry(name, &Any(value.clone()))?;
                }
                out.end()
            }
            Value::Array(items) => {
                let mut out = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    out.serialize_element(&Any(item.clone()))?;
                }
                out.end()
            }
            other => other.serialize(serializer),
        }
    }
}

pub fn to_json(msgpack: &[u8]) -> Result<Value, String> {
    from_msgpack::<Any>(msgpack).map(|any| any.0).map_err(|error| error.to_string())
}

pub fn to_bytes(value: &Value) -> Vec<u8> {
    to_msgpack(&Any(value.clone()))
}

/// Gives each frame in `bytes` to `take`; there must be nothing after the last.
pub fn decode_all(bytes: &[u8], mut take: impl FnMut(Frame<'_>)) -> Result<(), Violation> {
    let mut buffer = FrameBuffer::default();
    let mut rest = bytes;
    let mut taken = 0;
    while !rest.is_empty() {
        let space = buffer.space();
        let (part, after) = rest.split_at(rest.len().min(space.len()));
        space[..part.len()].copy_from_slice(part);
        buffer.filled(part.len());
        rest = after;
        while let Some(frame) = buffer.next_frame()? {
            let mut again = Vec::new();
            frame.encode(&mut again);
            taken += again.len();
            take(frame);
        }
    }
    assert_eq!(taken, bytes.len(), "a frame is cut short, or is not written as it was read");
    Ok(())
}

/// A frame as the vectors write it.
pub fn values_of(frame: &Frame<'_>) -> Result<Value, String> {
    let plain = |kind: &str, stream: u32, more: bool| json!({ "type": kind, "flags": u8::from(more), "stream": stream });
    let with = |mut value: Value, name: &str, field: Value| {
        value[name] = field;
        value
    };
    Ok(match *frame {
        Frame::Hello(body) => with(plain("HELLO", 0, false), "value", to_json(body)?),
        Frame::Welcome(body) => with(plain("WELCOME", 0, false), "value", to_json(body)?),
        Frame::Exit(body) => with(plain("EXIT", 0, false), "value", to_json(body)?),
        Frame::Request { number, more, part } => {
            with(plain("REQUEST", number, more), "value", to_json(part)?)
        }
        Frame::Response { number, more, part } => {
            with(plain("RESPONSE", number, more), "value", to_json(part)?)
        }
        Frame::Ping(token) => with(plain("PING", 0, false), "bytes", json!(to_hex(&token))),
        Frame::Pong(token) => with(plain("PONG", 0, false), "bytes", json!(to_hex(&token))),
        Frame::Data { stream, offset, bytes } => {
            with(with(plain("DATA", stream, false), "offset", json!(offset)), "bytes", json!(to_hex(bytes)))
        }
        Frame::End { stream, total } => with(plain("END", stream, false), "total", json!(total)),
        Frame::Reset { stream, body } => with(plain("RESET", stream, false), "value", to_json(body)?),
        Frame::Credit { stream, consumed, limit } => {
            with(with(plain("CREDIT", stream, false), "consumed", json!(consumed)), "limit", json!(limit))
        }
        Frame::Attach { stream, from, limit } => {
            with(with(plain("ATTACH", stream, false), "from", json!(from)), "limit", json!(limit))
        }
        Frame::Gap { stream, from, to } => {
            with(with(plain("GAP", stream, false), "from", json!(from)), "to", json!(to))
        }
        Frame::Detach { stream } => with(plain("DETACH", stream, false), "bytes", json!("")),
    })
}

pub fn recode_as<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    from_msgpack::<T>(bytes).map(|value| to_msgpack(&value)).map_err(|error| error.to_string())
}

/// Half of a method (`params` or `value`) read as its type and written again.
pub fn recode_method(method: &str, half: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    match (method, half) {
        (PROCESS_SPAWN, "params") => recode_as::<SpawnParams>(bytes),
        (PROCESS_SPAWN, _) => recode_as::<Spawned>(bytes),
        (PROCESS_KILL, "params") => recode_as::<KillParams>(bytes),
        (PROCESS_LIST, "value") => recode_as::<ProcessList>(bytes),
        (STREAM_LIST, "value") => recode_as::<StreamList>(bytes),
        (ENV_UPDATE, "params") => recode_as::<EnvUpdateParams>(bytes),
        (ENV_ALL, "value") => recode_as::<EnvAll>(bytes),
        (FS_READ, "params") => recode_as::<ReadParams>(bytes),
        (FS_READ, _) => recode_as::<ReadValue>(bytes),
        (FS_WRITE, "params") => recode_as::<WriteParams>(bytes),
        (FS_WRITE_OPEN, "params") => recode_as::<WriteOpenParams>(bytes),
        (FS_WRITE_OPEN, _) | (FS_WRITE_CLOSE, "params") => recode_as::<StreamRef>(bytes),
        (FS_WRITE_CLOSE, _) => recode_as::<WrittenSize>(bytes),
        (FS_READ_DIR, "params") => recode_as::<PathParams>(bytes),
        (FS_READ_DIR, _) => recode_as::<DirEntries>(bytes),
        (FS_MKDIR, "params") => recode_as::<MkdirParams>(bytes),
        (FS_REMOVE, "params") => recode_as::<RemoveParams>(bytes),
        (FS_STAT, "params") => recode_as::<StatParams>(bytes),
        (FS_STAT, _) => recode_as::<FileStat>(bytes),
        (SYSTEM_RECLAIM, "value") => recode_as::<Reclaimed>(bytes),
        (TRUST_INSTALL, "params") => recode_as::<TrustInstallParams>(bytes),
        (TRUST_INSTALL, _) => recode_as::<TrustInstalled>(bytes),
        // No parameters, or nil as value.
        (_, "params") => Ok(to_bytes(&json!({}))),
        _ => Ok(to_msgpack(&())),
    }
}

pub fn recode_record(record: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    match record {
        "Hello" => recode_as::<Hello>(bytes),
        "Welcome" => recode_as::<Welcome>(bytes),
        "Exit" => recode_as::<Exit>(bytes),
        "Failure" => recode_as::<Failure>(bytes),
        "ExitStatus" => recode_as::<ExitStatus>(bytes),
        "ProcessInfo" => recode_as::<ProcessEntry>(bytes),
        "StreamInfo" => recode_as::<StreamEntry>(bytes),
        "DirEntry" => recode_as::<DirEntry>(bytes),
        other => Err(format!("no record {other}")),
    }
}

pub const METHODS: [&str; 16] = [
    PROCESS_SPAWN,
    PROCESS_KILL,
    PROCESS_LIST,
    STREAM_LIST,
    ENV_UPDATE,
    ENV_ALL,
    FS_READ,
    FS_WRITE,
    FS_WRITE_OPEN,
    FS_WRITE_CLOSE,
    FS_READ_DIR,
    FS_MKDIR,
    FS_REMOVE,
    FS_STAT,
    SYSTEM_RECLAIM,
    TRUST_INSTALL,
];

/// The frame with its payload read as the types of this crate and written again.
pub fn canonical_frame(frame: &Frame<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let bad = |violation: Violation| violation.to_string();
    match *frame {
        Frame::Hello(body) => Frame::Hello(&recode_record("Hello", body)?).encode(&mut out),
        Frame::Welcome(body) => Frame::Welcome(&recode_record("Welcome", body)?).encode(&mut out),
        Frame::Exit(body) => Frame::Exit(&recode_record("Exit", body)?).encode(&mut out),
        Frame::Reset { stream, body } => {
            Frame::Reset { stream, body: &recode_record("Failure", body)? }.encode(&mut out);
        }
        Frame::Request { number, more, part } => {
            let Envelope { id, acked, method, params } = Envelope::parse(part).map_err(bad)?;
            let params = match METHODS.contains(&method) {
                true => recode_method(method, "params", params)?,
                false => params.to_vec(),
            };
            let part = Envelope { id, acked, method, params: &params }.encode();
            Frame::Request { number, more, part: &part }.encode(&mut out);
        }
        Frame::Response { number, more, part } => {
            let Response { id, ok, value } = Response::parse(part).map_err(bad)?;
            let result = match ok {
                true => Ok(Any(to_json(value)?)),
                false => Err(from_msgpack(value).map_err(|error| error.to_string())?),
            };
            if ok && !METHODS.iter().any(|method| recode_method(method, "value", value).is_ok()) {
                return Err("the value of no method".to_owned());
            }
            Frame::Response { number, more, part: &encode_response(id, &result) }.encode(&mut out);
        }
        _ => frame.encode(&mut out),
    }
    Ok(out)
}

/// Reads a payload as whoever gets it does.
pub fn check(frame: &Frame<'_>) -> Result<(), String> {
    match *frame {
        Frame::Request { more: true, part, .. } | Frame::Response { more: true, part, .. } => {
            let mut assembler = skerry_protocol::Assembler::default();
            assembler.push(1, true, part).map(|_| ()).map_err(|violation| violation.to_string())
        }
        _ => canonical_frame(frame).map(|_| ()),
    }
}
