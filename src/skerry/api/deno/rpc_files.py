"""Whole files and directories: `readFile`, `readTextFile`, `writeFile`, `writeTextFile`, `readDir`, `mkdir`,
`remove`, `stat`, `lstat`.

Source: protocol notes, section 3.2.
"""

import pybase64

from skerry.api.deno.calls import Base64, CallFailed, Context, InvalidParams, Method
from skerry.api.deno.inbound import ClientStream
from skerry.control.agent import AgentClient, FileWriter, Gap, OutputStream
from skerry.errors import GuestUnreachable, SkerryError
from skerry.protocol import deno_params as params
from skerry.protocol.deno_errors import error_object, too_large_for_client
from skerry.protocol.deno_files import directory_entry, file_info, readable
from skerry.protocol.deno_validation import one_of_issue

_SMALL_BYTES = 1 << 20
"""Files up to this size are read without counting them against the memory budget."""

_PIECE_BYTES = 1 << 18

_ANSWER_ROOM_BYTES = 256
"""What an answer takes beside its data."""

_COPIES_OF_A_FILE = 3
"""A large file in memory on its way out: its bytes, their base64, and the message."""


async def read_file(context: Context, given: params.ReadFile) -> Base64:
    """A whole file."""
    limit_bytes = (context.flavour.max_message_bytes - _ANSWER_ROOM_BYTES) // 4 * 3
    return Base64(await _contents(context, given.path, limit_bytes))


async def read_text_file(context: Context, given: params.ReadFile) -> str:
    """A whole file as UTF-8, with U+FFFD for what is not."""
    limit_bytes = context.flavour.max_message_bytes - _ANSWER_ROOM_BYTES
    return (await _contents(context, given.path, limit_bytes)).decode("utf-8", "replace")


async def _contents(context: Context, path: str, limit_bytes: int) -> bytes:
    async with context.reads:
        size, stream = await context.agent.open_read(path)
        try:
            if (size or 0) > limit_bytes:
                raise CallFailed(too_large_for_client(size or 0, limit_bytes))
            if (size or 0) <= _SMALL_BYTES:
                return await _read_all(stream, limit_bytes)
            await context.socket.writable()
            async with context.budget.hold((size or 0) * _COPIES_OF_A_FILE):
                return await _read_all(stream, limit_bytes)
        finally:
            stream.cancel()


async def _read_all(stream: OutputStream, limit_bytes: int) -> bytes:
    """Read to the end. A file that grows meanwhile, or never had a size (/proc, a device), may not pass the
    limit either."""
    pieces: list[bytes] = []
    total = 0
    while (piece := await stream.read(_PIECE_BYTES)) is not None:
        if isinstance(piece, Gap):
            raise GuestUnreachable("part of the file was lost on its way; read it again")
        pieces.append(piece)
        total += len(piece)
        if total > limit_bytes:
            raise CallFailed(too_large_for_client(total, limit_bytes))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def write_file(context: Context, given: params.WriteFile) -> None:
    """Write bytes: base64 in the message, or a stream."""
    if given.content is None or given.content_stream_id is not None:
        return await _write_stream(context, given)
    try:
        content = pybase64.b64decode(given.content, validate=True)
    except ValueError:
        raise CallFailed(error_object("TypeError", "content is not standard base64")) from None
    await _write_content(context, given, content)


async def write_text_file(context: Context, given: params.WriteFile) -> None:
    """Write text: in the message, or a stream of UTF-8."""
    if given.content is None or given.content_stream_id is not None:
        return await _write_stream(context, given)
    await _write_content(context, given, given.content.encode())


async def _write_content(context: Context, given: params.WriteFile, content: bytes) -> None:
    options = given.options or params.WriteOptions()
    async with context.writes, context.budget.hold(len(content)):
        await context.agent.write_file(
            given.path,
            content,
            append=bool(options.append),
            create=options.create is not False,
            create_new=bool(options.create_new),
            mode=options.mode,
        )


async def _write_stream(context: Context, given: params.WriteFile) -> None:
    if given.content_stream_id is None or given.content is not None:
        raise InvalidParams(one_of_issue(["content", "contentStreamId"]))
    source = context.streams.get(given.content_stream_id)
    try:
        async with context.writes:
            await _pour(source, await _open(context, given))
    except SkerryError as error:
        context.streams.cancel(source, error_object("Error", error.message, code=error.code))
        raise
    except BaseException:
        context.streams.cancel(source, None)
        raise
    source.drop()


async def _open(context: Context, given: params.WriteFile) -> FileWriter:
    options = given.options or params.WriteOptions()
    return await context.agent.open_write(
        given.path,
        append=bool(options.append),
        create=options.create is not False,
        create_new=bool(options.create_new),
        mode=options.mode,
    )


async def _pour(source: ClientStream, target: FileWriter) -> None:
    """Copy to the end; the answer to the call may be given only when the data is in the file."""
    try:
        while (chunk := await source.read()) is not None:
            await target.write(chunk)
        await target.close()
    finally:
        target.abort()


async def read_dir(context: Context, given: params.Path) -> object:
    """All entries of a directory."""
    entries = await context.agent.read_dir(given.path)
    return [directory_entry(readable(entry.name), entry.kind) for entry in entries]


async def mkdir(context: Context, given: params.Mkdir) -> None:
    """Make a directory."""
    options = given.options or params.MkdirOptions()
    await context.agent.mkdir(given.path, recursive=bool(options.recursive), mode=options.mode)


async def remove(context: Context, given: params.Remove) -> None:
    """Remove a file, or a directory."""
    options = given.options or params.RemoveOptions()
    await context.agent.remove(given.path, recursive=bool(options.recursive))


async def stat(context: Context, given: params.Path) -> object:
    """Metadata, following symlinks."""
    return await _status(context.agent, given.path, follow=True)


async def lstat(context: Context, given: params.Path) -> object:
    """Metadata of the path itself."""
    return await _status(context.agent, given.path, follow=False)


async def _status(agent: AgentClient, path: str, *, follow: bool) -> object:
    return file_info(await agent.stat(path, follow=follow))


METHODS = {
    "readFile": Method(params.ReadFile, read_file, lambda given: f"readfile '{given.path}'"),
    "readTextFile": Method(params.ReadFile, read_text_file, lambda given: f"readfile '{given.path}'"),
    "writeFile": Method(params.WriteFile, write_file, lambda given: f"writefile '{given.path}'"),
    "writeTextFile": Method(params.WriteFile, write_text_file, lambda given: f"writefile '{given.path}'"),
    "readDir": Method(params.Path, read_dir, lambda given: f"readdir '{given.path}'"),
    "mkdir": Method(params.Mkdir, mkdir, lambda given: f"mkdir '{given.path}'"),
    "remove": Method(params.Remove, remove, lambda given: f"remove '{given.path}'"),
    "stat": Method(params.Path, stat, lambda given: f"stat '{given.path}'"),
    "lstat": Method(params.Path, lstat, lambda given: f"lstat '{given.path}'"),
}
