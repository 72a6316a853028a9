"""Somebody else's credentials on a host that has a secret (M6): in headers of any spelling, in the query."""

from typing import Any

import pytest

from skerry.egress.http1.model import Field, Framing, RequestHead
from skerry.egress.messages import Secret
from skerry.egress.substitution import Bindings, Budgets, Denial, Issued, Substituted, apply
from skerry.policy.verdict import Reason
from tests.unit.egress.secrets_for_tests import PLACEHOLDER, VALUE, secret

HOST: Field = (b"Host", b"api.example")
PH = PLACEHOLDER.encode()

CERTAIN = [
    b"access_token=t",
    b"a=1&access_token=t",
    b"ACCESS_TOKEN=t",
    b"access%5Ftoken=t",
    b"access_token[]=t",
    b"access_token[0]=t",
    b"access.token=t",
    b"access+token=t",
    b"access%20token=t",
    b"access[token=t",
    b"%20access_token=t",
    b"access_token%00=t",
    b"$access_token=t",
    b"a=1;access_token=t",
    b"api_key=t",
    b"api-key=t",
    b"apikey=t",
    b"private_token=t",
    b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Signature=s",
    b"X-Goog-Credential=c&X-Goog-Signature=s",
    b"AWSAccessKeyId=a&Expires=1&Signature=s",
    b"Expires=1&Signature=s&Key-Pair-Id=k",
    b"sv=2024-01-01&sr=b&sig=s",
    b"se=2030-01-01&SIG=s",
]
"""Queries, each with nothing but a credential and what belongs to it."""

UNCERTAIN = [
    b"",
    b"access_token=",
    b"access_token",
    b"key=a/b.txt",
    b"token=next-page",
    b"page_token=x",
    b"nextToken=x",
    b"auth=x",
    b"sig=x",
    b"sv=2024-01-01",
    b"signature=x",
    b"password=x",
    b"q=access_token",
    b"q=access_token%3Dx",
    b"my_access_token_name=x",
]


def _bindings(*secrets: Secret, host: str = "api.example", issued: Issued | None = None) -> Bindings:
    everything = secrets or (secret(hosts=(host,)),)
    budgets = Budgets()
    budgets.adopt(everything, now_s=0)
    bound = [one for one in everything if host in one.rule.hosts]
    return Bindings(host, bound, everything, budgets=budgets, issued=issued or Issued(b"key"))


def _head(*fields: Field, target: bytes = b"/x") -> RequestHead:
    return RequestHead(b"GET", target, 1, [HOST, *fields], Framing.NONE, 0)


def _apply(bindings: Bindings, *fields: Field, target: bytes = b"/x") -> Substituted | Denial:
    return apply(_head(*fields, target=target), target, bindings, now_s=0, now_ms=0)


def _sent(result: Substituted | Denial) -> Substituted:
    assert isinstance(result, Substituted), result
    return result


def _refused(result: Substituted | Denial) -> str:
    assert isinstance(result, Denial), result
    assert result.reason is Reason.FOREIGN_CREDENTIALS
    return result.owner_action


# Names of headers: origins behind CGI cannot tell underscores from hyphens


@pytest.mark.parametrize("name", [b"X_Api_Key", b"x_api-key", b"PRIVATE_TOKEN", b"X-API_KEY"])
def test_underscores_count_as_hyphens(name: bytes) -> None:
    _refused(_apply(_bindings(), (name, b"theirs")))
    stripped = _sent(_apply(_bindings(secret(foreign_credentials="strip")), (name, b"theirs")))
    assert stripped.head.fields == [HOST]
    assert _sent(_apply(_bindings(), (name, b""))).head.fields == [HOST, (name, b"")]


@pytest.mark.parametrize("slot", ["header:x_own", "header:x-own"])
@pytest.mark.parametrize("name", [b"X-Own", b"X_Own", b"x_oWN"])
def test_a_slot_of_ones_own_in_either_spelling(slot: str, name: bytes) -> None:
    _refused(_apply(_bindings(secret(slots=(slot,))), (name, b"theirs")))


