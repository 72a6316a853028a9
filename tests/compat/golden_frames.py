"""The golden vectors of generation 1, made by hand from `docs/agent-channel.md`.

``valid``: single frames. ``to`` is who reads it (``host``, ``agent``), ``hex`` the bytes, ``frame`` what a
decoder must find: the frame's name, its flags and stream, and its payload: ``value`` (a msgpack payload),
``bytes`` (hexadecimal) or numbers. ``canonical`` vectors are what an encoder makes too, byte for byte; the
others are only read (fields in other orders, unknown fields, integers wider than needed). In ``value`` a
binary string is ``{"$bin": "<hexadecimal>"}``.

``messages``: frames that must be read one after another on one connection, and the messages that are complete
afterwards, in order.

``invalid``: bytes on which a decoder must close the connection, and why. What is before the bad frame is
valid.
"""

import struct
from collections.abc import Iterator

import msgspec

_KINDS = {
    "HELLO": 1, "WELCOME": 2, "REQUEST": 3, "RESPONSE": 4, "EXIT": 5, "PING": 6, "PONG": 7,
    "DATA": 8, "END": 9, "RESET": 10, "CREDIT": 11, "ATTACH": 12, "GAP": 13, "DETACH": 14,
}  # fmt: skip
MORE = 1
_U64_MAX = 2**64 - 1
_BOOT = bytes(range(16))
_KEY = bytes(range(16, 32))

Entry = dict[str, object]


def pack(value: object) -> bytes:
    """One msgpack value, integers as short as possible, maps in the order given."""
    return msgspec.msgpack.encode(value)


