"""Parameters of a query as origins may understand them. Pure.

Origins differ in what divides parameters and in which names are the same; whatever one of them could see is
seen here.
"""

from urllib.parse import unquote_plus

_TO_UNDERSCORE = str.maketrans({".": "_", " ": "_", "-": "_"})


def decoded(part: bytes) -> tuple[str, str]:
    """Name and value of one part of a query."""
    name, _, value = part.decode("latin-1").partition("=")
    return unquote_plus(name, errors="replace"), unquote_plus(value, errors="replace")


def parameters(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query, decoded; both ``&`` and ``;`` divide.

    Args:
        query: With or without its question mark.
    """
    parts = query.removeprefix(b"?").replace(b";", b"&").split(b"&")
    return [decoded(part) for part in parts if part]


def plain_name(name: str) -> str:
    """A parameter's name, so that names which may be the same are equal.

    Without case, an index (``token[]``, ``token[0]``), a leading ``$``, and NULs or spaces around; with ``_``
    for what PHP takes for it: ``.``, a space, and a bracket that is never closed. Hyphens count as ``_`` too.
    """
    front, bracket, back = name.partition("[")
    if bracket and "]" not in back:
        front = f"{front}_{back}"
    return front.strip("\0 \t").removeprefix("$").lower().translate(_TO_UNDERSCORE)
