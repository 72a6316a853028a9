"""A client's connection, request by request, and the one connection to its origin that belongs to it.

All is done in callbacks, of the two streams and of the audit trail; only connecting is done by
`Connection.run`, in the task of the flow.
"""

import asyncio
import ssl
from collections.abc import Iterator

from skerry.egress.http1 import (
    Malformed,
    RequestEvent,
    RequestHead,
    RequestReader,
    ResponseEvent,
    ResponseHead,
    Upgraded,
    close_after,
    looks_like_http2,
)
from skerry.egress.scrub.decoding import Undecodable
from skerry.egress.websocket import check_response
from skerry.egress.worker import inspect_records as records
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_admission import Refusal, refusal_of, still_admitted
from skerry.egress.worker.inspect_answer import TooLong, portion_of, reason_of
from skerry.egress.worker.inspect_deadlines import Deadlines, Expired
from skerry.egress.worker.inspect_exchange import Exchange, Stopped
from skerry.egress.worker.inspect_history import History
from skerry.egress.worker.inspect_origin import Origin, OriginFailed, OriginListener, connect
from skerry.egress.worker.inspect_rules import Prepared
from skerry.egress.worker.inspect_stream import Listener, Stream
from skerry.egress.worker.inspect_websocket import Frames, WebSocket
from skerry.policy.verdict import Reason


