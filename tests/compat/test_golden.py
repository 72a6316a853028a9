"""The frozen vectors of the agent channel, read and made by our codec; the agent's tests read them too."""

import json
from typing import Any, cast

import msgspec
import pytest

from skerry.control.agent.files import INLINE_BYTES
from skerry.protocol import frames, messages
from skerry.protocol.frames import Frame, FrameDecoder, FrameType
from skerry.protocol.messages import ProtocolError
from tests.compat.generate_golden import GOLDEN_FILE, SCHEMA_FILE, changes, golden, main
from tests.compat.golden_schema import SCHEMA

GOLDEN = json.loads(GOLDEN_FILE.read_text())
FROM = {"host": frames.FROM_AGENT, "agent": frames.FROM_HOST}
NUMBERS = {"from": "start", "to": "end"}
PARAMS: dict[str, tuple[Any, Any]] = {
    "process.spawn": (messages.SpawnParams, messages.Spawned),
    "process.kill": (messages.KillParams, None),
    "process.list": (messages.Nothing, messages.ProcessList),
    "stream.list": (messages.Nothing, messages.StreamList),
    "env.update": (messages.EnvUpdateParams, None),
    "env.all": (messages.Nothing, messages.EnvAll),
    "fs.read": (messages.ReadParams, messages.ReadResult),
    "fs.write": (messages.WriteParams, None),
    "fs.write_open": (messages.WriteOpenParams, messages.WriteOpened),
    "fs.write_close": (messages.WriteCloseParams, messages.WriteClosed),
    "fs.read_dir": (messages.ReadDirParams, messages.DirList),
    "fs.mkdir": (messages.MkdirParams, None),
    "fs.remove": (messages.RemoveParams, None),
    "fs.stat": (messages.StatParams, messages.Stat),
    "system.reclaim": (messages.Nothing, messages.Reclaimed),
    "trust.install": (messages.TrustInstallParams, messages.TrustInstalled),
}
RECORDS: dict[str, type[msgspec.Struct]] = {
    name: getattr(messages, name)
    for name in ("Hello", "Welcome", "Exit", "Failure", "ExitStatus", "ProcessInfo", "StreamInfo", "DirEntry")
}


def _named(entries: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(entry, id=f"{entry['to']}: {entry['name']}") for entry in entries]


def _value(value: Any) -> Any:
    """A value of the JSON file as msgpack has it."""
    if isinstance(value, dict):
        if value.keys() == {"$bin"}:
            return bytes.fromhex(value["$bin"])
        return {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, list) else value


def _decode(to: str, wire: bytes) -> list[Frame]:
    decoder = FrameDecoder(FROM[to])
    decoder.feed(wire)
    found: list[Frame] = []
    while True:
        found += decoder.decode(10)
        if not decoder.pending:
            return found


def _plain(frame: Frame) -> Any:
    """What a frame holds, as msgpack has it."""
    match frame:
        case messages.Request():
            return [frame.id, frame.acked, frame.method, msgspec.msgpack.decode(frame.params)]
        case messages.Response():
            return [frame.id, frame.ok, msgspec.msgpack.decode(frame.value)]
        case frames.Reset():
            return {"code": frame.code, "message": frame.message}
        case messages.Hello() | messages.Welcome() | messages.Exit():
            return msgspec.to_builtins(frame, builtin_types=(bytes,))
    raise AssertionError(f"{frame} holds no msgpack")


def _without_unknown(found: Any, expected: Any) -> Any:
    """`expected` with the fields that we know only, and with nil for those that are missing."""
    if not isinstance(found, dict):
        return expected
    return {key: expected.get(key) for key in found}


@pytest.mark.parametrize("entry", _named(GOLDEN["valid"]))
def test_valid_frames_are_read(entry: dict[str, Any]) -> None:
    (frame,) = _decode(entry["to"], bytes.fromhex(entry["hex"]))
    expected = dict(entry["frame"])
    kind = expected.pop("type")
    expected.pop("flags")
    assert type(frame).__name__.upper() == kind
    if "value" in expected:
        value = _plain(frame)
        assert value == _without_unknown(value, _value(expected["value"]))
        assert kind != "RESET" or getattr(frame, "stream", None) == expected["stream"]
        return
    if isinstance(frame, frames.Ping | frames.Pong):
        assert frame.payload.hex() == expected["bytes"]
        return
    fields: dict[str, Any] = {NUMBERS.get(str(name)) or str(name): value for name, value in expected.items()}
    if "bytes" in fields:
        raw = bytes.fromhex(fields.pop("bytes"))
        assert kind == "DETACH" or getattr(frame, "data", None) == raw
    assert {name: getattr(frame, name) for name in fields} == fields


@pytest.mark.parametrize("entry", _named([entry for entry in GOLDEN["valid"] if entry["canonical"]]))
def test_canonical_frames_are_made(entry: dict[str, Any]) -> None:
    wire = bytes.fromhex(entry["hex"])
    (frame,) = _decode(entry["to"], wire)
    assert _encode(frame) == wire


def _encode(frame: Frame) -> bytes:
    match frame:
        case messages.Hello():
            return frames.frame(FrameType.HELLO, messages.encode(frame))
        case messages.Welcome():
            return frames.welcome(frame)
        case messages.Request():
            params = messages.decode(frame.params, PARAMS[frame.method][0])
            return frames.request(frame.id, frame.acked, frame.method, cast(msgspec.Struct, params))
        case frames.Ping():
            return frames.frame(FrameType.PING, frame.payload)
        case frames.Pong():
            return frames.pong(frame.payload)
        case frames.Data():
            return frames.data(frame.stream, frame.offset, frame.data)
        case frames.End():
            return frames.end(frame.stream, frame.total)
        case frames.Reset():
            return frames.reset(frame.stream, frame.code, frame.message)
        case frames.Credit():
            return frames.credit(frame.stream, frame.consumed, frame.limit)
        case frames.Attach():
            return frames.attach(frame.stream, frame.start, frame.limit)
        case frames.Gap():
            payload = frame.start.to_bytes(8, "big") + frame.end.to_bytes(8, "big")
            return frames.frame(FrameType.GAP, payload, stream=frame.stream)
        case frames.Detach():
            return frames.detach(frame.stream)
    raise AssertionError(f"{frame} is never made by the host")


