"""Output of a process over plain HTTP, for `skerry logs`: what the agent's journal still has, and what
follows.

A stream has one reader. While a client's session reads it, this is refused.
"""

import asyncio

from aiohttp import web

from skerry.control.agent import AgentClient, Gap, OutputStream
from skerry.errors import AgentError, Conflict, InvalidRequest, NotFound
from skerry.protocol import messages

_CHUNK_BYTES = 65_536
_BOUNDS_TIMEOUT_S = 10.0

_LOOK_S = 2.0
"""How often a follower without new output looks whether its client is still there."""

_WRITE_TIMEOUT_S = 60.0


async def send_output(
    request: web.Request, agent: AgentClient, output: OutputStream, *, start: int, follow: bool
) -> web.StreamResponse:
    """Answer with the stream's bytes.

    Headers: ``x-skerry-from`` is the offset of the first byte that is sent, ``x-skerry-gap-before`` how many
        bytes
    before it were asked for and are gone.

    Args:
        follow: Go on until the stream ends; else stop at what there is now.

    Raises:
        Conflict: A client reads the stream.
        InvalidRequest: `start` is beyond what there is.
        NotFound: The agent has forgotten the stream.
    """
    now = await _bounds(agent, output)
    if output.attached:
        raise Conflict("a connected client reads this output; try again when it has disconnected")
    if start > now.next:
        raise InvalidRequest(f"from: the stream has {now.next} bytes so far")
    output.attach(start)
    try:
        stop = None if follow else now.next
        first, gap = await _first(request, output, stop)
        response = web.StreamResponse(headers={"x-skerry-from": str(output.offset - len(first or b""))})
        response.content_type = "application/octet-stream"
        if gap:
            response.headers["x-skerry-gap-before"] = str(gap)
        await response.prepare(request)
        await _copy(request, response, output, first, stop)
    finally:
        output.detach()
    await response.write_eof()
    return response


async def _bounds(agent: AgentClient, output: OutputStream) -> messages.StreamInfo:
    listed = await agent.link.request(
        "stream.list", messages.Nothing(), messages.StreamList, timeout_s=_BOUNDS_TIMEOUT_S
    )
    found = next((info for info in listed.streams if info.stream == output.id), None)
    if found is None:
        raise NotFound("the output of this process is not kept any more")
    return found


async def _first(request: web.Request, output: OutputStream, stop: int | None) -> tuple[bytes | None, int]:
    """The first bytes, and how many in front of them are gone."""
    gap = 0
    while True:
        chunk = await _next(request, output, stop)
        if not isinstance(chunk, Gap):
            return chunk, gap
        gap += chunk.end - chunk.start


async def _copy(
    request: web.Request,
    response: web.StreamResponse,
    output: OutputStream,
    chunk: bytes | Gap | None,
    stop: int | None,
) -> None:
    while chunk is not None:
        if isinstance(chunk, bytes):
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await response.write(chunk)
        chunk = await _next(request, output, stop)


async def _next(request: web.Request, output: OutputStream, stop: int | None) -> bytes | Gap | None:
    """The next bytes; None at the end, at `stop`, or when the client is gone."""
    if stop is not None and output.offset >= stop:
        return None
    wanted = _CHUNK_BYTES if stop is None else min(_CHUNK_BYTES, stop - output.offset)
    while request.transport is not None and not request.transport.is_closing():
        try:
            async with asyncio.timeout(_LOOK_S):
                return await output.read(wanted)
        except TimeoutError:
            continue
        except AgentError as error:
            if error.code == "UNKNOWN_STREAM":
                raise NotFound("the output of this process is not kept any more") from error
            raise
    return None
