"""Files in the sandbox, by the rights of its user."""

from functools import partial

from skerry.control.agent.input import InputStream
from skerry.control.agent.link import AgentLink
from skerry.control.agent.output import OutputStream
from skerry.control.agent.requests import Answer
from skerry.control.agent.streams import StreamReset
from skerry.errors import AgentError, InvalidRequest
from skerry.protocol import messages
from skerry.protocol.messages import GuestText, ReadResult, WriteClosed, WriteOpened

REQUEST_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 120.0
"""For what must reach the disk first."""
INLINE_BYTES = 240 << 10
"""Files up to this go in one frame, without a stream."""


def guest_text(value: str | bytes) -> str | bytes:
    """Text as the channel has it: `str` when valid UTF-8, else bytes (surrogate escapes are undone).

    Raises:
        InvalidRequest: Lone surrogates that stand for no byte.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if value.isascii():
        return value
    try:
        raw = value.encode("utf-8", "surrogateescape")
        return raw.decode()
    except UnicodeDecodeError:
        return raw
    except UnicodeEncodeError:
        raise InvalidRequest("Text with a lone surrogate cannot be passed to the sandbox.") from None


class FileWriter(InputStream):
    """A file that is being written. Call `close` (or `reset`) at the end."""

    def __init__(self, id_: int, *, link: AgentLink) -> None:
        super().__init__(id_, owner=link.streams)
        self._link = link

    async def close(self, *, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Finish the file; returns its bytes that were written by this stream.

        Raises:
            StreamReset: Writing failed, or the stream was given up.
            AgentError: What the file system says (``ENOSPC``…).
        """
        self._check()
        self.end()
        params = messages.WriteCloseParams(self.id)
        try:
            return (await self._link.request("fs.write_close", params, WriteClosed, timeout_s=timeout_s)).size
        finally:
            self.fail(lambda: StreamReset("RESET", "The file is closed."))

    def abort(self) -> None:
        """Give up; what was written may or may not be in the file."""
        self.reset("RESET", "aborted")


class FileCalls:
    """The part of `AgentClient` that works on files. Every method raises `AgentError` with an errno name."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link

    async def read_file(self, path: GuestText, *, max_bytes: int) -> bytes:
        """A whole file.

        Raises:
            AgentError: ``TOO_LARGE`` when it has more than `max_bytes`.
        """
        size, stream = await self._open_read(path, min(max_bytes, INLINE_BYTES))
        try:
            if (size or 0) > max_bytes:
                raise _too_large(max_bytes)
            pieces: list[bytes] = []
            missing = max_bytes
            while (piece := await stream.read(1 << 20)) is not None:
                if not isinstance(piece, bytes):
                    raise AgentError("EIO", "A part of the file was lost on its way.")
                missing -= len(piece)
                if missing < 0:
                    raise _too_large(max_bytes)
                pieces.append(piece)
        finally:
            stream.cancel()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def open_read(self, path: GuestText) -> tuple[int | None, OutputStream]:
        """A file's size when it was opened, and its bytes. Read to the end or call `OutputStream.cancel`."""
        return await self._open_read(path, INLINE_BYTES)

    async def write_file(
        self,
        path: GuestText,
        data: bytes,
        *,
        append: bool = False,
        create: bool = True,
        create_new: bool = False,
        mode: int | None = None,
    ) -> None:
        """Write a whole file; `mode` as chmod(2) takes it, None for what the umask leaves."""
        if len(data) > INLINE_BYTES:
            writer = await self.open_write(
                path, append=append, create=create, create_new=create_new, mode=mode
            )
            try:
                await writer.write(data)
                await writer.close()
            finally:
                writer.abort()
            return
        params = messages.WriteParams(guest_text(path), data, append, create, create_new, mode)
        await self.link.request("fs.write", params, type(None), timeout_s=REQUEST_TIMEOUT_S)

    async def open_write(
        self,
        path: GuestText,
        *,
        append: bool = False,
        create: bool = True,
        create_new: bool = False,
        mode: int | None = None,
    ) -> FileWriter:
        """Open a file for writing, truncated unless `append`."""
        params = messages.WriteOpenParams(guest_text(path), append, create, create_new, mode)
        return await self.link.calls.call(
            "fs.write_open",
            params,
            WriteOpened,
            timeout_s=REQUEST_TIMEOUT_S,
            accept=self._write_opened,
            abandon=FileWriter.abort,
        )

    async def read_dir(self, path: GuestText) -> list[messages.DirEntry]:
        """The names in a directory, in no order."""
        params = messages.ReadDirParams(guest_text(path))
        found = await self.link.request("fs.read_dir", params, messages.DirList, timeout_s=REQUEST_TIMEOUT_S)
        return found.entries

    async def mkdir(self, path: GuestText, *, recursive: bool = False, mode: int | None = None) -> None:
        """Make a directory; with `recursive` its parents too, and one that is there is no error."""
        params = messages.MkdirParams(guest_text(path), recursive, mode)
        await self.link.request("fs.mkdir", params, type(None), timeout_s=REQUEST_TIMEOUT_S)

    async def remove(self, path: GuestText, *, recursive: bool = False) -> None:
        """Remove a file, a link itself, or a directory (with all that is in it if `recursive`)."""
        params = messages.RemoveParams(guest_text(path), recursive)
        await self.link.request("fs.remove", params, type(None), timeout_s=CLOSE_TIMEOUT_S)

    async def stat(self, path: GuestText, *, follow: bool = True) -> messages.Stat:
        """What stat(2) says, or lstat(2) without `follow`."""
        params = messages.StatParams(guest_text(path), follow)
        return await self.link.request("fs.stat", params, messages.Stat, timeout_s=REQUEST_TIMEOUT_S)

    async def _open_read(self, path: GuestText, inline_max: int) -> tuple[int | None, OutputStream]:
        credit = self.link.streams.credit_for_new(1, self.link.unanswered)
        return await self.link.calls.call(
            "fs.read",
            messages.ReadParams(guest_text(path), inline_max, credit),
            ReadResult,
            timeout_s=REQUEST_TIMEOUT_S,
            accept=partial(self._read_opened, credit),
            abandon=lambda opened: opened[1].cancel(),
        )

    def _read_opened(self, credit: int, answer: Answer[ReadResult]) -> tuple[int | None, OutputStream]:
        result = answer.value
        if result.stream is not None:
            streams = self.link.streams
            return result.size, streams.new_output(
                result.stream, credit=credit, is_file=True, size=result.size, again=answer.again
            )
        data = result.data or b""
        stream = OutputStream(0, owner=self.link.streams, is_file=True)
        stream.fill(data)
        return len(data), stream

    def _write_opened(self, answer: Answer[WriteOpened]) -> FileWriter:
        writer = FileWriter(answer.value.stream, link=self.link)
        self.link.streams.new_input(writer)
        return writer


def _too_large(max_bytes: int) -> AgentError:
    return AgentError("TOO_LARGE", f"The file has more than {max_bytes} bytes.")
