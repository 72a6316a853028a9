"""Secrets in their slots and nowhere else: tricks with a placeholder's position, and what may carry one."""

import base64
from typing import Any

import pytest

from skerry.egress.http1.model import Field, Framing, RequestHead
from skerry.egress.messages import Secret
from skerry.egress.substitution import Bindings, Budgets, Denial, Issued, Substituted, apply
from skerry.policy import slots
from skerry.policy.document import Budget
from skerry.policy.verdict import Reason
from tests.unit.egress.secrets_for_tests import PLACEHOLDER, VALUE, secret

PH = PLACEHOLDER.encode()
OTHER_PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "fedcba9876543210" * 4
OTHER = secret(b"another-value-77", name="OTHER", placeholder=OTHER_PLACEHOLDER, hosts=("other.example",))
OPH = OTHER_PLACEHOLDER.encode()
HOST: Field = (b"Host", b"api.example")


def _basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def _head(*fields: Field, target: bytes = b"/v1/x", method: bytes = b"POST") -> RequestHead:
    return RequestHead(method, target, 1, [HOST, *fields], Framing.LENGTH, 7)


def _bindings(
    *secrets: Secret,
    bound: tuple[Secret, ...] | None = None,
    issued: Issued | None = None,
    host: str = "api.example",
) -> Bindings:
    everything = secrets or (secret(), OTHER)
    budgets = Budgets()
    budgets.adopt(everything, now_s=0)
    if bound is None:
        bound = tuple(one for one in everything if host in one.rule.hosts)
    return Bindings(host, bound, everything, budgets=budgets, issued=issued or Issued(b"key"))


def _apply(
    head: RequestHead, bindings: Bindings | None = None, *, now_s: float = 0, now_ms: int = 0
) -> Substituted | Denial:
    return apply(head, head.target, bindings or _bindings(), now_s=now_s, now_ms=now_ms)


def _sent(result: Substituted | Denial) -> Substituted:
    assert isinstance(result, Substituted), result
    return result


def _fields(result: Substituted | Denial) -> dict[bytes, bytes]:
    fields = _sent(result).head.fields
    found = {name.lower(): value for name, value in fields}
    assert len(found) == len(fields)
    return found


def _denied(result: Substituted | Denial, reason: Reason) -> str:
    assert isinstance(result, Denial), result
    assert result.reason is reason
    for never in (VALUE.decode(), PLACEHOLDER, OTHER_PLACEHOLDER, "another-value-77"):
        assert never not in repr(result)
    return result.owner_action


# Slots


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (b"Authorization", b"Bearer " + PH, b"Bearer " + VALUE),
        (b"authorization", b"token " + PH, b"token " + VALUE),
        (b"AUTHORIZATION", PH, VALUE),
        (b"Authorization", b"SSWS " + PH, b"SSWS " + VALUE),
        (b"X-Api-Key", PH, VALUE),
        (b"x-goog-api-key", PH, VALUE),
        (b"PRIVATE-TOKEN", PH, VALUE),
        (b"Authorization", _basic(PH + b":"), _basic(VALUE + b":")),
        (b"Authorization", _basic(PH + b":x-oauth-basic"), _basic(VALUE + b":x-oauth-basic")),
        (b"Authorization", _basic(b"me@home.example:" + PH), _basic(b"me@home.example:" + VALUE)),
        (b"Authorization", _basic(b":" + PH), _basic(b":" + VALUE)),
    ],
)
def test_default_slots(name: bytes, before: bytes, after: bytes) -> None:
    bindings = _bindings()
    for _ in range(2):  # the second time it is remembered
        result = _sent(_apply(_head((name, before)), bindings))
        assert (name, after) in result.head.fields
        assert [one.secret for one in result.carried] == ["KEY"]
        assert result.scrub
        assert result.secrets == ("KEY",)


def test_the_head_that_came_in_stays_as_it_was() -> None:
    head = _head((b"Authorization", b"Bearer " + PH), (b"Range", b"bytes=0-1"))
    before = list(head.fields)
    result = _sent(_apply(head))
    assert head.fields == before
    assert VALUE.decode() not in repr(result)
    assert VALUE.decode() not in repr(_bindings())


