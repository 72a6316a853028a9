"""The requests of one sandbox that are not answered yet: IDs, sending again, bounds. Has no clock."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from skerry.errors import SkerryError
from skerry.protocol.messages import MAX_UNANSWERED_REQUESTS

T = TypeVar("T")

MAX_UNANSWERED_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A successful answer, before anybody waits for it.

    Attributes:
        value: What the agent said.
        again: The request was sent on more than one connection: what followed its first answer may be lost.
    """

    value: T
    again: bool


@dataclass(slots=True, eq=False)
class Pending:
    """One request.

    Attributes:
        wire: Its frames; the same bytes each time they are sent.
        accept: Called at once when the answer comes, before any later frame; what it returns is the result.
        abandon: Called with the result when nobody waits for it any more.
    """

    id: int
    method: str
    wire: bytes
    result_type: Any
    max_response_bytes: int
    deadline_s: float
    timeout_s: float
    future: "asyncio.Future[Any]"
    accept: Callable[[Answer[Any]], Any] | None
    abandon: Callable[[Any], None] | None
    times_sent: int = 0


@dataclass(slots=True)
class RequestTable:
    """Unanswered requests in the order of their IDs, and who waits until there are fewer of them.

    Memory: `MAX_UNANSWERED_BYTES` and one message (`MAX_MESSAGE_BYTES`).
    """

    _pending: dict[int, Pending] = field(default_factory=dict)
    _bytes: int = 0
    _response_bytes: int = 0
    _last_id: int = 0
    _unanswered_again: set[int] = field(default_factory=set)
    _waiting: deque["asyncio.Future[None]"] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._pending.values())

    @property
    def last_id(self) -> int:
        """The newest ID that was given out; they count from 1."""
        return self._last_id

    @property
    def acked(self) -> int:
        """The answers to all IDs up to this one have come."""
        return next(iter(self._pending)) - 1 if self._pending else self._last_id

    @property
    def full(self) -> bool:
        """One more would be too much."""
        return len(self._pending) >= MAX_UNANSWERED_REQUESTS or self._bytes >= MAX_UNANSWERED_BYTES

    @property
    def response_budget_bytes(self) -> int:
        """How large all answers that may come now can be together."""
        return self._response_bytes

    def next_id(self) -> int:
        """A new ID; its request must be added before the next one is asked for."""
        self._last_id += 1
        return self._last_id

    def add(self, pending: Pending) -> None:
        """Enter a request."""
        self._pending[pending.id] = pending
        self._bytes += len(pending.wire)
        self._response_bytes += pending.max_response_bytes

    def find(self, id_: int) -> Pending | None:
        """The unanswered request of that ID."""
        return self._pending.get(id_)

    def remove(self, pending: Pending) -> None:
        """Its answer has come, or never will."""
        del self._pending[pending.id]
        self._bytes -= len(pending.wire)
        self._response_bytes -= pending.max_response_bytes
        self._unanswered_again.discard(pending.id)
        self._let_in()

    def send_again(self) -> list[bytes]:
        """Everything that is unanswered, for a new connection."""
        for pending in self._pending.values():
            if pending.times_sent:
                self._unanswered_again.add(pending.id)
            pending.times_sent += 1
        return [pending.wire for pending in self._pending.values()]

    @property
    def answers_missing(self) -> bool:
        """A request that was sent again is not answered yet."""
        return bool(self._unanswered_again)

    async def wait_for_place(self) -> None:
        """Return when another request may be made; first come, first served."""
        while self.full:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._let_in()
                raise

    def fail(self, make_error: Callable[[], SkerryError], *, unsent_too: bool) -> None:
        """End all requests (or only those that an agent may have seen) with an error."""
        for pending in list(self._pending.values()):
            if pending.times_sent or unsent_too:
                self.remove(pending)
                if not pending.future.done():
                    pending.future.set_exception(make_error())
        while unsent_too and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)

    def expire(self, now_s: float) -> tuple[list[Pending], float | None]:
        """Requests whose time is up and whose callers still wait, and when to look again."""
        waited_for = [pending for pending in self._pending.values() if not pending.future.done()]
        late = [pending for pending in waited_for if pending.deadline_s <= now_s]
        rest = [pending.deadline_s for pending in waited_for if pending.deadline_s > now_s]
        return late, min(rest, default=None)

    def forget_unsent(self, pending: Pending) -> None:
        """Nobody waits for it: if the agent cannot have seen it, it never will."""
        if not pending.times_sent and pending.id in self._pending:
            self.remove(pending)

    def _let_in(self) -> None:
        while self._waiting and not self.full:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
