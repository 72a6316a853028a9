"""A WebSocket between client and origin, once the handshake is done."""

from collections.abc import Callable, Iterable

from skerry.egress.scrub.needles import Needles
from skerry.egress.scrub.scrubber import Hit, Scrubber
from skerry.egress.websocket import Control, Event, FrameReader, FrameWriter, MalformedFrame, Piece
from skerry.egress.worker.inspect_exchange import Stopped
from skerry.egress.worker.inspect_stream import Listener, Stream

MAX_HITS = 64


class WebSocket:
    """Both directions, without I/O. Frames are judged and written anew; what the origin says is searched for
    secrets.

    Attributes:
        hits: Secrets that were found.

    Args:
        needles: None: nothing is searched.
        look_at: Gets what the client says; may raise `Stopped`.
    """

    def __init__(self, needles: Needles | None, look_at: Callable[[bytes], None]) -> None:
        self._look_at = look_at
        self._from_client = FrameReader(masked=True)
        self._to_origin = FrameWriter(masked=True)
        self._from_origin = FrameReader(masked=False)
        self._to_client = FrameWriter(masked=False)
        self._needles = needles
        self._scrubber: Scrubber | None = None
        self.hits: list[Hit] = []

    def from_client(self, data: bytes) -> bytes:
        """What goes to the origin.

        Raises:
            MalformedFrame, Stopped: Both connections must be closed.
        """
        events = self._from_client.feed(data)
        for event in events:
            self._look_at(event.data)
        return b"".join(map(self._to_origin.write, events))

    def from_origin(self, data: bytes) -> bytes:
        """What goes to the client.

        Raises:
            MalformedFrame: Both connections must be closed.
        """
        events: Iterable[Event] = self._from_origin.feed(data)
        if self._needles is not None:
            events = [clean for event in events for clean in self._scrubbed(event, self._needles)]
        return b"".join(map(self._to_client.write, events))

    def goodbye(self, code: int) -> bytes:
        """A Close frame for the client."""
        return self._to_client.close(code)

    def _scrubbed(self, event: Event, needles: Needles) -> list[Event]:
        if isinstance(event, Control):
            scrubber = Scrubber(needles, place="websocket")
            data = scrubber.feed(event.data) + scrubber.end()
            self._note(scrubber)
            return [Control(event.opcode, data)]
        if event.first or self._scrubber is None:
            self._scrubber = Scrubber(needles, place="websocket")
        scrubber = self._scrubber
        data = scrubber.feed(event.data)
        if event.last:
            data += scrubber.end()
            self._note(scrubber)
        elif not data and not event.first:
            return []
        return [Piece(event.opcode, data, event.first, event.last)]

    def _note(self, scrubber: Scrubber) -> None:
        self.hits += scrubber.hits[: MAX_HITS - len(self.hits)]


class Frames:
    """Passes the frames of a WebSocket between two streams, with back-pressure.

    Args:
        on_end: Called once when it is over; True when the client may read what was said last.
        on_stop: Called instead when the client has said what must not be.
    """

    def __init__(
        self,
        client: Stream,
        origin: Stream,
        websocket: WebSocket,
        on_end: Callable[[bool], None],
        on_stop: Callable[[Stopped], None],
    ) -> None:
        self._client = client
        self._origin = origin
        self._websocket = websocket
        self._on_end = on_end
        self._on_stop = on_stop

    def begin(self, from_origin: bytes, from_client: bytes) -> None:
        """Take the streams over.

        Args:
            from_origin, from_client: What has come already.
        """
        self._client.listen(Listener(self._client_said, self._ended, self._origin.resume))
        self._origin.listen(Listener(self._origin_said, self._ended, self._client.resume))
        self._origin_said(from_origin)
        self._client_said(from_client)
        self._client.resume()

    def _client_said(self, data: bytes) -> None:
        try:
            passed = self._websocket.from_client(data)
        except MalformedFrame as error:
            self._break(error)
            return
        except Stopped as stop:
            self._on_stop(stop)
            return
        self._origin.write(passed)
        if self._origin.full:
            self._client.pause()

    def _origin_said(self, data: bytes) -> None:
        try:
            passed = self._websocket.from_origin(data)
        except MalformedFrame as error:
            self._break(error)
            return
        self._client.write(passed)
        if self._client.full:
            self._origin.pause()

    def _break(self, error: MalformedFrame) -> None:
        self._client.write(self._websocket.goodbye(error.code))
        self._on_end(True)

    def _ended(self, clean: bool) -> None:
        self._on_end(clean)