def test_order_and_case_of_other_headers_stay() -> None:
    fields = [(b"X-A", b"1"), (b"x-b", b"2"), (b"X-A", b"3")]
    result = _sent(_apply(_head(*fields, (b"Authorization", b"Bearer " + PH), (b"Accept-Encoding", b"br"))))
    assert result.head.fields[:4] == [HOST, *fields]
    assert result.head.length == 7
    assert result.head.framing is Framing.LENGTH


def test_a_template_slot_takes_only_its_template() -> None:
    bindings = _bindings(secret(slots=("header:authorization=Token token={}",)))
    assert _fields(_apply(_head((b"Authorization", b"Token token=" + PH)), bindings))[b"authorization"] == (
        b"Token token=" + VALUE
    )
    for value in (PH, b"Bearer " + PH, b"Token token=" + PH + b" "):
        _denied(_apply(_head((b"Authorization", value)), bindings), Reason.PLACEHOLDER_OUTSIDE_SLOT)


def test_a_slot_in_a_header_of_ones_own() -> None:
    bindings = _bindings(secret(slots=("header:x-own",)))
    assert _fields(_apply(_head((b"X-Own", PH)), bindings))[b"x-own"] == VALUE
    action = _denied(_apply(_head((b"X-Token", PH)), bindings), Reason.PLACEHOLDER_OUTSIDE_SLOT)
    assert action == 'add "slots": ["header:X-Token", "header:x-own"] to secret KEY'


def test_two_secrets_in_one_request() -> None:
    second = secret(b"second-value-000", name="SECOND", placeholder=OTHER_PLACEHOLDER)
    fields = _fields(_apply(_head((b"X-Api-Key", PH), (b"Authorization", OPH)), _bindings(secret(), second)))
    assert fields[b"x-api-key"] == VALUE
    assert fields[b"authorization"] == b"second-value-000"
    fields = _fields(_apply(_head((b"Authorization", _basic(OPH + b":" + PH))), _bindings(secret(), second)))
    assert fields[b"authorization"] == _basic(b"second-value-000:" + VALUE)


@pytest.mark.parametrize(
    ("slot", "target", "after"),
    [
        ("query:key", b"/x?key=" + PH, b"/x?key=sk%2Bv%2F%26%3D%25%20a"),
        ("query:key", b"/x?a=1&key=" + PH + b"&b=%20", b"/x?a=1&key=sk%2Bv%2F%26%3D%25%20a&b=%20"),
        ("path:/bot{}/**", b"/bot" + PH + b"/send?x=1", b"/botsk+v%2F&=%25%20a/send?x=1"),
        ("path:/k/{}", b"/k/" + PH, b"/k/sk+v%2F&=%25%20a"),
    ],
)
def test_slots_in_the_target(slot: str, target: bytes, after: bytes) -> None:
    bindings = _bindings(secret(b"sk+v/&=% a", slots=(slot,)))
    result = _sent(_apply(_head(target=target), bindings))
    assert result.target == result.head.target == after
    assert [(one.secret, one.slot) for one in result.carried] == [("KEY", slot)]


# Places that are no slot (S9)


