"""What may be connected to, and how: layers, rules, denials, modes."""

import random
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.compiled import Host, Own, Policy, RequestVerdict
from skerry.policy.document import AllowRule, PolicyDocument, SecretBinding, TlsChoice
from skerry.policy.explain import explain
from skerry.policy.names import BadPattern
from skerry.policy.names import host as host_of
from skerry.policy.rules import Field
from skerry.policy.verdict import Mode, Reason
from skerry.spec.settings import InternalNetwork
from tests.unit.policy.build import PUBLIC, allow, deny, document, policy, secret


def test_an_empty_policy_allows_nothing() -> None:
    asked = policy()

    verdict = asked.decide("example.com", 443)

    assert not verdict.allowed
    assert verdict.reason is Reason.HOST_NOT_ALLOWED
    assert verdict.rule == "sandbox.default"
    assert '"example.com"' in verdict.owner_action
    assert not asked.name_allowed("example.com")
    assert asked.decide(IPv4Address("203.0.113.1"), 443).reason is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    ("rule", "host", "port", "reason"),
    [
        (allow("example.com"), "example.com", 443, None),
        (allow("example.com"), "example.com", 80, Reason.PORT_NOT_ALLOWED),
        (allow("example.com"), "www.example.com", 443, Reason.HOST_NOT_ALLOWED),
        (allow("*.example.com"), "www.example.com", 443, None),
        (allow("*.example.com"), "a.b.example.com", 443, None),
        (allow("*.example.com"), "example.com", 443, Reason.HOST_NOT_ALLOWED),
        (allow("*.example.com"), "evilexample.com", 443, Reason.HOST_NOT_ALLOWED),
        (allow("*.example.com"), "example.com.evil.example", 443, Reason.HOST_NOT_ALLOWED),
        (allow("*.example.com"), "a" * 41 + ".example.com", 443, Reason.HOST_NOT_ALLOWED),
        (allow("example.com", ports=(8443,)), "example.com", 8443, None),
        (allow("example.com", ports=(8443,)), "example.com", 443, Reason.PORT_NOT_ALLOWED),
        (allow("example.com", ports=()), "example.com", 22, None),
        (allow("example.com", ports=()), "example.com", 25, Reason.PORT_NOT_ALLOWED),
        (allow("example.com", ports=()), "example.com", 465, Reason.PORT_NOT_ALLOWED),
        (allow("example.com", ports=()), "example.com", 587, Reason.PORT_NOT_ALLOWED),
        (allow("example.com", ports=(25,)), "example.com", 25, None),
        (allow("203.0.113.7"), ip_address("203.0.113.7"), 443, None),
        (allow("203.0.113.7"), ip_address("203.0.113.8"), 443, Reason.ADDRESS_NOT_ALLOWED),
        (allow("203.0.113.0/24"), ip_address("203.0.113.8"), 443, None),
        (allow("203.0.113.0/24"), ip_address("203.0.114.8"), 443, Reason.ADDRESS_NOT_ALLOWED),
        (allow("2001:db8::/32"), ip_address("2001:db8::1"), 443, None),
        (allow("10.0.0.0/8"), ip_address("10.0.0.1"), 443, Reason.PRIVATE_ADDRESS),
        (allow("169.254.169.254"), ip_address("169.254.169.254"), 80, Reason.PRIVATE_ADDRESS),
        (allow("203.0.113.7"), ip_address("::ffff:203.0.113.7"), 443, Reason.PRIVATE_ADDRESS),
    ],
)
def test_rules(rule: AllowRule, host: Host, port: int, reason: Reason | None) -> None:
    verdict = policy(rule).decide(host, port)

    assert verdict.reason is reason
    assert verdict.allowed is (reason is None)


@pytest.mark.parametrize(
    "name", ["Example.com", "example.com.", "1.2.3.4", "a_b.example", "bücher.example", ""]
)
def test_names_that_are_not_canonical_are_denied_even_where_everything_is_allowed(name: str) -> None:
    verdict = policy(sandbox=PUBLIC).decide(name, 443)

    assert verdict.reason is Reason.BAD_HOST_NAME


