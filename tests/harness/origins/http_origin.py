"""An HTTP/1.1 origin for tests that records the very bytes that it gets, and answers as the path asks.

====================  =======================================================================
``/echo``             JSON: method, target, fields, body (Latin-1)
``/reflect?in=H&as=E`` the value of field H, encoded as E says, in the body
``/reflect-header?in=H&out=O`` the value of field H in the field O of the answer
``/bytes/N``          N bytes
``/sse/N``            N events, one each 20 ms, each with the time at which it was sent
``/chunked/N``        N chunks of 1 KiB
``/status/N``         that status without a body
``/drip?in=H``        the value of field H, each byte in a chunk of its own
``/truncated``        less than its Content-Length says
``/gzip?in=H``        the value of field H in a gzip body
``/early``            413 before the body is read
``/ws``               WebSocket that sends every message back
``/hostile/NAME``     see `tests.harness.origins.hostile`; the credential is that of field Authorization
``/static/P``         the file P of the network's directory
``/private/P``        the same, for Basic credentials whose password is the network's
``…/objects/batch``   git-lfs: where to get each object
====================  =======================================================================
"""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.origins.hostile import misbehave

if TYPE_CHECKING:
    from tests.harness.origins.server import Records

_WEBSOCKET_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_MAX_HEAD_BYTES = 262_144
_PIECE_BYTES = 65_536
_EVENT_S = 0.02

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda value: value,
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "hex": lambda value: value.hex().encode(),
    "HEX": lambda value: value.hex().upper().encode(),
    "percent": lambda value: "".join(f"%{byte:02X}" for byte in value).encode(),
    "reversed": lambda value: value[::-1],
    "upper": lambda value: value.upper(),
    "json-u": lambda value: "".join(f"\\u{byte:04x}" for byte in value).encode(),
    "html": lambda value: "".join(f"&#{byte};" for byte in value).encode(),
    "utf16": lambda value: value.decode("latin-1").encode("utf-16-le"),
    "shifted-base64": lambda value: base64.b64encode(b"x" + value),
    "middle": lambda value: value[4:-4],
}


@dataclass(frozen=True, slots=True)
class Files:
    """What it serves from disk.

    Attributes:
        password: Of the part that asks for one.
    """

    directory: Path
    password: str

    def refuses(self, authorization: str) -> bool:
        """Whether these credentials are not the right ones."""
        scheme, _, value = authorization.partition(" ")
        if scheme != "Basic":
            return True
        return base64.b64decode(value).decode().partition(":")[2] != self.password


class Request:
    """What came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        self.raw = head + b"\r\n\r\n" + body
        self.method, self.target, self.version = (*line.split(" "), "", "")[:3]
        self.fields = [tuple(part.strip() for part in one.split(":", 1)) for one in lines if ":" in one]
        self.body = body
        self.path, _, query = self.target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))

    def get(self, name: str) -> str:
        """The first field of a name, or nothing."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), "")