@pytest.mark.parametrize(
    ("fields", "target", "line"),
    [
        ([(b"X-Custom", PH)], b"/", '["header:X-Custom", "header:authorization"]'),
        ([(b"X-Custom", b"a " + PH + b" b")], b"/", '["header:X-Custom", "header:authorization"]'),
        ([(b"User-Agent", b"curl " + PH)], b"/", None),
        ([(b"Cookie", b"session=" + PH)], b"/", None),
        ([(b"Cookie", b"session=%44" + PH[1:])], b"/", None),
        ([(b"Referer", b"https://api.example/?k=" + PH)], b"/", None),
        ([(b"Host", PH + b".example")], b"/", None),
        ([(b"Accept-Encoding", PH)], b"/", None),
        ([(b"Range", PH)], b"/", None),
        ([(PH, b"1")], b"/", None),
        ([(b"X-" + PH.lower(), b"1")], b"/", None),
        ([(b"Proxy-Authorization", b"Bearer " + PH)], b"/", None),
        ([(b"X_Api_Key", PH)], b"/", '["header:X_Api_Key", "header:authorization"]'),
        ([(b"Accept_Encoding", PH)], b"/", None),
        ([(b"Authorization", b"Bearer x" + PH)], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", b"Bearer " + PH + PH)], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", b"Bearer %44" + PH[1:])], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", b'Digest username="' + PH + b'"')], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", _basic(b"x" + PH + b":"))], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", _basic(PH + b":a-token-of-somebody-else"))], b"/", "BEFORE{}AFTER"),
        ([(b"Authorization", _basic(b"user:" + PH + b":"))], b"/", "BEFORE{}AFTER"),
        ([], b"/?key=" + PH, '["query:key", "header:authorization"]'),
        ([], b"/?key=a" + PH, None),
        ([], b"/?%6bey=" + PH, None),
        ([], b"/?" + PH + b"=1", None),
        ([], b"/?key=%44" + PH[1:], None),
        ([], b"/?key=%2544" + PH[1:], None),
        ([], b"/bot" + PH + b"/send", '["path:/bot{}/**", "header:authorization"]'),
        ([], b"/a/" + PH, '["path:/a/{}", "header:authorization"]'),
        ([], b"/%44" + PH[1:], None),
        ([], b"//" + PH, None),
    ],
)
def test_a_placeholder_outside_its_slot(fields: list[Field], target: bytes, line: str | None) -> None:
    action = _denied(_apply(_head(*fields, target=target)), Reason.PLACEHOLDER_OUTSIDE_SLOT)
    assert line is None or line in action


def test_a_placeholder_in_userinfo() -> None:
    head = _head()
    head.authority = PH + b"@api.example"
    _denied(_apply(head), Reason.PLACEHOLDER_OUTSIDE_SLOT)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Authorization", b"Bearer " + PH), (b"Authorization", b"Bearer " + PH)],
        [(b"Authorization", b"Bearer " + PH), (b"authorization", b"Bearer of-somebody-else")],
        [(b"X-Api-Key", b""), (b"X-Api-Key", PH)],
    ],
)
def test_a_slot_header_that_comes_twice(fields: list[Field]) -> None:
    _denied(_apply(_head(*fields)), Reason.MALFORMED_REQUEST)


def test_one_placeholder_in_two_slots() -> None:
    head = _head((b"Authorization", b"Bearer " + PH), (b"X-Api-Key", PH))
    _denied(_apply(head), Reason.PLACEHOLDER_OUTSIDE_SLOT)


@pytest.mark.parametrize(
    "target",
    [
        b"/?key=" + PH + b"&key=x",
        b"/?key=" + PH + b"&%6Bey=x",
        b"/?key=" + PH + b"&key[]=x",
        b"/?KEY=x&key=" + PH,
        b"/?key=" + PH + b"&a=1;key=2",
    ],
)
def test_a_parameter_that_comes_twice(target: bytes) -> None:
    _denied(_apply(_head(target=target), _bindings(secret(slots=("query:key",)))), Reason.MALFORMED_REQUEST)


@pytest.mark.parametrize(
    "target",
    [
        b"/?key=" + PH + b"&x=" + PH,
        b"/?key=" + PH + b"&x=%44" + PH[1:],
        b"/" + PH + b"?key=" + PH,
        b"/?key=" + PH + b";x=1",
    ],
)
def test_a_second_placeholder_beside_the_slot(target: bytes) -> None:
    bindings = _bindings(secret(slots=("query:key",)))
    _denied(_apply(_head(target=target), bindings), Reason.PLACEHOLDER_OUTSIDE_SLOT)


def test_a_path_slot_needs_one_reading_of_the_path() -> None:
    bindings = _bindings(secret(slots=("path:/bot{}/**",)))
    for target in (b"/bot" + PH + b"//x", b"/bot" + PH + b"/%2e%2e/x", b"/bot" + PH + b"/;a"):
        _denied(_apply(_head(target=target), bindings), Reason.PATH_NOT_CANONICAL)
    result = _sent(_apply(_head(target=b"/a/../bot" + PH + b"/x"), bindings))
    assert result.target.startswith(b"/botsk-live-")
    _denied(_apply(_head(target=b"/bot" + PH + b"x/y"), bindings), Reason.PLACEHOLDER_OUTSIDE_SLOT)


