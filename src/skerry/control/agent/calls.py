"""Requests to the agent that run once, and what their answers become."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import msgspec

from skerry.control.agent.requests import Answer, Pending, RequestTable
from skerry.control.agent.streams import Channel, MakeError
from skerry.control.agent.table import StreamTable
from skerry.errors import AgentError, GuestUnreachable, InvalidRequest, ResourceExhausted
from skerry.protocol import frames, messages
from skerry.protocol.messages import Failure, ProtocolError, Response

T = TypeVar("T")
R = TypeVar("R")

MAX_DECODED_BYTES = 4 << 20
"""Answers above this are not decoded: it would hold up every other sandbox (about 15 ms per MiB at worst)."""


class CallChannel(Channel, Protocol):
    """The sandbox's link, as calls see it."""

    streams: StreamTable

    def expect_answers(self, total_bytes: int) -> None:
        """Answers of so many bytes may come together."""


class Calls:
    """The requests of one sandbox; outlives connections and agents. Must be made inside the event loop."""

    def __init__(self, channel: CallChannel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._requests = RequestTable()
        self._answered = False  # a RESPONSE has come on the live connection
        self._expiry: asyncio.TimerHandle | None = None
        self._make_end: MakeError | None = None

    # What clients use.

    @property
    def unanswered(self) -> int:
        """Requests under way."""
        return len(self._requests)

    async def request(
        self, method: str, params: msgspec.Struct, result_type: type[T], *, timeout_s: float
    ) -> T:
        """Let the agent do something, exactly once, however often the connection breaks meanwhile.

        Args:
            timeout_s: Until the answer, in seconds.
        Raises:
            AgentError: The agent's answer; ``code`` is an errno name or a code of the channel.
            GuestUnreachable: No answer in time (it may still happen), or the agent was replaced.
            ResourceExhausted: The answer is too large.
            SandboxEnded: The sandbox ended.
        Cancellation does not stop what the agent does.
        """
        await self._place(method, timeout_s)
        pending = self.post(method, params, result_type, timeout_s=timeout_s)
        try:
            return cast(T, await pending.future)
        finally:
            self._requests.forget_unsent(pending)

    async def call(
        self,
        method: str,
        params: msgspec.Struct,
        result_type: type[R],
        *,
        timeout_s: float,
        accept: Callable[[Answer[R]], T],
        abandon: Callable[[T], None],
    ) -> T:
        """As `request`, for answers that name things.

        Args:
            accept: Makes the result of the answer, before any frame that follows the answer is looked at.
            abandon: Frees the result when the caller has gone away meanwhile.
        """
        await self._place(method, timeout_s)
        pending = self.post(method, params, result_type, timeout_s=timeout_s, accept=accept, abandon=abandon)
        future = pending.future
        try:
            return cast(T, await future)
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                abandon(future.result())
            raise
        finally:
            self._requests.forget_unsent(pending)

    def post(
        self,
        method: str,
        params: msgspec.Struct,
        result_type: Any,
        *,
        timeout_s: float,
        accept: Callable[[Answer[Any]], Any] | None = None,
        abandon: Callable[[Any], None] | None = None,
    ) -> Pending:
        """As `call`, without waiting; not held up by `MAX_UNANSWERED_REQUESTS`."""
        if self._make_end is not None:
            raise self._make_end()
        requests = self._requests
        acked = requests.acked
        id_ = requests.next_id()
        try:
            wire = frames.request(id_, acked, method, params)
        except ValueError:
            limit_mib = messages.MAX_MESSAGE_BYTES >> 20
            raise InvalidRequest(f"The request is larger than {limit_mib} MiB.", code="TOO_LARGE") from None
        pending = Pending(
            id=id_,
            method=method,
            wire=wire,
            result_type=result_type,
            max_response_bytes=messages.max_response_bytes(method, params),
            deadline_s=self._loop.time() + timeout_s,
            timeout_s=timeout_s,
            future=self._loop.create_future(),
            accept=accept,
            abandon=abandon,
        )
        requests.add(pending)
        if self._channel.connected:
            pending.times_sent = 1
            self._channel.expect_answers(requests.response_budget_bytes)
            self._channel.send(pending.wire)
        self._expire_at(pending.deadline_s)
        return pending

    # What the link calls.

    @property
    def answers_missing(self) -> bool:
        """A request that was sent again is not answered yet."""
        return self._requests.answers_missing

    def connected(self) -> None:
        """A connection lives: send everything again that is unanswered."""
        self._answered = False
        for wire in self._requests.send_again():
            self._channel.send(wire)
        self._channel.expect_answers(self._requests.response_budget_bytes)

    def fail(self, make_error: MakeError, *, unsent_too: bool) -> None:
        """End all requests, or only those that an agent may have seen."""
        self._requests.fail(make_error, unsent_too=unsent_too)

    def close(self, make_error: MakeError) -> None:
        """Refuse all further requests."""
        self._make_end = make_error
        if self._expiry is not None:
            self._expiry.cancel()

    def answer_arrived(self, response: Response) -> None:
        """RESPONSE."""
        pending = self._requests.find(response.id)
        if pending is None:
            if response.id > self._requests.last_id or not response.id:
                raise ProtocolError("order", f"answer to {response.id}, which was never sent")
            self._channel.charge()
            return
        streams = self._channel.streams
        if not self._answered:
            self._answered = True
            streams.asked_for_all()
        self._requests.remove(pending)
        self._channel.expect_answers(self._requests.response_budget_bytes)
        try:
            self._deliver(pending, response)
        except ProtocolError:
            if not pending.future.done():
                pending.future.set_exception(GuestUnreachable("The sandbox's agent gave a malformed answer."))
            raise
        finally:
            if not self._requests.answers_missing:
                streams.answers_complete()

    # Parts.

    def _deliver(self, pending: Pending, response: Response) -> None:
        future = pending.future
        if not response.ok:
            failure = messages.decode(response.value, Failure)
            if not future.done():
                future.set_exception(AgentError(failure.code, failure.message))
            return
        if len(memoryview(response.value)) > min(pending.max_response_bytes, MAX_DECODED_BYTES):
            if not future.done():
                future.set_exception(ResourceExhausted("The answer is too large.", code="TOO_LARGE"))
            return
        answer = Answer(messages.decode(response.value, pending.result_type), pending.times_sent > 1)
        result = answer.value if pending.accept is None else pending.accept(answer)
        if not future.done():
            future.set_result(result)
        elif pending.abandon is not None:
            pending.abandon(result)

    async def _place(self, method: str, timeout_s: float) -> None:
        """Wait until there are few enough unanswered requests."""
        if not self._requests.full:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._requests.wait_for_place()
        except TimeoutError:
            raise self._too_late(method, timeout_s) from None

    def _expire_at(self, deadline_s: float) -> None:
        """Look at the deadlines at that time. One timer for all: most requests are answered long before."""
        if self._expiry is None or deadline_s < self._expiry.when():
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        late, next_s = self._requests.expire(self._loop.time())
        for pending in late:
            pending.future.set_exception(self._too_late(pending.method, pending.timeout_s))
        if next_s is not None:
            self._expire_at(next_s)

    def _too_late(self, method: str, timeout_s: float) -> GuestUnreachable:
        why = "did not answer" if self._channel.connected else "is not connected and did not answer"
        return GuestUnreachable(f"The sandbox's agent {why} {method} within {timeout_s:g} s.")
