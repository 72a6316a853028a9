"""Query parameters of the listings: label filters in both SDKs' spellings, cursors, page sizes, and the Link
header.

Source: protocol notes, sections 4.1 (pagination) and 4.3.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from skerry.errors import InvalidRequest
from skerry.spec.ids import is_sandbox_id

DEFAULT_PAGE = 30
MAX_PAGE = 100

_LABEL = re.compile(r"labels\[(.*)\]", re.DOTALL)
_MAX_REPR_CHARACTERS = 8192
"""Five labels of 64 and 128 bytes take about 1,200."""


class Position(NamedTuple):
    """The last item of a page in a listing that is sorted newest first."""

    created_at_ms: int
    sandbox_id: str


def label_filter(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The labels that must all match.

    One SDK sends ``labels[key]=value`` once per label, the other ``labels={'key': 'value'}``, a Python
    literal.

    Raises:
        InvalidRequest: `labels` is neither.
    """
    labels: dict[str, str] = {}
    for name, value in query:
        match = _LABEL.fullmatch(name)
        if match is not None:
            labels[match[1]] = value
        elif name == "labels":
            labels.update(_from_repr(value))
    return labels


def _from_repr(text: str) -> dict[str, str]:
    """Read a Python dict of strings; `ast.literal_eval` runs nothing, and the length bound keeps its parser's
    depth harmless."""
    problem = InvalidRequest("labels: expected labels[name]=value, or one Python dict of strings")
    if len(text) > _MAX_REPR_CHARACTERS:
        raise problem
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise problem from None
    if not isinstance(value, dict):
        raise problem
    if not all(isinstance(key, str) and isinstance(item, str) for key, item in value.items()):
        raise problem
    return value


def page_size(values: Sequence[str]) -> int:
    """How many items a page has, from the values of `limit`.

    Raises:
        InvalidRequest: Not a whole number from 1 to 100.
    """
    if not values:
        return DEFAULT_PAGE
    text = values[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_PAGE}")
    return int(text)


def cursor_position(values: Sequence[str]) -> Position | None:
    """Where the page starts, from the values of `cursor`.

    One SDK sends the whole URL of the next page as the cursor, and an older cursor in front of it: the last
    counts, and a URL stands for its own cursor.

    Raises:
        InvalidRequest: It is not one of ours.
    """
    if not values:
        return None
    cursor = values[-1]
    if cursor.startswith(("http://", "https://")):
        own = [value for name, value in parse_qsl(urlsplit(cursor).query) if name == "cursor"]
        cursor = own[-1] if own else ""
    created, _, sandbox_id = cursor.partition(".")
    if not (created.isascii() and created.isdigit() and len(created) <= 16 and is_sandbox_id(sandbox_id)):
        raise InvalidRequest("cursor: take it from the Link header of the page before")
    return Position(int(created), sandbox_id)


def next_link(origin: str, path: str, query: Iterable[tuple[str, str]], position: Position) -> str:
    """The Link header for the page after `position`: an absolute URL with the same filters, without raw
    commas or semicolons."""
    kept = [(name, value) for name, value in query if name != "cursor"]
    kept.append(("cursor", f"{position.created_at_ms}.{position.sandbox_id}"))
    encoded = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in kept)
    return f'<{origin}{path}?{encoded}>; rel="next"'