def raw(
    kind: int,
    payload: bytes,
    *,
    flags: int = 0,
    stream: int = 0,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """A frame from its parts, right or wrong."""
    return (
        struct.pack(">IBBHI", len(payload) if length is None else length, kind, flags, reserved, stream)
        + payload
    )


def _json(value: object) -> object:
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else "$bin:" + key.hex(): _json(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def _packed(
    name: str,
    to: str,
    kind: str,
    value: object,
    *,
    canonical: bool = False,
    stream: int = 0,
    wire: bytes | None = None,
) -> Entry:
    return {
        "name": name,
        "to": to,
        "canonical": canonical,
        "hex": raw(_KINDS[kind], pack(value) if wire is None else wire, stream=stream).hex(),
        "frame": {"type": kind, "flags": 0, "stream": stream, "value": _json(value)},
    }


def _numbers(name: str, to: str, kind: str, stream: int, numbers: dict[str, int]) -> Entry:
    payload = b"".join(struct.pack(">Q", number) for number in numbers.values())
    return {
        "name": name,
        "to": to,
        "canonical": True,
        "hex": raw(_KINDS[kind], payload, stream=stream).hex(),
        "frame": {"type": kind, "flags": 0, "stream": stream, **numbers},
    }


def _data(name: str, to: str, stream: int, offset: int, data: bytes) -> Entry:
    return {
        "name": name,
        "to": to,
        "canonical": True,
        "hex": raw(_KINDS["DATA"], struct.pack(">Q", offset) + data, stream=stream).hex(),
        "frame": {"type": "DATA", "flags": 0, "stream": stream, "offset": offset, "bytes": data.hex()},
    }


def _opaque(name: str, to: str, kind: str, payload: bytes) -> Entry:
    return {
        "name": name,
        "to": to,
        "canonical": True,
        "hex": raw(_KINDS[kind], payload).hex(),
        "frame": {"type": kind, "flags": 0, "stream": 0, "bytes": payload.hex()},
    }


def valid_frames() -> Iterator[Entry]:
    """Every vector of single frames."""
    yield from _handshake()
    yield from _requests()
    yield from _responses()
    yield from _failures()
    yield from _exits()
    yield from _streams()
    # Added later; entries never move.
    yield from _trust()


def _handshake() -> Iterator[Entry]:
    hello = {"generations": [1], "agent": "0.1.0", "boot": _BOOT, "key": _KEY}
    yield _packed("hello", "host", "HELLO", hello, canonical=True)
    yield _packed(
        "hello with a later generation",
        "host",
        "HELLO",
        hello | {"generations": [2, 1], "agent": "9.0.0-rc1"},
    )
    yield _packed("hello with an unknown field", "host", "HELLO", {"later": {"a": [1, None]}} | hello)
    welcome = {"generation": 1, "epoch": 7, "reattach_window_ms": 60000}
    yield _packed("welcome", "agent", "WELCOME", welcome, canonical=True)
    yield _packed("welcome, largest epoch", "agent", "WELCOME", welcome | {"epoch": _U64_MAX}, canonical=True)
    yield _packed("welcome with an unknown field", "agent", "WELCOME", welcome | {"later": b"\x00"})
    yield _opaque("ping to host", "host", "PING", b"12345678")
    yield _opaque("ping to agent", "agent", "PING", bytes(8))
    yield _opaque("pong to host", "host", "PONG", b"\xff" * 8)
    yield _opaque("pong to agent", "agent", "PONG", b"12345678")


def _request(
    name: str, method: str, params: object, *, id_: int = 1, acked: int = 0, canonical: bool = False
) -> Entry:
    return _packed(
        name, "agent", "REQUEST", [id_, acked, method, params], canonical=canonical, stream=id_ & 0xFFFFFFFF
    )


def _requests() -> Iterator[Entry]:
    spawn: dict[str, object] = {
        "command": "echo",
        "args": ["a", "ü"],
        "env": {"A": "1"},
        "clear_env": True,
        "cwd": "/tmp",
    }
    spawn |= {"stdin": True, "stdout": "piped", "stderr": "null", "credit": 262144, "user": "root"}
    yield _request("spawn with everything", "process.spawn", spawn)
    yield _request(
        "spawn with the least", "process.spawn", {"command": "true", "stdout": "null", "stderr": "null"}
    )
    nil = {"command": "true", "args": None, "env": None, "clear_env": None, "cwd": None, "stdin": None}
    nil |= {"stdout": "piped", "stderr": "piped", "credit": None, "user": None}
    yield _request("spawn, nil for every optional field", "process.spawn", nil, id_=2, acked=1)
    odd = {"command": b"\xff", "args": [b"\xfe", "b"], "env": {"B": b"\xff"}, "cwd": b"/\x80"}
    yield _request("spawn, not UTF-8", "process.spawn", odd | {"stdout": "piped", "stderr": "piped"})
    yield _request("kill", "process.kill", {"pid": 42, "signal": "SIGTERM", "group": True}, canonical=True)
    yield _request("kill, default", "process.kill", {"pid": 2**32 - 1, "signal": "SIGKILL"})
    yield _request("process list", "process.list", {}, canonical=True)
    yield _request("process list, nil", "process.list", None)
    yield _request(
        "process list, largest numbers", "process.list", {}, id_=_U64_MAX, acked=_U64_MAX - 1, canonical=True
    )
    yield _request("stream list", "stream.list", {}, canonical=True)
    yield _request("env update", "env.update", {"set": {"A": "1", "B": ""}, "unset": ["C"]}, canonical=True)
    yield _request("env update, nothing", "env.update", {})
    yield _request("env all", "env.all", {}, canonical=True)
    yield _request("read", "fs.read", {"path": "a b", "inline_max": 65536, "credit": 262144}, canonical=True)
    write = {
        "path": "/x",
        "data": b"\x00\x01",
        "append": True,
        "create": False,
        "create_new": True,
        "mode": 0o640,
    }
    yield _request("write", "fs.write", write, canonical=True)
    yield _request("write, default", "fs.write", {"path": b"\xc3", "data": b""})
    opened = {key: value for key, value in write.items() if key != "data"}
    yield _request("write open", "fs.write_open", opened, canonical=True)
    yield _request("write close", "fs.write_close", {"stream": 9}, canonical=True)
    yield _request("read dir", "fs.read_dir", {"path": "."}, canonical=True)
    yield _request("mkdir", "fs.mkdir", {"path": "d", "recursive": True, "mode": 0o755}, canonical=True)
    yield _request("remove", "fs.remove", {"path": "d", "recursive": True}, canonical=True)
    yield _request("stat", "fs.stat", {"path": "d", "follow": False}, canonical=True)
    yield _request("reclaim", "system.reclaim", {}, canonical=True)
    yield _request("a method of a later generation", "later.method", {"a": [1.5, {"b": b""}]})


def _response(name: str, value: object, *, id_: int = 1, ok: bool = True, wire: bytes | None = None) -> Entry:
    return _packed(name, "host", "RESPONSE", [id_, ok, value], stream=id_ & 0xFFFFFFFF, wire=wire)


def _responses() -> Iterator[Entry]:
    yield _response("nothing", None)
    yield _response("spawned", {"pid": 42, "stdin": 1, "stdout": 2, "stderr": 3})
    yield _response("spawned without streams", {"pid": 42}, id_=2**40)
    yield _response("spawned, nil", {"pid": 42, "stdin": None, "stdout": 4294967295, "stderr": None})
    running = {"pid": 2, "command": "sleep", "args": ["9"], "started_ms": 1700000000123, "exit": None}
    ended = {
        "pid": 3,
        "command": b"\xff",
        "args": [],
        "started_ms": 0,
        "exit": {"code": 137, "signal": "SIGKILL", "oom": True},
    }
    processes = [running | {"stdin": 1, "stdout": 2, "stderr": 3}, ended, ended | {"exit": {"code": 0}}]
    yield _response("process list", {"processes": processes})
    streams = [
        {"stream": 2, "kind": "output", "first": 10, "next": 2**53 + 1, "ended": True, "dropped": 10},
        {"stream": 1, "kind": "input", "first": 5, "next": 5, "ended": False, "dropped": 0},
        {"stream": 9, "kind": "file", "first": 0, "next": 0, "ended": False, "dropped": 0},
    ]
    yield _response("stream list", {"streams": streams})
    yield _response("env all", {"env": {"A": "1", "B": b"\xff", "ü": ""}})
    yield _response("file", {"data": b"Hello"})
    yield _response("empty file", {"data": b""})
    yield _response("large file", {"stream": 7, "size": 2**40})
    yield _response("write opened", {"stream": 9})
    yield _response("write closed", {"size": 123})
    entries = [("a", "file"), ("b", "dir"), ("c", "symlink"), (b"\xff", "other")]
    yield _response("directory", {"entries": [{"name": name, "kind": kind} for name, kind in entries]})
    stat: dict[str, object] = {
        "kind": "dir",
        "size": 4096,
        "mode": 0o40755,
        "uid": 1000,
        "gid": 1000,
        "dev": 2**63,
        "ino": _U64_MAX,
    }
    stat |= {
        "nlink": 2,
        "rdev": 0,
        "blksize": 4096,
        "blocks": 8,
        "atime_ns": -1,
        "mtime_ns": 1700000000000000001,
        "ctime_ns": 0,
    }
    yield _response("stat", stat)
    yield _response("stat with a birth time and an unknown field", stat | {"birthtime_ns": 5, "later": "x"})
    yield _response("reclaimed", {"pid": 42, "rss_bytes": 2**31})
    yield _response("nothing to reclaim", {"pid": None, "rss_bytes": 0})
    wide = b"".join(
        (
            b"\x93\xcf",
            struct.pack(">Q", 5),
            b"\xc3\xdf",
            struct.pack(">I", 1),
            b"\xd9\x03pid\xd3",
            struct.pack(">q", 42),
        )
    )
    yield _response("integers wider than needed", {"pid": 42}, id_=5, wire=wide)


def _trust() -> Iterator[Entry]:
    given: dict[str, object] = {"certificate_pem": "-----BEGIN CERTIFICATE-----\n", "extra_roots_pem": ""}
    env = {"SSL_CERT_FILE": "/etc/skerry/ca-bundle.pem"}
    yield _request("trust install", "trust.install", given | {"env": env}, canonical=True)
    yield _request("trust install, no variables", "trust.install", given)
    yield _response("trust installed", {"system": True})
    yield _response("trust installed where there was none", {"system": False, "later": 1})


def _failures() -> Iterator[Entry]:
    for code in (
        "ENOENT",
        "UNKNOWN_METHOD",
        "BAD_PARAMS",
        "TOO_LARGE",
        "UNKNOWN_STREAM",
        "UNKNOWN_PROCESS",
        "BAD_SIGNAL",
    ):
        yield _response(f"failed: {code}", {"code": code, "message": f"{code}: ü"}, ok=False)
    for code in ("BUDGET", "RESET", "INTERNAL"):
        yield _response(f"failed: {code}", {"message": "", "code": code, "later": 1}, ok=False)


def _exits() -> Iterator[Entry]:
    yield _packed("exit", "host", "EXIT", {"pid": 42, "code": 0, "signal": None, "oom": False})
    yield _packed("exit, least", "host", "EXIT", {"pid": 4294967295, "code": 255})
    yield _packed(
        "exit by a signal", "host", "EXIT", {"pid": 42, "code": 143, "signal": "SIGTERM", "oom": False}
    )
    yield _packed(
        "exit, out of memory",
        "host",
        "EXIT",
        {"oom": True, "signal": "SIGKILL", "code": 137, "pid": 1, "later": []},
    )


def _streams() -> Iterator[Entry]:
    for to, other in (("host", "agent"), ("agent", "host")):
        yield _data(f"data from {other}", to, 1, 0, b"x")
        yield _data(f"data from {other}, late", to, 4294967295, 2**63 + 5, b"\x00\xff\r\n")
        yield _numbers(f"end from {other}", to, "END", 1, {"total": 0})
        yield _numbers(f"end from {other}, late", to, "END", 77, {"total": _U64_MAX})
        yield _packed(
            f"reset from {other}", to, "RESET", {"code": "EPIPE", "message": "gone"}, canonical=True, stream=5
        )
        yield _numbers(f"credit from {other}", to, "CREDIT", 5, {"consumed": 1, "limit": 262145})
        yield _numbers(f"attach from {other}", to, "ATTACH", 5, {"from": 0, "limit": 0})
        yield _numbers(f"attach from {other}, late", to, "ATTACH", 6, {"from": 2**53 + 1, "limit": _U64_MAX})
    yield _numbers("gap", "host", "GAP", 5, {"from": 3, "to": 2**32})
    yield _opaque("detach", "agent", "DETACH", b"") | {
        "hex": raw(_KINDS["DETACH"], b"", stream=5).hex(),
        "frame": {"type": "DETACH", "flags": 0, "stream": 5, "bytes": ""},
    }


def _message(name: str, to: str, frames: list[bytes], found: list[object]) -> Entry:
    return {
        "name": name,
        "to": to,
        "hex": [frame.hex() for frame in frames],
        "messages": [_json(value) for value in found],
    }


def messages() -> Iterator[Entry]:
    """Every vector of messages in several frames."""
    request = [3, 2, "env.update", {"set": {"LONG": "x" * 40}, "unset": []}]
    body = pack(request)
    parts = [
        raw(3, body[:1], flags=MORE, stream=3),
        raw(3, body[1:20], flags=MORE, stream=3),
        raw(3, body[20:], stream=3),
    ]
    yield _message("request in three frames", "agent", parts, [request])
    first, second = [1, True, {"data": b"a" * 30}], [2, True, None]
    a, b = pack(first), pack(second)
    parts = [raw(4, a[:9], flags=MORE, stream=1), raw(4, b[:2], flags=MORE, stream=2)]
    parts += [
        raw(4, a[9:20], flags=MORE, stream=1),
        raw(6, b"pingping"),
        raw(4, b[2:], stream=2),
        raw(4, a[20:], stream=1),
    ]
    yield _message("two interleaved responses", "host", parts, [second, first])
    parts = [
        raw(4, a[:9], flags=MORE, stream=8),
        raw(4, a[9:], stream=8),
        raw(4, b[:1], flags=MORE, stream=8),
        raw(4, b[1:], stream=8),
    ]
    yield _message("a message number used again", "host", parts, [first, second])
    parts = [raw(4, a, flags=MORE, stream=0), raw(4, b"", stream=0)]
    yield _message("an empty last frame, message number 0", "host", parts, [first])


def _invalid(name: str, why: str, to: str, *frames: bytes) -> Entry:
    return {"name": name, "why": why, "to": to, "hex": b"".join(frames).hex()}


def invalid_frames() -> Iterator[Entry]:
    """Every vector that must close the connection."""
    yield from _invalid_headers()
    yield from _invalid_payloads()


def _invalid_headers() -> Iterator[Entry]:
    ping = raw(6, b"12345678")
    for to in ("host", "agent"):
        yield _invalid("too long", "length", to, raw(8, b"", length=262133, stream=1))
        yield _invalid("longest length", "length", to, raw(8, b"", length=2**32 - 1, stream=1))
        yield _invalid("type 0", "type", to, raw(0, b""))
        yield _invalid("type 15", "type", to, raw(15, b""))
        yield _invalid("type 255 after a good frame", "type", to, ping, raw(255, b""))
        yield _invalid("unknown flag", "flags", to, raw(6, b"12345678", flags=2))
        yield _invalid("MORE on DATA", "flags", to, raw(8, bytes(9), flags=MORE, stream=1))
        yield _invalid("MORE on PING", "flags", to, raw(6, b"12345678", flags=MORE))
        yield _invalid("reserved bits", "reserved", to, raw(6, b"12345678", reserved=1))
        yield _invalid("PING with a stream", "stream", to, raw(6, b"12345678", stream=1))
        yield _invalid("DATA of stream 0", "stream", to, raw(8, bytes(9)))
        yield _invalid("CREDIT of stream 0", "stream", to, raw(11, bytes(16)))
    yield _invalid("unknown flag on RESPONSE", "flags", "host", raw(4, pack([1, True, None]), flags=0x81))
    yield _invalid("HELLO with a stream", "stream", "host", raw(1, pack(_hello()), stream=1))
    yield _invalid("EXIT with a stream", "stream", "host", raw(5, pack({"pid": 1, "code": 0}), stream=1))
    yield _invalid("DETACH of stream 0", "stream", "agent", raw(14, b""))


def _hello() -> dict[str, object]:
    return {"generations": [1], "agent": "0.1.0", "boot": _BOOT, "key": _KEY}


def _invalid_payloads() -> Iterator[Entry]:
    for to in ("host", "agent"):
        yield _invalid("short PING", "payload", to, raw(6, b"1234567"))
        yield _invalid("long PONG", "payload", to, raw(7, b"123456789"))
        yield _invalid("DATA without data", "payload", to, raw(8, bytes(8), stream=1))
        yield _invalid("DATA without offset", "payload", to, raw(8, b"", stream=1))
        yield _invalid("short END", "payload", to, raw(9, bytes(7), stream=1))
        yield _invalid("long CREDIT", "payload", to, raw(11, bytes(17), stream=1))
        yield _invalid("short ATTACH", "payload", to, raw(12, bytes(8), stream=1))
        yield _invalid("RESET without a map", "payload", to, raw(10, pack("EPIPE"), stream=1))
        yield _invalid("RESET without code", "payload", to, raw(10, pack({"message": ""}), stream=1))
    yield _invalid("DETACH with payload", "payload", "agent", raw(14, b"\x00", stream=1))
    yield _invalid("long GAP", "payload", "host", raw(13, bytes(24), stream=1))
    hello = pack(_hello())
    yield _invalid("HELLO cut short", "payload", "host", raw(1, hello[:-1]))
    yield _invalid("HELLO and more", "payload", "host", raw(1, hello + b"\xc0"))
    yield _invalid("HELLO with a short key", "payload", "host", raw(1, pack(_hello() | {"key": b"short"})))
    yield _invalid("HELLO with text as boot", "payload", "host", raw(1, pack(_hello() | {"boot": "x" * 16})))
    yield _invalid(
        "WELCOME with a negative epoch",
        "payload",
        "agent",
        raw(2, pack({"generation": 1, "epoch": -1, "reattach_window_ms": 1})),
    )
    yield _invalid("EXIT without pid", "payload", "host", raw(5, pack({"code": 0})))
    yield _invalid("EXIT with a wide code", "payload", "host", raw(5, pack({"pid": 1, "code": 256})))
    yield _invalid("EXIT, empty", "payload", "host", raw(5, b""))
    yield _invalid("RESPONSE of two", "payload", "host", raw(4, pack([1, True]), stream=1))
    yield _invalid(
        "RESPONSE as a map", "payload", "host", raw(4, pack({"id": 1, "ok": True, "value": None}), stream=1)
    )
    yield _invalid("RESPONSE with text as id", "payload", "host", raw(4, pack(["1", True, None]), stream=1))
    yield _invalid("REQUEST of three", "payload", "agent", raw(3, pack([1, 0, "env.all"]), stream=1))
    yield _invalid("REQUEST, reserved byte", "payload", "agent", raw(3, b"\xc1", stream=1))
    yield _invalid(
        "an empty frame that is not the last", "payload", "host", raw(4, b"", flags=MORE, stream=1)
    )
