"""What may be requested: methods, paths, overrides, credentials, limits; and how quickly that is told."""

from ipaddress import ip_address
from typing import Any

import pytest

from skerry.policy.compiled import NO_LIMITS
from skerry.policy.document import AllowRule, SecretBinding
from skerry.policy.rules import Field
from skerry.policy.verdict import Reason
from tests.unit.policy.build import PUBLIC, allow, document, policy, secret

HOST = "api.example"


def ask(
    *rules: AllowRule,
    method: str = "GET",
    target: bytes = b"/v1/x",
    fields: tuple[Field, ...] = (),
    websocket: bool = False,
) -> tuple[Reason | None, bytes]:
    verdict = policy(*rules).decide_request(HOST, 443, method, target, fields, websocket)
    assert verdict.allowed is (verdict.reason is None)
    return verdict.reason, verdict.target


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/v1//x",
        b"/group%2Fproject",
        b"/a;b=c",
        b"/a/../b",
        b"/%2e%2e/",
        b"/caf\xc3\xa9",
        b"*",
        b"/x?a=%2f",
    ],
)
def test_without_limits_the_target_is_sent_as_it_came(target: bytes) -> None:
    assert ask(allow(HOST, websocket=True), target=target) == (None, target)
    assert ask(allow(HOST), target=target) == (None, target)
    verdict = policy(sandbox=PUBLIC).decide_request(HOST, 443, "GET", target, ())
    assert verdict.allowed
    assert verdict.target == target
    assert verdict.limits is NO_LIMITS


@pytest.mark.parametrize(
    "target", [b"", b"x", b"http://api.example/", b"/a b", b"/a#b", b"/a\x00", b"/a\r\nX: y"]
)
def test_what_is_no_target_is_refused_always(target: bytes) -> None:
    for rule in (allow(HOST, websocket=True), allow(HOST, methods=("GET",)), allow(HOST, paths=("/**",))):
        assert ask(rule, target=target) == (Reason.PATH_NOT_CANONICAL, b"")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("GET", None),
        ("POST", Reason.METHOD_NOT_ALLOWED),
        ("get", Reason.METHOD_NOT_ALLOWED),
        ("GETT", Reason.METHOD_NOT_ALLOWED),
        ("TRACE", Reason.METHOD_NOT_ALLOWED),
        ("CONNECT", Reason.METHOD_NOT_ALLOWED),
    ],
)
def test_methods(method: str, reason: Reason | None) -> None:
    assert ask(allow(HOST, methods=("GET",)), method=method)[0] is reason


def test_a_tunnel_inside_is_refused_always() -> None:
    assert ask(allow(HOST, websocket=True), method="CONNECT")[0] is Reason.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    ("target", "reason", "sent"),
    [
        (b"/v1/x", None, b"/v1/x"),
        (b"/v1/a/../x?q=1", None, b"/v1/x?q=1"),
        (b"/v1/caf%c3%a9", None, b"/v1/caf%C3%A9"),
        (b"/v1/../admin", Reason.PATH_NOT_ALLOWED, b""),
        (b"/admin", Reason.PATH_NOT_ALLOWED, b""),
        (b"/V1/x", Reason.PATH_NOT_ALLOWED, b""),
        (b"*", Reason.PATH_NOT_CANONICAL, b""),
        (b"/v1/%2e%2e/admin", Reason.PATH_NOT_CANONICAL, b""),
        (b"/v1//x", Reason.PATH_NOT_CANONICAL, b""),
        (b"/v1/x;y", Reason.PATH_NOT_CANONICAL, b""),
        (b"/v1%2fx", Reason.PATH_NOT_CANONICAL, b""),
        (b"/v1/%252e", Reason.PATH_NOT_CANONICAL, b""),
    ],
)
def test_paths_are_judged_and_sent_in_canonical_form(
    target: bytes, reason: Reason | None, sent: bytes
) -> None:
    assert ask(allow(HOST, paths=("/v1/**",)), target=target) == (reason, sent)


def test_rules_of_one_layer_add_up() -> None:
    rules = (allow(HOST, methods=("GET",)), allow(HOST, methods=("POST",), paths=("/v1/**",)))

    assert ask(*rules)[0] is None
    assert ask(*rules, method="POST")[0] is None
    assert ask(*rules, method="POST", target=b"/admin")[0] is Reason.PATH_NOT_ALLOWED
    assert ask(*rules, method="DELETE")[0] is Reason.METHOD_NOT_ALLOWED
    # One rule must allow all of a request.
    assert ask(allow(HOST, methods=("GET",)), allow(HOST, paths=("/a",)), method="POST", target=b"/b")[0]


