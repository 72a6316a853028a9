"""A strict HTTP/1.1 engine without I/O: what is not plainly well-formed is refused, what goes on is written
anew from the parsed form."""

from skerry.egress.http1.first_bytes import looks_like_http, looks_like_http2
from skerry.egress.http1.model import (
    END,
    Data,
    End,
    Field,
    Framing,
    Interim,
    Malformed,
    RequestEvent,
    RequestHead,
    ResponseEvent,
    ResponseHead,
    Trailers,
    Truncated,
    Upgraded,
)
from skerry.egress.http1.request import RequestReader, parse_request_head
from skerry.egress.http1.response import ResponseReader, parse_response_head
from skerry.egress.http1.target import split_authority
from skerry.egress.http1.writing import (
    chunk,
    close_after,
    last_chunk,
    make_chunked,
    write_request,
    write_response,
)

__all__ = [
    "END",
    "Data",
    "End",
    "Field",
    "Framing",
    "Interim",
    "Malformed",
    "RequestEvent",
    "RequestHead",
    "RequestReader",
    "ResponseEvent",
    "ResponseHead",
    "ResponseReader",
    "Trailers",
    "Truncated",
    "Upgraded",
    "chunk",
    "close_after",
    "last_chunk",
    "looks_like_http",
    "looks_like_http2",
    "make_chunked",
    "parse_request_head",
    "parse_response_head",
    "split_authority",
    "write_request",
    "write_response",
]
