"""Secrets as tests of the gateway need them."""

from typing import Any

from skerry.egress.messages import Secret
from skerry.policy.document import SecretRule

VALUE = b"sk-live-9fQ2xLw0ZtR7/b+VnEjK4mYpA1sUdG8h=c"
PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "0123456789abcdef" * 4


def secret(
    value: bytes | None = VALUE,
    *,
    name: str = "KEY",
    placeholder: str = PLACEHOLDER,
    state: str = "active",
    used: int = 0,
    hosts: tuple[str, ...] = ("api.example",),
    **rule: Any,
) -> Secret:
    """A secret of which only what matters is said."""
    return Secret(
        rule=SecretRule(name=name, hosts=hosts, **rule),
        placeholder=placeholder,
        value=value,
        state=state,
        used=used,
    )