async def serve_http(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, records: "Records", files: Files, *, tls: bool
) -> None:
    """Serve one connection."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        while (request := await _read(reader, writer)) is not None:
            records.write(
                "request",
                raw=request.raw[:_PIECE_BYTES].decode("latin-1"),
                size=len(request.body),
                sha256=hashlib.sha256(request.body).hexdigest(),
                target=request.target,
                method=request.method,
                host=request.get("host"),
                fields=request.fields,
                tls=tls,
                local=writer.get_extra_info("sockname")[0],
            )
            if not await _answer(request, reader, writer, files):
                break
            if request.get("connection").lower() == "close":
                break
    writer.close()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request = Request(head[:-4], b"")
    if request.path == "/early":
        return request
    if request.get("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.get("transfer-encoding").lower() == "chunked":
        return Request(head[:-4], await _chunked(reader))
    length = int(request.get("content-length") or 0)
    return Request(head[:-4], await reader.readexactly(length)) if length else request


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        continue
    return body


async def _answer(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, files: Files
) -> bool:
    """Answer; False when the connection must end."""
    parts = request.path.strip("/").split("/")
    match parts:
        case ["reflect"]:
            value = request.get(request.query.get("in", "authorization")).encode("latin-1")
            _send(writer, ENCODINGS[request.query.get("as", "raw")](value))
        case ["reflect-header"]:
            _send(
                writer, b"{}", **{request.query.get("out", "X-Reflected"): request.get(request.query["in"])}
            )
        case ["gzip"]:
            value = request.get(request.query.get("in", "authorization")).encode("latin-1")
            _send(writer, gzip.compress(b"before " + value + b" after"), **{"Content-Encoding": "gzip"})
        case ["bytes", size]:
            await _bytes(writer, int(size), with_body=request.method != "HEAD")
        case ["sse", count]:
            await _events(writer, int(count))
        case ["chunked", count]:
            await _chunks(writer, int(count))
        case ["drip"]:
            await _drip(writer, request.get(request.query.get("in", "authorization")).encode("latin-1"))
        case ["status", status]:
            writer.write(f"HTTP/1.1 {status} Status\r\nDate: now\r\n\r\n".encode())
        case ["early"]:
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        case ["truncated"]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
            return False
        case ["ws"]:
            await _websocket(request, reader, writer)
            return False
        case ["hostile", name]:
            await misbehave(name, request.get("authorization").encode("latin-1"), writer)
            return False
        case ["static" | "private", *_] if request.path.endswith("/objects/batch"):
            _send(writer, _large_files(request), **{"Content-Type": "application/vnd.git-lfs+json"})
        case ["private", *_] if files.refuses(request.get("authorization")):
            writer.write(
                b'HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            )
        case ["static" | "private", *names]:
            _file(writer, files.directory.joinpath(*map(urllib.parse.unquote, names)), request.method)
        case _:
            _send(writer, _description(request), **{"Content-Type": "application/json"})
    await writer.drain()
    return True


def _large_files(request: Request) -> bytes:
    root = f"https://{request.get('host')}{request.path.split('.git/')[0]}.git/lfs/objects"
    objects = [
        {**one, "actions": {"download": {"href": f"{root}/{one['oid']}"}}}
        for one in json.loads(request.body)["objects"]
    ]
    return json.dumps({"transfer": "basic", "objects": objects}).encode()


def _file(writer: asyncio.StreamWriter, path: Path, method: str) -> None:
    if path.is_dir():
        path = path / "index.html"
    if not path.is_file():
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    content = path.read_bytes()
    kind = {".json": "application/json", ".html": "text/html"}.get(path.suffix, "application/octet-stream")
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nContent-Type: {kind}\r\n\r\n".encode()
    writer.write(head if method == "HEAD" else head + content)


def _description(request: Request) -> bytes:
    return json.dumps(
        {
            "method": request.method,
            "target": request.target,
            "fields": request.fields,
            "body": request.body.decode("latin-1"),
        }
    ).encode()


def _send(writer: asyncio.StreamWriter, body: bytes, **fields: str) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1") + body)


async def _bytes(writer: asyncio.StreamWriter, size: int, *, with_body: bool) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    if not with_body:
        return
    piece = b"x" * _PIECE_BYTES
    while size > 0:
        writer.write(piece[:size])
        size -= len(piece)
        await writer.drain()


async def _events(writer: asyncio.StreamWriter, count: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(count):
        event = f"data: {time.time()}\n\n".encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        await asyncio.sleep(_EVENT_S)
    writer.write(b"0\r\n\r\n")


async def _chunks(writer: asyncio.StreamWriter, count: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    for _ in range(count):
        writer.write(b"400\r\n" + b"y" * 1024 + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\nX-Sum: done\r\n\r\n")


async def _drip(writer: asyncio.StreamWriter, value: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in value:
        writer.write(b"1\r\n%c\r\n" % byte)
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")


async def _websocket(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    accept = hashlib.sha1(  # noqa: S324 - RFC 6455 asks for it
        (request.get("sec-websocket-key") + _WEBSOCKET_KEY).encode()
    ).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
    )
    while True:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[i & 3] for i, byte in enumerate(await reader.readexactly(length)))
        if payload == b"authorization":
            payload = request.get("authorization").encode("latin-1")
        writer.write(_frame(first, payload))
        await writer.drain()
        if first & 0x0F == 8:
            return


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65_536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload
