"""A whole answer: head, body, trailers."""

from collections.abc import Iterator
from typing import Literal

from skerry.egress.http1.model import Framing, ResponseHead, Trailers
from skerry.egress.scrub.decoding import Decoder, codings
from skerry.egress.scrub.fields import scrub_head, scrub_trailers
from skerry.egress.scrub.needles import Needles
from skerry.egress.scrub.scrubber import Hit, Scrubber, SecretFound
from skerry.spec.settings import EgressLimits

_OF_CODED_FORM = frozenset(
    {b"content-encoding", b"content-length", b"content-md5", b"digest", b"content-digest"}
)


class AnswerScrubber:
    """Scrubs one answer.

    A body with a content coding is decoded and goes to the client without one, in chunks: every client
    understands that, whatever it offered, and nothing needs to be compressed again.
    """

    def __init__(
        self,
        head: ResponseHead,
        needles: Needles,
        limits: EgressLimits,
        *,
        client_minor: int,
        action: Literal["mask", "abort"] = "mask",
    ) -> None:
        """Scrub the head in place, and prepare for its body.

        Args:
            client_minor: Of the request's HTTP version; 0 understands no chunks.

        Raises:
            Undecodable: A content coding cannot be undone.
            SecretFound: In the head, and the action is ``abort``.
        """
        self._needles = needles
        self._abort = action == "abort"
        applied = codings(head.fields) if head.framing is not Framing.NONE else ()
        self._decoder = Decoder(applied, limits) if applied else None
        if applied:
            _decoded(head, client_minor)
        self._scrubber = Scrubber(needles, action=action)
        self._other_hits: list[Hit] = []
        self._found(scrub_head(head, needles))

    @property
    def hits(self) -> list[Hit]:
        """What was found so far."""
        return self._other_hits + self._scrubber.hits

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What can go on of the body; the iterator must be exhausted before the next call.

        Raises:
            Undecodable: The connection must be closed without a clean end of the body.
            SecretFound: The same, if the action is ``abort``.
        """
        for part in (data,) if self._decoder is None else self._decoder.feed(data):
            out = self._scrubber.feed(part)
            if out:
                yield out

    def end(self, trailers: Trailers | None = None) -> bytes:
        """Return the rest of the body; scrub its trailers in place.

        Raises:
            Undecodable, SecretFound: As `feed`.
        """
        if self._decoder is not None:
            self._decoder.end()
        if trailers is not None:
            self._found(scrub_trailers(trailers, self._needles))
        return self._scrubber.end()

    def _found(self, hits: list[Hit]) -> None:
        self._other_hits += hits
        if hits and self._abort:
            raise SecretFound(hits[0])


def _decoded(head: ResponseHead, client_minor: int) -> None:
    """Make the head fit the decoded body: digests and length of the coded form go."""
    head.fields = [field for field in head.fields if field[0].lower() not in _OF_CODED_FORM]
    head.framing = Framing.CHUNKED if client_minor else Framing.CLOSE
    head.length = 0
    if head.framing is Framing.CLOSE:
        head.keep_alive = False
