"""The name server of sandboxes. It answers from policy alone and asks nobody: an allowed name has a synthetic
address, by which the gateway later knows what name is meant."""

from skerry.egress.dns.framing import FramingError, QueryFramer, framed
from skerry.egress.dns.names import SyntheticNames
from skerry.egress.dns.responder import QueryLimit, answer

__all__ = ["FramingError", "QueryFramer", "QueryLimit", "SyntheticNames", "answer", "framed"]
