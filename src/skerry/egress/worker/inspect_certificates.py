"""What a client inside is shown instead of an origin's certificate: TLS contexts, one for each name."""

import ssl
from collections import OrderedDict

from skerry.egress.ca import LEAF_BACKDATED, LEAF_LIFETIME, Issuer
from skerry.egress.messages import Authority
from skerry.egress.worker.inspect_openssl import leaf_key

PROTOCOLS = ("http/1.1", "http/1.0")
"""What can be asked for in a hello, the best one first."""

_RENEW_AFTER_MS = int((LEAF_LIFETIME - LEAF_BACKDATED).total_seconds() * 1000) // 2
"""Half of what is left of a certificate when it is made; connections may outlive theirs."""


class Certificates:
    """Contexts for connections of the sandbox, made when a name is first asked for.

    A context costs about 0.25 ms and 20 kB.

    Args:
        most: So many are kept; the one that was not used for longest goes.
    """

    def __init__(self, authority: Authority, most: int) -> None:
        self._most = most
        self._authority = authority
        self._issue_with(authority)
        self._contexts: OrderedDict[str, tuple[ssl.SSLContext, int]] = OrderedDict()

    def adopt(self, authority: Authority) -> None:
        """Certify with this authority from now on. What one of the same key has signed is kept."""
        if authority == self._authority:
            return
        if authority.key_pem != self._authority.key_pem:
            self._contexts.clear()
        self._authority = authority
        self._issue_with(authority)

    def context(self, name: str, now_ms: int) -> ssl.SSLContext:
        """The context for a name; only names that the policy allows may be asked for.

        Args:
            now_ms: Milliseconds since 1970.
        """
        found = self._contexts.get(name)
        if found is not None and now_ms < found[1]:
            self._contexts.move_to_end(name)
            return found[0]
        context = server_context()
        self._key.give(context, self._issuer.leaf(name, now_ms))
        self._contexts[name] = (context, now_ms + _RENEW_AFTER_MS)
        self._contexts.move_to_end(name)
        if len(self._contexts) > self._most:
            self._contexts.popitem(last=False)
        return context

    def _issue_with(self, authority: Authority) -> None:
        self._issuer = Issuer(authority)
        self._key = leaf_key(self._issuer.leaf_key)


def server_context() -> ssl.SSLContext:
    """A context that serves `PROTOCOLS`, without a certificate yet.

    Sessions are not resumed: every connection shows its name and is decided about anew.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(list(PROTOCOLS))
    return context
