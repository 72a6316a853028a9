"""Telling a client that its connection is refused, in what it speaks: HTTP, HTTP/2, TLS, or a reset."""

import asyncio
from contextlib import suppress

from skerry.egress.worker import denial
from skerry.egress.worker.audit import Event
from skerry.egress.worker.classify import Kind, method_of
from skerry.egress.worker.first_bytes import wait_kind
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.peek import peek
from skerry.policy.verdict import Reason

PATIENCE_S = 0.25
"""For the first bytes of a client whose connection is refused anyway."""

_ALERTS = {
    Reason.NAME_MISMATCH: denial.ALERT_UNRECOGNIZED_NAME,
    Reason.MALFORMED_HELLO: denial.ALERT_DECODE_ERROR,
    Reason.HTTP2_NOT_SUPPORTED: denial.ALERT_NO_APPLICATION_PROTOCOL,
    Reason.NAME_NOT_FOUND: denial.ALERT_INTERNAL_ERROR,
    Reason.UPSTREAM_UNREACHABLE: denial.ALERT_INTERNAL_ERROR,
    Reason.LIMIT_REACHED: denial.ALERT_INTERNAL_ERROR,
    Reason.RATE_LIMITED: denial.ALERT_INTERNAL_ERROR,
    Reason.TIMED_OUT: denial.ALERT_INTERNAL_ERROR,
}


async def refuse(flow: Flow, reason: Reason, kind: Kind | None, owner_action: str = "") -> None:
    """Record it, say it as far as the client can read it, and close.

    Args:
        kind: What the client speaks, of which nothing was taken yet; None: it has said nothing.
    """
    entry = flow.denied(Event.CONNECTION, reason)
    request_id = denial.new_request_id()
    if kind in (Kind.HTTP, Kind.HTTP2):
        entry = entry.with_request(request_id)
    flow.shared.audit.record(entry)
    match kind:
        case Kind.TLS:
            await denial.say_and_close(flow.client, _ALERTS.get(reason, denial.ALERT_ACCESS_DENIED))
        case Kind.HTTP:
            head = method_of(await peek(flow.client, 1)) == b"HEAD"
            answer = denial.response(reason, request_id, owner_action, with_body=not head)
            await denial.say_and_close(flow.client, answer)
        case Kind.HTTP2:
            await denial.say_and_close(flow.client, denial.http2_goaway(reason, request_id, owner_action))
        case _:
            denial.reset(flow.client)


async def kind_in_time(flow: Flow) -> Kind | None:
    """What a client speaks whose connection is refused anyway; None if it does not show in `PATIENCE_S`."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            return await wait_kind(flow.client)
    return None
