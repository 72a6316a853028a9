//! The schema says the same about every field as the Rust types do.

mod common;

use common::{METHODS, load, recode_method, recode_record, to_bytes, to_json};
use serde_json::{Map, Value, json};
use skerry_protocol::frame::FrameType;

/// A field's type as the schema writes it, such as `[text]=[]` or `u32?`.
struct Field<'a> {
    kind: &'a str,
    required: bool,
}

fn field(spec: &Value) -> Field<'_> {
    let spec = spec.as_str().expect("a field's type");
    if let Some(kind) = spec.strip_suffix('?') {
        return Field { kind, required: false };
    }
    match spec.split_once('=') {
        Some((kind, _)) => Field { kind, required: false },
        None => Field { kind: spec, required: true },
    }
}

/// Some value of a type, the extreme one where there is one.
fn sample(kind: &str, records: &Map<String, Value>) -> Value {
    match kind {
        "u8" => json!(u8::MAX),
        "u32" => json!(u32::MAX),
        "u64" => json!(u64::MAX),
        "i64" => json!(i64::MIN),
        "bool" => json!(true),
        "str" => json!("x"),
        "text" => json!({ "$bin": "ff00" }),
        "bin" => json!({ "$bin": "00".repeat(16) }),
        _ if kind.starts_with('[') => json!([sample(&kind[1..kind.len() - 1], records)]),
        _ if kind.starts_with('{') => json!({ "k": sample(&kind[1..kind.len() - 1], records) }),
        _ if kind.starts_with('\'') => json!(kind.trim_matches('\'').split('|').next_back()),
        record => full(records[record].as_object().expect("a record"), records),
    }
}

fn full(fields: &Map<String, Value>, records: &Map<String, Value>) -> Value {
    fields.iter().map(|(name, spec)| (name.clone(), sample(field(spec).kind, records))).collect()
}

fn agrees(
    what: &str,
    fields: &Map<String, Value>,
    records: &Map<String, Value>,
    recode: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
) {
    let all = full(fields, records);
    let read = recode(&to_bytes(&all)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(to_json(&read).unwrap(), all, "{what}");
    for (name, spec) in fields {
        let Field { required, .. } = field(spec);
        let mut without = all.clone();
        without.as_object_mut().unwrap().remove(name);
        let mut with_nil = all.clone();
        with_nil[name] = Value::Null;
        for (how, changed) in [("missing", without), ("nil", with_nil)] {
            let accepted = recode(&to_bytes(&changed)).is_ok();
            assert_eq!(accepted, !required, "{what}: {name} is {how}");
        }
    }
}

#[test]
fn the_methods_are_the_same() {
    let schema = load("schema/gen-1.json");
    let mut named: Vec<&str> = schema["methods"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut known = METHODS.to_vec();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
}

#[test]
fn parameters_and_values_have_the_same_fields() {
    let schema = load("schema/gen-1.json");
    let records = schema["records"].as_object().unwrap();
    for (method, halves) in schema["methods"].as_object().unwrap() {
        for half in ["params", "value"] {
            let what = format!("{method} {half}");
            match (halves[half].as_object(), what.as_str()) {
                // The one value that has two forms.
                (Some(fields), "fs.read value") => {
                    let form = |names: &[&str]| -> Map<String, Value> {
                        names
                            .iter()
                            .map(|name| {
                                (
                                    (*name).to_owned(),
                                    json!(fields[*name].as_str().unwrap().trim_end_matches('?')),
                                )
                            })
                            .collect()
                    };
                    assert_eq!(fields.len(), 3);
                    agrees(&what, &form(&["data"]), records, |bytes| recode_method(method, half, bytes));
                    agrees(&what, &form(&["stream", "size"]), records, |bytes| {
                        recode_method(method, half, bytes)
                    });
                }
                (Some(fields), _) => {
                    agrees(&what, fields, records, |bytes| recode_method(method, half, bytes))
                }
                (None, _) => assert_eq!(recode_method(method, half, &[0xc0]), Ok(vec![0xc0]), "{what}"),
            }
        }
    }
}

#[test]
fn records_have_the_same_fields() {
    let schema = load("schema/gen-1.json");
    let records = schema["records"].as_object().unwrap();
    for (name, fields) in records {
        agrees(name, fields.as_object().unwrap(), records, |bytes| recode_record(name, bytes));
    }
}

#[test]
fn the_enumerations_have_the_same_words() {
    let schema = load("schema/gen-1.json");
    let records = schema["records"].as_object().unwrap();
    let spawn = schema["methods"]["process.spawn"]["params"].as_object().unwrap();
    for (name, spec) in spawn {
        let kind = field(spec).kind;
        for word in kind.trim_matches('\'').split('|').filter(|_| kind.starts_with('\'')) {
            let mut params = full(spawn, records);
            params[name] = json!(word);
            assert!(recode_method("process.spawn", "params", &to_bytes(&params)).is_ok(), "{name}: {word}");
            params[name] = json!(format!("{word}x"));
            assert!(recode_method("process.spawn", "params", &to_bytes(&params)).is_err(), "{name}: {word}x");
        }
    }
}

#[test]
fn the_frames_are_the_same() {
    let schema = load("schema/gen-1.json");
    let frames = schema["frames"].as_object().unwrap();
    assert_eq!(frames.len(), FrameType::ALL.len());
    for kind in FrameType::ALL {
        let name = format!("{kind:?}").to_uppercase();
        assert_eq!(frames[&name]["type"], kind as u8, "{name}");
    }
}

#[test]
fn the_limits_are_the_same() {
    use skerry_protocol::{frame, message, methods};

    let limits = &load("schema/gen-1.json")["limits"];
    assert_eq!(limits["header_bytes"], frame::HEADER_LEN);
    assert_eq!(limits["payload_bytes"], frame::MAX_PAYLOAD);
    assert_eq!(limits["data_bytes"], frame::MAX_DATA);
    assert_eq!(limits["message_bytes"], message::MAX_MESSAGE);
    assert_eq!(limits["unfinished_messages_bytes"], message::MAX_UNFINISHED);
    assert_eq!(limits["unanswered_requests"], message::MAX_UNANSWERED);
    assert_eq!(limits["inline_bytes"], methods::MAX_INLINE_READ);
    assert_eq!(limits["error_message_bytes"], message::MAX_ERROR_TEXT);
}

#[test]
fn the_error_codes_are_the_same() {
    use skerry_protocol::Failure;

    let ours = [
        Failure::UNKNOWN_METHOD,
        Failure::BAD_PARAMS,
        Failure::TOO_LARGE,
        Failure::UNKNOWN_STREAM,
        Failure::UNKNOWN_PROCESS,
        Failure::BAD_SIGNAL,
        Failure::BUDGET,
        Failure::RESET,
        Failure::INTERNAL,
    ];
    assert_eq!(load("schema/gen-1.json")["error_codes"], Value::from(ours.to_vec()));
}
