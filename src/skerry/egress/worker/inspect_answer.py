"""Answers on their way to the client: framing, and secrets taken out. Without I/O."""

from collections.abc import Iterator, Sequence

from skerry.egress.http1 import (
    Data,
    End,
    Framing,
    Interim,
    ResponseEvent,
    ResponseHead,
    Trailers,
    chunk,
    last_chunk,
    make_chunked,
    write_response,
)
from skerry.egress.scrub import Hit, Needles
from skerry.egress.scrub.answer import AnswerScrubber
from skerry.egress.scrub.decoding import Undecodable
from skerry.egress.scrub.fields import scrub_head
from skerry.policy.verdict import Reason
from skerry.spec.settings import EgressLimits

_WHOLE = 3
"""Events: head, one piece of a body, end."""

_CODED = b"content-encoding:"

PORTION_BYTES = 65_536
"""Of an answer, written at once."""


class TooLong(Exception):
    """The body is longer than the policy allows."""


class Answer:
    """One answer.

    A body that ends with the origin's connection goes on in chunks, so that the client can tell its end from
    a cut.

    Attributes:
        status: 0 before the final head has come.
        complete: All of it has come.
        body_bytes: As the origin sent them.
        hits: Secrets that were in it, complete at its end.

    Args:
        client_minor: Of the request's HTTP version; 0 understands no chunks.
        needles: None: it is not scrubbed.
        max_bytes: Of the body; None: no limit.
    """

    __slots__ = (
        "_chunked", "_client_minor", "_limits", "_max_bytes", "_needles", "_scrubber", "_trailers",
        "body_bytes", "complete", "hits", "status",
    )  # fmt: skip

    def __init__(
        self, limits: EgressLimits, *, client_minor: int, needles: Needles | None, max_bytes: int | None
    ) -> None:
        self._limits = limits
        self._client_minor = client_minor
        self._needles = needles
        self._max_bytes = max_bytes
        self._scrubber: AnswerScrubber | None = None
        self._chunked = False
        self._trailers: Trailers | None = None
        self.hits: list[Hit] = []
        self.status = 0
        self.complete = False
        self.body_bytes = 0

    def pieces(self, events: Sequence[ResponseEvent]) -> Iterator[bytes]:
        """What events of the origin are for the client, made as it is asked for: a compressed body may become
        much longer.

        Raises:
            Undecodable: The body cannot be searched for secrets.
            TooLong: The body is longer than the policy allows.
            ValueError: The head cannot be written.
        """
        if self._needles is not None and (whole := self._clean_whole(events, self._needles)):
            yield whole
            return
        for event in events:
            if isinstance(event, Data):
                if self._scrubber is None:
                    yield self._framed(self._counted(event))
                else:
                    # Not all at once.
                    for part in self._scrubber.feed(bytes(self._counted(event))):
                        yield self._framed(part)
            elif isinstance(event, End):
                yield self._end()
            elif isinstance(event, ResponseHead):
                yield self._head(event)
            elif isinstance(event, Interim):
                yield self._interim(event)
            elif isinstance(event, Trailers):
                self._trailers = event

    def give_up(self) -> None:
        """It will not be complete; `hits` has what was found so far."""
        if self._scrubber is not None:
            self.hits += self._scrubber.hits
            self._scrubber = None

    def _clean_whole(self, events: Sequence[ResponseEvent], needles: Needles) -> bytes | None:
        """An answer that has come at once and holds no secret, as it is written; None for all others.

        Most answers to programs are such, and one search through what is written anyway is several times
        quicker than to look at every part. Any doubt is left to the scrubber.
        """
        head = events[0] if len(events) == _WHOLE else None
        if not isinstance(head, ResponseHead) or head.framing is not Framing.LENGTH:
            return None
        body = events[1]
        if not isinstance(body, Data) or self._max_bytes is not None:
            return None
        text = write_response(head) + body.data
        folded = text.lower()
        if _CODED in folded or needles.find(folded):
            return None
        self.status, self.body_bytes, self.complete = head.status, len(body.data), True
        return text

    def _interim(self, interim: Interim) -> bytes:
        if not self._client_minor:
            return b""
        if self._needles is not None:
            self.hits += scrub_head(interim.head, self._needles)
        return write_response(interim.head)

    def _head(self, head: ResponseHead) -> bytes:
        if self._max_bytes is not None and head.length > self._max_bytes:
            raise TooLong
        was_chunked = head.framing is Framing.CHUNKED
        if self._needles is not None:
            self._scrubber = AnswerScrubber(
                head, self._needles, self._limits, client_minor=self._client_minor
            )
        if head.framing is Framing.CLOSE and self._client_minor:
            make_chunked(head)
        elif head.framing is Framing.CHUNKED and not was_chunked:
            head.fields.append((b"Transfer-Encoding", b"chunked"))
        self._chunked = head.framing is Framing.CHUNKED
        self.status = head.status
        return write_response(head)

    def _counted(self, data: Data) -> bytes | memoryview:
        self.body_bytes += len(data.data)
        if self._max_bytes is not None and self.body_bytes > self._max_bytes:
            raise TooLong
        return data.data

    def _end(self) -> bytes:
        rest = b""
        if self._scrubber is not None:
            rest = self._framed(self._scrubber.end(self._trailers))
            self.give_up()
        if self._chunked:
            rest += last_chunk(self._trailers.fields if self._trailers is not None else ())
        self.complete = True
        return rest

    def _framed(self, piece: bytes | memoryview) -> bytes:
        if self._chunked:
            return chunk(piece)
        return piece if isinstance(piece, bytes) else bytes(piece)


def portion_of(pieces: Iterator[bytes]) -> bytes:
    """Some of what `Answer.pieces` has; nothing when there is no more."""
    portion: list[bytes] = []
    size = 0
    for piece in pieces:
        portion.append(piece)
        size += len(piece)
        if size >= PORTION_BYTES:
            break
    return portion[0] if len(portion) == 1 else b"".join(portion)


def reason_of(error: Exception) -> Reason:
    """What a client is told about an exception of `Answer.pieces`."""
    if isinstance(error, Undecodable):
        return Reason.UNDECODABLE_FOR_SCRUB
    return Reason.BODY_TOO_LARGE if isinstance(error, TooLong) else Reason.UPSTREAM_MALFORMED
