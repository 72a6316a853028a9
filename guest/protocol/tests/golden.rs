//! The golden vectors, which the Python side reads too.

mod common;

use common::{canonical_frame, decode_all, from_hex, load, values_of};
use serde_json::Value;
use skerry_protocol::message::{Assembler, Envelope, Response};
use skerry_protocol::{Frame, FrameBuffer};

fn cases<'a>(golden: &'a Value, kind: &str) -> &'a Vec<Value> {
    golden[kind].as_array().expect("a list of vectors")
}

/// The frame as the vectors write it: type, flags, stream, and its fields.
fn described(frame: &Frame<'_>) -> Value {
    values_of(frame).unwrap_or_else(|error| panic!("{frame:?}: {error}"))
}

#[test]
fn valid_frames_are_read_and_written_alike() {
    let golden = load("golden/gen-1.json");
    for case in cases(&golden, "valid") {
        let name = &case["name"];
        let bytes = from_hex(&case["hex"]);
        let mut frames = 0;
        decode_all(&bytes, |frame| {
            frames += 1;
            assert_eq!(described(&frame), case["frame"], "{name}");
            if case["canonical"] == true {
                assert_eq!(canonical_frame(&frame).unwrap(), bytes, "{name}");
            }
        })
        .unwrap_or_else(|violation| panic!("{name}: {violation}"));
        assert_eq!(frames, 1, "{name}");
    }
}

#[test]
fn valid_payloads_fit_the_types() {
    let golden = load("golden/gen-1.json");
    for case in cases(&golden, "valid") {
        let bytes = from_hex(&case["hex"]);
        decode_all(&bytes, |frame| {
            let typed = canonical_frame(&frame).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
            // What the types write is read again as the same.
            decode_all(&typed, |again| {
                assert_eq!(canonical_frame(&again).unwrap(), typed, "{}", case["name"])
            })
            .expect("our own frame");
        })
        .expect("a valid frame");
    }
}

#[test]
fn messages_are_put_together() {
    let golden = load("golden/gen-1.json");
    for case in cases(&golden, "messages") {
        let mut assembler = Assembler::default();
        let mut messages = Vec::new();
        for frame in case["hex"].as_array().expect("frames") {
            decode_all(&from_hex(frame), |frame| {
                let (Frame::Request { number, more, part } | Frame::Response { number, more, part }) = frame
                else {
                    return;
                };
                if let Some(message) = assembler.push(number, more, part).expect("a part") {
                    messages.push(common::to_json(&message).expect("msgpack"));
                    let is_request = matches!(frame, Frame::Request { .. });
                    let parsed = if is_request {
                        Envelope::parse(&message).map(|envelope| envelope.id)
                    } else {
                        Response::parse(&message).map(|response| response.id)
                    };
                    assert!(parsed.is_ok(), "{}", case["name"]);
                }
            })
            .expect("valid frames");
        }
        assert_eq!(Value::from(messages), case["messages"], "{}", case["name"]);
    }
}

#[test]
fn invalid_bytes_are_refused() {
    let golden = load("golden/gen-1.json");
    for case in cases(&golden, "invalid") {
        let bytes = from_hex(&case["hex"]);
        let mut buffer = FrameBuffer::default();
        buffer.space()[..bytes.len()].copy_from_slice(&bytes);
        buffer.filled(bytes.len());
        let refused = loop {
            match buffer.next_frame() {
                Err(_) => break true,
                Ok(None) => break false,
                Ok(Some(frame)) if common::check(&frame).is_err() => break true,
                Ok(Some(_)) => {}
            }
        };
        assert!(refused, "{} ({}) was accepted", case["name"], case["why"]);
    }
}