class Connection:
    """Both sides of one inspected connection.

    Attributes:
        exchange: The request that is under way; None between requests, of which there were `history`.
        websocket: Once the connection has become one.

    Args:
        client: Not listened to yet; owned from now on.
        context: For TLS to the origin; None: both sides speak in clear.
    """

    def __init__(
        self, flow: Flow, prepared: Prepared, client: Stream, context: ssl.SSLContext | None
    ) -> None:
        limits = flow.shared.limits.settings
        client.listen(Listener(self._client_said, self._client_ended, self._client_drained))
        self.client = client
        self.exchange: Exchange | None = None
        self.websocket: WebSocket | None = None
        self.requests = RequestReader(limits)
        self.history = History(flow, prepared, tls=context is not None)
        self._flow = flow
        self._prepared = prepared
        self._context = context
        self._limits = limits
        self._origin: Origin | None = None
        self._answering: Iterator[bytes] | None = None
        self._deadlines = Deadlines(limits)
        self._loop = asyncio.get_running_loop()
        self._keep_alive = True
        self._unconnected = False
        self._over = False
        self._clean = True
        self._attention = asyncio.Event()

    @property
    def origin(self) -> Stream | None:
        """The stream to the origin, while there is one."""
        return self._origin.stream if self._origin is not None else None

    async def run(self) -> None:
        """Serve until one side ends. Both are closed afterwards, also when cancelled."""
        try:
            self.client.resume()
            while await self._something_to_connect():
                await self._connect()
            self._drop_origin()
            if self._clean:
                await self.client.finish(self._limits.body_grace_s)
        finally:
            self._drop_origin()
            self.client.abort()
            self._conclude()
            self._flow.sent_bytes += self.client.received_bytes
            self._flow.received_bytes += self.client.sent_bytes

    def still_fits(self) -> bool:
        """Whether the present rules allow what is going on."""
        outdated = self.history.outdated
        self._keep_alive = self._keep_alive and not outdated
        if self.exchange is None:
            return not outdated
        return still_admitted(self.exchange.admitted, self._flow, self._prepared)

    def tick(self) -> None:
        """To be called about once a second."""
        if self._over:
            return
        if self.client.broken:
            self._end(False)
            return
        try:
            self._deadlines.check(self, self._loop.time())
        except Expired as expired:
            if expired.waits_for_nothing:
                self._end(True)
            else:
                self._flow.shared.limits.hit(expired.limit)
                self._fail(Reason.TIMED_OUT)

    # What the client does.

    def _client_said(self, data: bytes) -> None:
        """Bytes of the client."""
        try:
            events = self.requests.feed(data)
        except Malformed as error:
            self._malformed(error, data)
        else:
            self._take(events)

    def _client_ended(self, clean: bool) -> None:
        """The client sends no more. Over TLS it does not read any more either; in clear it may."""
        exchange = self.exchange
        half_closed = self._context is None and clean
        if half_closed and exchange is not None and exchange.requested:
            self._keep_alive = False
        else:
            self._end(exchange is None and self.requests.idle)

    def _client_drained(self) -> None:
        """The client has taken what waited for it."""
        if self._answering is not None:
            self._pass_answer(self._answering)
        elif self._origin is not None:
            self._origin.stream.resume()

    def _take(self, events: list[RequestEvent]) -> None:
        for event in events:
            if isinstance(event, RequestHead):
                self._begin(event)
            elif self.exchange is not None:
                try:
                    self.exchange.take(event)
                except Stopped as stop:
                    self._stopped(stop)
            if self._over:
                return
        self._go_on()

    def _go_on(self) -> None:
        """Send what there is of the present request, if it may be sent already."""
        exchange = self.exchange
        if exchange is not None and exchange.ready and self._origin is not None:
            self._origin.stream.write(exchange.due())
            self._complete_if_done(exchange)
        self._balance()

    def _balance(self) -> None:
        """Let the client send, or make it wait."""
        exchange = self.exchange
        held_up = exchange is not None and not exchange.ready and not exchange.requested
        full = self._origin is not None and self._origin.stream.full
        if held_up or full or not self.requests.wants_data:
            self.client.pause()
        elif not self._over:
            self.client.resume()

    def _begin(self, head: RequestHead) -> None:
        """Decide about a request."""
        now_s = self._loop.time()
        outcome = self.history.decide(head, now_s)
        if isinstance(outcome, Refusal):
            self._refuse(outcome, head)
            return
        self.exchange = self.history.begin(outcome, now_s)
        self._keep_alive = self._keep_alive and head.keep_alive and not self._flow.via_proxy
        if self._origin is None:
            self._unconnected = True
            self._attention.set()
        else:
            self._record_use(self.exchange)

    # What the origin does.

    def _origin_ended(self, events: list[ResponseEvent] | None) -> None:
        exchange = self.exchange
        if exchange is None or exchange.answer.complete:
            self._end(True)
        elif events:
            self._take_answer(events)
        elif exchange.answer.status == 0 and self.history.count > 1:
            # It hung up while the request was on its way to it. The client knows best what can be repeated.
            self._end(True)
        else:
            self._fail(Reason.UPSTREAM_UNREACHABLE)

    def _origin_erred(self) -> None:
        if self.exchange is None:
            self._end(True)
        else:
            self._fail(Reason.UPSTREAM_MALFORMED)

    def _take_answer(self, events: list[ResponseEvent]) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        for event in events:
            if isinstance(event, ResponseHead) and not self._judge_head(exchange, event):
                self._fail(Reason.UPSTREAM_MALFORMED)
                return
        self._pass_answer(exchange.answer.pieces(events))
        if self.websocket is not None and not self._over:
            self._begin_websocket(self.websocket, events)

    def _judge_head(self, exchange: Exchange, head: ResponseHead) -> bool:
        """Look at the head of the final answer; False when it does not fit the request."""
        admitted = exchange.admitted
        if admitted.bound:
            self._prepared.issued.remember(str(self._flow.host), head.fields, admitted.head)
        if head.status == 101:
            try:
                check_response(head, admitted.websocket_key or b"", admitted.head)
            except Malformed:
                return False
            self.websocket = WebSocket(self.history.needles, exchange.search)
            return True
        self._keep_alive = self._keep_alive and head.keep_alive
        if not self._keep_alive:
            close_after(head)
        return True

    def _pass_answer(self, pieces: Iterator[bytes]) -> None:
        """Give the client what there is of the answer, as fast as it takes it."""
        exchange = self.exchange
        if exchange is None or self._over:
            return
        self._answering = None
        try:
            while portion := portion_of(pieces):
                exchange.told = exchange.told or exchange.answer.status > 0
                self.client.write(portion)
                if self.client.full:
                    if self._origin is not None:
                        self._origin.stream.pause()
                    self._answering = pieces
                    return
        except (Undecodable, TooLong, ValueError) as error:
            self._fail(reason_of(error))
            return
        if self._origin is not None:
            self._origin.stream.resume()
        self._complete_if_done(exchange)

    def _complete_if_done(self, exchange: Exchange) -> None:
        """When request and answer have passed: go on with the next request, or end."""
        if not exchange.requested or not exchange.answer.complete or self._answering is not None:
            return
        self._conclude()
        if not self._keep_alive:
            self._end(True)
            return
        try:
            events = self.requests.next()
        except Malformed as error:
            self._malformed(error, b"")
            return
        self._take(events)

    def _begin_websocket(self, websocket: WebSocket, events: list[ResponseEvent]) -> None:
        """The handshake is done: frames pass from now on, those first that came with it."""
        if self._origin is not None and not self._over:
            early = b"".join([event.rest for event in events if isinstance(event, Upgraded)])
            frames = Frames(self.client, self._origin.stream, websocket, self._end, self._stopped)
            frames.begin(early, self.requests.rest())

    # Before a request can be sent.

    async def _something_to_connect(self) -> bool:
        """Wait until a request needs an origin; False when the connection is over."""
        while not self._unconnected and not self._over:
            self._attention.clear()
            await self._attention.wait()
        return not self._over

    async def _connect(self) -> None:
        """Connect for the present request, and go on with it."""
        try:
            sock, tls = await connect(self._flow, self._context)
        except OriginFailed as failure:
            self._fail(failure.reason)
            return
        finally:
            self._unconnected = False
        listener = OriginListener(self._take_answer, self._origin_erred, self._origin_ended, self._balance)
        self._origin = Origin(Stream(sock, tls, self._limits.buffer_bytes), self._limits, listener)
        if self.exchange is not None:
            self._record_use(self.exchange)
        self._go_on()

    def _record_use(self, exchange: Exchange) -> None:
        """A request may be sent once it is recorded that it carries secrets, if it does."""
        if not exchange.admitted.carried:
            self._ready(exchange)
            return
        self._flow.shared.audit.when_written(
            records.use(self._flow, exchange), lambda written: self._recorded(exchange, written)
        )

    def _recorded(self, exchange: Exchange, written: bool) -> None:
        if self.exchange is not exchange or self._over:
            return
        if not written:
            self._fail(Reason.AUDIT_UNAVAILABLE)
            return
        for name in exchange.admitted.secrets:
            self._flow.shared.broker.used(name)
        self._ready(exchange)
        self._go_on()

    def _ready(self, exchange: Exchange) -> None:
        if self._origin is not None and self._origin.expect(exchange.admitted.head):
            exchange.ready = True
        else:
            self._origin_erred()

    # Ends.

    def _malformed(self, error: Malformed, data: bytes) -> None:
        """The client's bytes are no request, or not the rest of one."""
        if self.history.count == 0 and looks_like_http2(data):
            records.tell_http2(self._flow, self.client)
            self._end(True)
            return
        self._refuse(refusal_of(error))

    def _fail(self, reason: Reason) -> None:
        """The present request cannot be completed."""
        self._refuse(Refusal(reason))

    def _stopped(self, stop: Stopped) -> None:
        self._refuse(Refusal(stop.reason, secret=stop.secret, cut=stop.cut))

    def _refuse(self, refusal: Refusal, head: RequestHead | None = None) -> None:
        """End the connection, and say why if the client can still be told.

        Args:
            head: Of a request that was not admitted; None: it is about the one that is under way, or none.
        """
        if refusal.cut:
            self._flow.shared.broker.cut(refusal.secret)
        exchange = self.exchange
        if exchange is not None and exchange.told:
            self._conclude(refusal.reason)
            self._end(False)
            return
        head = head or (exchange.admitted.head if exchange is not None else None)
        request_id = exchange.request_id if exchange is not None else None
        records.tell(self._flow, self.client, refusal, head, request_id)
        self._release()
        self._end(True)

    def _end(self, clean: bool) -> None:
        """Serve no more.

        Args:
            clean: The client gets what waits for it, and a proper end.
        """
        if not self._over:
            self._over = True
            self._clean = clean
            self.client.pause()
            self._attention.set()

    def _drop_origin(self) -> None:
        if self._origin is not None:
            self._origin.stream.close()
            self._origin = None

    def _conclude(self, reason: Reason | None = None) -> None:
        """The present request has its answer, or as much of it as there will be."""
        exchange = self._release()
        if exchange is None:
            return
        if self.websocket is not None:
            exchange.answer.hits += self.websocket.hits
        records.conclude(self._flow, exchange, self._loop.time(), reason)

    def _release(self) -> Exchange | None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and exchange.admitted.secrets:
            self._prepared.budgets.release(exchange.admitted.secrets)
        return exchange
