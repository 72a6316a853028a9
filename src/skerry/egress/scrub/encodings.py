"""The ways in which an origin may write a value back: encodings of the value as byte strings to look for.

Everything is folded to lower case before it is compared, so upper and lower hexadecimal digits, ``%2f`` and
``%2F``, or a value that was folded as a whole need no needles of their own.
"""

import base64
import codecs
import html
import json
import urllib.parse
from collections.abc import Callable, Iterator

URI_COMPONENT_SAFE = "!'()*"
"""What JavaScript's encodeURIComponent leaves as it is, besides what RFC 3986 calls unreserved."""

PATH_SAFE = "!$&'()*+,;=:@"
"""RFC 3986, section 3.3: what a path segment may hold besides unreserved characters."""

URI_SAFE = URI_COMPONENT_SAFE + ";/?:@&=+$,#"
"""What JavaScript's encodeURI leaves as it is."""


def per_byte(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Encodings that treat each byte by itself, so that a part of the value gives a part of the encoding.

    The most likely ones come first. Several may give the same bytes.
    """
    for name, encode in _PER_BYTE:
        yield name, encode(value)


def base64_cores(value: bytes, *, url: bool) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """What base64 of a text that contains the value always contains, for each position of the value modulo 3.

    Yields:
        Name; the characters that depend on the value alone; one or two that stand before them if a colon
        stands before the value (as in Basic credentials); the one after them, if the value ends the text and
        leaves bits over.
    """
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    for position in range(3):
        whole = encode(bytes(position) + value).rstrip(b"=")
        begin, end = -(-position * 4 // 3), (position + len(value)) * 4 // 3
        before = (position - 1) % 3
        lead_begin = -(-before * 4 // 3)
        lead_end = -(-(before + 1) * 4 // 3)
        lead = encode(bytes(before) + b":" + value)[lead_begin:lead_end]
        yield "base64url" if url else "base64", whole[begin:end], lead, whole[end:]


def _text(value: bytes) -> str:
    """What an origin takes the bytes for."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _each_byte(form: str) -> Callable[[bytes], bytes]:
    return lambda value: "".join(form % byte for byte in value).encode()


def _each_character(form: str) -> Callable[[bytes], bytes]:
    return lambda value: "".join(form % ord(char) for char in _text(value)).encode()


def _percent(safe: str, *, plus: bool = False) -> Callable[[bytes], bytes]:
    quote = urllib.parse.quote_plus if plus else urllib.parse.quote
    return lambda value: quote(value, safe=safe).encode()


def _replacing(table: dict[str, str]) -> Callable[[bytes], bytes]:
    translation = str.maketrans(table)
    return lambda value: _text(value).translate(translation).encode()


def _wide(codec: str) -> Callable[[bytes], bytes]:
    # Without zeros at its ends it is found in both byte orders, whatever stands around it.
    return lambda value: _text(value).encode(codec).strip(b"\0")


_JSON_SLASH = {"/": "\\/", '"': '\\"', "\\": "\\\\"}
_JSON_HTML = {char: f"\\u{ord(char):04x}" for char in "<>&'"} | {'"': '\\"', "\\": "\\\\"}
_HTML_DECIMAL = {char: f"&#{ord(char)};" for char in "<>&'\"+"}
_HTML_PHP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#039;"}
_HTML_XML = _HTML_PHP | {"'": "&apos;"}
_QUOTED_PRINTABLE = {"=": "=3D"}

_PER_BYTE: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("raw", lambda value: value),
    ("percent", _percent("")),
    ("percent", _percent(URI_COMPONENT_SAFE)),
    ("percent", _percent(PATH_SAFE)),
    ("percent", _percent(URI_SAFE)),
    ("percent", _percent("", plus=True)),
    ("json", lambda value: json.dumps(_text(value))[1:-1].encode()),
    ("json", _replacing(_JSON_SLASH)),
    ("json", _replacing(_JSON_HTML)),
    ("html", lambda value: html.escape(_text(value)).encode()),
    ("html", _replacing(_HTML_DECIMAL)),
    ("html", _replacing(_HTML_PHP)),
    ("html", _replacing(_HTML_XML)),
    ("hex", lambda value: value.hex().encode()),
    ("percent-full", _each_byte("%%%02x")),
    ("unicode-escape", _each_character("\\u%04x")),
    ("hex-escape", _each_byte("\\x%02x")),
    ("reversed", lambda value: value[::-1]),
    ("html-decimal", _each_character("&#%d;")),
    ("html-hex", _each_character("&#x%x;")),
    ("utf-16", _wide("utf-16-be")),
    ("utf-16", _wide("utf-16-le")),
    ("utf-32", _wide("utf-32-be")),
    ("quoted-printable", _replacing(_QUOTED_PRINTABLE)),
    ("quoted-printable-full", _each_byte("=%02X")),
    ("percent-twice", _each_byte("%%25%02x")),
    ("html-decimal", _each_character("&#%03d;")),
    ("octal-escape", _each_byte("\\%03o")),
    ("hex-spaced", lambda value: value.hex(" ").encode()),
    ("hex-spaced", lambda value: value.hex(":").encode()),
    ("numbers", lambda value: ",".join(map(str, value)).encode()),
    ("numbers", lambda value: ", ".join(map(str, value)).encode()),
    ("rot13", lambda value: codecs.encode(_text(value), "rot13").encode()),
)
