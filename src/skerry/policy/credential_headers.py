"""Which header fields carry credentials. Pure.

Two uses. A secret without `slots` may stand in any of these headers. And on a host that a secret is bound to,
any other credential there is a foreign one (M6): an allowed host is also the attacker's own account.

A list and no heuristics: ``X-Csrf-Token`` must pass, and a guess would change its mind with a new service. It
is printed in ``docs/policy.md``; what is missing there is named in `slots`.
"""

from collections.abc import Sequence

from skerry.policy.credential_parameters import credential_parameters

HEADERS = (
    "access-token",
    "api-key",
    "api-token",
    "apikey",
    "auth-token",
    "authorization",
    "cf-access-client-secret",
    "cf-access-token",
    "circle-token",
    "client-secret",
    "dd-api-key",
    "dd-application-key",
    "deploy-token",
    "fastly-key",
    "job-token",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "token",
    "x-access-key",
    "x-access-token",
    "x-algolia-api-key",
    "x-amz-security-token",
    "x-api-key",
    "x-api-secret",
    "x-api-token",
    "x-apikey",
    "x-auth-key",
    "x-auth-token",
    "x-authorization",
    "x-aws-ec2-metadata-token",
    "x-client-secret",
    "x-consul-token",
    "x-figma-token",
    "x-functions-key",
    "x-github-token",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-hasura-admin-secret",
    "x-honeycomb-team",
    "x-insert-key",
    "x-license-key",
    "x-mbx-apikey",
    "x-nomad-token",
    "x-postmark-server-token",
    "x-query-key",
    "x-rapidapi-key",
    "x-secret-key",
    "x-service-token",
    "x-session-token",
    "x-shopify-access-token",
    "x-storage-token",
    "x-subject-token",
    "x-subscription-token",
    "x-token",
    "x-vault-token",
    "xi-api-key",
)
"""The family, in lower case. ``proxy-authorization`` is never sent on at all."""

NEVER_SENT = b"proxy-authorization"

FAMILY = frozenset(name.encode("ascii") for name in HEADERS)


def alike(name: bytes) -> bytes:
    """A field's name, so that names which may be the same are equal: in lower case, with hyphens for
    underscores.

    Origins behind CGI or WSGI cannot tell ``X_Api_Key`` from ``X-Api-Key``.
    """
    return name.lower().replace(b"_", b"-")


def is_credential_header(name: bytes) -> bool:
    """Whether a field of this name is of the family."""
    return alike(name) in FAMILY


def has_credentials(fields: Sequence[tuple[bytes, bytes]], query: bytes) -> bool:
    """Whether a request brings any credential of its own, cookies included."""
    for name, value in fields:
        if value and (is_credential_header(name) or name.lower() == b"cookie"):
            return True
    return bool(credential_parameters(query))