# The query


@pytest.mark.parametrize("query", CERTAIN)
def test_certain_credentials_in_the_query_are_refused(query: bytes) -> None:
    for fields in ([], [(b"X-Api-Key", PH)]):
        action = _refused(_apply(_bindings(), *fields, target=b"/x?" + query))
        assert "parameter" in action
        assert '"foreign_credentials"' in action
        assert VALUE.decode() not in action


@pytest.mark.parametrize("query", UNCERTAIN)
def test_what_may_mean_something_else_passes(query: bytes) -> None:
    target = b"/x?" + query
    assert _sent(_apply(_bindings(), (b"X-Api-Key", PH), target=target)).target == target


@pytest.mark.parametrize("query", CERTAIN)
def test_they_pass_if_allowed_and_on_hosts_without_a_secret(query: bytes) -> None:
    target = b"/x?" + query
    assert _sent(_apply(_bindings(secret(foreign_credentials="allow")), target=target)).target == target
    unbound = _bindings(secret(hosts=("other.example",)))
    assert _sent(_apply(unbound, target=target)).target == target


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"/x?access_token=t", b"/x"),
        (b"/x?access_token=t&a=1", b"/x?a=1"),
        (b"/x?a=1&access_token=t", b"/x?a=1"),
        (b"/x?a=%20;access_token=t;b=?&api_key=2&c", b"/x?a=%20;b=?&c"),
        (b"/x?access_token=t;a=1", b"/x?a=1"),
        (b"/x?sv=1&sig=s&a", b"/x?sv=1&a"),
        (b"/access_token=t?a=1", b"/access_token=t?a=1"),
    ],
)
def test_they_are_stripped_and_the_rest_stays_as_it_was(before: bytes, after: bytes) -> None:
    assert _sent(_apply(_bindings(secret(foreign_credentials="strip")), target=before)).target == after


def test_stripping_leaves_our_own_in_its_slot() -> None:
    rule: dict[str, Any] = {"slots": ("query:access_token",), "foreign_credentials": "strip"}
    target = b"/x?api_key=theirs&access_token=" + PH + b"&a=1"
    result = _sent(_apply(_bindings(secret(b"own-value", **rule)), target=target))
    assert result.target == result.head.target == b"/x?access_token=own-value&a=1"


@pytest.mark.parametrize("mode", ["swap", "set"])
def test_our_own_is_not_foreign_in_its_slot(mode: str) -> None:
    bindings = _bindings(secret(b"own-value", slots=("query:access_token",), mode=mode))
    for target in (b"/x?access_token=" + PH, b"/x?a=1&access_token=" + PH):
        assert _sent(_apply(bindings, target=target)).target == target.replace(PH, b"own-value")
    for target in (b"/x?api_key=theirs", b"/x?access_token=" + PH + b"&api_key=theirs"):
        assert "api_key" in _refused(_apply(bindings, target=target))


def test_a_parameter_that_is_a_slot_is_a_credential_on_that_host() -> None:
    bindings = _bindings(secret(slots=("query:key",)))
    assert "parameter key" in _refused(_apply(bindings, target=b"/x?Key=theirs"))
    assert _sent(_apply(bindings, target=b"/x?token=page-2")).target == b"/x?token=page-2"


@pytest.mark.parametrize(
    ("host", "refused"),
    [("generativelanguage.googleapis.com", True), ("googleapis.com", True), ("notgoogleapis.com", False)],
)
def test_names_that_have_one_meaning_at_a_provider(host: str, refused: bool) -> None:
    for target in (b"/x?key=theirs", b"/x?%24key=theirs"):
        result = _apply(_bindings(host=host), target=target)
        assert isinstance(result, Denial if refused else Substituted)


# What the host itself gave


