"""Messages: what is refused, and what never shows in a log."""

import msgspec
import pytest

from skerry.protocol import messages
from skerry.protocol.messages import ProtocolError, decode, encode


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (messages.Spawned, {"pid": -1}),
        (messages.Spawned, {"pid": 2**32}),
        (messages.Spawned, {"pid": 1.0}),
        (messages.Spawned, {"pid": "1"}),
        (messages.Spawned, {"pid": None}),
        (messages.Spawned, []),
        (messages.Exit, {"pid": 1, "code": 0, "signal": "S" * 17}),
        (messages.Failure, {"code": "C" * 65, "message": ""}),
        (messages.Failure, {"code": "C", "message": "m" * 1025}),
        (messages.DirList, {"entries": [{"name": 1, "kind": "file"}]}),
        (messages.DirList, {"entries": [{"name": ["a"], "kind": "file"}]}),
        (messages.DirList, {"entries": [{"name": "a", "kind": "door"}]}),
        (messages.EnvAll, {"env": {"A": 1}}),
        (messages.EnvAll, {"env": {1: "A"}}),
        (messages.ProcessList, {"processes": [{"pid": 1, "command": {}, "args": [], "started_ms": 0}]}),
        (messages.ProcessList, {"processes": [{"pid": 1, "command": "a", "args": [1], "started_ms": 0}]}),
        (messages.ReadResult, {}),
        (messages.ReadResult, {"data": b"", "stream": 1}),
    ],
)
def test_values_out_of_range_are_refused(type_: type, value: object) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(value), type_)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\xc0\xc0", b"\x91" * 5000, b"\x81" * 5000, b"\xdf\xff\xff\xff\xff"]
)
def test_malformed_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(payload, messages.Spawned)


def test_errors_hold_nothing_that_came_from_the_guest() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(encode({"pid": 1, "code": 0, "signal": "S3CRET" * 9}), messages.Exit)
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "value",
    [
        messages.SpawnParams(
            command="S3CRET", args=["S3CRET"], env={"S3CRET": "S3CRET"}, stdout="null", stderr="null"
        ),
        messages.EnvUpdateParams({"S3CRET": "S3CRET"}, ["S3CRET"]),
        messages.EnvAll({"S3CRET": "S3CRET"}),
        messages.WriteParams("f", b"S3CRET"),
        messages.ReadResult(b"S3CRET"),
        messages.ProcessInfo(1, "S3CRET", ["S3CRET"], 0),
        messages.Hello([1], "a", b"S3CRET.S3CRET.SS", b"S3CRET.S3CRET.SS"),
    ],
)
def test_secrets_do_not_show(value: msgspec.Struct) -> None:
    assert "S3CRET" not in repr(value)


def test_answers_have_bounds_by_method() -> None:
    small = messages.SMALL_RESPONSE_BYTES
    assert messages.max_response_bytes("process.kill", messages.KillParams(1, "SIGTERM")) == small
    assert messages.max_response_bytes("fs.read", messages.ReadParams("f", 1000)) == small + 1000
    assert (
        messages.max_response_bytes("fs.read_dir", messages.ReadDirParams("f")) == messages.MAX_MESSAGE_BYTES
    )
