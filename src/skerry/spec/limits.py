"""Bounds of what a request may carry. Those that an operator can set are in `skerry.spec.settings`."""

MAX_LABELS = 5
MAX_LABEL_KEY_BYTES = 64
MAX_LABEL_VALUE_BYTES = 128

MAX_ENV_ENTRY_BYTES = 131_071
"""``NAME=value`` of one variable: Linux refuses to execute a program with a longer string (execve(2),
MAX_ARG_STRLEN).
"""

MAX_ENV_BYTES = 1 << 20
"""All variables of a create together: what execve(2) leaves for them beside the arguments under the default
stack limit.
"""

MAX_ALLOW_NET = 256
MAX_HOST_NAME_BYTES = 253
"""A host name in text form (RFC 1035 section 2.3.4: 255 octets on the wire)."""

MAX_PORT = 65_535

MAX_LIFETIME_S = 10 * 366 * 86_400
"""Ten years: an end further ahead is taken for a mistake in units."""

MAX_TOKEN_NAME_BYTES = 128
MAX_OWNER_BYTES = 64
MAX_TOKENS = 10_000

MAX_POLICIES = 1000
"""Named policies of one owner."""

MAX_POLICY_NAME_BYTES = 64
MAX_POLICY_BYTES = 262_144
"""A policy as it is sent; it must fit into a worker's message with the other layers."""

MAX_LISTED_PROBLEMS = 20
"""Problems of one request that its answer lists; the rest is only counted."""
