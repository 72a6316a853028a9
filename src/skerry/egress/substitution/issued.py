"""Credentials that an origin gave to the sandbox itself, which it may send back there."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from skerry.egress.http1.model import Field
from skerry.policy.credential_headers import FAMILY

_DIGEST_BYTES = 16


class Issued:
    """What hosts have issued to one sandbox: hashes only, the oldest are forgotten first.

    What counts is a value in a response header of the credential family.
    """

    def __init__(self, key: bytes, *, limit: int = 1_000) -> None:
        """Start empty.

        Args:
            key: Random, at most 64 bytes; keeps hashes from being compared with guesses.
        """
        self._key = key
        self._limit = limit
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, host: str, fields: Iterable[Field]) -> None:
        """Take note of what a response of a host issues."""
        for name, value in fields:
            if value and name.lower() in FAMILY:
                digest = self._digest(host, _token(value))
                self._known[digest] = None
                self._known.move_to_end(digest)
                if len(self._known) > self._limit:
                    self._known.popitem(last=False)

    def holds(self, host: str, value: bytes) -> bool:
        """Whether a host issued this value of a header; a scheme in front of it makes no difference."""
        return bool(self._known) and self._digest(host, _token(value)) in self._known

    def _digest(self, host: str, token: bytes) -> bytes:
        return blake2b(host.encode() + b"\0" + token, key=self._key, digest_size=_DIGEST_BYTES).digest()


def _token(value: bytes) -> bytes:
    return value.rpartition(b" ")[2]
