"""A server that speaks the protocol and answers at once, without sandboxes: the floor under what the SDKs
themselves cost.

Every process "runs" `true`, `echo` or `cat` in no time; files live in memory. It listens on loopback, prints
its URL as the first line, and ends with
its standard input. Run it as ``python -m bench.instant_server``. The token may be anything that starts with
``ddo_``.
"""

import asyncio
import itertools
import json
import socket
import sys
from typing import Any

import msgspec
import pybase64
import uvloop
from aiohttp import WSMsgType, web

_MAX_MESSAGE_BYTES = 160 << 20
_CHUNK_BYTES = 65_536
_ID = "sbx_ord_00000000000000000000"

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_ids = itertools.count(1)
_files: dict[str, bytes] = {}


class _Connection:
    """One client; every answer is ready when the question has been read."""

    def __init__(self, socket_: web.WebSocketResponse) -> None:
        self._socket = socket_
        self._inputs: dict[int, list[bytes]] = {}
        self._ended: dict[int, asyncio.Future[bytes]] = {}
        self._outputs: dict[int, tuple[int | None, int | None, bytes, int | None]] = {}

    async def handle(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params") or {}
        match method:
            case "$sandbox.stream.start":
                self._input(params["streamId"])
            case "$sandbox.stream.enqueue":
                self._input(params["streamId"]).append(pybase64.b64decode(params["data"]))
            case "$sandbox.stream.end":
                chunks = self._input(params["streamId"])
                self._ended[params["streamId"]].set_result(b"".join(chunks))
            case _ if "id" in message:
                await self._answer(message["id"], method, params)

    def _input(self, stream_id: int) -> list[bytes]:
        if stream_id not in self._inputs:
            self._inputs[stream_id] = []
            self._ended[stream_id] = asyncio.get_running_loop().create_future()
        return self._inputs[stream_id]

    async def _taken(self, stream_id: int) -> bytes:
        self._input(stream_id)
        data = await self._ended[stream_id]
        del self._inputs[stream_id], self._ended[stream_id]
        return data

    async def _ok(self, id_: object, value: object) -> None:
        await self._socket.send_frame(
            _encode({"jsonrpc": "2.0", "id": id_, "result": {"ok": value}}), WSMsgType.TEXT
        )

    async def _answer(self, id_: object, method: str, params: dict[str, Any]) -> None:
        match method:
            case "spawn":
                await self._spawn(id_, params)
            case "processWait":
                await self._wait(id_, params["pid"])
            case "writeFile" | "writeTextFile":
                asyncio.get_running_loop().create_task(self._write(id_, method, params))
            case "readTextFile":
                await self._ok(id_, _files[params["path"]].decode())
            case "readFile":
                encoded = pybase64.b64encode(_files[params["path"]])
                head = b'{"jsonrpc":"2.0","id":%b,"result":{"ok":"' % _encode(id_)
                await self._socket.send_frame(head + encoded + b'"}}', WSMsgType.TEXT)
            case _:
                await self._ok(id_, None)

    async def _spawn(self, id_: object, params: dict[str, Any]) -> None:
        pid = next(_ids)
        stdout = next(_ids) if params.get("stdout") == "piped" else None
        stderr = next(_ids) if params.get("stderr") == "piped" else None
        said = _said(params["command"], params.get("args") or [])
        self._outputs[pid] = (stdout, stderr, said, params.get("stdinStreamId"))
        await self._ok(id_, {"pid": pid, "stdoutStreamId": stdout, "stderrStreamId": stderr})

    async def _wait(self, id_: object, pid: int) -> None:
        stdout, stderr, said, stdin = self._outputs.pop(pid)
        if stdin is not None:
            asyncio.get_running_loop().create_task(self._cat(id_, stdout, stdin))
            return
        for stream_id, data in ((stdout, said), (stderr, b"")):
            if stream_id is not None:
                await self._stream(stream_id, data)
        await self._ok(id_, {"success": True, "code": 0, "signal": None, "oom": None})

    async def _cat(self, id_: object, stdout: int | None, stdin: int) -> None:
        data = await self._taken(stdin)
        if stdout is not None:
            await self._stream(stdout, data)
        await self._ok(id_, {"success": True, "code": 0, "signal": None, "oom": None})

    async def _stream(self, stream_id: int, data: bytes) -> None:
        send = self._socket.send_frame
        params = b'"params":{"streamId":%d' % stream_id
        start = b'{"jsonrpc":"2.0","method":"$sandbox.stream.start",%b}}' % params
        await send(start, WSMsgType.TEXT)
        for offset in range(0, len(data), _CHUNK_BYTES):
            chunk = pybase64.b64encode(data[offset : offset + _CHUNK_BYTES])
            head = b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue",%b,"data":"' % params
            await send(head + chunk + b'"}}', WSMsgType.TEXT)
        await send(b'{"jsonrpc":"2.0","method":"$sandbox.stream.end",%b}}' % params, WSMsgType.TEXT)

    async def _write(self, id_: object, method: str, params: dict[str, Any]) -> None:
        if "contentStreamId" in params:
            data = await self._taken(params["contentStreamId"])
        elif method == "writeFile":
            data = pybase64.b64decode(params["content"])
        else:
            data = params["content"].encode()
        _files[params["path"]] = data
        await self._ok(id_, None)


def _said(command: str, args: list[str]) -> bytes:
    match command, args:
        case "echo", _:
            return (" ".join(args) + "\n").encode()
        case "cat", [path]:
            return _files[path]
        case _:
            return b""


async def _open(request: web.Request) -> web.WebSocketResponse:
    socket_ = web.WebSocketResponse(compress=False, max_msg_size=_MAX_MESSAGE_BYTES, decode_text=False)
    socket_.headers["x-deno-sandbox-id"] = _ID
    await socket_.prepare(request)
    connection = _Connection(socket_)
    is_python = "websockets/" in request.headers.get("User-Agent", "")
    async for message in socket_:
        if message.data == b"ping":
            if not is_python:
                await socket_.send_frame(b"pong", WSMsgType.TEXT)
        elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await connection.handle(_decode(message.data))
    return socket_


async def _delete(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _list(_: web.Request) -> web.Response:
    return web.Response(text=json.dumps([]), content_type="application/json")


async def main() -> None:
    """Serve until standard input ends."""
    app = web.Application()
    app.router.add_get("/api/v3/sandboxes/create", _open)
    app.router.add_get("/api/v3/sandbox/{id}/connect", _open)
    app.router.add_get("/api/{version}/sandboxes", _list)
    app.router.add_delete("/api/v3/{kind}/{id}", _delete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
