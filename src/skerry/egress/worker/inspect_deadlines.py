"""When an inspected connection has waited long enough.

Looked at about once a second, for all connections of the worker in turn: what passes needs no timers. All
bounds are therefore late by up to two seconds.
"""

from enum import Enum, auto
from typing import Protocol

from skerry.egress.http1 import RequestReader
from skerry.egress.worker.inspect_exchange import Exchange
from skerry.egress.worker.inspect_history import History
from skerry.egress.worker.inspect_stream import Stream
from skerry.egress.worker.inspect_websocket import WebSocket
from skerry.spec.settings import EgressLimits


class Phase(Enum):
    """What is being waited for."""

    IDLE = auto()
    HEAD = auto()
    PREPARATION = auto()
    """It has deadlines of its own."""
    BODY = auto()
    ANSWER = auto()
    ANSWER_BODY = auto()
    WEBSOCKET = auto()


class Watched(Protocol):
    """A connection."""

    client: Stream
    exchange: Exchange | None
    websocket: WebSocket | None
    requests: RequestReader
    history: History

    @property
    def origin(self) -> Stream | None:
        """The other side, while there is one."""
        ...


class Expired(Exception):
    """A bound was met.

    Args:
        limit: The name of its setting.
        waits_for_nothing: Nobody owes anybody anything: the connection was kept for a request that did not
            come.
    """

    def __init__(self, limit: str, *, waits_for_nothing: bool = False) -> None:
        super().__init__(limit)
        self.limit = limit
        self.waits_for_nothing = waits_for_nothing


class _Counter:
    """How long a number has stayed the same, and how fast it grows."""

    __slots__ = ("_at", "_begin", "_since", "_value")

    def __init__(self) -> None:
        self.start(0.0, 0)

    def start(self, now_s: float, value: int) -> None:
        """From here."""
        self._begin, self._since = now_s, now_s
        self._at = self._value = value

    def quiet_s(self, now_s: float, value: int) -> float:
        """How long nothing has come."""
        if value != self._value:
            self._value, self._since = value, now_s
        return now_s - self._since

    def too_slow(self, now_s: float, value: int, limits: EgressLimits) -> bool:
        """Whether less has come than must have come by now."""
        late_s = now_s - self._begin - limits.body_grace_s
        return late_s > 0 and value - self._at < late_s * limits.body_min_bytes_per_s


class Deadlines:
    """The clock of one connection."""

    __slots__ = (
        "_limits", "_moving", "_origin", "_phase", "_reader", "_since", "_slow_reader", "_upload"
    )  # fmt: skip

    def __init__(self, limits: EgressLimits) -> None:
        self._limits = limits
        self._phase: tuple[Phase, int] | None = None
        self._since = 0.0
        self._moving = _Counter()
        self._upload = _Counter()
        self._origin = _Counter()
        self._reader = _Counter()
        self._slow_reader = False

    def check(self, watched: Watched, now_s: float) -> None:
        """Look once more; always at the same connection.

        Raises:
            Expired: The connection has to end.
        """
        phase = (_phase_of(watched), watched.history.count)
        if phase != self._phase:
            self._phase, self._since = phase, now_s
            self._moving.start(now_s, _moved(watched, phase[0]))
            self._upload.start(now_s, watched.client.received_bytes)
            self._origin.start(now_s, watched.origin.sent_bytes if watched.origin is not None else 0)
        self._check_reader(watched.client, now_s)
        self._check_phase(watched, phase[0], now_s)

    def _check_phase(self, watched: Watched, phase: Phase, now_s: float) -> None:
        waited_s = now_s - self._since
        limits = self._limits
        match phase:
            case Phase.IDLE if waited_s > limits.idle_s:
                raise Expired("idle_s", waits_for_nothing=True)
            case Phase.HEAD if waited_s > limits.head_s:
                raise Expired("head_s")
            case Phase.ANSWER if waited_s > limits.response_s:
                raise Expired("response_s")
            case Phase.BODY:
                self._check_upload(watched, now_s)
            case Phase.ANSWER_BODY | Phase.WEBSOCKET:
                if self._moving.quiet_s(now_s, _moved(watched, phase)) > limits.websocket_idle_s:
                    raise Expired("websocket_idle_s")

    def _check_upload(self, watched: Watched, now_s: float) -> None:
        """The client must send, unless the origin does not take."""
        if watched.origin is not None and watched.origin.backlog:
            self._upload.start(now_s, watched.client.received_bytes)
            if self._origin.quiet_s(now_s, watched.origin.sent_bytes) > self._limits.idle_s:
                raise Expired("idle_s")
        elif self._upload.too_slow(now_s, watched.client.received_bytes, self._limits):
            raise Expired("body_min_bytes_per_s")

    def _check_reader(self, client: Stream, now_s: float) -> None:
        """A client that has something to read must read it."""
        if not client.backlog:
            self._slow_reader = False
        elif not self._slow_reader:
            self._slow_reader = True
            self._reader.start(now_s, client.sent_bytes)
        elif self._reader.too_slow(now_s, client.sent_bytes, self._limits):
            raise Expired("body_min_bytes_per_s")


def _phase_of(watched: Watched) -> Phase:
    exchange = watched.exchange
    if watched.websocket is not None:
        return Phase.WEBSOCKET
    if exchange is None:
        return Phase.HEAD if watched.requests.in_head else Phase.IDLE
    if not exchange.ready:
        return Phase.PREPARATION
    awaits_permission = exchange.admitted.head.expects_continue and not exchange.sent_bytes
    if not exchange.requested and not awaits_permission:
        return Phase.BODY
    return Phase.ANSWER_BODY if exchange.told else Phase.ANSWER


def _moved(watched: Watched, phase: Phase) -> int:
    from_origin = watched.origin.received_bytes if watched.origin is not None else 0
    return from_origin + (watched.client.received_bytes if phase is Phase.WEBSOCKET else 0)
