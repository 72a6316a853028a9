"""Requests made of placeholders, values and what else stands in requests: values go into slots only, once,
and to a bound host goes no placeholder."""

import base64
import urllib.parse

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.egress.http1.model import Field, Framing, RequestHead
from skerry.egress.messages import Secret
from skerry.egress.substitution import Bindings, Budgets, Denial, Issued, Placeholders, Strays, apply
from skerry.policy import slots
from skerry.policy.credential_headers import is_credential_header
from skerry.policy.document import Budget
from tests.unit.egress.secrets_for_tests import secret

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

PLACEHOLDERS = ["DENO_SECRET_PLACEHOLDER_" + digit * 64 for digit in "abc"]
VALUES = [b"VALUE-%d-q8w7e6" % at for at in range(3)]
SLOTS = ["header:x-own", "header:authorization=Bearer {}", "basic:password", "query:key", "path:/bot{}/**"]
BUDGET = Budget(requests_per_min=60_000, burst=1_000_000)

pieces = st.sampled_from(
    [
        *(one.encode() for one in PLACEHOLDERS),
        PLACEHOLDERS[0].lower().encode(),
        b"%44" + PLACEHOLDERS[0][1:].encode(),
        PLACEHOLDERS[0][:50].encode(),
        PLACEHOLDERS[1][50:].encode(),
        b"Bearer ", b"Basic ", b"token ", b"x", b" ", b":", b"=", b"&", b"/", b"?", b"%", b";", b"..",
        b"key=", b"bot",
    ]
)  # fmt: skip
texts = st.lists(pieces, max_size=4).map(b"".join)
basics = texts.map(lambda text: b"Basic " + base64.b64encode(text))
names = st.one_of(
    st.sampled_from(
        [
            b"Authorization",
            b"X-Api-Key",
            b"x_api_key",
            b"X-Own",
            b"Cookie",
            b"Accept-Encoding",
            b"Range",
            b"X-Any",
        ]
    ),
    pieces.filter(lambda piece: piece.replace(b"_", b"").isalnum()),
)
fields = st.lists(st.tuples(names, st.one_of(texts, basics)), max_size=4)
targets = texts.map(lambda text: b"/" + text.replace(b" ", b""))


@st.composite
def secrets(draw: st.DrawFn) -> list[Secret]:
    """Two that are bound to the host and one that is not."""
    made = []
    for at, host in enumerate(("api.example", "api.example", "other.example")):
        slots = tuple(draw(st.lists(st.sampled_from(SLOTS), max_size=2, unique=True)))
        made.append(
            secret(
                VALUES[at],
                name=f"S{at}",
                placeholder=PLACEHOLDERS[at],
                hosts=(host,),
                slots=slots,
                mode=draw(st.sampled_from(["swap", "swap", "swap", "set"])),
                foreign_credentials=draw(st.sampled_from(["refuse", "strip", "allow"])),
                scrub=draw(st.sampled_from(["on", "always", "off"])),
                budget=BUDGET,
            )
        )
    return made


def _everywhere(found: list[Field], target: bytes) -> bytes:
    """All that is sent, also as origins may decode it."""
    parts = [target, *(part for field in found for part in field)]
    for name, value in found:
        basic = slots.basic_parts(value) if name == b"Authorization" else None
        parts += basic or ()
    return b"\n".join(parts + [urllib.parse.unquote_to_bytes(part) for part in parts if b"%" in part])


@FUZZ
@given(secrets(), fields, targets, st.sampled_from([b"GET", b"POST", b"HEAD", b"TRACE"]))
def test_values_stand_in_slots_only(
    made: list[Secret], sent: list[Field], target: bytes, method: bytes
) -> None:
    budgets = Budgets()
    budgets.adopt(made, now_s=0)
    bindings = Bindings("api.example", made[:2], made, budgets=budgets, issued=Issued(b"k"))
    head = RequestHead(method, target, 1, list(sent), Framing.NONE)
    result = apply(head, target, bindings, now_s=0, now_ms=0)
    assert head.fields == sent
    if isinstance(result, Denial):
        event(result.reason)
        assert not any(value.decode() in repr(result) for value in VALUES)
        return
    event("carried" if result.carried else "sent")
    everywhere = _everywhere(result.head.fields, result.target)
    assert not Placeholders(made).find(everywhere)
    carried = {one.secret for one in result.carried}
    for one, value in zip(made, VALUES, strict=True):
        assert (value in everywhere) == (one.rule.name in carried)
    if carried:
        assert method in (b"GET", b"POST")
        assert result.scrub or all(one.rule.scrub == "off" for one in made if one.rule.name in carried)
    if bindings.foreign != "allow":
        for name, value in result.head.fields:
            if is_credential_header(name) and value:
                decoded = _everywhere([(name, value)], b"")
                assert any(own in decoded for own in VALUES)


@FUZZ
@given(secrets(), fields, targets)
def test_unbound_hosts_get_what_was_sent(made: list[Secret], sent: list[Field], target: bytes) -> None:
    budgets = Budgets()
    budgets.adopt(made, now_s=0)
    bindings = Bindings("free.example", (), made, budgets=budgets, issued=Issued(b"k"))
    result = apply(RequestHead(b"GET", target, 1, sent, Framing.NONE), target, bindings, now_s=0, now_ms=0)
    assert not isinstance(result, Denial)
    assert (result.head.fields, result.target, result.carried, result.scrub) == (sent, target, (), False)


@FUZZ
@given(texts, st.integers(1, 70))
def test_strays_are_found_wherever_a_body_is_cut(body: bytes, size: int) -> None:
    placeholders = Placeholders([secret(name=one, placeholder=one) for one in PLACEHOLDERS])
    strays = Strays(placeholders)
    found = [one for at in range(0, len(body), size) for one in strays.feed(body[at : at + size])]
    assert found == [(name, start) for name, start, _ in placeholders.find(body)]
    assert len(found) == sum(body.count(one.encode()) for one in PLACEHOLDERS)
