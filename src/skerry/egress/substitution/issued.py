"""Credentials that an origin gave to the sandbox itself, which it may send back there."""

import re
import urllib.parse
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from skerry.egress.http1 import Field, Malformed, RequestHead, split_authority
from skerry.policy.credential_headers import is_credential_header
from skerry.policy.credential_parameters import credential_parameters

_DIGEST_BYTES = 16
_MOST_DECODINGS = 3
_LINK = b"link"
_WITH_URLS = frozenset((b"location", b"content-location", _LINK))
_IN_ANGLES = re.compile(rb"<([^<>]*)>")
_WITH_AUTHORITY = re.compile(rb"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?]*)")


class Issued:
    """What hosts have issued to one sandbox: hashes only, the oldest are forgotten first.

    What counts is a value in a response header of the credential family, and a credential in the query of a
    URL of the same host in ``Location``, ``Content-Location`` or ``Link``. What the request itself said, so
    that the host only repeats it, does not count; it is looked for in the request's head, not in its body.
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

    def remember(self, host: str, fields: Iterable[Field], request: RequestHead) -> None:
        """Take note of what a response of a host issues.

        Args:
            request: As the sandbox sent it.
        """
        for token in map(_token, _credentials(host, fields)):
            digest = self._digest(host, token)
            if digest not in self._known and _said(request, token):
                continue
            self._known[digest] = None
            self._known.move_to_end(digest)
            if len(self._known) > self._limit:
                self._known.popitem(last=False)

    def holds(self, host: str, value: bytes) -> bool:
        """Whether a host issued this credential; a scheme in front of it makes no difference."""
        return bool(self._known) and self._digest(host, _token(value)) in self._known

    def _digest(self, host: str, token: bytes) -> bytes:
        return blake2b(host.encode() + b"\0" + token, key=self._key, digest_size=_DIGEST_BYTES).digest()


def _token(value: bytes) -> bytes:
    return value.rpartition(b" ")[2]


def _credentials(host: str, fields: Iterable[Field]) -> Iterator[bytes]:
    for name, value in fields:
        lower = name.lower()
        if lower in _WITH_URLS:
            for url in _IN_ANGLES.findall(value) if lower == _LINK else (value,):
                for _, found in credential_parameters(_query(host, url)):
                    yield found.encode("utf-8", "replace")
        elif value and is_credential_header(name):
            yield value


def _query(host: str, url: bytes) -> bytes:
    """The query of a URL; empty when it is another host's."""
    elsewhere = _WITH_AUTHORITY.match(url)
    if elsewhere is not None:
        try:
            name, _ = split_authority(elsewhere[1])
        except Malformed:
            return b""
        if name.lower() != host:
            return b""
    return url.partition(b"#")[0].partition(b"?")[2]


def _said(request: RequestHead, token: bytes) -> bool:
    for text in (request.target, *(value for _, value in request.fields)):
        for _ in range(_MOST_DECODINGS + 1):
            if token in text:
                return True
            if b"%" not in text:
                break
            text = urllib.parse.unquote_to_bytes(text)
    return False
