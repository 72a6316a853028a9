"""`allow_net` and `secrets` as the SDKs send them, and what more a secret may say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.compiled import Policy
from skerry.policy.deno_fields import (
    MAX_SECRETS,
    SandboxFields,
    SecretExtras,
    allow_rule,
    problem_of_pattern,
    sandbox_layer,
)
from skerry.policy.document import AllowRule, Budget, PolicyDocument, TlsChoice
from skerry.policy.names import BadPattern
from skerry.policy.verdict import Mode, Reason
from skerry.protocol.egress_verbs import NamedLayer

NOW_MS = 1_800_000_000_000
VALUE = "sk-0123456789abcdefghij"


def fields(allow_net: list[str] | None = None, /, **secrets: Any) -> SandboxFields:
    return sandbox_layer(allow_net, secrets or None, now_ms=NOW_MS)


def one(**rest: Any) -> SandboxFields:
    return fields(KEY={"hosts": ["api.example"], "value": VALUE, **rest})


def compiled(found: SandboxFields) -> Policy:
    assert found.problems == ()
    return Policy(
        [
            NamedLayer(name="operator", document=PolicyDocument(default="public")),
            NamedLayer(name="sandbox", document=found.layer),
        ],
        found.secrets,
    )


def test_nothing_said_is_the_public_internet() -> None:
    assert fields().layer == PolicyDocument(default="public")


def test_an_empty_list_is_nothing() -> None:
    assert fields([]).layer == PolicyDocument(default="deny")
    assert fields([]).problems == ()


def test_an_empty_list_with_secrets_is_a_mistake() -> None:
    found = fields([], KEY={"hosts": ["api.example"], "value": VALUE})

    assert len(found.problems) == 1
    assert found.problems[0].startswith("allow_net: [] allows no connection")


def test_entries_of_a_list() -> None:
    found = fields(["Example.com", "*.example.org:8443", "203.0.113.7:22", "[2001:db8::1]"])

    rest: dict[str, Any] = {"websocket": True, "tcp": True}
    assert found.layer.default == "deny"
    assert found.layer.allow == (
        AllowRule(host="example.com", ports=(), **rest),
        AllowRule(host="*.example.org", ports=(8443,), **rest),
        AllowRule(host="203.0.113.7", ports=(22,), **rest),
        AllowRule(host="2001:db8::1", ports=(), **rest),
    )
    asked = compiled(found)
    assert asked.decide("example.com", 22).tcp
    assert asked.decide("example.com", 25).reason is Reason.PORT_NOT_ALLOWED
    assert asked.decide("example.com", 443).mode is Mode.SPLICE
    assert asked.decide("a.example.org", 8443).mode is Mode.INSPECT
    assert asked.decide("other.example", 443).reason is Reason.HOST_NOT_ALLOWED


def test_a_port_of_mail_is_open_when_it_is_named() -> None:
    assert compiled(fields(["mail.example:587"])).decide("mail.example", 587).allowed


def test_hosts_of_secrets_are_allowed_implicitly_and_only_with_tls() -> None:
    found = fields(["other.example"], KEY={"hosts": ["api.example", "b.example:8443"], "value": VALUE})

    asked = compiled(found)
    for host, port in (("api.example", 443), ("api.example", 9443), ("b.example", 8443)):
        verdict = asked.decide(host, port)
        assert verdict.allowed
        assert verdict.bound
        assert verdict.mode is Mode.INSPECT
        assert not verdict.tcp
    assert asked.decide("b.example", 443).reason is Reason.PORT_NOT_ALLOWED


def test_on_the_public_internet_a_secrets_host_keeps_its_other_ports() -> None:
    asked = compiled(fields(KEY={"hosts": ["*.api.example:8443", "c.example"], "value": VALUE}))

    assert asked.decide("x.api.example", 8443).mode is Mode.INSPECT
    other = asked.decide("x.api.example", 443)
    assert other.allowed
    assert not other.bound
    assert other.mode is Mode.SPLICE
    assert asked.decide("c.example", 443).mode is Mode.INSPECT
    assert asked.decide("d.example", 443).mode is Mode.SPLICE
    assert asked.inspectable_names() is None


def test_a_secret_with_everything() -> None:
    found = one(
        hosts=["API.example", "*.api.example:8443"],
        slots=["header:X-Token", "basic:password"],
        methods=["get", "POST", "head"],
        paths=["/v1/**"],
        scrub="always",
        on_stray="block",
        foreign_credentials="strip",
        expires="30m",
        budget={"requests_per_min": 5, "burst": 2, "requests": 100, "concurrent": 1},
        placeholder_prefix="sk-proj-",
        allow_short=True,
        value="12345678",
    )

    assert found.problems == ()
    (rule,) = found.secrets
    assert rule.hosts == ("api.example", "*.api.example:8443")
    assert rule.slots == ("header:x-token", "basic:password")
    assert rule.methods == ("GET", "POST", "HEAD")
    assert rule.paths == ("/v1/**",)
    assert rule.expires_at_ms == NOW_MS + 1_800_000
    assert rule.budget == Budget(requests_per_min=5, burst=2, requests=100, concurrent=1)
    assert (rule.scrub, rule.on_stray, rule.foreign_credentials) == ("always", "block", "strip")
    assert rule.placeholder_prefix == "sk-proj-"
    assert found.values == {"KEY": b"12345678"}


@pytest.mark.parametrize(
    ("expires", "at_ms"),
    [
        (None, None),
        (60, NOW_MS + 60_000),
        ("90s", NOW_MS + 90_000),
        ("2h", NOW_MS + 7_200_000),
        ("7d", NOW_MS + 604_800_000),
        ("2027-01-15T08:30:00Z", 1_800_001_800_000),
        ("2027-01-15T10:30:00+02:00", 1_800_001_800_000),
    ],
)
def test_when_a_secret_expires(expires: object, at_ms: int | None) -> None:
    found = one(expires=expires)

    assert found.problems == ()
    assert found.secrets[0].expires_at_ms == at_ms


@pytest.mark.parametrize(
    ("expires", "word"),
    [
        ("", "write seconds"),
        ("soon", "write seconds"),
        ("5w", "write seconds"),
        ("-5m", "write seconds"),
        ("2027-01-15T08:30:00", "write seconds"),
        (0, "in the past"),
        (-1, "in the past"),
        ("0s", "in the past"),
        ("2020-01-01T00:00:00Z", "in the past"),
        (1_800_000_000_000, "ten years"),
        ("99999d", "ten years"),
        (1.5, "expected"),
        (True, "expected"),
    ],
)
def test_bad_expiries(expires: object, word: str) -> None:
    found = one(expires=expires)

    assert len(found.problems) == 1
    assert found.problems[0].startswith("secrets.KEY.expires: ")
    assert word in found.problems[0]


@pytest.mark.parametrize(
    ("slots", "stored", "problem"),
    [
        (None, ("header:authorization=Bearer {}",), None),
        (["header:x-api-key"], ("header:x-api-key",), None),
        (["header:authorization={}"], ("header:authorization={}",), None),
        (["query:key"], ("query:key",), None),
        (["header:authorization"], None, "what stands before"),
        (["basic:user", "basic:password"], None, "once"),
        (["header:authorization=Bearer {}", "basic:password"], None, "once"),
    ],
)
def test_secrets_that_are_put_into_requests(
    slots: list[str] | None, stored: tuple[str, ...] | None, problem: str | None
) -> None:
    found = one(mode="set", **({} if slots is None else {"slots": slots}))

    if problem is None:
        assert found.problems == ()
        assert found.secrets[0].slots == stored
    else:
        assert problem in found.problems[0]


def test_two_secrets_are_not_put_into_one_place() -> None:
    both = {"hosts": ["api.example"], "value": VALUE, "mode": "set"}

    assert "put there" in fields(A=both, B=both).problems[0]
    assert fields(A=both, B={**both, "hosts": ["b.example"]}).problems == ()
    assert fields(A=both, B={**both, "slots": ["header:x-key"]}).problems == ()


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        (["a.example"], ["a.example"], True),
        (["a.example"], ["b.example", "a.example:8443"], True),
        (["a.example:443"], ["a.example:443"], True),
        (["a.example:443"], ["a.example:8443"], False),
        (["*.b.example"], ["a.b.example"], True),
        (["a.c.b.example"], ["*.b.example"], True),
        (["*.b.example"], ["*.c.b.example"], True),
        (["*.b.example:443"], ["a.b.example:8443"], False),
        (["*.b.example"], ["b.example"], False),
        (["a.example"], ["aa.example"], False),
    ],
)
def test_hosts_on_which_secrets_would_meet(first: list[str], second: list[str], meet: bool) -> None:
    rest = {"value": VALUE, "mode": "set"}
    problems = fields(A={"hosts": first, **rest}, B={"hosts": second, **rest}).problems

    assert len(problems) == meet
    assert all("put there" in text for text in problems)


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        ("header:x-key", "header:X-Key", True),
        ("header:x-key", "header:x_key", True),
        ("header:x-key", "query:x-key", False),
        ("header:authorization=Bearer {}", "header:authorization=token {}", True),
        ("header:authorization=Bearer {}", "basic:password", True),
        ("basic:user", "basic:user", True),
        ("basic:user", "basic:password", False),
        ("query:api_key", "query:Api-Key", True),
        ("query:a", "query:b", False),
        ("path:/bot{}/**", "path:/bot{}/**", True),
        ("path:/bot{}/**", "path:/hook/{}", False),
    ],
)
def test_slots_in_which_secrets_would_meet(first: str, second: str, meet: bool) -> None:
    both = {"hosts": ["api.example"], "value": VALUE, "mode": "set"}

    assert len(fields(A={**both, "slots": [first]}, B={**both, "slots": [second]}).problems) == meet
    swapped = {**both, "mode": "swap"}
    assert fields(A={**swapped, "slots": [first]}, B={**both, "slots": [second]}).problems == ()


def test_a_set_secret_that_no_request_may_be_for_is_no_mistake() -> None:
    found = one(mode="set", methods=["PURGE"], paths=["/nowhere"])

    assert found.problems == ()
    # A policy that does not allow such requests is an outer layer; the create is not refused for it.
    asked = Policy(
        [
            NamedLayer(
                name="policy:team",
                document=PolicyDocument(allow=(AllowRule(host="api.example", methods=("GET",)),)),
            ),
            NamedLayer(name="sandbox", document=found.layer),
        ],
        found.secrets,
    )
    assert asked.decide_request("api.example", 443, "GET", b"/", ()).usable == ()


@pytest.mark.parametrize(
    ("secret", "where", "word"),
    [
        ("x", "secrets.KEY", "table"),
        ({}, "secrets.KEY.hosts", "missing"),
        ({"hosts": ["a.example"]}, "secrets.KEY.value", "missing"),
        ({"hosts": [], "value": VALUE}, "secrets.KEY.hosts", "at least one"),
        ({"hosts": "a.example", "value": VALUE}, "secrets.KEY.hosts", "expected array"),
        ({"hosts": ["203.0.113.1"], "value": VALUE}, "secrets.KEY.hosts", "names"),
        ({"hosts": ["*.com"], "value": VALUE}, "secrets.KEY.hosts", "anybody"),
        ({"hosts": ["a.example:80"], "value": VALUE}, "secrets.KEY.hosts", "TLS"),
        ({"hosts": ["https://a.example"], "value": VALUE}, "secrets.KEY.hosts", "scheme"),
        ({"hosts": ["a.example"], "value": 5}, "secrets.KEY.value", "expected text"),
        ({"hosts": ["a.example"], "value": None}, "secrets.KEY.value", "expected text"),
        ({"hosts": ["a.example"], "value": VALUE, "slot": []}, "secrets.KEY.slot", "mean slots"),
        ({"hosts": ["a.example"], "value": VALUE, "slots": ["x"]}, "secrets.KEY.slots", "a slot is"),
        ({"hosts": ["a.example"], "value": VALUE, "slots": "x"}, "secrets.KEY.slots", "expected array"),
        ({"hosts": ["a.example"], "value": VALUE, "methods": []}, "secrets.KEY.methods", "leave it out"),
        ({"hosts": ["a.example"], "value": VALUE, "methods": ["TRACE"]}, "secrets.KEY.methods", "never"),
        ({"hosts": ["a.example"], "value": VALUE, "methods": ["a b"]}, "secrets.KEY.methods", "method"),
        ({"hosts": ["a.example"], "value": VALUE, "paths": ["v1"]}, "secrets.KEY.paths", "slash"),
        ({"hosts": ["a.example"], "value": VALUE, "mode": "swop"}, "secrets.KEY.mode", "swop"),
        ({"hosts": ["a.example"], "value": VALUE, "scrub": "never"}, "secrets.KEY.scrub", "never"),
        ({"hosts": ["a.example"], "value": VALUE, "budget": {"burst": 0}}, "secrets.KEY.budget.burst", "to"),
        ({"hosts": ["a.example"], "value": VALUE, "budget": {"x": 1}}, "secrets.KEY.budget", "unknown field"),
        (
            {"hosts": ["a.example"], "value": VALUE, "placeholder_prefix": "a b"},
            "secrets.KEY.placeholder_prefix",
            "letters",
        ),
    ],
)
def test_bad_secrets(secret: object, where: str, word: str) -> None:
    found = fields(KEY=secret)

    assert any(text.startswith(f"{where}: ") and word in text for text in found.problems), found.problems
    assert found.secrets == ()
    assert found.values == {}


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "é", "A" * 129, "A\n"])
def test_bad_names_of_secrets(name: str) -> None:
    found = fields(**{name: {"hosts": ["a.example"], "value": VALUE}})

    assert "environment variable" in found.problems[0]
    assert "\n" not in found.problems[0]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("short", "fewer than 8"),
        ("", "fewer than 8"),
        ("12345678", "allow_short"),
        ("123456789012345", "allow_short"),
        ("0123456789abcdef\n", "line end"),
        ("0123456789abcdef\r\nX: y", "line end"),
        ("01234567\x0089abcdef", "control"),
        ("0123456789abcdef\x7f", "control"),
        ("0123456789\tabcdef", "control"),
        (" 0123456789abcdef", "space"),
        ("0123456789abcdef ", "space"),
        ("x" * 16_385, "more than 16384"),
        ("0123456789abcde\ud800", "Unicode"),
    ],
)
def test_values_that_cannot_be_sent_are_refused_without_being_repeated(value: str, word: str) -> None:
    found = one(value=value)

    assert len(found.problems) == 1
    assert found.problems[0].startswith("secrets.KEY.value: ")
    assert word in found.problems[0]
    assert not value or value not in found.problems[0]
    assert found.values == {}


@pytest.mark.parametrize(
    "value", ["0123456789abcdef", "x" * 16_384, "pässwörd-0123456789", "a b c d e f g h i"]
)
def test_values_are_sent_as_utf_8(value: str) -> None:
    assert one(value=value).values == {"KEY": value.encode()}


def test_all_problems_are_found_at_once() -> None:
    found = fields(
        ["*", "http://x", "good.example"],
        A={"hosts": ["*.com", "1.2.3.4"], "value": "x", "what": 1, "mode": "x"},
        B=7,
    )

    starts = [text.split(":", 1)[0] for text in found.problems]
    assert starts == [
        "allow_net",
        "allow_net",
        "secrets.A.what",
        "secrets.A.mode",
        "secrets.A.value",
        "secrets.A.hosts",
        "secrets.A.hosts",
        "secrets.B",
    ]


def test_too_many_entries_are_not_looked_at() -> None:
    assert "at most 256" in fields(["*"] * 257).problems[0]
    assert "at most 64" in fields(**{f"A{number}": 1 for number in range(MAX_SECRETS + 1)}).problems[0]


def test_a_value_is_never_in_a_text() -> None:
    found = one(value=VALUE)

    assert VALUE not in repr(found)
    assert VALUE not in str(found.secrets)
    assert VALUE not in repr(found.layer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from([*SecretExtras.__struct_fields__, "x"])


@given(st.dictionaries(st.text(max_size=8), st.dictionaries(_KEYS, _JSON, max_size=6) | _JSON, max_size=3))
def test_whatever_json_comes_it_is_answered_with_problems(secrets: dict[str, Any]) -> None:
    found = sandbox_layer(None, secrets, now_ms=NOW_MS)

    assert len(found.secrets) == len(found.values)
    assert found.problems or len(found.secrets) == len(secrets)
    for text in found.problems:
        assert text.isprintable()


def test_entries_by_themselves() -> None:
    assert problem_of_pattern("example.com:443") is None
    assert "wildcard" in (problem_of_pattern("a.*.b") or "")
    assert allow_rule("*.example.com") == AllowRule(host="*.example.com", ports=(), websocket=True, tcp=True)
    assert allow_rule("example.com").tls is TlsChoice.AUTO
    with pytest.raises(BadPattern):
        allow_rule("*.com")


def test_names_that_look_like_others_come_with_a_warning() -> None:
    found = fields(["xn--pypal-4ve.example"])

    assert found.problems == ()
    assert "xn--pypal-4ve" in found.warnings[0]
