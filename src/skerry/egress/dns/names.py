"""Synthetic addresses: what a sandbox is told instead of a name's real address."""

from hashlib import blake2b
from ipaddress import IPv4Address

NAME_SERVER = IPv4Address("198.18.0.1")
"""What sandboxes use as name server and as explicit proxy."""

_FIRST = IPv4Address("198.18.0.2")
_COUNT = int(IPv4Address("198.19.255.254")) - int(_FIRST) + 1
MAX_NAMES = 60_000
"""More would make free addresses rare."""


class NamesExhausted(Exception):
    """The sandbox has asked for as many names as it may."""


class SyntheticNames:
    """A sandbox's names and their addresses in 198.18.0.0/15 (RFC 2544: never on the internet).

    An address is never given to another name in a sandbox's life, not even by a worker that was started anew
    and knows nothing of the earlier one: it follows from the name and a key of the sandbox. Only two of the
    2,000 names that happen to have the same (about one pair in a hundred thousand at 20 names) could swap
    theirs then.
    """

    def __init__(self, key: bytes, *, limit: int = 2_000) -> None:
        """Start without names.

        Args:
            key: The same for all of a sandbox's life, such as its ID; at most 64 bytes count.
            limit: Of distinct names.
        """
        self._key = key[:64]
        self._limit = min(limit, MAX_NAMES)
        self._addresses: dict[str, IPv4Address] = {}
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def address(self, name: str) -> IPv4Address:
        """The address of a canonical name, made if there is none.

        Raises:
            NamesExhausted: The limit is reached.
        """
        known = self._addresses.get(name)
        if known is not None:
            return known
        if len(self._addresses) >= self._limit:
            raise NamesExhausted
        turn = 0
        while (number := self._number(name, turn)) in self._names:
            turn += 1
        self._names[number] = name
        self._addresses[name] = found = IPv4Address(number)
        return found

    def name(self, address: IPv4Address) -> str | None:
        """The name that has an address; None if it was given to none."""
        return self._names.get(int(address))

    def _number(self, name: str, turn: int) -> int:
        digest = blake2b(f"{turn} {name}".encode(), key=self._key, digest_size=8).digest()
        return int(_FIRST) + int.from_bytes(digest, "big") % _COUNT
