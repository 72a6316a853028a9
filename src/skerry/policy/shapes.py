"""Members of objects from outside: every problem of every member is found, not only the first. Pure.

Texts name members and types; of values they repeat only the names of members.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from skerry.policy.names import BadPattern

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

MAX_TEXT_SHOWN = 80
MAX_ERROR_SHOWN = 200


def members(raw: Any, shape: type[msgspec.Struct], where: str, problems: list[str]) -> dict[str, Any] | None:
    """Those members of an object that have the right type; the others are problems.

    Args:
        where: How the object is called in texts, such as ``allow[2]``; empty: it is the document.
        problems: Gets one line for each member that is unknown, missing or of the wrong type.

    Returns:
        None when it is no object, or lacks a member that it must have.
    """
    if not isinstance(raw, dict):
        problems.append(f"{where or 'the document'}: expected a table (an object)")
        return None
    fields = {one.encode_name: one for one in msgspec.structs.fields(shape)}
    good: dict[str, Any] = {}
    complete = True
    for key, value in raw.items():
        field = fields.get(key)
        if field is None:
            problems.append(f"{inside(where, shown(key))}: {_unknown(key, fields)}")
            continue
        try:
            good[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            problems.append(f"{inside(where, key)}: {in_words(error)}")
            complete = complete and not field.required
    for key, field in fields.items():
        if field.required and key not in raw:
            problems.append(f"{inside(where, key)}: is missing")
            complete = False
    return good if complete else None


def inside(where: str, key: str) -> str:
    """What a member is called."""
    return f"{where}.{key}" if where else key


def shown(text: object, *, most: int = MAX_TEXT_SHOWN) -> str:
    """A text from outside, shortened, without control characters."""
    plain = "".join(one if one.isprintable() else "?" for one in str(text)[: most + 1])
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def each(texts: Iterable[str], check: Callable[[str], T], where: str, problems: list[str]) -> tuple[T, ...]:
    """What a check makes of each text; those that it refuses are problems."""
    good: list[T] = []
    for text in texts:
        try:
            good.append(check(text))
        except BadPattern as error:
            problems.append(f'{where}: "{shown(text)}": {error.message}')
    return tuple(good)


def in_words(error: msgspec.ValidationError) -> str:
    """What msgspec says is wrong with the type, without the backquotes and the path's root."""
    text, _, at = str(error).partition(" - at `$")
    place = f" at {at.rstrip('`')}" if at.rstrip("`") else ""
    text = text.replace("`", "")
    return shown(text[:1].lower() + text[1:] + place, most=MAX_ERROR_SHOWN)


def _unknown(key: object, fields: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(key)[:MAX_TEXT_SHOWN], list(fields), n=1)
    return "there is no such key" + (f"; did you mean {near[0]}?" if near else "")