@pytest.mark.parametrize("entry", _named(GOLDEN["valid"]))
def test_requests_and_answers_have_known_types(entry: dict[str, Any]) -> None:
    """Every request and every answer in the vectors is read by the type that its method has."""
    (frame,) = _decode(entry["to"], bytes.fromhex(entry["hex"]))
    if isinstance(frame, messages.Request) and frame.method in PARAMS and frame.params != b"\xc0":
        # What the agent must accept is wider than what we send: nil for a field that is not given.
        given = msgspec.msgpack.decode(frame.params)
        params = msgspec.convert(
            {k: v for k, v in (given or {}).items() if v is not None}, PARAMS[frame.method][0]
        )
        assert frames.request(frame.id, frame.acked, frame.method, params)
    elif isinstance(frame, messages.Response):
        types = [messages.Failure] if not frame.ok else [value for _, value in PARAMS.values()]
        assert any(_reads(frame.value, type_) for type_ in types)
    else:
        assert frame is not None


def _reads(raw: msgspec.Raw, type_: Any) -> bool:
    try:
        messages.decode(raw, type(None) if type_ is None else type_)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("entry", _named(GOLDEN["messages"]))
@pytest.mark.parametrize("together", [True, False], ids=["one read", "byte by byte"])
def test_messages_in_several_frames(entry: dict[str, Any], together: bool) -> None:
    wire = bytes.fromhex("".join(entry["hex"]))
    decoder = FrameDecoder(FROM[entry["to"]])
    found: list[Frame] = []
    for chunk in [wire] if together else [wire[n : n + 1] for n in range(len(wire))]:
        decoder.feed(chunk)
        found += decoder.decode(100)
    complete = [_plain(item) for item in found if isinstance(item, messages.Request | messages.Response)]
    assert complete == _value(entry["messages"])
    assert decoder.held_bytes == 0


@pytest.mark.parametrize("entry", _named(GOLDEN["invalid"]))
def test_invalid_frames_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        _decode(entry["to"], bytes.fromhex(entry["hex"]))
    assert caught.value.part == entry["why"]


def test_files_are_what_the_generator_makes() -> None:
    assert main(["--check"]) == 0


def test_entries_cannot_change_or_go() -> None:
    old = golden()
    assert list(changes(old, golden())) == []
    for spoil in (_change_an_entry, _drop_an_entry, _drop_a_key):
        new = json.loads(json.dumps(old))
        spoil(new)
        assert list(changes(old, new))
    grown = json.loads(json.dumps(old))
    grown["valid"].append({"name": "new"})
    grown["more"] = []
    assert list(changes(old, grown)) == []


def _change_an_entry(value: dict[str, Any]) -> None:
    value["valid"][3]["hex"] = ""


def _drop_an_entry(value: dict[str, Any]) -> None:
    value["invalid"].pop()


def _drop_a_key(value: dict[str, Any]) -> None:
    del value["messages"]


def test_schema_names_every_frame_and_limit() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    assert {name: kind["type"] for name, kind in schema["frames"].items()} == {
        k.name: k.value for k in FrameType
    }
    for name, kind in schema["frames"].items():
        assert (FrameType[name] in frames.FROM_AGENT) == (kind["from"] in ("agent", "both"))
        assert (FrameType[name] in frames.FROM_HOST) == (kind["from"] in ("host", "both"))
    limits = schema["limits"]
    assert limits["payload_bytes"] == frames.MAX_PAYLOAD_BYTES
    assert limits["data_bytes"] == frames.MAX_DATA_BYTES
    assert limits["message_bytes"] == messages.MAX_MESSAGE_BYTES
    assert limits["unfinished_messages_bytes"] == frames.MAX_UNFINISHED_BYTES
    assert limits["unanswered_requests"] == messages.MAX_UNANSWERED_REQUESTS
    assert limits["input_limit_bytes"] == messages.INPUT_LIMIT_BYTES
    assert limits["inline_bytes"] >= INLINE_BYTES


def test_schema_and_structures_have_the_same_fields() -> None:
    methods = cast(dict[str, Any], SCHEMA["methods"])
    assert methods.keys() == PARAMS.keys()
    for method, (params, value) in PARAMS.items():
        assert list(params.__struct_fields__) == list(methods[method]["params"]), method
        fields = [] if value is None else list(value.__struct_fields__)
        assert fields == list(methods[method]["value"] or {}), method
    for name, struct in RECORDS.items():
        assert list(struct.__struct_fields__) == list(cast(dict[str, Any], SCHEMA["records"])[name]), name


@pytest.mark.parametrize("method", sorted(PARAMS))
def test_fields_that_the_schema_calls_optional_may_be_missing(method: str) -> None:
    declared = cast(dict[str, Any], SCHEMA["methods"])[method]
    params, value = PARAMS[method]
    for struct, fields in ((params, declared["params"]), (value, declared["value"])):
        if struct is None:
            continue
        optional = {name for name, type_ in fields.items() if type_.endswith("?") or "=" in type_}
        required = {field.name for field in msgspec.structs.fields(struct) if field.required}
        assert required == set(fields) - optional, method
