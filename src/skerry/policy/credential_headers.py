"""What in a request is a credential: header fields and query parameters. Pure.

Two uses. A secret without `slots` may stand in any of these headers. And on a host that a secret is bound to,
any other credential there is a foreign one (M6): an allowed host is also the attacker's own account.

A list and no heuristics: ``X-Csrf-Token`` must pass, and a guess would change its mind with a new service. It
is printed in ``docs/policy.md``; what is missing there is named in `slots`.
"""

from collections.abc import Sequence
from urllib.parse import unquote_plus

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

PARAMETERS = (
    "access_key",
    "access_token",
    "api-key",
    "api_key",
    "api_token",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "authtoken",
    "awsaccesskeyid",
    "client_secret",
    "id_token",
    "job_token",
    "key",
    "oauth_signature",
    "oauth_token",
    "password",
    "private_token",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-api-key",
    "x-goog-credential",
    "x-goog-signature",
)
"""Query parameters that carry credentials, in lower case; they are compared after decoding, without case."""

NEVER_SENT = b"proxy-authorization"

FAMILY = frozenset(name.encode("ascii") for name in HEADERS)

_PARAMETERS = frozenset(PARAMETERS)


def is_credential_header(name: bytes) -> bool:
    """Whether a field of this name is of the family, in any case and with underscores for hyphens.

    Origins behind CGI or WSGI cannot tell ``X_Api_Key`` from ``X-Api-Key``.
    """
    return name.lower().replace(b"_", b"-") in FAMILY


def parameters(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query, decoded; both ``&`` and ``;`` divide, since origins differ.

    Args:
        query: With or without its question mark.
    """
    pairs: list[tuple[str, str]] = []
    for part in query.removeprefix(b"?").replace(b";", b"&").split(b"&"):
        if part:
            name, _, value = part.decode("latin-1").partition("=")
            pairs.append((unquote_plus(name, errors="replace"), unquote_plus(value, errors="replace")))
    return pairs


def credential_parameters(query: bytes) -> list[tuple[str, str]]:
    """Those parameters of a query, with their decoded values, that carry a credential and are not empty.

    A name counts as well with an index (``token[]``, ``token[0]``), and with NULs or spaces around it, since
    some origins drop these.
    """
    if len(query) < 2:
        return []
    return [
        (name, value)
        for name, value in parameters(query)
        if value and name.split("[", 1)[0].strip("\0 \t").lower() in _PARAMETERS
    ]


def has_credentials(fields: Sequence[tuple[bytes, bytes]], query: bytes) -> bool:
    """Whether a request brings any credential of its own, cookies included."""
    for name, value in fields:
        if value and (is_credential_header(name) or name.lower() == b"cookie"):
            return True
    return bool(credential_parameters(query))