def test_the_public_internet_is_spliced_and_has_nothing_private() -> None:
    asked = policy(sandbox=PUBLIC)

    verdict = asked.decide("example.com", 443)
    assert verdict.allowed
    assert verdict.mode is Mode.SPLICE
    assert verdict.tcp
    assert verdict.exact
    assert not verdict.inspect_ech
    assert verdict.rule == "sandbox.default"
    assert asked.decide("github.io", 22).allowed
    assert asked.decide("acme.github.io", 443).mode is Mode.SPLICE
    assert asked.decide(ip_address("203.0.113.1"), 8080).allowed
    assert asked.decide(ip_address("10.0.0.1"), 443).reason is Reason.PRIVATE_ADDRESS
    assert asked.decide("example.com", 25).reason is Reason.PORT_NOT_ALLOWED
    assert asked.may_dial("example.com", ip_address("10.0.0.1"), 443) is Reason.PRIVATE_ADDRESS
    assert asked.may_dial("example.com", ip_address("::1"), 443) is Reason.PRIVATE_ADDRESS
    assert asked.may_dial("example.com", ip_address("203.0.113.1"), 443) is None
    assert not asked.needs_inspection()
    assert asked.inspectable_names() == []


def test_everything_that_some_layer_does_not_allow_is_denied() -> None:
    asked = policy(
        allow("a.example"), allow("b.example"), named=document(allow("a.example", ports=(443, 80)))
    )

    assert asked.decide("a.example", 443).allowed
    outer = asked.decide("b.example", 443)
    assert outer.rule == "policy:team.default"
    assert '"team"' in outer.owner_action
    assert asked.decide("a.example", 80).rule == "sandbox.default"
    assert asked.name_allowed("a.example")
    assert not asked.name_allowed("b.example")


def test_layers_without_a_common_port_do_not_even_resolve() -> None:
    asked = policy(allow("a.example", ports=(8443,)), named=document(allow("a.example")))

    assert not asked.name_allowed("a.example")
    assert policy(
        allow("a.example", ports=(8443,)), named=document(allow("a.example", ports=()))
    ).name_allowed("a.example")


@pytest.mark.parametrize(
    ("host", "ports", "asked", "port", "denied"),
    [
        ("bad.example", None, "bad.example", 443, True),
        ("bad.example", None, "www.bad.example", 443, False),
        ("*.bad.example", None, "www.bad.example", 443, True),
        ("*.bad.example", None, "bad.example", 443, True),
        ("*.bad.example", None, "a" * 60 + ".bad.example", 443, True),
        ("bad.example", (80,), "bad.example", 443, False),
        ("bad.example", (80,), "bad.example", 80, True),
        ("203.0.113.0/24", None, ip_address("203.0.113.9"), 443, True),
        ("*.com", None, "example.com", 443, True),
    ],
)
@pytest.mark.parametrize("where", ["operator", "sandbox"])
def test_denials_beat_everything(
    host: str, ports: tuple[int, ...] | None, asked: Host, port: int, denied: bool, where: str
) -> None:
    rule = deny(host, ports=ports)
    rules = (allow("bad.example", ports=()), allow("*.bad.example", ports=()), allow("203.0.113.0/24"))
    both = {
        "operator": document(default="public", deny=(rule,) if where == "operator" else ()),
        "sandbox": document(*rules, default="public", deny=(rule,) if where == "sandbox" else ()),
    }

    verdict = policy(operator=both["operator"], sandbox=both["sandbox"]).decide(asked, port)

    assert (verdict.reason is Reason.HOST_DENIED) is denied
    if denied:
        assert verdict.rule == f"{where}.deny[0]"


def test_a_denied_name_does_not_resolve_unless_a_port_is_left() -> None:
    whole = policy(sandbox=document(default="public", deny=(deny("bad.example"),)))
    part = policy(sandbox=document(default="public", deny=(deny("bad.example", ports=(443, 444)),)))

    assert not whole.name_allowed("bad.example")
    assert part.name_allowed("bad.example")


def test_a_denied_prefix_is_not_dialled_for_any_name() -> None:
    asked = policy(sandbox=document(default="public", deny=(deny("203.0.113.0/24", ports=(443,)),)))

    assert asked.may_dial("example.com", ip_address("203.0.113.1"), 443) is Reason.HOST_DENIED
    assert asked.may_dial("example.com", ip_address("203.0.113.1"), 80) is None
    assert asked.may_dial("example.com", ip_address("203.0.113.1")) is Reason.HOST_DENIED


INTERNAL = (InternalNetwork(names=("db.corp", "*.svc.corp"), cidr=("10.1.0.0/16", "fd00:1::/64")),)