# Other secrets, other hosts (S10, M1)


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ([(b"Authorization", b"Bearer " + OPH)], b"/"),
        ([(b"Authorization", _basic(b"u:" + OPH))], b"/"),
        ([(b"X-Any", OPH)], b"/"),
        ([], b"/?key=" + OPH),
        ([], b"/" + OPH),
        ([], b"/%44" + OPH[1:]),
    ],
)
def test_the_placeholder_of_another_host(fields: list[Field], target: bytes) -> None:
    action = _denied(_apply(_head(*fields, target=target)), Reason.PLACEHOLDER_OF_OTHER_HOST)
    assert '"api.example"' in action
    assert "OTHER" in action


@pytest.mark.parametrize(
    "field", [(b"Authorization", b"Bearer " + PH), (b"Authorization", _basic(b"a:" + PH))]
)
def test_on_an_unbound_host_placeholders_stay_as_they_are(field: Field) -> None:
    result = _sent(_apply(_head(field, target=b"/?q=" + PH), _bindings(host="free.example")))
    assert result.head.fields == [HOST, field]
    assert result.target == b"/?q=" + PH
    assert not result.scrub
    assert [(one.secret, one.place) for one in result.strays] == [
        ("KEY", "target"),
        ("KEY", "header:authorization"),
    ]


@pytest.mark.parametrize(("on_stray", "cut"), [("block", False), ("kill", True)])
def test_strays_can_be_refused(on_stray: str, cut: bool) -> None:
    result = _apply(_head((b"X-A", PH)), _bindings(secret(on_stray=on_stray), host="free.example"))
    _denied(result, Reason.STRAY_PLACEHOLDER)
    assert isinstance(result, Denial)
    assert result.cut is cut


# Foreign credentials (M6)

FOREIGN = [
    (b"Authorization", b"Bearer of-the-attacker"),
    (b"Authorization", _basic(b"attacker:password")),
    (b"X-Api-Key", b"of-the-attacker"),
    (b"X_Api_Key", b"of-the-attacker"),
    (b"x-auth-token", b"t"),
    (b"PRIVATE-TOKEN", b"t"),
]


@pytest.mark.parametrize("field", FOREIGN)
def test_other_credentials_are_refused(field: Field) -> None:
    for head in (_head(field), _head((b"Api-Key", PH), field)):
        bindings = _bindings()
        action = _denied(_apply(head, bindings), Reason.FOREIGN_CREDENTIALS)
        assert "KEY" in action
        assert bindings.budgets.unreported() == {}


@pytest.mark.parametrize("field", FOREIGN)
def test_other_credentials_can_be_stripped_or_allowed(field: Field) -> None:
    head = _head((b"Api-Key", PH), field)
    stripped = _sent(_apply(head, _bindings(secret(foreign_credentials="strip"))))
    assert field not in stripped.head.fields
    assert (b"Api-Key", VALUE) in stripped.head.fields
    allowed = _sent(_apply(head, _bindings(secret(foreign_credentials="allow"))))
    assert field in allowed.head.fields


def test_the_strictest_secret_of_a_host_counts() -> None:
    second = secret(name="B", placeholder=OTHER_PLACEHOLDER, foreign_credentials="refuse")
    bindings = _bindings(secret(foreign_credentials="allow"), second)
    _denied(_apply(_head((b"X-Api-Key", b"foreign")), bindings), Reason.FOREIGN_CREDENTIALS)


def test_cookies_other_headers_and_empty_credentials_pass() -> None:
    fields = [(b"Cookie", b"session=abc"), (b"X-Csrf-Token", b"abc"), (b"Authorization", b"")]
    assert _sent(_apply(_head(*fields))).head.fields == [HOST, *fields]


def test_credentials_for_a_proxy_are_never_sent_on() -> None:
    for name in (b"Proxy-Authorization", b"Proxy_Authorization"):
        assert _sent(_apply(_head((name, b"Basic abc")))).head.fields == [HOST]


# Which requests, and when


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT"])
def test_methods_that_carry_no_secret(method: bytes) -> None:
    head = _head((b"Authorization", PH), method=method)
    _denied(_apply(head), Reason.SECRET_NOT_FOR_THIS_REQUEST)
    assert isinstance(_apply(_head(method=method)), Substituted)


