"""Which parameters of a query carry credentials (M6). Pure.

Two lists, both printed in ``docs/policy.md``. A rule that wants no credentials at all (``credentials =
"none"``) goes by the long one. On a host that a secret is bound to only what cannot mean anything else is
somebody else's credential: ``key`` and ``token`` name objects and pages in too many interfaces.
"""

from collections.abc import Collection, Iterable

from skerry.policy.parameters import parameters, plain_name

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
    "googleaccessid",
    "id_token",
    "job_token",
    "key",
    "key-pair-id",
    "oauth_signature",
    "oauth_token",
    "ossaccesskeyid",
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
"""The long list, in lower case. Names are compared as `plain_name` gives them."""

CERTAIN = (
    "access_key",
    "access_token",
    "api_key",
    "api_token",
    "apikey",
    "auth_token",
    "authorization",
    "authtoken",
    "awsaccesskeyid",
    "client_secret",
    "googleaccessid",
    "job_token",
    "key-pair-id",
    "oauth_signature",
    "oauth_token",
    "ossaccesskeyid",
    "private_token",
    "refresh_token",
    "subscription-key",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-api-key",
    "x-goog-credential",
    "x-goog-signature",
)
"""Those of the long list that mean nothing else anywhere."""

_CERTAIN_BELOW = {"googleapis.com": ("key",)}
"""Names with one meaning on all of a provider's hosts, see https://cloud.google.com/apis/docs/system-parameters."""

_SHARED_ACCESS = "sig"
_BESIDE_SHARED_ACCESS = frozenset(("se", "sv"))
"""A shared access signature (Azure) always has one of these; ``sig`` alone may be anything."""

_PLAIN = frozenset(map(plain_name, PARAMETERS))
_PLAIN_CERTAIN = frozenset(map(plain_name, CERTAIN))


def credential_parameters(query: bytes) -> list[tuple[str, str]]:
    """Those parameters of a query, with their decoded values, that carry a credential and are not empty."""
    if len(query) < 2:
        return []
    return [(name, value) for name, value in parameters(query) if value and plain_name(name) in _PLAIN]


def certain_names(host: str, slots: Iterable[str] = ()) -> frozenset[str]:
    """Plain names of what is always a credential on a host.

    Args:
        slots: Names of parameters that secrets bound to the host may stand in: the owner says that these are
            credentials.
    """
    of_provider = [
        name
        for suffix, names in _CERTAIN_BELOW.items()
        if host == suffix or host.endswith("." + suffix)
        for name in names
    ]
    return _PLAIN_CERTAIN.union(map(plain_name, (*of_provider, *slots)))


def is_certain(name: str, all_names: Collection[str], certain: frozenset[str]) -> bool:
    """Whether a parameter is a credential beyond doubt.

    Args:
        name: Plain, as all of these.
        all_names: Of the same query.
        certain: Of `certain_names`.
    """
    return name in certain or (
        name == _SHARED_ACCESS and any(one in all_names for one in _BESIDE_SHARED_ACCESS)
    )