def test_internal_networks_need_the_name_the_address_and_a_rule() -> None:
    asked = policy(
        allow("db.corp", ports=(5432,), tcp=True),
        allow("a.svc.corp"),
        allow("other.example"),
        allow("10.1.0.0/24"),
        internal=INTERNAL,
    )

    assert asked.decide("db.corp", 5432).allowed
    assert asked.may_dial("db.corp", ip_address("10.1.2.3"), 5432) is None
    assert asked.may_dial("db.corp", ip_address("fd00:1::5"), 5432) is None
    assert asked.may_dial("db.corp", ip_address("203.0.113.1"), 5432) is None
    assert asked.may_dial("db.corp", ip_address("10.2.0.1"), 5432) is Reason.PRIVATE_ADDRESS
    assert asked.may_dial("db.corp", ip_address("169.254.169.254"), 5432) is Reason.PRIVATE_ADDRESS
    assert asked.may_dial("a.svc.corp", ip_address("10.1.2.3"), 443) is None
    assert asked.may_dial("other.example", ip_address("10.1.2.3"), 443) is Reason.PRIVATE_ADDRESS
    assert asked.decide(ip_address("10.1.0.7"), 443).allowed
    assert asked.may_dial(ip_address("10.1.0.7"), ip_address("10.1.0.7"), 443) is None
    assert asked.decide(ip_address("10.1.1.7"), 443).reason is Reason.ADDRESS_NOT_ALLOWED
    assert asked.decide(ip_address("10.2.0.7"), 443).reason is Reason.PRIVATE_ADDRESS


def test_public_does_not_have_the_operators_networks() -> None:
    public = policy(sandbox=PUBLIC, internal=INTERNAL)
    named = policy(allow("db.corp"), named=PUBLIC, internal=INTERNAL)

    assert public.decide("db.corp", 443).allowed  # it may have a public address, too
    assert public.may_dial("db.corp", ip_address("10.1.2.3"), 443) is Reason.PRIVATE_ADDRESS
    assert public.decide(ip_address("10.1.0.7"), 443).reason is Reason.ADDRESS_NOT_ALLOWED
    assert named.may_dial("db.corp", ip_address("10.1.2.3"), 443) is Reason.PRIVATE_ADDRESS


def test_skerry_and_the_host_are_unreachable() -> None:
    api = ip_address("203.0.113.5")
    own = Own(
        names=("skerry.example", "*.preview.example", "203.0.113.6"),
        addresses=frozenset((api, ip_address("10.1.0.1"))),
        listeners=frozenset(((ip_address("10.1.0.1"), 8787), (api, 8787))),
    )
    asked = policy(
        allow("skerry.example"),
        allow("*.preview.example"),
        allow("db.corp", ports=()),
        allow("203.0.113.0/24", ports=()),
        allow("10.1.0.0/16", ports=()),
        internal=INTERNAL,
        own=own,
    )

    assert asked.decide("skerry.example", 443).reason is Reason.SELF
    assert asked.decide("a.preview.example", 443).reason is Reason.SELF
    assert asked.decide("preview.example", 443).reason is Reason.SELF
    assert asked.decide(api, 443).reason is Reason.SELF
    assert asked.decide(ip_address("203.0.113.6"), 443).reason is Reason.SELF
    assert asked.may_dial("example.com", api, 443) is Reason.SELF
    # The operator opened this address, but never our own listener there.
    assert asked.decide(ip_address("10.1.0.1"), 80).allowed
    assert asked.may_dial("db.corp", ip_address("10.1.0.1"), 5432) is None
    assert asked.decide(ip_address("10.1.0.1"), 8787).reason is Reason.SELF
    assert asked.may_dial("db.corp", ip_address("10.1.0.1"), 8787) is Reason.SELF