def test_head_only_if_listed_and_the_others_not_even_then() -> None:
    bindings = _bindings(secret(methods=("HEAD", "TRACE")))
    assert isinstance(_apply(_head((b"Authorization", PH), method=b"HEAD"), bindings), Substituted)
    for method in (b"TRACE", b"POST"):
        action = _denied(
            _apply(_head((b"Authorization", PH), method=method), bindings), Reason.SECRET_NOT_FOR_THIS_REQUEST
        )
    assert action == 'add "POST" to "methods" of secret KEY'


def test_paths() -> None:
    bindings = _bindings(secret(paths=("/v1/**",)))

    def send(target: bytes) -> Substituted | Denial:
        return _apply(_head((b"Authorization", PH), target=target), bindings)

    assert isinstance(send(b"/v1/a?b=c"), Substituted)
    _denied(send(b"/v2/a"), Reason.SECRET_NOT_FOR_THIS_REQUEST)
    for target in (b"/v1/%2e%2e/v2", b"/v1//x", b"/v1/a%2fb", b"/v1/..;/v2"):
        _denied(send(target), Reason.PATH_NOT_CANONICAL)
    _denied(send(b"/v1/../v2"), Reason.SECRET_NOT_FOR_THIS_REQUEST)


@pytest.mark.parametrize(
    ("state", "value", "rule", "reason"),
    [
        ("revoked", None, {}, Reason.SECRET_REVOKED),
        ("lost", None, {}, Reason.SECRET_UNAVAILABLE),
        ("active", None, {}, Reason.SECRET_UNAVAILABLE),
        ("lost", VALUE, {}, Reason.SECRET_UNAVAILABLE),
        ("active", VALUE, {"expires_at_ms": 1_000}, Reason.SECRET_EXPIRED),
    ],
)
@pytest.mark.parametrize("mode", ["swap", "set"])
def test_secrets_that_cannot_be_used(
    state: str, value: bytes | None, rule: dict[str, Any], reason: Reason, mode: str
) -> None:
    bindings = _bindings(secret(value, state=state, mode=mode, **rule))
    _denied(_apply(_head((b"Authorization", b"Bearer " + PH)), bindings, now_ms=1_000), reason)


def test_a_secret_works_until_it_expires() -> None:
    bindings = _bindings(secret(expires_at_ms=1_000))
    head = _head((b"Authorization", PH))
    assert isinstance(_apply(head, bindings, now_ms=999), Substituted)
    _denied(_apply(head, bindings, now_ms=1_000), Reason.SECRET_EXPIRED)
    assert isinstance(_apply(_head(), bindings, now_ms=1_000), Substituted)


def test_the_rate_of_a_budget() -> None:
    bindings = _bindings(secret(budget=Budget(requests_per_min=60, burst=3)))
    head = _head((b"Authorization", PH))
    for _ in range(3):
        bindings.budgets.release(_sent(_apply(head, bindings)).secrets)
    assert '"requests_per_min"' in _denied(_apply(head, bindings), Reason.RATE_LIMITED)
    assert isinstance(_apply(_head(), bindings), Substituted)
    assert isinstance(_apply(head, bindings, now_s=1), Substituted)
    _denied(_apply(head, bindings, now_s=1.5), Reason.RATE_LIMITED)
    assert bindings.budgets.unreported() == {"KEY": 4}
    assert bindings.budgets.unreported() == {}


def test_the_sum_of_a_budget_counts_earlier_workers() -> None:
    rule = secret(budget=Budget(requests=10), used=9)
    bindings = _bindings(rule)
    head = _head((b"Authorization", PH))
    assert isinstance(_apply(head, bindings), Substituted)
    _denied(_apply(head, bindings), Reason.BUDGET_EXHAUSTED)
    bindings.budgets.adopt([rule], now_s=100)
    _denied(_apply(head, bindings, now_s=100), Reason.BUDGET_EXHAUSTED)


def test_requests_at_once() -> None:
    bindings = _bindings(secret(budget=Budget(concurrent=1)))
    head = _head((b"Authorization", PH))
    first = _sent(_apply(head, bindings))
    _denied(_apply(head, bindings), Reason.LIMIT_REACHED)
    bindings.budgets.release(first.secrets)
    assert isinstance(_apply(head, bindings), Substituted)


# The request side of scrubbing (S6, S7, G29, G30)

