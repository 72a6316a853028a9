"""Output of processes on its way to the client.

Nothing of a process's output is sent before the client's `processWait` for it: one SDK loses what comes
before it has registered the stream, which it does
just before that call. Until then the agent keeps the output and the process blocks once the agent's buffers
are full, so nothing is lost.
A slow client delays only its own streams: the agent is not read while more than the socket's limit waits to
be sent.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

from skerry.api.deno.inbound import ClientStream, ClientStreams
from skerry.api.deno.websocket import MessageSocket
from skerry.control.agent import Gap, InputStream, OutputStream, Process
from skerry.errors import SkerryError
from skerry.protocol import jsonrpc
from skerry.protocol.deno_errors import ErrorObject, error_object

StartTask = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]


class OutputPump:
    """One output stream of a process, sent to the client as notifications: start, chunks, exactly one end."""

    def __init__(self, stream_id: int, output: OutputStream, socket: MessageSocket) -> None:
        self.stream_id = stream_id
        self._output = output
        self._socket = socket
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self._finished = False

    def release(self, start_task: StartTask) -> None:
        """Begin to send. Idempotent."""
        if self._task is None and not self._finished:
            self._task = start_task(self._run())

    def _start(self) -> None:
        """Announce the stream; put off until there is something to send, so that both go out together."""
        if not self._started:
            self._started = True
            self._socket.send(jsonrpc.stream_start(self.stream_id))

    async def _run(self) -> None:
        try:
            while True:
                if self._socket.is_congested:
                    await self._socket.writable()
                chunk = await self._output.read(jsonrpc.MAX_STREAM_CHUNK_BYTES)
                if chunk is None:
                    break
                if not isinstance(chunk, Gap):
                    self._start()
                    self._socket.send(jsonrpc.stream_enqueue(self.stream_id, chunk))
        except SkerryError:
            pass  # the agent is gone or gave the stream up: what came is sent, and the end follows
        self._send_end()
        self._output.detach()  # all of it is sent; somebody else may read it from the agent's journal now

    def _send_end(self, error: ErrorObject | None = None) -> None:
        if self._finished:
            return
        self._finished = True
        self._start()
        if error is None:
            self._socket.send(jsonrpc.stream_end(self.stream_id))
        else:
            self._socket.send(jsonrpc.stream_error(self.stream_id, error))

    def finish_now(self, error: ErrorObject | None) -> None:
        """End the stream whatever is still to come. Idempotent.

        Args:
            error: Given to the reader instead of an end. Only for clients that know it: the Python SDK needs
                the end.
        """
        if self._finished:
            return
        if self._task is not None:
            self._task.cancel()
        self._send_what_is_there()
        self._send_end(error)

    def _send_what_is_there(self) -> None:
        """At most one window of the agent channel."""
        with suppress(SkerryError):
            while chunk := self._output.read_nowait(jsonrpc.MAX_STREAM_CHUNK_BYTES):
                if not isinstance(chunk, Gap):
                    self._start()
                    self._socket.send(jsonrpc.stream_enqueue(self.stream_id, chunk))

    def stop(self) -> None:
        """Nobody reads any more: send nothing, not even an end, and let the process write on into the agent's
        ring."""
        self._finished = True
        if self._task is not None:
            self._task.cancel()
        self._output.detach()

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be sent."""
        return self._finished


class SpawnedProcess:
    """A process that this connection started, with its streams.

    Args:
        pumps: The piped ones of stdout and stderr.
        stdin: The client's stream that feeds it; None when it has no input.
    """

    def __init__(
        self,
        process: Process,
        pumps: tuple[OutputPump, ...],
        stdin: ClientStream | None,
        streams: ClientStreams,
    ) -> None:
        self.process = process
        self.pumps = pumps
        self._stdin = stdin
        self._streams = streams
        self._feeder: asyncio.Task[None] | None = None

        self._exited = False

    @property
    def is_finished(self) -> bool:
        """Whether the process has ended as far as the client was told, and all its output is sent."""
        return self._exited and all(pump.is_finished for pump in self.pumps)

    def start_feeding(self, start_task: StartTask) -> None:
        """Pass the client's input on to the process, as fast as the process reads it."""
        if self._stdin is not None and self.process.stdin is not None:
            self._feeder = start_task(self._feed(self._stdin, self.process.stdin))

    async def _feed(self, source: ClientStream, stdin: InputStream) -> None:
        try:
            while (chunk := await source.read()) is not None:
                await stdin.write(chunk)
        except SkerryError:
            if not source.has_failed:
                self._cancel_input()
                return
        stdin.end()
        source.drop()

    def _cancel_input(self) -> None:
        if self._stdin is not None:
            source, self._stdin = self._stdin, None
            self._streams.cancel(source, error_object("BrokenPipe", "the process has ended", code="EPIPE"))

    def release(self, start_task: StartTask) -> None:
        """The client waits for the process now: its output may flow."""
        for pump in self.pumps:
            pump.release(start_task)

    def on_exit(self) -> None:
        """The process has ended: its input is wanted no more. Output still flows to its end."""
        self._exited = True
        if self._feeder is not None:
            self._feeder.cancel()
        self._cancel_input()

    def finish_now(self, error: ErrorObject | None) -> None:
        """The sandbox or the server is going away."""
        self.on_exit()
        for pump in self.pumps:
            pump.finish_now(error)

    def stop(self) -> None:
        """The client is gone; the process goes on without it. What was already received of its input is lost
        with the connection."""
        if self._feeder is not None:
            self._feeder.cancel()
        for pump in self.pumps:
            if not pump.is_finished:
                pump.stop()