def test_every_layer_must_allow_the_request() -> None:
    asked = policy(
        allow(HOST, paths=("/v1/**",), websocket=True), named=document(allow(HOST, methods=("GET",)))
    )

    good = asked.decide_request(HOST, 443, "GET", b"/v1/./x", ())
    assert (good.allowed, good.target, good.rule) == (True, b"/v1/x", "sandbox.allow[0]")
    assert asked.decide_request(HOST, 443, "POST", b"/v1/x", ()).rule == "policy:team.allow[0]"
    assert asked.decide_request(HOST, 443, "GET", b"/x", ()).rule == "sandbox.allow[0]"
    assert asked.decide_request(HOST, 443, "GET", b"/v1/x", (), True).reason is Reason.WEBSOCKET_NOT_ALLOWED


@pytest.mark.parametrize(
    "field",
    [
        b"X-HTTP-Method-Override",
        b"x-method-override",
        b"X-HTTP-METHOD",
        b"X_HTTP_Method_Override",
        b"X-Original-URL",
        b"X-Rewrite-URL",
        b"X-Forwarded-Host",
        b"X-Forwarded-Prefix",
        b"X-Forwarded-Path",
        b"Forwarded",
        b"X-Host",
        b"Destination",
    ],
)
def test_overrides_are_refused_where_methods_or_paths_count(field: bytes) -> None:
    fields = ((b"Accept", b"*/*"), (field, b"DELETE"))

    assert ask(allow(HOST, methods=("GET",)), fields=fields)[0] is Reason.OVERRIDE_HEADER
    assert ask(allow(HOST, paths=("/v1/**",)), fields=fields)[0] is Reason.OVERRIDE_HEADER
    assert ask(allow(HOST), fields=fields)[0] is None
    assert ask(allow(HOST, credentials="none"), fields=fields)[0] is None


@pytest.mark.parametrize(
    "query",
    [
        b"_method=DELETE",
        b"a=b&_METHOD=x",
        b"%5fmethod=x",
        b"_method[]=x",
        b"a;_method=x",
        b"_method%00=x",
        b".method=x",
        b"http-method=x",
        b"%24httpMethod=x",
        b"http[method=x",
    ],
)
def test_overrides_in_the_query_too(query: bytes) -> None:
    assert ask(allow(HOST, methods=("GET",)), target=b"/?" + query)[0] is Reason.OVERRIDE_HEADER
    assert ask(allow(HOST), target=b"/?" + query)[0] is None


@pytest.mark.parametrize("query", [b"", b"method=x", b"a_method=x", b"page=2&q=_method", b"x=%41"])
def test_other_queries_pass(query: bytes) -> None:
    assert ask(allow(HOST, methods=("GET",)), target=b"/?" + query)[0] is None


def test_overrides_of_a_limited_secret_are_refused() -> None:
    asked = policy(allow(HOST), secrets=(secret(HOST, methods=("GET",)),))
    fields = ((b"X-HTTP-Method-Override", b"DELETE"),)

    assert asked.decide_request(HOST, 443, "GET", b"/", fields).reason is Reason.OVERRIDE_HEADER
    # Without the secret there is nothing to widen.
    free = asked.decide_request(HOST, 443, "POST", b"/", fields)
    assert free.allowed
    assert free.usable == ()


@pytest.mark.parametrize(
    ("fields", "target", "good"),
    [
        ((), b"/", True),
        (((b"Accept", b"x"),), b"/?page_token=1&q=x", True),
        (((b"X-Csrf-Token", b"x"),), b"/", True),
        (((b"Authorization", b"Bearer x"),), b"/", False),
        (((b"authorization", b""),), b"/", True),
        (((b"X_Api_Key", b"x"),), b"/", False),
        (((b"Cookie", b"a=b"),), b"/", False),
        ((), b"/?access_token=x", False),
        ((), b"/?TOKEN=x", False),
        ((), b"/?a&X-Amz-Signature=x", False),
        ((), b"/?%74oken=x", False),
        ((), b"/?token[]=x", False),
        ((), b"/?access.token=x", False),
        ((), b"/?access[token=x", False),
        ((), b"/?token=", True),
        ((), b"/?sig=x", False),
        ((), b"/?a=1;key=2", False),
    ],
)
def test_requests_without_credentials_of_their_own(
    fields: tuple[Field, ...], target: bytes, good: bool
) -> None:
    reason, _ = ask(allow(HOST, credentials="none"), target=target, fields=fields)

    assert reason is (None if good else Reason.CREDENTIALS_NOT_ALLOWED)


