"""Whether a request may be sent, and in what form. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address

from skerry.egress.http1 import Field, Framing, Malformed, RequestHead, split_authority, write_request
from skerry.egress.substitution import Denial, Substituted, apply
from skerry.egress.websocket import check_request, without_extensions
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_exchange import Admitted
from skerry.egress.worker.inspect_rules import Prepared
from skerry.policy.compiled import RequestVerdict
from skerry.policy.names import BadName, canonical
from skerry.policy.verdict import Reason

_WEBSOCKET = b"websocket"
_GRPC = b"application/grpc"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not sent.

    Attributes:
        secret: Whose rule refused it.
        cut: The sandbox's network must be cut.
    """

    reason: Reason
    rule: str = ""
    owner_action: str = ""
    secret: str = ""
    cut: bool = False


def refusal_of(error: Malformed) -> Refusal:
    """What becomes of a request that cannot be parsed."""
    reasons = {405: Reason.METHOD_NOT_ALLOWED, 421: Reason.NAME_MISMATCH}
    return Refusal(reasons.get(error.status, Reason.MALFORMED_REQUEST))


def admit(
    head: RequestHead, flow: Flow, prepared: Prepared, *, now_s: float, tls: bool
) -> Admitted | Refusal:
    """Decide about a request.

    When it carries secrets, their budgets are charged until `Budgets.release`.

    Args:
        now_s: Monotonic.
        tls: It came over TLS; in clear no secret is sent, and none to a host that has one.
    """
    reason = _judge_names(head, flow, prepared, tls=tls) or _judge_protocol(head)
    if reason is not None:
        return Refusal(reason)
    key = None
    if head.upgrade is not None:
        try:
            key = check_request(head)
        except Malformed:
            return Refusal(Reason.MALFORMED_REQUEST)
    verdict = decide(head, flow)
    if not verdict.allowed:
        return Refusal(verdict.reason or Reason.HOST_NOT_ALLOWED, verdict.rule, verdict.owner_action)
    if verdict.bindings and not tls:
        return Refusal(Reason.PLAINTEXT_TO_BOUND_HOST, verdict.rule)
    limits = verdict.limits
    if limits.max_request_bytes is not None and head.length > limits.max_request_bytes:
        return Refusal(Reason.BODY_TOO_LARGE, verdict.rule)
    if limits.rates and not prepared.within_rates(limits.rates):
        return Refusal(Reason.RATE_LIMITED, verdict.rule)
    return _substituted(head, flow, prepared, verdict, now_s, key)


def admit_again(admitted: Admitted, prepared: Prepared, *, now_s: float) -> bool:
    """Whether a request with the very same head, on the same connection, may be sent like the one before it.

    When it carries secrets, their budgets are charged until `Budgets.release`. False means nothing but that
    `admit` must be asked.
    """
    if not admitted.repeatable or admitted.generation != prepared.generation:
        return False
    for at, name in enumerate(admitted.secrets):
        if prepared.budgets.take(name, now_s) is not None:
            prepared.budgets.release(admitted.secrets[:at])
            return False
    return True


def decide(head: RequestHead, flow: Flow) -> RequestVerdict:
    """What the present policy says of a request."""
    return flow.shared.current.policy.decide_request(
        flow.host,
        flow.port,
        head.method.decode("latin-1"),
        head.target,
        head.fields,
        head.upgrade == _WEBSOCKET,
    )


def still_admitted(admitted: Admitted, flow: Flow, prepared: Prepared) -> bool:
    """Whether a request that is under way would be admitted now, too."""
    verdict = decide(admitted.head, flow)
    usable = {one.rule.name for one in verdict.usable}
    names = admitted.secrets
    return verdict.allowed and usable.issuperset(names) and prepared.usable(names, flow.shared.now_ms())


def _substituted(
    head: RequestHead,
    flow: Flow,
    prepared: Prepared,
    verdict: RequestVerdict,
    now_s: float,
    key: bytes | None,
) -> Admitted | Refusal:
    bindings = prepared.bindings(flow.host, flow.port, verdict)
    sent = apply(head, verdict.target, bindings, now_s=now_s, now_ms=flow.shared.now_ms())
    if isinstance(sent, Denial):
        return Refusal(sent.reason, verdict.rule, sent.owner_action, sent.secret or "", sent.cut)
    names = sent.secrets if sent.carried else ()
    barred = _first_barred(names, verdict)
    if barred is not None:
        prepared.budgets.release(names)
        action = f"ask whoever may change the policies of this sandbox to allow the secret {barred} here"
        return Refusal(Reason.SECRET_NOT_FOR_THIS_REQUEST, verdict.rule, action, barred)
    if key is not None:
        sent.head.fields = without_extensions(sent.head.fields)
    return Admitted(
        head=head,
        wire=write_request(sent.head, target=sent.target),
        rule=verdict.rule,
        path=flow.shared.audit.path(head.target),
        carried=sent.carried,
        secrets=names,
        strays=_places(sent),
        scrub=sent.scrub or bindings.scrubs_always,
        bound=bool(bindings.bound),
        max_request_bytes=verdict.limits.max_request_bytes,
        max_response_bytes=verdict.limits.max_response_bytes,
        websocket_key=key,
        generation=prepared.generation,
        repeatable=not verdict.limits.rates and prepared.last(names),
    )


def _first_barred(names: Iterable[str], verdict: RequestVerdict) -> str | None:
    """The first secret that some layer does not let this request carry."""
    if not names:
        return None
    usable = {one.rule.name for one in verdict.usable}
    return next((name for name in names if name not in usable), None)


def _places(sent: Substituted) -> tuple[str, ...]:
    return tuple(f"{stray.place}:{stray.secret}" for stray in sent.strays) if sent.strays else ()


def _judge_names(head: RequestHead, flow: Flow, prepared: Prepared, *, tls: bool) -> Reason | None:
    """All names that a request has must be the one that the connection was allowed for (R14)."""
    if head.scheme is not None and head.scheme != (b"https" if tls else b"http"):
        return Reason.NAME_MISMATCH
    if head.host is None:
        # HTTP/1.0 without Host: the origin would choose by itself whose request it is.
        return Reason.NAME_MISMATCH
    if prepared.was_right(head.host, flow.host, flow.port):
        return None
    # `http1` has made sure that the authority of an absolute form equals Host.
    if not _agrees(head.host, flow):
        return Reason.NAME_MISMATCH
    prepared.is_right(head.host, flow.host, flow.port)
    return None


def _agrees(host: bytes, flow: Flow) -> bool:
    try:
        name, port = split_authority(host)
    except Malformed:
        return False
    if port is not None and port != flow.port:
        return False
    if not isinstance(flow.host, str):
        wanted = f"[{flow.host}]" if isinstance(flow.host, IPv6Address) else str(flow.host)
        return host.decode("latin-1").lower().removesuffix(f":{flow.port}") == wanted
    try:
        return canonical(name) == flow.host
    except BadName:
        return False


def _judge_protocol(head: RequestHead) -> Reason | None:
    if head.upgrade is not None and head.upgrade != _WEBSOCKET:
        return Reason.UPGRADE_NOT_ALLOWED
    if head.framing is not Framing.NONE and _is_grpc(head.fields):
        return Reason.HTTP2_NOT_SUPPORTED
    return None


def _is_grpc(fields: Iterable[Field]) -> bool:
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"content-type":
            # gRPC-Web speaks HTTP/1.1.
            media = value.lower()
            return media.startswith(_GRPC) and not media.startswith(_GRPC + b"-web")
    return False