CONDITIONAL = [
    (b"Range", b"bytes=0-9"),
    (b"If-Range", b'"x"'),
    (b"TE", b"trailers"),
    (b"A-IM", b"vcdiff"),
    (b"A_IM", b"vcdiff"),
    (b"Accept_Encoding", b"br"),
]


@pytest.mark.parametrize(
    ("offered", "after"),
    [
        ([b"gzip, deflate, br, zstd"], b"gzip, identity"),
        ([b"GZIP"], b"gzip, identity"),
        ([b"br"], b"identity"),
        ([b"gzip;q=0"], b"identity"),
        ([b"*"], b"identity"),
        ([b"gzip", b"br"], b"gzip, identity"),
        ([], b"identity"),
    ],
)
def test_with_a_secret_only_codings_that_can_be_undone_are_offered(
    offered: list[bytes], after: bytes
) -> None:
    fields = [(b"Accept-Encoding", value) for value in offered]
    assert _fields(_apply(_head(*fields, (b"Authorization", PH))))[b"accept-encoding"] == after


def test_slices_are_not_asked_for_with_a_secret() -> None:
    assert set(_fields(_apply(_head(*CONDITIONAL, (b"Authorization", PH))))) == {
        b"host",
        b"authorization",
        b"accept-encoding",
    }


def test_without_a_secret_everything_passes() -> None:
    fields = [*CONDITIONAL, (b"Accept-Encoding", b"br"), (b"If-None-Match", b'"x"')]
    result = _sent(_apply(_head(*fields)))
    assert result.head.fields == [HOST, *fields]
    assert not result.scrub


def test_scrub_always_and_off() -> None:
    always = _sent(_apply(_head(*CONDITIONAL), _bindings(secret(scrub="always"))))
    assert always.head.fields == [HOST, (b"Accept-Encoding", b"identity")]
    assert always.scrub
    off = _sent(_apply(_head(*CONDITIONAL, (b"Api-Key", PH)), _bindings(secret(scrub="off"))))
    assert off.head.fields == [HOST, *CONDITIONAL, (b"Api-Key", VALUE)]
    assert not off.scrub


def test_websockets_of_bound_hosts_have_no_extensions() -> None:
    extension = b"permessage-deflate"
    head = _head(
        (b"Sec-WebSocket-Extensions", extension),
        (b"Sec_WebSocket_Extensions", extension),
        (b"Sec-WebSocket-Key", b"k"),
    )
    assert [name for name, _ in _sent(_apply(head)).head.fields] == [b"Host", b"Sec-WebSocket-Key"]


# set


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"Authorization", b"Bearer of-the-attacker")],
        [(b"authorization", b"")],
        [(b"Authorization_", b"x"), (b"AUTHORIZATION", b"whatever")],
    ],
)
def test_set_overwrites_what_the_client_sent(fields: list[Field]) -> None:
    result = _sent(_apply(_head(*fields), _bindings(secret(mode="set"))))
    assert [value for name, value in result.head.fields if name.lower() == b"authorization"] == [
        b"Bearer " + VALUE
    ]
    assert [(one.secret, one.slot) for one in result.carried] == [("KEY", "header:authorization=Bearer {}")]


def test_set_overwrites_what_an_origin_may_take_for_its_header() -> None:
    bindings = _bindings(secret(mode="set", slots=("header:x_own",), foreign_credentials="allow"))
    result = _sent(_apply(_head((b"X-Own", b"theirs"), (b"X_OWN", b"theirs")), bindings))
    assert [field for field in result.head.fields if b"own" in field[0].lower()] == [(b"X_own", VALUE)]


def test_set_takes_the_placeholder_as_well() -> None:
    bindings = _bindings(secret(mode="set", slots=("header:x-api-key",)))
    assert _fields(_apply(_head((b"X-Api-Key", PH)), bindings))[b"x-api-key"] == VALUE
    _denied(_apply(_head((b"X-Other", PH)), bindings), Reason.PLACEHOLDER_OUTSIDE_SLOT)
    _denied(_apply(_head((b"Api-Key", b"foreign")), bindings), Reason.FOREIGN_CREDENTIALS)


