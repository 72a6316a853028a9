"""Explanations are what would really happen."""

import pytest

from skerry.errors import InvalidRequest
from skerry.policy.explain import explain
from skerry.policy.verdict import Mode, Reason
from tests.unit.policy.build import allow, policy, secret

POLICY = policy(
    allow("api.example", ports=(), paths=("/v1/**",), websocket=False),
    allow("plain.example", ports=(), tcp=True),
    allow("*.wild.example"),
    allow("203.0.113.7", ports=(22,), tcp=True),
    allow("bound.example", ports=()),
    allow("xn--bcher-kva.example"),
    secrets=(secret("bound.example", slots=("header:x-key",), methods=("POST",)),),
)


@pytest.mark.parametrize(
    ("target", "method", "shown", "mode", "reason"),
    [
        ("https://api.example/v1/x?q", "GET", "https://api.example/v1/x?q", Mode.INSPECT, None),
        ("https://API.example:8443/v1/", "GET", "https://api.example:8443/v1/", Mode.INSPECT, None),
        ("https://api.example/x", "GET", "https://api.example/x", None, Reason.PATH_NOT_ALLOWED),
        ("https://api.example/%2e/x", "GET", "https://api.example/%2e/x", None, Reason.PATH_NOT_CANONICAL),
        ("wss://api.example/v1/x", "GET", "wss://api.example/v1/x", None, Reason.WEBSOCKET_NOT_ALLOWED),
        ("https://plain.example", "GET", "https://plain.example/", Mode.SPLICE, None),
        ("http://plain.example/x", "GET", "http://plain.example/x", Mode.SPLICE, None),
        ("plain.example", "GET", "plain.example:443", Mode.SPLICE, None),
        ("plain.example:22", "GET", "plain.example:22", Mode.SPLICE, None),
        ("plain.example:25", "GET", "plain.example:25", None, Reason.PORT_NOT_ALLOWED),
        ("a.wild.example:443", "GET", "a.wild.example:443", Mode.INSPECT, None),
        ("203.0.113.7:22", "GET", "203.0.113.7:22", Mode.SPLICE, None),
        ("10.0.0.1:22", "GET", "10.0.0.1:22", None, Reason.PRIVATE_ADDRESS),
        ("[::1]:22", "GET", "[::1]:22", None, Reason.PRIVATE_ADDRESS),
        ("https://bücher.example/", "GET", "https://xn--bcher-kva.example/", Mode.SPLICE, None),
        ("https://bound.example/", "POST", "https://bound.example/", Mode.INSPECT, None),
        ("http://bound.example/", "POST", "http://bound.example/", None, Reason.PLAINTEXT_TO_BOUND_HOST),
        ("other.example", "GET", "other.example:443", None, Reason.HOST_NOT_ALLOWED),
    ],
)
def test_explanations(target: str, method: str, shown: str, mode: Mode | None, reason: Reason | None) -> None:
    found = explain(POLICY, target, method)

    assert (found.target, found.mode, found.reason) == (shown, mode, reason)
    assert found.allowed is (reason is None)
    assert found.why
    assert found.rule
    assert bool(found.owner_action) is (reason is not None)


def test_where_secrets_would_go() -> None:
    post = explain(POLICY, "https://bound.example/x", "POST")
    get = explain(POLICY, "https://bound.example/x", "GET")
    revoked = explain(POLICY, "https://bound.example/x", "POST", unusable={"KEY": Reason.SECRET_REVOKED})

    assert post.slots == (("KEY", "header:x-key"),)
    assert "bound" in post.why
    assert get.slots == ()
    assert "not for this method" in get.why
    assert revoked.slots == ()
    assert "secret_revoked" in revoked.why


@pytest.mark.parametrize(
    "target",
    [
        "",
        "   ",
        "ftp://example.com/",
        "https://user@example.com/",
        "https://",
        "example.com/path",
        "example.com:x",
        "example.com:0",
        "example.com:65536",
        "https://127.1/",
        "https://exa mple.com/",
        "https://[::1/",
        "a_b.example",
        "https://example.com./",
        "x" * 10_000,
    ],
)
def test_targets_that_cannot_be_understood(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        explain(POLICY, target)

    assert caught.value.message.startswith("target: ")
