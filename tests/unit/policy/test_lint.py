"""Lints (G54)."""

import pytest

from skerry.policy.lint import lint, lint_secrets
from skerry.policy.reading import read_document
from tests.unit.policy.build import secret


def names(toml: str) -> list[tuple[str, str]]:
    return [(one.where, one.name) for one in lint(read_document(toml.encode(), kind="toml"))]


@pytest.mark.parametrize(
    ("toml", "found"),
    [
        ('[[allow]]\nhost = "example.com"', []),
        ('[[allow]]\nhost = "*.example.com"\ntls = "splice"', [("allow[0].tls", "splice-on-shared-front")]),
        ('[[allow]]\nhost = "a.fastly.net"\ntls = "splice"', [("allow[0].tls", "splice-on-shared-front")]),
        ('[[allow]]\nhost = "example.com"\nports = [80]', [("allow[0].ports", "credentials-without-tls")]),
        ('[[allow]]\nhost = "example.com"\nports = []', [("allow[0].ports", "credentials-without-tls")]),
        ('[[allow]]\nhost = "example.com"\nports = [80]\ncredentials = "none"', []),
        ('[[allow]]\nhost = "example.com"\nports = [25]', [("allow[0].ports", "mail")]),
        ('[[allow]]\nhost = "*.example.com"\ntcp = true', [("allow[0].tcp", "tcp-on-wildcard")]),
        ('[[allow]]\nhost = "203.0.0.0/8"', [("allow[0].host", "wide-prefix")]),
        ('[[allow]]\nhost = "*.acme.github.io"', [("allow[0].host", "multi-tenant")]),
        ('[[allow]]\nhost = "xn--pypal-4ve.example"', [("allow[0].host", "confusable")]),
        ('[[allow]]\nhost = "a.example"\n[[deny]]\nhost = "a.example"', [("allow[0]", "denied")]),
        ('default = "public"\n[[allow]]\nhost = "a.example"', [("default", "public-with-rules")]),
        (
            '[[secrets]]\nname = "K"\nhosts = ["*.example.com"]\npaths = ["/**"]',
            [("secrets[0].hosts", "wildcard-secret"), ("secrets[0].paths", "all-paths")],
        ),
        ('[[secrets]]\nname = "K"\nhosts = ["a.example"]', [("secrets[0].paths", "all-paths")]),
        (
            '[[secrets]]\nname = "K"\nhosts = ["a.b"]\npaths = ["/a"]\nslots = ["query:k", "header:x-y"]',
            [("secrets[0].slots", "secret-in-url"), ("secrets[0].slots", "unusual-header")],
        ),
        (
            '[[allow]]\nhost = "a.example"\ntls = "splice"\n'
            '[[secrets]]\nname = "K"\nhosts = ["a.example"]\npaths = ["/v1/**"]',
            [("allow[0].tls", "splice-on-bound-host")],
        ),
    ],
)
def test_findings(toml: str, found: list[tuple[str, str]]) -> None:
    assert names(toml) == found


def test_findings_about_a_creates_secrets() -> None:
    found = lint_secrets([secret("*.a.example", scrub="off", foreign_credentials="allow", paths=("/**",))])

    assert [one.name for one in found] == ["wildcard-secret", "all-paths", "no-scrub", "foreign-credentials"]
    assert lint_secrets([secret("a.example")]) == []
