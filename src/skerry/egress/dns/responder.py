"""What a sandbox's query is answered."""

from collections.abc import Callable
from ipaddress import IPv4Address

from skerry.egress.dns import message
from skerry.egress.dns.message import Malformed, Query
from skerry.egress.dns.names import NamesExhausted, SyntheticNames
from skerry.policy.names import BadName, canonical

TTL_S = 30
"""Of addresses. They do not change; but what may be reached does."""

NEGATIVE_TTL_S = 2
"""Short, so that a name that the owner allows just now is soon found."""

_REVERSE = (b"in-addr", b"arpa")


def answer(query: bytes, names: SyntheticNames, allowed: Callable[[str], bool]) -> bytes | None:
    """Answer one query from policy. Nothing is ever asked elsewhere.

    An allowed name has one address; all other types of it are empty. What is not allowed does not exist.

    Args:
        allowed: Whether any port of a canonical name may be reached.

    Returns:
        The answer, of at most 512 bytes, so that UDP and TCP get the same; None: none is due.
    """
    try:
        parsed = message.parse(query)
    except Malformed as error:
        return None if error.rcode is None else message.refusal(query, error.rcode)
    if parsed.edns_version:
        return message.response(parsed, message.BADVERS)
    if parsed.cls != message.CLASS_IN or message.TYPE_IXFR <= parsed.type <= message.TYPE_MAILA:
        return message.response(parsed, message.REFUSED)
    if parsed.type == message.TYPE_OPT:
        return message.response(parsed, message.FORMERR)
    if not parsed.labels:
        return _none(parsed)
    if tuple(label.lower() for label in parsed.labels[-2:]) == _REVERSE:
        return _reverse(parsed, names)
    name = _name(parsed)
    if name is None or not allowed(name):
        return message.response(parsed, message.NXDOMAIN, ttl_s=NEGATIVE_TTL_S)
    if parsed.type != message.TYPE_A:
        return _none(parsed)
    try:
        return message.response(parsed, message.NOERROR, ttl_s=TTL_S, data=names.address(name).packed)
    except NamesExhausted:
        return message.response(parsed, message.SERVFAIL)


def _none(query: Query) -> bytes:
    return message.response(query, message.NOERROR, ttl_s=NEGATIVE_TTL_S)


def _name(query: Query) -> str | None:
    """The canonical name; None if a label holds anything that a host name cannot."""
    if any(b"." in label for label in query.labels):
        return None
    try:
        return canonical(b".".join(query.labels).decode("ascii"))
    except (BadName, UnicodeDecodeError):
        return None


def _reverse(query: Query, names: SyntheticNames) -> bytes:
    name = _pointed_at(query.labels[:-2], names)
    if name is None:
        return message.response(query, message.NXDOMAIN, ttl_s=NEGATIVE_TTL_S)
    if query.type != message.TYPE_PTR:
        return _none(query)
    return message.response(query, message.NOERROR, ttl_s=TTL_S, data=message.name_data(name))


def _pointed_at(labels: tuple[bytes, ...], names: SyntheticNames) -> str | None:
    if len(labels) != 4:
        return None
    try:
        return names.name(IPv4Address(b".".join(reversed(labels)).decode("ascii")))
    except ValueError:  # also of decoding
        return None


class QueryLimit:
    """How many queries a sandbox may send; more are not answered.

    Resolvers ask again after some seconds, so a short excess makes look-ups slow rather than fail.
    """

    def __init__(self, per_s: int, *, now_s: float) -> None:
        """Start with a full bucket of two seconds' queries.

        Args:
            now_s: Of the clock that `take` is asked with; monotonic.
        """
        self.refused = 0
        self._per_s = per_s
        self._most = 2.0 * per_s
        self._left = self._most
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more may be answered now."""
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True
