"""REST calls of the command line by the standard library: importing a bigger client takes longer than one."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from skerry import errors
from skerry.cli.output import Unreachable
from skerry.cli.server import Server

_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 64 << 20


class Raw(bytes):
    """A body that is sent as it is, not as JSON.

    Attributes:
        content_type: What it is.
    """

    content_type: str

    def __new__(cls, data: bytes, content_type: str) -> "Raw":
        made = super().__new__(cls, data)
        made.content_type = content_type
        return made


_FAMILIES: dict[int, type[errors.SkerryError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.ResourceExhausted,
    501: errors.NotSupported,
}


def path(*parts: str, **query: str) -> str:
    """A path from its segments, which are encoded, and its query."""
    encoded = "".join("/" + quote(part, safe="") for part in parts)
    return encoded + ("?" + urlencode(query) if query else "")


def call(server: Server, method: str, target: str, body: Any = None, *, timeout_s: float = _TIMEOUT_S) -> Any:
    """Call and decode the JSON answer; None when it has no body.

    Raises:
        Unreachable: Nobody answers, or not within the time.
        SkerryError: The server's own error, in its family.
    """
    with opened(server, method, target, body, timeout_s=timeout_s) as answer:
        data = answer.read(_MAX_ANSWER_BYTES)
    try:
        return json.loads(data) if data else None
    except ValueError as problem:
        raise Unreachable(f"{server.url} answered something that is not JSON: is it Skerry?") from problem


@contextmanager
def opened(
    server: Server, method: str, target: str, body: Any = None, *, timeout_s: float | None = _TIMEOUT_S
) -> Iterator["Answer"]:
    """Call and hand out a successful answer whose body has not been read.

    Args:
        body: A `Raw`, or what becomes JSON.
        timeout_s: For every single wait; None: wait for ever, for streams that may be silent.
    """
    url = urlsplit(server.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Unreachable(f"{server.url} is no URL of a server")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {server.token}"}
    data: str | bytes | None = None
    if isinstance(body, Raw):
        data, headers["Content-Type"] = bytes(body), body.content_type
    elif body is not None:
        data, headers["Content-Type"] = json.dumps(body), "application/json"
    try:
        with _network(server):
            connection.request(method, target, data, headers)
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise error_of(answer.status, answer.read(_MAX_ANSWER_BYTES))
        yield Answer(server, answer)
    finally:
        connection.close()


class Answer:
    """A successful answer."""

    def __init__(self, server: Server, answer: http.client.HTTPResponse) -> None:
        self._server = server
        self._answer = answer

    def header(self, name: str) -> str | None:
        """A header's value."""
        return self._answer.getheader(name)

    def read(self, max_bytes: int) -> bytes:
        """The whole body, up to a size."""
        with _network(self._server):
            return self._answer.read(max_bytes)

    def read_some(self, max_bytes: int) -> bytes:
        """What has come of the body, waiting for at least one byte; empty at its end."""
        with _network(self._server):
            return self._answer.read1(max_bytes)


@contextmanager
def _network(server: Server) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as problem:
        raise unreachable(server, problem) from problem


def unreachable(server: Server, problem: BaseException) -> Unreachable:
    """What to say when a server does not answer."""
    reason = str(problem) or type(problem).__name__
    return Unreachable(
        f"{server.url} does not answer ({reason}): see `skerry status`, start it by `skerry up`"
    )


def error_of(status: int, body: bytes) -> errors.SkerryError:
    """The error that an answer stands for."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = {}
    fields: Mapping[str, Any] = document if isinstance(document, dict) else {}
    code, message = fields.get("code"), fields.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        code, message = "UNKNOWN_ERROR", f"the server answered with HTTP status {status}"
    if code == "SANDBOX_ALREADY_TERMINATED":
        return errors.Conflict(message, code=code)
    return _FAMILIES.get(status, errors.SkerryError)(message, code=code)