def test_what_the_host_has_issued_passes_there() -> None:
    issued = Issued(b"key")
    fields = [(b"Date", b"today"), (b"X-Auth-Token", b"issued-1"), (b"Set-Cookie", b"a=b")]
    issued.remember("api.example", [*fields, (b"X_Api_Key", b"issued-2")], _head())
    bindings = _bindings(issued=issued)
    for field in (
        (b"X-Auth-Token", b"issued-1"),
        (b"Authorization", b"Bearer issued-1"),
        (b"X_Auth_Token", b"issued-1"),
        (b"X-Api-Key", b"issued-2"),
    ):
        assert field in _sent(_apply(bindings, field)).head.fields
    assert _sent(_apply(bindings, target=b"/?access_token=issued-1")).target == b"/?access_token=issued-1"
    _refused(_apply(bindings, (b"X-Auth-Token", b"issued-3")))
    _refused(_apply(bindings, (b"X-Auth-Token", b"today")))
    assert not issued.holds("other.example", b"issued-1")


SIGNED = b"X-Amz-Credential=c%2F1&X-Amz-Date=d&X-Amz-Signature=s1"


@pytest.mark.parametrize(
    "field",
    [
        (b"Location", b"https://api.example/file?" + SIGNED),
        (b"location", b"https://API.example:8443/file?" + SIGNED + b"#top"),
        (b"Location", b"//api.example/file?" + SIGNED),
        (b"Location", b"/file?" + SIGNED),
        (b"Content-Location", b"?" + SIGNED),
        (b"Link", b'</a>; rel="first", <https://api.example/b?' + SIGNED + b'>; rel="next"'),
    ],
)
def test_urls_that_the_host_has_signed_pass_there(field: Field) -> None:
    issued = Issued(b"key")
    issued.remember("api.example", [field], _head())
    bindings = _bindings(issued=issued)
    assert _sent(_apply(bindings, target=b"/file?" + SIGNED)).target == b"/file?" + SIGNED
    _refused(_apply(bindings, target=b"/file?" + SIGNED + b"2"))
    _refused(_apply(bindings, target=b"/file?" + SIGNED + b"&access_token=t"))


@pytest.mark.parametrize(
    "field",
    [
        (b"Location", b"https://other.example/file?" + SIGNED),
        (b"Location", b"https://me@api.example/file?" + SIGNED),
        (b"Location", b"https://api.example.other.example/file?" + SIGNED),
        (b"Link", b"<//other.example/?" + SIGNED + b">"),
        (b"Location", b"/file#?" + SIGNED),
        (b"X-Url", b"https://api.example/file?" + SIGNED),
    ],
)
def test_urls_of_other_hosts_do_not_count(field: Field) -> None:
    issued = Issued(b"key")
    issued.remember("api.example", [field], _head())
    assert len(issued) == 0


@pytest.mark.parametrize(
    "request_head",
    [
        _head(target=b"/echo?X-Auth-Token=of-the-attacker"),
        _head(target=b"/redirect?to=https%3A%2F%2Fapi.example%2F%3Faccess_token%3Dof-the-att%61cker"),
        _head(target=b"/redirect?to=of-the-att%252561cker"),
        _head((b"X-Echo", b"of-the-attacker")),
    ],
)
def test_what_the_host_only_repeats_is_not_issued(request_head: RequestHead) -> None:
    issued = Issued(b"key")
    fields = [
        (b"X-Auth-Token", b"of-the-attacker"),
        (b"Location", b"https://api.example/?access_token=of-the-attacker"),
    ]
    issued.remember("api.example", fields, request_head)
    assert len(issued) == 0
    issued.remember("api.example", fields, _head())
    issued.remember("api.example", fields, request_head)
    assert issued.holds("api.example", b"Bearer of-the-attacker")


def test_what_was_issued_is_bounded() -> None:
    issued = Issued(b"key", limit=10)
    for number in range(50):
        issued.remember("h", [(b"X-Auth-Token", b"t%d" % number)], _head())
    assert len(issued) == 10
    assert issued.holds("h", b"t49")
    assert not issued.holds("h", b"t39")
