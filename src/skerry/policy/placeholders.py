"""What stands in a sandbox's variable instead of a secret. Pure."""

from skerry.policy.document import SecretRule

RANDOM_BYTES = 32
"""How much randomness `make` takes: 256 bits."""

_FRONT = "DENO_SECRET_PLACEHOLDER_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_LENGTH = 43  # of 62 digits for 256 bits


def make(rule: SecretRule, random_bytes: bytes) -> str:
    """A placeholder that nobody can guess.

    ``DENO_SECRET_PLACEHOLDER_`` and 64 hexadecimal digits, or the rule's prefix and 43 letters and digits.
    The default is what the SDKs' users know; a prefix is for clients that check what a key looks like. Every
    character is unreserved in URLs and needs no escape in JSON, so it looks the same wherever it stands.

    Args:
        random_bytes: `RANDOM_BYTES` of them, fresh for each secret of each sandbox.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError("a placeholder is made of 32 random bytes")
    if not rule.placeholder_prefix:
        return _FRONT + random_bytes.hex()
    number = int.from_bytes(random_bytes, "big")
    digits: list[str] = []
    for _ in range(_BODY_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return rule.placeholder_prefix + "".join(digits)