@pytest.mark.parametrize(
    ("rules", "host", "mode", "why"),
    [
        ([allow("example.com")], "example.com", Mode.SPLICE, "nothing"),
        ([allow("*.example.com")], "a.example.com", Mode.INSPECT, "wildcard"),
        ([allow("*.example.com", tls=TlsChoice.SPLICE)], "a.example.com", Mode.SPLICE, "nothing"),
        ([allow("acme.github.io")], "acme.github.io", Mode.INSPECT, "several customers"),
        ([allow("acme.github.io", tls=TlsChoice.SPLICE)], "acme.github.io", Mode.SPLICE, "nothing"),
        ([allow("example.com", tls=TlsChoice.INSPECT)], "example.com", Mode.INSPECT, "says so"),
        ([allow("example.com", methods=("GET",))], "example.com", Mode.INSPECT, "looks at"),
        ([allow("example.com", paths=("/**",))], "example.com", Mode.INSPECT, "looks at"),
        ([allow("example.com", credentials="none")], "example.com", Mode.INSPECT, "looks at"),
        ([allow("example.com", max_request_bytes=1)], "example.com", Mode.INSPECT, "looks at"),
        ([allow("example.com", max_response_bytes=1)], "example.com", Mode.INSPECT, "looks at"),
        ([allow("example.com", requests_per_min=1)], "example.com", Mode.INSPECT, "looks at"),
        # A name of its own beside a wildcard; an open rule beside a limited one.
        ([allow("a.example.com"), allow("*.example.com")], "a.example.com", Mode.SPLICE, "nothing"),
        (
            [allow("example.com"), allow("example.com", methods=("GET",))],
            "example.com",
            Mode.SPLICE,
            "nothing",
        ),
        (
            [allow("a.example.com", tls=TlsChoice.SPLICE), allow("*.example.com", tls=TlsChoice.INSPECT)],
            "a.example.com",
            Mode.INSPECT,
            "says so",
        ),
        (
            [allow("acme.github.io"), allow("acme.github.io", tls=TlsChoice.SPLICE)],
            "acme.github.io",
            Mode.INSPECT,
            "several customers",
        ),
    ],
)
def test_modes(rules: list[AllowRule], host: str, mode: Mode, why: str) -> None:
    for ordered in (rules, rules[::-1]):
        verdict = policy(*ordered).decide(host, 443)

        assert verdict.mode is mode
        assert why in verdict.why_mode
        assert verdict.inspect_ech is (mode is Mode.SPLICE)


def test_an_address_is_spliced() -> None:
    verdict = policy(allow("203.0.113.0/24")).decide(ip_address("203.0.113.1"), 443)

    assert verdict.mode is Mode.SPLICE
    assert verdict.exact


def test_the_strictest_layer_decides_about_tls() -> None:
    lax, strict = allow("example.com"), allow("example.com", tls=TlsChoice.INSPECT)

    assert policy(lax, named=document(strict)).decide("example.com", 443).mode is Mode.INSPECT
    assert policy(strict, named=document(lax)).decide("example.com", 443).mode is Mode.INSPECT
    assert policy(lax, named=document(lax)).decide("example.com", 443).mode is Mode.SPLICE


def test_raw_bytes_need_every_layer_and_an_open_rule() -> None:
    tcp = allow("git.example", ports=(), tcp=True)

    assert policy(tcp).decide("git.example", 22).tcp
    assert not policy(tcp, named=document(allow("git.example", ports=()))).decide("git.example", 22).tcp
    assert policy(tcp, named=PUBLIC).decide("git.example", 22).tcp
    wildcard = policy(allow("*.example", ports=(), tcp=True)).decide("git.example", 22)
    assert wildcard.tcp
    assert not wildcard.exact
    limited = policy(allow("git.example", methods=("GET",), tcp=True)).decide("git.example", 443)
    assert not limited.tcp


def test_a_bound_host_is_inspected_and_never_raw() -> None:
    asked = policy(
        allow("api.example", ports=(), tcp=True, tls=TlsChoice.SPLICE),
        allow("*.wild.example", ports=(), tcp=True),
        secrets=(secret("api.example", "*.wild.example"), secret("api.example:8443", name="OTHER")),
    )

    verdict = asked.decide("api.example", 443)
    assert verdict.mode is Mode.INSPECT
    assert verdict.bound
    assert not verdict.tcp
    assert "KEY" in verdict.why_mode
    assert [one.name for one in asked.bound("api.example", 443)] == ["KEY"]
    assert [one.name for one in asked.bound("api.example", 8443)] == ["KEY", "OTHER"]
    assert [one.name for one in asked.bound("a.wild.example", 80)] == ["KEY"]
    assert asked.bound("wild.example", 443) == ()
    assert asked.bound("other.example", 443) == ()


def test_a_secret_allows_nothing_by_itself() -> None:
    asked = policy(secrets=(secret("api.example"),))

    assert not asked.decide("api.example", 443).allowed
    assert asked.bound("api.example", 443) == ()


