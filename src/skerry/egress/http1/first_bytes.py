"""Tells HTTP from other protocols by a connection's first bytes."""

import re

_PREFACE = b"PRI * HTTP/2"
_BEGINNING = re.compile(
    # Generous: what nearly is a request is to be refused as one, not to pass as another protocol.
    rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}[ \t]+(?:/|\*|[Hh][Tt][Tt][Pp][Ss]?://|[^\s]{1,300}[ \t]+HTTP/)"
    # A method that is none, with everything else of a request line. In pieces it passes for another protocol,
    # where those pass.
    rb"|[\r\n]*[^\r\n]{1,1024}?[ \t]HTTP/[0-9]"
)
_BEGUN = re.compile(
    rb"[\r\n]{0,64}(?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
    rb"(?:[ \t]{1,8}(?:[Hh][Tt]{0,2}[Pp]?[Ss]?:?/?|[^\s]{1,300}(?:[ \t]{1,8}H?T?T?P?)?)?)?)?"
)


def looks_like_http2(first: bytes) -> bool | None:
    """Whether a connection begins with HTTP/2's preface (RFC 9113, section 3.4); None: more is needed."""
    if first.startswith(_PREFACE):
        return True
    return None if _PREFACE.startswith(first) else False


def looks_like_http(first: bytes) -> bool | None:
    """Whether a connection begins like an HTTP/1 request, well-formed or not; None: more is needed.

    Ask `looks_like_http2` first, whose preface is a request by its form.
    """
    if _BEGINNING.match(first):
        return True
    return None if _BEGUN.fullmatch(first) else False
