"""What the audit trail and the client are told about inspected requests."""

from typing import Literal

from skerry.egress.http1 import RequestHead
from skerry.egress.scrub import Hit
from skerry.egress.worker import denial
from skerry.egress.worker.audit import Entry, Event, SecretUse
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_admission import Refusal
from skerry.egress.worker.inspect_exchange import Exchange
from skerry.egress.worker.inspect_stream import Stream
from skerry.policy.verdict import Reason

MAX_AUTHORITY = 256
MAX_PLACES = 16
"""Of secrets in one answer, in a line."""


def conclude(flow: Flow, exchange: Exchange, now_s: float, reason: Reason | None) -> None:
    """Record that a request has its answer, or as much of it as there will be.

    Args:
        reason: Why it was cut short; None: it was not.
    """
    exchange.answer.give_up()
    flow.shared.audit.record(answered(flow, exchange, now_s, reason))
    if exchange.answer.hits:
        flow.shared.audit.record(scrubbed(flow, exchange))


def tell(
    flow: Flow, client: Stream, refusal: Refusal, head: RequestHead | None, request_id: str | None
) -> None:
    """Record a refusal, and write it to the client.

    Args:
        head: None: the request could not be parsed.
        request_id: None: there is none yet.
    """
    number = request_id or denial.new_request_id()
    flow.shared.audit.record(refused(flow, head, refusal, number))
    with_body = head is None or head.method != b"HEAD"
    client.write(denial.response(refusal.reason, number, refusal.owner_action, with_body=with_body))


def tell_http2(flow: Flow, client: Stream) -> None:
    """The same for a client that speaks HTTP/2 without having asked."""
    refusal, number = Refusal(Reason.HTTP2_NOT_SUPPORTED), denial.new_request_id()
    flow.shared.audit.record(refused(flow, None, refusal, number))
    client.write(denial.http2_goaway(refusal.reason, number))


def use(flow: Flow, exchange: Exchange) -> Entry:
    """A request that carries secrets is about to be sent."""
    return _entry(Event.REQUEST, flow, exchange, "allow")


def answered(flow: Flow, exchange: Exchange, now_s: float, reason: Reason | None) -> Entry:
    """A request has been answered.

    Args:
        reason: Why it was cut short; None: it was not.
    """
    return _entry(
        Event.RESPONSE,
        flow,
        exchange,
        "allow",
        status=exchange.answer.status,
        reason=reason,
        received_bytes=exchange.answer.body_bytes,
        duration_ms=int((now_s - exchange.started_s) * 1000),
        scrubbed=_places(exchange.answer.hits),
    )


def scrubbed(flow: Flow, exchange: Exchange) -> Entry:
    """An answer held secrets."""
    return _entry(Event.SCRUBBED, flow, exchange, "", scrubbed=_places(exchange.answer.hits))


def refused(flow: Flow, head: RequestHead | None, refusal: Refusal, request_id: str) -> Entry:
    """A request was refused."""
    named = refusal.reason is Reason.NAME_MISMATCH and head is not None and head.host is not None
    return Entry(
        event=Event.REQUEST,
        decision="deny",
        flow=flow.number,
        request_id=request_id,
        rule=refusal.rule or flow.verdict.rule,
        reason=refusal.reason,
        host=str(flow.host),
        port=flow.port,
        mode=flow.mode,
        dialled=flow.dialled,
        via="proxy" if flow.via_proxy else "",
        authority=head.host[:MAX_AUTHORITY].decode("latin-1") if named and head and head.host else "",
        method=head.method.decode("latin-1") if head is not None else "",
        path=flow.shared.audit.path(head.target) if head is not None else "",
        secrets=(SecretUse(refusal.secret, ""),) if refusal.secret else (),
    )


def _entry(
    event: Event,
    flow: Flow,
    exchange: Exchange,
    decision: Literal["allow", "deny", ""],
    *,
    rule: str = "",
    reason: Reason | None = None,
    status: int = 0,
    received_bytes: int = 0,
    duration_ms: int = 0,
    scrubbed: tuple[str, ...] = (),
) -> Entry:
    admitted = exchange.admitted
    return Entry(
        event=event,
        decision=decision,
        flow=flow.number,
        request_id=exchange.request_id,
        rule=rule or admitted.rule,
        reason=reason,
        host=str(flow.host),
        port=flow.port,
        mode=flow.mode,
        dialled=flow.dialled,
        via="proxy" if flow.via_proxy else "",
        method=admitted.head.method.decode("latin-1"),
        path=admitted.path,
        status=status,
        sent_bytes=exchange.sent_bytes,
        received_bytes=received_bytes,
        duration_ms=duration_ms,
        secrets=tuple([SecretUse(one.secret, one.slot) for one in admitted.carried]),
        strays=tuple(exchange.strays),
        scrubbed=scrubbed,
    )


def _places(hits: list[Hit]) -> tuple[str, ...]:
    if not hits:
        return ()
    return tuple(f"{hit.place}:{hit.encoding}@{hit.offset}" for hit in hits[:MAX_PLACES])