def test_hosts_of_a_named_policys_secrets_are_allowed_by_it() -> None:
    named = document(secrets=(SecretBinding(name="KEY", hosts=("api.example", "b.example:8443")),))
    asked = policy(allow("api.example"), allow("b.example", ports=()), named=named)

    assert asked.decide("api.example", 443).allowed
    assert asked.decide("b.example", 8443).allowed
    assert asked.decide("b.example", 443).reason is Reason.PORT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("asked", "needs", "names"),
    [
        (policy(), False, []),
        (policy(allow("203.0.113.1")), False, []),
        (policy(allow("b.example"), allow("a.example")), True, ["a.example", "b.example"]),
        (policy(allow("*.example")), True, None),
        (policy(allow("*.example"), named=document(allow("a.example"))), True, ["a.example"]),
        (policy(sandbox=PUBLIC, secrets=(secret("a.example"),)), True, ["a.example"]),
        (policy(sandbox=PUBLIC, secrets=(secret("*.example"),)), True, None),
        (
            policy(sandbox=document(allow("b.example"), default="public"), secrets=(secret("a.example"),)),
            True,
            ["a.example", "b.example"],
        ),
        (policy(operator=document(allow("*.example"), default="public"), sandbox=PUBLIC), True, None),
    ],
)
def test_what_a_certificate_authority_is_needed_for(
    asked: Policy, needs: bool, names: list[str] | None
) -> None:
    assert asked.needs_inspection() is needs
    assert asked.inspectable_names() == names


def test_what_was_not_brought_to_the_stored_form_is_refused() -> None:
    with pytest.raises(BadPattern):
        policy(allow("Example.com"))
    with pytest.raises(BadPattern):
        policy(secrets=(secret("bücher.example"),))
    with pytest.raises(BadPattern):
        policy(internal=(InternalNetwork(names=("a.corp",), cidr=("10.0.0.1/8",)),))


def test_the_table_of_answers_is_bounded() -> None:
    asked = policy(sandbox=PUBLIC)

    for number in range(10_000):
        assert asked.decide(f"a{number}.example", 443).allowed
    assert len(asked._seen) <= 4096
    asked._seen.clear()
    assert asked.decide("a" * 100_000, 443).reason is Reason.BAD_HOST_NAME
    assert not asked._seen


_NAMES = ["a.example", "b.example", "x.a.example", "y.x.a.example", "api.example", "acme.github.io"]
_HOSTS = [*_NAMES, "*.example", "*.a.example", "203.0.113.0/24", "203.0.113.7"]
_RULES = st.builds(
    AllowRule,
    host=st.sampled_from(_HOSTS),
    ports=st.sampled_from([None, (), (443,), (80, 443), (8443,)]),
    methods=st.sampled_from([None, ("GET",), ("GET", "POST")]),
    paths=st.sampled_from([None, ("/v1/**",), ("/a",)]),
    tls=st.sampled_from(TlsChoice),
    websocket=st.booleans(),
    credentials=st.sampled_from(["any", "none"]),
    tcp=st.booleans(),
    max_request_bytes=st.sampled_from([None, 10, 1000]),
    requests_per_min=st.sampled_from([None, 5]),
)
_DENIALS = st.builds(deny, host=st.sampled_from(_HOSTS), ports=st.sampled_from([None, (80,), (443,)]))
_DOCUMENTS = st.builds(
    PolicyDocument,
    default=st.sampled_from(["deny", "public"]),
    allow=st.lists(_RULES, max_size=5).map(tuple),
    deny=st.lists(_DENIALS, max_size=2).map(tuple),
)
_DESTINATIONS = st.tuples(
    st.sampled_from([*_NAMES, ip_address("203.0.113.7"), ip_address("203.0.113.8"), ip_address("10.0.0.1")]),
    st.sampled_from([443, 80, 8443, 25]),
)
_REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.sampled_from([b"/v1/x", b"/a", b"/a/../v1/x", b"//a", b"/a?_method=PUT"]),
    st.sampled_from([(), ((b"Authorization", b"x"),), ((b"X-HTTP-Method-Override", b"PUT"),)]),
    st.booleans(),
)


Asked = tuple[str, bytes, tuple[Field, ...], bool]


def requested(asked: Policy, where: tuple[Host, int], request: Asked) -> RequestVerdict:
    method, target, fields, websocket = request
    return asked.decide_request(*where, method, target, fields, websocket)


def _answers(verdict: object) -> tuple[object, ...]:
    """Of a verdict, what does not name rules by their number."""
    return tuple(
        getattr(verdict, key) for key in ("allowed", "reason", "mode", "bound", "tcp", "exact", "inspect_ech")
    )


