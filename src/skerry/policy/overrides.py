"""Fields and parameters that make an origin see another method, path or host than the request has (M4). Pure.

On rules that limit methods or paths such a request is refused. A ``_method`` field in a form's body is not
seen; a rule that must not be widened that way should not allow POST.
"""

from collections.abc import Sequence

from skerry.policy.credential_headers import alike
from skerry.policy.parameters import parameters, plain_name

HEADERS = frozenset(
    (
        b"base-url",
        b"destination",
        b"forwarded",
        b"http-method-override",
        b"method-override",
        b"request-uri",
        b"uri",
        b"x-envoy-original-path",
        b"x-forwarded-host",
        b"x-forwarded-method",
        b"x-forwarded-path",
        b"x-forwarded-prefix",
        b"x-forwarded-server",
        b"x-forwarded-uri",
        b"x-host",
        b"x-http-destinationurl",
        b"x-http-host-override",
        b"x-http-method",
        b"x-http-method-override",
        b"x-http-path-override",
        b"x-method",
        b"x-method-override",
        b"x-original-host",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-override-url",
        b"x-proxy-url",
        b"x-real-method",
        b"x-rewrite-uri",
        b"x-rewrite-url",
    )
)

_PARAMETERS = frozenset(
    (
        "_http_method",
        "_method",
        "http_method",
        "httpmethod",
        "x_http_method",
        "x_http_method_override",
        "x_method_override",
    )
)
"""As `plain_name` gives them."""


def overrides(fields: Sequence[tuple[bytes, bytes]], query: bytes) -> bool:
    """Whether a request asks to be taken for another one. Underscores in a header's name count as hyphens."""
    for name, _ in fields:
        lower = name.lower()
        if lower in HEADERS or (b"_" in lower and alike(lower) in HEADERS):
            return True
    if len(query) < 2 or not (b"%" in query or b"method" in query.lower()):
        return False
    return any(plain_name(name) in _PARAMETERS for name, _ in parameters(query))
