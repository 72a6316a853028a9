"""Put secrets into the head of a request: the only place of the gateway where that happens."""

from skerry.egress.http1.model import Field, RequestHead
from skerry.egress.substitution import denials
from skerry.egress.substitution import target as targets
from skerry.egress.substitution.bindings import Bindings, Bound, Fit
from skerry.egress.substitution.foreign import judge_foreign
from skerry.egress.substitution.model import Carried, Denial, Stray, Substituted
from skerry.egress.substitution.reading import Reading
from skerry.egress.substitution.setting import set_secrets
from skerry.policy import slots
from skerry.policy.paths import NotCanonical, canonical
from skerry.policy.verdict import Reason


def apply(
    head: RequestHead, target: bytes, bindings: Bindings, *, now_s: float, now_ms: int
) -> Substituted | Denial:
    """Replace the placeholders in their slots, and set what is to be set.

    Nothing is searched for in raw bytes: a slot is a field, a parameter or a segment of the parsed request,
    and its whole value must fit. Wherever else a placeholder stands it stays one; on a bound host the request
    is denied then.

    Args:
        head: As it was parsed; stays unchanged. The body's length is never changed.
        target: As `Policy.decide_request` says that it is to be sent.
        bindings: Of the host that the connection goes to, whose name has been compared with the request's.
        now_s: Monotonic, for budgets.
        now_ms: Since the epoch, for expiry.

    Returns:
        What to send, or why nothing may be sent. When secrets are carried, their budgets are charged until
        `Budgets.release`.
    """
    if not bindings.bound:
        return _unbound(head, target, bindings)
    reading = Reading(head, target, bindings)
    denial = reading.read()
    if denial is None and bindings.setting:
        denial = set_secrets(reading)
    if denial is None:
        denial = judge_foreign(reading)
    if denial is not None:
        return denial
    carried = _carried(reading, now_s, now_ms) if reading.fits or reading.places or reading.added else ()
    return carried if isinstance(carried, Denial) else _written(reading, carried)


def _carried(reading: Reading, now_s: float, now_ms: int) -> tuple[Carried, ...] | Denial:
    """Check that each secret may be used, once, in this request and now; charge the budgets."""
    uses = reading.uses()
    for at in range(1, len(uses)):
        if any(uses[at].bound is other.bound for other in uses[:at]):
            return denials.twice(uses[at].bound)
    for fit in reading.added:
        uses += fit.uses
    for use in uses:
        denial = _not_for(use.bound, reading) or _unusable(use.bound, now_ms)
        if denial is not None:
            return denial
    budgets = reading.bindings.budgets
    charged: list[str] = []
    for use in uses:
        name = use.bound.name
        if name in charged:
            continue
        reason = budgets.take(name, now_s)
        if reason is not None:
            budgets.release(charged)
            return denials.unusable(use.bound, reason)
        charged.append(name)
    return tuple([use.carried for use in uses])


def _not_for(bound: Bound, reading: Reading) -> Denial | None:
    if not bound.has_method(reading.head.method):
        return denials.wrong_method(bound, reading.head.method)
    if bound.paths is None:
        return None
    try:
        allowed = bound.paths.allow(canonical(reading.target).segments)
    except NotCanonical:
        return denials.not_canonical(bound)
    return None if allowed else denials.wrong_path(bound)


def _unusable(bound: Bound, now_ms: int) -> Denial | None:
    secret = bound.secret
    expires_at_ms = secret.rule.expires_at_ms
    if secret.state == "revoked":
        return denials.unusable(bound, Reason.SECRET_REVOKED)
    if expires_at_ms is not None and now_ms >= expires_at_ms:
        return denials.unusable(bound, Reason.SECRET_EXPIRED)
    if secret.value is None or secret.state != "active":
        return denials.unusable(bound, Reason.SECRET_UNAVAILABLE)
    return None


def _written(reading: Reading, carried: tuple[Carried, ...]) -> Substituted:
    """The request as it is to be sent."""
    bindings = reading.bindings
    fields = list(reading.head.fields)
    for index, fit in reading.fits:
        fields[index] = (fields[index][0], fit.value)
    scrub = bindings.scrubs_always
    for one in carried:
        scrub = scrub or bindings.by_name[one.secret].scrubs
    dropped = reading.dropped
    if scrub:
        dropped = dropped + reading.dropped_with_secret + reading.accepts[1:]
        if reading.accepts:
            first = reading.accepts[0]
            fields[first] = (fields[first][0], _accepted(fields[first][1]))
    if dropped:
        fields = [one for index, one in enumerate(fields) if index not in dropped]
    if scrub and not reading.accepts:
        fields.append((b"Accept-Encoding", b"identity"))
    for fit in reading.added:
        fields.append(_added(fit))
    target = targets.replaced(reading.target, reading.places) if reading.places else reading.target
    return Substituted(_with(reading.head, target, fields), target, carried, (), scrub)


def _accepted(value: bytes) -> bytes:
    """Only codings that can be undone are offered to an origin whose answer is scrubbed (G29)."""
    lower = value.lower()
    return b"gzip, identity" if b"gzip" in lower and b"q=0" not in lower else b"identity"


def _added(fit: Fit) -> Field:
    name = "-".join(part.capitalize() for part in fit.uses[0].slot.field.decode("ascii").split("-"))
    return name.encode("ascii"), fit.value


def _with(head: RequestHead, target: bytes, fields: list[Field]) -> RequestHead:
    # Twice as quick as dataclasses.replace.
    return RequestHead(
        head.method,
        target,
        head.minor,
        fields,
        head.framing,
        head.length,
        head.authority,
        head.scheme,
        head.keep_alive,
        head.expects_continue,
        head.upgrade,
        head.host,
    )


def _unbound(head: RequestHead, target: bytes, bindings: Bindings) -> Substituted | Denial:
    """A host without secrets: placeholders pass as they are, unless their rules say otherwise."""
    strays: list[Stray] = []
    placeholders = bindings.placeholders
    if placeholders:
        texts = [("target", target)]
        for name, value in head.fields:
            if len(value) >= placeholders.shortest:
                texts.append((f"header:{name.decode('latin-1').lower()}", value))
        for place, text in texts:
            basic = slots.basic_parts(text)
            names = placeholders.names_in(text if basic is None else b":".join(basic))
            strays += [Stray(name, place, bindings.others[name].on_stray) for name in names]
    stopped = [one.secret for one in strays if one.on_stray != "forward"]
    if stopped:
        return denials.stray(stopped, cut=any(one.on_stray == "kill" for one in strays))
    return Substituted(_with(head, target, head.fields), target, (), tuple(strays))
