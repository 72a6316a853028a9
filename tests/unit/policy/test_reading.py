"""Policy documents: all problems at once, in plain words; one stored form; the published schema."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.document import AllowRule, DenyRule, PolicyDocument, SecretBinding, TlsChoice
from skerry.policy.reading import BadDocument, check_document, read_document, schema
from skerry.policy.schema_page import page

HERE = Path(__file__).resolve().parents[3]

TOML = b"""
version = 1
default = "deny"

[[allow]]
host = "B\xc3\xbccher.example"
ports = [443, 80, 443]
methods = ["get", "HEAD"]
paths = ["/v1/**", "/v1/**"]
credentials = "none"
max_request_bytes = 65536

[[allow]]
host = "*.example.com"
tls = "splice"
ports = []

[[deny]]
host = "*.com"

[[secrets]]
name = "KEY"
hosts = ["API.example", "*.api.example:8443"]
slots = ["header:X-Api-Key"]
methods = ["post"]
"""

STORED = PolicyDocument(
    default="deny",
    allow=(
        AllowRule(
            host="xn--bcher-kva.example",
            ports=(80, 443),
            methods=("GET", "HEAD"),
            paths=("/v1/**",),
            credentials="none",
            max_request_bytes=65_536,
        ),
        AllowRule(host="*.example.com", tls=TlsChoice.SPLICE, ports=()),
    ),
    deny=(DenyRule(host="*.com"),),
    secrets=(
        SecretBinding(
            name="KEY",
            hosts=("api.example", "*.api.example:8443"),
            slots=("header:x-api-key",),
            methods=("POST",),
        ),
    ),
)


def test_toml_becomes_the_stored_form() -> None:
    assert read_document(TOML, kind="toml") == STORED


def test_json_is_the_same() -> None:
    assert read_document(msgspec.json.encode(STORED), kind="json") == STORED


def test_an_empty_document_denies_everything() -> None:
    assert read_document(b"", kind="toml") == PolicyDocument()
    assert read_document(b"{}", kind="json") == PolicyDocument()


def problems(raw: Any) -> tuple[str, ...]:
    with pytest.raises(BadDocument) as caught:
        check_document(raw)
    assert caught.value.code == "INVALID_POLICY"
    return caught.value.problems


@pytest.mark.parametrize(
    ("raw", "where", "word"),
    [
        ([], "the document", "table"),
        ({"alow": []}, "alow", "mean allow"),
        ({"version": 2}, "version", "invalid"),
        ({"default": "allow"}, "default", "invalid"),
        ({"allow": {}}, "allow", "expected array"),
        ({"allow": [1]}, "allow[0]", "table"),
        ({"allow": [{}]}, "allow[0].host", "missing"),
        ({"allow": [{"host": 1}]}, "allow[0].host", "expected str"),
        ({"allow": [{"host": "*.com"}]}, "allow[0].host", "anybody"),
        ({"allow": [{"host": "10.0.0.1/8"}]}, "allow[0].host", "prefix"),
        ({"allow": [{"host": "a.example", "port": 1}]}, "allow[0].port", "mean ports"),
        ({"allow": [{"host": "a.example", "ports": [0]}]}, "allow[0].ports", "1 to 65535"),
        ({"allow": [{"host": "a.example", "ports": [True]}]}, "allow[0].ports", "expected int"),
        ({"allow": [{"host": "a.example", "methods": []}]}, "allow[0].methods", "leave it out"),
        ({"allow": [{"host": "a.example", "methods": ["CONNECT"]}]}, "allow[0].methods", "CONNECT"),
        ({"allow": [{"host": "a.example", "paths": []}]}, "allow[0].paths", "leave it out"),
        ({"allow": [{"host": "a.example", "paths": ["/a/../b"]}]}, "allow[0].paths", "canonical"),
        ({"allow": [{"host": "a.example", "requests_per_min": 0}]}, "allow[0].requests_per_min", "least"),
        ({"allow": [{"host": "a.example", "tls": "splice", "paths": ["/"]}]}, "allow[0].tls", "paths"),
        ({"allow": [{"host": "a.example", "tcp": True, "methods": ["GET"]}]}, "allow[0].tcp", "methods"),
        ({"allow": [{"host": "203.0.113.1", "methods": ["GET"]}]}, "allow[0].host", "address"),
        ({"allow": [{"host": "203.0.113.0/24", "tls": "inspect"}]}, "allow[0].host", "address"),
        ({"allow": [{"host": "2001:db8::1", "credentials": "none"}]}, "allow[0].host", "address"),
        ({"deny": [{"host": "a b"}]}, "deny[0].host", "host name"),
        ({"deny": [{"host": "a.example", "methods": []}]}, "deny[0].methods", "no such key"),
        ({"secrets": [{"name": "A", "hosts": []}]}, "secrets[0].hosts", "at least one"),
        ({"secrets": [{"name": "A-B", "hosts": ["a.example"]}]}, "secrets[0].name", "environment"),
        ({"secrets": [{"name": "A", "hosts": ["a.example"]}] * 2}, "secrets", "twice"),
        ({"allow": [{"host": "a.example"}] * 1001}, "allow", "at most 1000"),
    ],
)
def test_problems_name_the_member(raw: Any, where: str, word: str) -> None:
    found = problems(raw)

    assert any(text.startswith(f"{where}: ") and word in text for text in found), found


def test_all_problems_are_found_at_once() -> None:
    found = problems(
        {
            "version": 3,
            "x": 1,
            "allow": [{"host": "*.com", "ports": [0], "y": 2, "methods": ["a b"]}, {"tls": "no"}],
            "deny": [{"host": ""}],
            "secrets": [{"name": "1", "hosts": ["*"], "slots": ["z"]}],
        }
    )

    assert [text.split(":", 1)[0] for text in found] == [
        "version",
        "x",
        "allow[0].y",
        "allow[0].host",
        "allow[0].ports",
        "allow[0].methods",
        "allow[1].tls",
        "allow[1].host",
        "deny[0].host",
        "secrets[0].name",
        "secrets[0].hosts",
        "secrets[0].slots",
    ]


def test_the_message_lists_some_and_counts_the_rest() -> None:
    with pytest.raises(BadDocument) as caught:
        check_document({f"k{number}": 1 for number in range(30)})

    assert caught.value.message.endswith("; and 10 more problems")
    assert len(caught.value.problems) == 30


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (b"\xff", "toml", "UTF-8"),
        (b"allow = [", "toml", "not TOML"),
        (b"a = 1\na = 2", "toml", "not TOML"),
        (b"{", "json", "not JSON"),
        (b'{"allow": [], "allow": []}', "json", "twice"),
        (b'{"allow": [{"host": "a", "host": "b"}]}', "json", "twice"),
        (b'{"version": NaN}', "json", "not JSON"),
        (b"[" * 100_000, "json", "not JSON"),
        (b'{"version": ' + b"1" * 10_000 + b"}", "json", "not JSON"),
        (b" " * 262_145, "json", "at most 262144"),
    ],
)
def test_what_cannot_be_decoded(data: bytes, kind: Any, word: str) -> None:
    with pytest.raises(BadDocument) as caught:
        read_document(data, kind=kind)

    assert word in caught.value.message


_TEXT = st.text(max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_RULE = st.fixed_dictionaries(
    {"host": st.sampled_from(["a.example", "*.a.example", "1.2.3.4", "*.com", ""]) | _JSON},
    optional={
        "ports": _JSON | st.lists(st.integers(min_value=0, max_value=70_000), max_size=3),
        "methods": _JSON | st.lists(st.sampled_from(["GET", "post", " "]), max_size=2),
        "paths": _JSON | st.lists(st.sampled_from(["/", "/a/**", "x"]), max_size=2),
        "tls": st.sampled_from(["auto", "splice", "inspect", "x"]),
        "x": _JSON,
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "allow": st.lists(_RULE, max_size=3),
            "deny": st.lists(_RULE, max_size=2),
            "secrets": _JSON,
        },
    )
    | _JSON
)
def test_whatever_comes_is_refused_or_has_a_stored_form_that_stays(raw: Any) -> None:
    try:
        found = check_document(raw)
    except BadDocument as error:
        assert error.problems  # noqa: PT017 - either may happen
        return

    assert check_document(msgspec.to_builtins(found)) == found


def test_the_schema_is_published() -> None:
    assert (HERE / "docs" / "policy.schema.json").read_text() == page()
    assert json.loads(page()) == json.loads(json.dumps(schema()))
    for shape in ("PolicyDocument", "AllowRule", "DenyRule", "SecretBinding"):
        assert all(one["description"] for one in schema()["$defs"][shape]["properties"].values())
    rule = schema()["$defs"]["AllowRule"]
    assert rule["additionalProperties"] is False
    assert rule["required"] == ["host"]