def test_limits_are_the_smallest_of_all_layers_and_the_widest_of_a_layers_rules() -> None:
    asked = policy(
        allow(HOST, max_request_bytes=10, requests_per_min=5),
        allow(HOST, max_request_bytes=100, methods=("POST",)),
        named=document(allow(HOST, max_request_bytes=50, max_response_bytes=7, requests_per_min=9)),
    )

    get = asked.decide_request(HOST, 443, "GET", b"/", ()).limits
    assert (get.max_request_bytes, get.max_response_bytes) == (10, 7)
    assert get.rates == (("policy:team.allow[0]", 9), ("sandbox.allow[0]", 5))
    post = asked.decide_request(HOST, 443, "POST", b"/", ()).limits
    assert (post.max_request_bytes, post.max_response_bytes) == (50, 7)
    assert post.rates == (("policy:team.allow[0]", 9),)


def test_a_host_that_may_not_be_reached_gets_no_request() -> None:
    verdict = policy(allow(HOST)).decide_request("other.example", 443, "GET", b"/", ())

    assert (verdict.allowed, verdict.reason, verdict.target) == (False, Reason.HOST_NOT_ALLOWED, b"")


def test_addresses_have_requests_too() -> None:
    address = ip_address("203.0.113.7")
    asked = policy(allow("203.0.113.0/24", ports=(80,)))

    assert asked.decide_request(address, 80, "GET", b"/x", ()).target == b"/x"
    assert asked.decide_request(address, 443, "GET", b"/x", ()).reason is Reason.PORT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("rest", "method", "target", "usable"),
    [
        ({}, "GET", b"/", True),
        ({}, "POST", b"/", True),
        ({}, "HEAD", b"/", False),
        ({}, "OPTIONS", b"/", False),
        ({}, "TRACE", b"/", False),
        ({"methods": ("GET", "HEAD")}, "HEAD", b"/", True),
        ({"methods": ("GET",)}, "POST", b"/", False),
        ({"methods": ("GET", "OPTIONS", "TRACE")}, "OPTIONS", b"/", False),
        ({"methods": ("GET", "OPTIONS", "TRACE")}, "TRACE", b"/", False),
        ({"paths": ("/v1/**",)}, "GET", b"/v1/x", True),
        ({"paths": ("/v1/**",)}, "GET", b"/v2/x", False),
        ({"paths": ("/v1/**",)}, "GET", b"/v1/../v2", False),
        ({"paths": ("/v1/**",)}, "GET", b"/v1/%2e%2e/v2", False),
    ],
)
def test_which_requests_may_carry_a_secret(
    rest: dict[str, Any], method: str, target: bytes, usable: bool
) -> None:
    asked = policy(allow(HOST), secrets=(secret(HOST, **rest),))

    verdict = asked.decide_request(HOST, 443, method, target, ())

    assert verdict.allowed
    assert [one.rule.name for one in verdict.bindings] == ["KEY"]
    assert [one.rule.name for one in verdict.usable] == (["KEY"] if usable else [])


def test_the_canonical_form_is_sent_when_a_secrets_paths_count() -> None:
    asked = policy(allow(HOST), secrets=(secret(HOST, paths=("/v1/**",)),))

    assert asked.decide_request(HOST, 443, "GET", b"/v1/./x", ()).target == b"/v1/x"
    assert asked.decide_request(HOST, 443, "GET", b"/v1/%2e/x", ()).target == b"/v1/%2e/x"
    in_path = policy(allow(HOST), secrets=(secret(HOST, slots=("path:/bot{}/**",)),))
    assert in_path.decide_request(HOST, 443, "GET", b"/botX/./y", ()).target == b"/botX/y"


def test_a_secret_that_a_layer_does_not_let_be_used_is_bound_but_never_usable() -> None:
    named = document(secrets=(SecretBinding(name="KEY", hosts=(HOST,), methods=("GET",)),))
    wide = policy(allow(HOST), named=named, secrets=(secret(HOST),))
    within = policy(allow(HOST), named=named, secrets=(secret(HOST, methods=("GET",)),))
    unknown = policy(allow(HOST), named=named, secrets=(secret(HOST, name="OTHER", methods=("GET",)),))

    for asked in (wide, unknown):
        assert asked.decide(HOST, 443).bound
        verdict = asked.decide_request(HOST, 443, "GET", b"/", ())
        assert verdict.usable == ()
        assert verdict.bindings[0].barred == "policy:team"
    assert within.decide_request(HOST, 443, "GET", b"/", ()).usable


def test_methods_of_a_rule_are_told_to_the_owner_and_nothing_of_the_request_is() -> None:
    verdict = policy(allow(HOST, methods=("GET",))).decide_request(
        HOST, 443, "EVIL", b"/secret-path", ((b"X", b"secret-value"),)
    )

    assert "sandbox.allow[0]" in verdict.owner_action
    assert "EVIL" not in verdict.owner_action
    assert "secret" not in verdict.owner_action
