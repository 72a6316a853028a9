"""Files in a sandbox, through its RPC methods."""

import asyncio
import base64
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from skerry.cli.rpc import CallFailed, FileMissing, Session
from skerry.cli.tasks import task_group
from skerry.cli.trees import Found, Kind, Names
from skerry.errors import SkerryError

_INLINE_BYTES = 1 << 18
_WHOLE_BYTES = 16 << 20
"""Up to this size a file is read in one message; a larger one streams through a process."""

_MAX_WAITING_BYTES = 4 << 20


class RemoteTree:
    """What is in a sandbox, at and below a path."""

    def __init__(self, session: Session, root: str) -> None:
        self._session = session
        self._root = root

    def _path(self, names: Names) -> str:
        return posixpath.join(self._root, *names)

    async def look(self, names: Names) -> Found | None:
        try:
            info = await self._session.call("lstat" if names else "stat", path=self._path(names))
        except FileMissing:
            return None
        return Found(_kind(info), int(info["size"]), int(info["mode"]) & 0o777)

    async def entries(self, names: Names) -> list[tuple[str, Kind]]:
        listing = await self._session.call("readDir", path=self._path(names))
        return sorted((str(entry["name"]), _kind(entry)) for entry in listing)

    @asynccontextmanager
    async def read(self, names: Names, found: Found) -> AsyncIterator[AsyncIterator[bytes]]:
        path = self._path(names)
        if found.size <= _WHOLE_BYTES:
            yield _once(base64.b64decode(await self._session.call("readFile", path=path)))
        else:
            async with _streamed(self._session, path) as chunks:
                yield chunks

    async def make_directory(self, names: Names) -> None:
        await self._session.call("mkdir", path=self._path(names), options={"recursive": True})

    async def write(self, names: Names, chunks: AsyncIterator[bytes], mode: int) -> None:
        path, options = self._path(names), {"mode": mode & 0o777}
        first = bytearray()
        async for chunk in chunks:
            first += chunk
            if len(first) > _INLINE_BYTES:
                return await self._write_stream(path, options, bytes(first), chunks)
        content = base64.b64encode(first).decode()
        await self._session.call("writeFile", path=path, options=options, content=content)

    async def _write_stream(
        self, path: str, options: dict[str, Any], first: bytes, chunks: AsyncIterator[bytes]
    ) -> None:
        upload = await self._session.open_stream()
        async with task_group() as group:
            call = self._session.call("writeFile", path=path, options=options, contentStreamId=upload.number)
            written = group.create_task(call)
            await asyncio.sleep(
                0
            )  # the call goes first, so that the server need not keep what comes before it
            try:
                await upload.write(first)
                async for chunk in chunks:
                    if written.done():
                        break  # it has failed: awaiting it says why
                    await upload.write(chunk)
            except BaseException:
                await upload.fail()
                raise
            await upload.end()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def _streamed(session: Session, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The output of cat(1), so that a file of any size passes in pieces."""
    arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
    waiting_bytes = 0

    def take(chunk: bytes | None) -> None:
        nonlocal waiting_bytes
        waiting_bytes += len(chunk or b"")
        arrived.put_nowait(chunk)
        if waiting_bytes > _MAX_WAITING_BYTES:
            session.pause()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal waiting_bytes
        while (chunk := await arrived.get()) is not None:
            yield chunk
            waiting_bytes -= len(chunk)
            if waiting_bytes <= _MAX_WAITING_BYTES:
                session.resume()
        if (await wait)["code"] != 0:
            raise CallFailed("it could not be read to its end")

    async with task_group() as group:
        spawned = await session.call("spawn", command="cat", args=["--", path], stdout="piped", stderr="null")
        pid = spawned["pid"]
        session.receive(spawned["stdoutStreamId"], take)
        wait = group.create_task(session.call("processWait", pid=pid))
        try:
            yield chunks()
        finally:
            session.resume()
            if not wait.done():
                with suppress(SkerryError):
                    await session.call("processKill", pid=pid, signal="SIGKILL")


def _kind(info: dict[str, Any]) -> Kind:
    if info["isSymlink"]:
        return "symlink"
    if info["isDirectory"]:
        return "dir"
    return "file" if info["isFile"] else "other"
