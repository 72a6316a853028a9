"""Messages as bytes: IDs keep their type, nothing is answered to an ID of null, streams are framed by
templates."""

import base64
import json

import pytest

from skerry.errors import InvalidRequest
from skerry.protocol import jsonrpc


@pytest.mark.parametrize(("text", "echoed"), [("0", 0), ("7", 7), ('"7"', "7"), ("-1", -1), ("1.5", 1.5)])
def test_the_id_is_echoed_as_the_same_type(text: str, echoed: object) -> None:
    incoming = jsonrpc.parse(f'{{"jsonrpc":"2.0","id":{text},"method":"stat","params":{{}}}}'.encode())
    id_text = jsonrpc.request_id(incoming)
    assert id_text is not None
    answer = json.loads(jsonrpc.ok(id_text, {"a": 1}))
    assert answer == {"jsonrpc": "2.0", "id": echoed, "result": {"ok": {"a": 1}}}
    assert type(answer["id"]) is type(echoed)


@pytest.mark.parametrize("text", ["null", "{}", "[1]", "true", '"' + "x" * 200 + '"'])
def test_what_is_no_id_is_never_echoed(text: str) -> None:
    assert jsonrpc.request_id(jsonrpc.parse(f'{{"id":{text},"method":"stat"}}'.encode())) is None


def test_a_message_without_an_id_is_a_notification() -> None:
    incoming = jsonrpc.parse(b'{"jsonrpc":"2.0","method":"$sandbox.stream.end","params":{"streamId":1}}')
    assert jsonrpc.request_id(incoming) is None
    assert bytes(incoming.id) == b""
    assert bytes(jsonrpc.params_of(incoming)) == b'{"streamId":1}'


@pytest.mark.parametrize(
    "message", [b"", b"ping", b"[]", b"1", b'{"method":7}', b'{"a"', b"\xff\xfe", b"[" * 9999]
)
def test_what_is_no_object_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        jsonrpc.parse(message)


@pytest.mark.parametrize("params", [b"", b',"params":null'])
def test_absent_and_null_params_are_an_empty_object(params: bytes) -> None:
    incoming = jsonrpc.parse(b'{"id":1,"method":"envToObject"%b}' % params)
    assert bytes(jsonrpc.params_of(incoming)) == b"{}"


def test_a_void_answer_has_ok_null() -> None:
    assert json.loads(jsonrpc.ok_void(b"3")) == {"jsonrpc": "2.0", "id": 3, "result": {"ok": None}}


def test_bytes_are_answered_in_standard_base64() -> None:
    data = bytes(range(256))
    answer = json.loads(jsonrpc.ok_bytes(b"1", data))
    assert base64.b64decode(answer["result"]["ok"], validate=True) == data


def test_stream_frames() -> None:
    data = bytes(range(256)) * 256
    start, chunk, end = (
        json.loads(jsonrpc.stream_start(9)),
        json.loads(jsonrpc.stream_enqueue(9, data)),
        json.loads(jsonrpc.stream_end(9)),
    )
    assert start == {"jsonrpc": "2.0", "method": "$sandbox.stream.start", "params": {"streamId": 9}}
    assert chunk["params"]["streamId"] == 9
    assert base64.b64decode(chunk["params"]["data"]) == data
    assert end == {"jsonrpc": "2.0", "method": "$sandbox.stream.end", "params": {"streamId": 9}}
    assert json.loads(jsonrpc.stream_cancel(b"4", None))["params"] == {"streamId": 4, "reason": None}
    assert json.loads(jsonrpc.stream_error(4, {"message": "m"}))["params"]["error"] == {"message": "m"}


def test_stream_ids_never_repeat_and_stay_safe_integers() -> None:
    ids = jsonrpc.stream_ids(lambda below: below - 1)
    first = [next(ids) for _ in range(1000)]
    assert len(set(first)) == 1000
    assert max(first) < 2**53


def test_a_protocol_error_has_data_only_when_there_is_some() -> None:
    assert json.loads(jsonrpc.refused(b"1", -32601, "Method not found"))["error"] == {
        "code": -32601,
        "message": "Method not found",
    }
    assert json.loads(jsonrpc.refused(b"1", -32602, "Invalid params", {"a": 1}))["error"]["data"] == {"a": 1}


def test_half_characters_become_replacement_characters() -> None:
    message = (
        rb'{"id":1,"method":"m","params":{"a":"\ud800x\udc00","b":"\ud83d\ude00","c":"\\ud800","d":"\uD9"}}'
    )
    with pytest.raises(InvalidRequest):
        jsonrpc.parse(message)  # because of d, which is no escape at all
    incoming = jsonrpc.parse(message.replace(rb',"d":"\uD9"', b""))
    assert json.loads(bytes(incoming.params)) == {"a": "\ufffdx\ufffd", "b": "\U0001f600", "c": "\\ud800"}