@given(_DOCUMENTS, st.randoms(use_true_random=False), _DESTINATIONS, _REQUESTS)
def test_the_order_of_rules_never_counts(
    one: PolicyDocument, dice: random.Random, where: tuple[Host, int], request: Asked
) -> None:
    rules, denials = list(one.allow), list(one.deny)
    dice.shuffle(rules)
    dice.shuffle(denials)
    other = PolicyDocument(default=one.default, allow=tuple(rules), deny=tuple(denials))
    first, second = policy(sandbox=one), policy(sandbox=other)

    assert _answers(first.decide(*where)) == _answers(second.decide(*where))
    mine, theirs = requested(first, where, request), requested(second, where, request)
    assert (mine.allowed, mine.reason, mine.target) == (theirs.allowed, theirs.reason, theirs.target)
    assert mine.limits.max_request_bytes == theirs.limits.max_request_bytes


@given(_DOCUMENTS, _DOCUMENTS, _DESTINATIONS, _REQUESTS)
def test_a_layer_more_never_allows_more(
    one: PolicyDocument,
    other: PolicyDocument,
    where: tuple[Host, int],
    request: Asked,
) -> None:
    both, alone = policy(sandbox=one, named=other), policy(sandbox=one)

    if both.decide(*where).allowed:
        assert alone.decide(*where).allowed
        if alone.decide(*where).mode is Mode.INSPECT:
            assert both.decide(*where).mode is Mode.INSPECT
        if both.decide(*where).tcp:
            assert alone.decide(*where).tcp
    if requested(both, where, request).allowed:
        assert requested(alone, where, request).allowed


@given(_DOCUMENTS, _RULES, _DESTINATIONS, _REQUESTS)
def test_a_rule_more_never_takes_away_what_a_rule_gave(
    one: PolicyDocument,
    rule: AllowRule,
    where: tuple[Host, int],
    request: Asked,
) -> None:
    closed = PolicyDocument(allow=one.allow, deny=one.deny)
    wider = PolicyDocument(allow=(*one.allow, rule), deny=one.deny)

    if policy(sandbox=closed).decide(*where).allowed:
        assert policy(sandbox=wider).decide(*where).allowed
    if requested(policy(sandbox=closed), where, request).allowed:
        found = requested(policy(sandbox=wider), where, request)
        # A rule that limits methods or paths may be what lets a request through, and it refuses overrides.
        assert found.allowed or found.reason is Reason.OVERRIDE_HEADER


@given(
    _DOCUMENTS, _DESTINATIONS, st.sampled_from(["GET", "POST"]), st.sampled_from(["/v1/x", "/a", "/a/./b"])
)
def test_every_door_gets_the_same_answer(
    one: PolicyDocument, where: tuple[Host, int], method: str, path: str
) -> None:
    """Transparent connections, CONNECT, the absolute form, DNS and explain (G8)."""
    asked = policy(sandbox=one, secrets=(secret("api.example"),))
    name, port = where
    verdict = asked.decide(name, port)

    for authority in (str(name), str(name).upper()):
        assert asked.decide(host_of(authority), port) == verdict
    explained = explain(asked, f"{name}:{port}")
    assert (explained.allowed, explained.reason, explained.rule) == (
        verdict.allowed,
        verdict.reason,
        verdict.rule,
    )
    assert explained.mode is (verdict.mode if verdict.allowed else None)
    if isinstance(name, str) and verdict.allowed:
        assert asked.name_allowed(name)
    by_request = explain(asked, f"https://{name}:{port}{path}", method)
    if verdict.allowed and verdict.mode is Mode.SPLICE:
        assert by_request.allowed
    else:
        found = asked.decide_request(name, port, method, path.encode(), ())
        assert (by_request.allowed, by_request.reason) == (found.allowed, found.reason)


@given(_DOCUMENTS, _DESTINATIONS)
def test_a_name_resolves_when_one_of_its_ports_is_open(one: PolicyDocument, where: tuple[Host, int]) -> None:
    asked = policy(sandbox=one)
    host, port = where

    if isinstance(host, str) and asked.decide(host, port).allowed:
        assert asked.name_allowed(host)


@given(_DOCUMENTS, _DESTINATIONS)
def test_names_that_are_inspected_are_listed(one: PolicyDocument, where: tuple[Host, int]) -> None:
    asked = policy(sandbox=one, secrets=(secret("api.example"),))
    verdict = asked.decide(*where)
    names = asked.inspectable_names()

    if (
        verdict.allowed
        and isinstance(where[0], str)
        and (verdict.mode is Mode.INSPECT or verdict.inspect_ech)
    ):
        assert asked.needs_inspection()
        assert names is None or where[0] in names
