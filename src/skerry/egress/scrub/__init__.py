"""Taking values of secrets out of what comes back: a net, not a wall. An origin can send a value in a form
that is not looked for; slots are what keeps it from being asked to."""

from skerry.egress.scrub.answer import AnswerScrubber
from skerry.egress.scrub.decoding import Decoder, Undecodable, codings
from skerry.egress.scrub.fields import scrub_head, scrub_trailers
from skerry.egress.scrub.needles import Needles
from skerry.egress.scrub.scrubber import Hit, Scrubber, SecretFound

__all__ = [
    "AnswerScrubber",
    "Decoder",
    "Hit",
    "Needles",
    "Scrubber",
    "SecretFound",
    "Undecodable",
    "codings",
    "scrub_head",
    "scrub_trailers",
]