def test_set_only_where_the_secret_is_for() -> None:
    bindings = _bindings(secret(mode="set", paths=("/v1/**",), methods=("GET",)))
    for head in (_head(target=b"/v2", method=b"GET"), _head(target=b"/v1/a", method=b"POST")):
        result = _sent(_apply(head, bindings))
        assert result.carried == ()
        assert result.head.fields == [HOST]
    assert _sent(_apply(_head(target=b"/v1/a", method=b"GET"), bindings)).carried
    _denied(
        _apply(_head((b"Authorization", b"Bearer foreign"), target=b"/v2", method=b"GET"), bindings),
        Reason.FOREIGN_CREDENTIALS,
    )


@pytest.mark.parametrize(
    ("slot", "fields", "after"),
    [
        ("basic:password", [], _basic(b"token:" + VALUE)),
        ("basic:password", [(b"Authorization", _basic(b"me:x"))], _basic(b"me:" + VALUE)),
        ("basic:user", [(b"Authorization", _basic(b"me:x"))], _basic(VALUE + b":")),
    ],
)
def test_set_in_basic(slot: str, fields: list[Field], after: bytes) -> None:
    bindings = _bindings(secret(mode="set", slots=(slot,)))
    assert _fields(_apply(_head(*fields), bindings))[b"authorization"] == after


@pytest.mark.parametrize(
    ("slot", "target", "after"),
    [
        ("query:key", b"/x", b"/x?key=sk%2Fvalue-1"),
        ("query:key", b"/x?key=theirs&a=1&%4Bey=2", b"/x?a=1&key=sk%2Fvalue-1"),
        ("path:/bot{}/**", b"/botanything/send?a=1", b"/botsk%2Fvalue-1/send?a=1"),
        ("path:/bot{}/**", b"/other/send", b"/other/send"),
    ],
)
def test_set_in_the_target(slot: str, target: bytes, after: bytes) -> None:
    bindings = _bindings(secret(b"sk/value-1", mode="set", slots=(slot,)))
    assert _sent(_apply(_head(target=target), bindings)).target == after


def test_two_secrets_are_set_in_one_target() -> None:
    first = secret(b"first-value", mode="set", slots=("query:a",))
    second = secret(b"second-value", name="B", placeholder=OTHER_PLACEHOLDER, mode="set", slots=("query:b",))
    assert _sent(_apply(_head(target=b"/x?c=1"), _bindings(first, second))).target == (
        b"/x?c=1&a=first-value&b=second-value"
    )


@pytest.mark.parametrize(
    ("first", "second", "target", "after"),
    [
        ("query:key", "query:key", b"/x", [b"/x?key=second-value"]),
        ("path:/a/{}", "path:/a/{}", b"/a/b", [b"/a/second-value"]),
        ("header:x-own", "header:x-own", b"/", [b"second-value"]),
        ("basic:user", "header:authorization", b"/", [b"second-value"]),
        ("header:authorization", "basic:user", b"/", [_basic(b"second-value:")]),
        ("basic:user", "basic:user", b"/", [_basic(b"second-value:")]),
        ("basic:user", "basic:password", b"/", [_basic(b"first-value:second-value")]),
        ("basic:password", "basic:user", b"/", [_basic(b"second-value:first-value")]),
    ],
)
def test_two_secrets_that_are_set_in_one_slot(
    first: str, second: str, target: bytes, after: list[bytes]
) -> None:
    bindings = _bindings(
        secret(b"first-value", mode="set", slots=(first,)),
        secret(b"second-value", name="B", placeholder=OTHER_PLACEHOLDER, mode="set", slots=(second,)),
    )
    result = _sent(_apply(_head(target=target), bindings))
    sent = [value for name, value in result.head.fields if name.lower() in (b"authorization", b"x-own")]
    assert sent + ([result.target] if b"second" in result.target else []) == after
    both = b"first-value" in (slots.basic_parts(after[0]) or ())
    assert result.secrets == (("KEY", "B") if both else ("B",))


# Bounds


def test_what_is_remembered_is_bounded() -> None:
    bindings = _bindings()
    for number in range(3_000):
        _sent(
            _apply(
                _head((b"X-%d" % number, b"1"), (b"Authorization", b"s%d " % number + PH)),
                bindings,
                now_s=number * 60,
            )
        )
    assert len(bindings.known_names) <= 1_024
    header = bindings.header(b"authorization")
    assert header is not None
    assert len(header.fits) <= 64
