"""A create's secrets must not ask for more than a named policy allows."""

from typing import Any

import pytest

from skerry.policy.document import SecretBinding, SecretRule
from skerry.policy.narrowing import excess_over, narrowed

BINDING = SecretBinding(
    name="KEY",
    hosts=("api.example", "*.api.example:8443"),
    slots=("header:authorization", "header:x-key"),
    methods=("GET", "POST"),
    paths=("/v1/**",),
)


def rule(**rest: Any) -> SecretRule:
    return SecretRule(**{"name": "KEY", "hosts": ("api.example",), **rest})


def test_a_policy_that_says_nothing_leaves_everything_as_it_is() -> None:
    assert narrowed(rule(), None, "team") == (rule(), [])
    assert not excess_over(rule(), None)


def test_what_a_create_leaves_open_comes_from_the_policy() -> None:
    found, problems = narrowed(rule(), (BINDING,), "team")

    assert problems == []
    assert found == rule(slots=BINDING.slots, methods=BINDING.methods, paths=BINDING.paths)
    assert not excess_over(found, (BINDING,))
    assert excess_over(rule(), (BINDING,))


@pytest.mark.parametrize(
    "rest",
    [
        {"hosts": ("api.example:443",)},
        {"hosts": ("a.api.example:8443",)},
        {"hosts": ("*.b.api.example:8443",)},
        {"slots": ("header:x-key",)},
        {"slots": ("header:authorization=Bearer {}",)},
        {"methods": ("GET",)},
        {"paths": ("/v1/a", "/v1/b/**", "/v1/*/c")},
    ],
)
def test_less_is_fine(rest: dict[str, Any]) -> None:
    found, problems = narrowed(rule(**rest), (BINDING,), "team")

    assert problems == []
    assert all(getattr(found, key) == value for key, value in rest.items())
    assert not excess_over(found, (BINDING,))


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        ({"name": "OTHER"}, "no secret of this name"),
        ({"hosts": ("evil.example",)}, "host evil.example"),
        ({"hosts": ("api.example", "evil.example")}, "host evil.example"),
        ({"hosts": ("a.api.example",)}, "host a.api.example"),
        ({"hosts": ("*.api.example",)}, "host *.api.example"),
        ({"hosts": ("*.example:8443",)}, "host *.example:8443"),
        ({"slots": ("query:key",)}, "slot query:key"),
        ({"slots": ("header:authorization=a=b {}",)}, "slot header:authorization=a=b {}"),
        ({"methods": ("DELETE",)}, "method DELETE"),
        ({"paths": ("/**",)}, "path /**"),
        ({"paths": ("/v2/x",)}, "path /v2/x"),
    ],
)
def test_more_is_refused(rest: dict[str, Any], word: str) -> None:
    found, problems = narrowed(rule(**rest), (BINDING,), "team")

    assert len(problems) == 1
    assert '"team"' in problems[0]
    assert word in problems[0]
    assert excess_over(found, (BINDING,))


def test_a_policy_without_methods_does_not_mean_head() -> None:
    free = SecretBinding(name="KEY", hosts=("api.example",))

    assert narrowed(rule(methods=("GET",)), (free,), "team")[1] == []
    _, problems = narrowed(rule(methods=("HEAD",)), (free,), "team")
    assert problems == ['the policy "team" does not allow the method HEAD for it']


def test_no_secrets_at_all() -> None:
    assert narrowed(rule(), (), "team")[1] == ['the policy "team" has no secret of this name']
