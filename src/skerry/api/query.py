"""What stands in the query of a request, or in its path."""

from aiohttp import web

from skerry.errors import InvalidRequest


def flag(request: web.Request, name: str) -> bool:
    """Whether a switch is on."""
    return request.query.get(name, "0") in ("1", "true")


def number(text: str, name: str) -> int:
    """A whole number.

    Raises:
        InvalidRequest: It is none, or longer than any that means something.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidRequest(f"{name}: expected a whole number")
    return int(text)
