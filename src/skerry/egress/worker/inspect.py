"""Connections whose requests are looked at: `skerry.egress.worker.flow.Inspector`."""

import asyncio
import ssl
import time

import msgspec

from skerry.egress.hello import Hello
from skerry.egress.messages import Rules
from skerry.egress.worker.audit import Event
from skerry.egress.worker.classify import Kind
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_certificates import PROTOCOLS, Certificates
from skerry.egress.worker.inspect_connection import Connection
from skerry.egress.worker.inspect_rules import Prepared
from skerry.egress.worker.inspect_stream import Stream
from skerry.egress.worker.inspect_tls import Tls
from skerry.egress.worker.limits import Clock
from skerry.egress.worker.refuse import refuse
from skerry.egress.worker.upstream_tls import upstream_context
from skerry.policy.verdict import Reason

TICK_S = 1.0
"""How often connections are looked at whose deadlines may be over."""

MAX_UNTRUSTING = 256
"""Names whose clients were found not to trust us; each is reported once."""

_SERVED = frozenset(protocol.encode() for protocol in PROTOCOLS)
_UNTRUSTED = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)
"""What a client says that does not accept our certificate (RFC 8446, section 6.2)."""


class Inspection:
    """Terminates TLS, and serves HTTP/1.1 and WebSockets. To be made before files are out of reach.

    Args:
        rules: The first ones.
        clock: Monotonic seconds.
    """

    def __init__(self, rules: Rules, clock: Clock = time.monotonic) -> None:
        self._upstream_context = upstream_context(rules.settings.extra_roots)
        self._prepared = Prepared(rules, clock)
        self._certificates: Certificates | None = None
        self._connections: set[Connection] = set()
        self._untrusting: set[str] = set()
        self._ticking = False
        self._certify(rules)

    def adopt(self, rules: Rules) -> None:
        """Go by other rules and secrets from now on."""
        self._prepared.adopt(rules)
        self._certify(rules)

    async def serve(self, flow: Flow, hello: Hello) -> None:
        """Terminate TLS and serve requests."""
        if self._certificates is None or (hello.alpn and _SERVED.isdisjoint(hello.alpn)):
            reason = Reason.LIMIT_REACHED if self._certificates is None else Reason.HTTP2_NOT_SUPPORTED
            await refuse(flow, reason, Kind.TLS)
            return
        tls = await self._accept(flow, hello, self._certificates)
        if tls is not None:
            await self._run(flow, tls, self._upstream_context)

    async def serve_plain(self, flow: Flow) -> None:
        """Serve requests in clear."""
        await self._run(flow, None, None)

    def _certify(self, rules: Rules) -> None:
        if rules.authority is None:
            return
        if self._certificates is None:
            most = rules.settings.limits.leaf_certificates
            self._certificates = Certificates(rules.authority, most)
        else:
            self._certificates.adopt(rules.authority)

    async def _accept(self, flow: Flow, hello: Hello, certificates: Certificates) -> Tls | None:
        """Do a handshake as the server; None when it failed."""
        tls = Tls(certificates.context(str(flow.host), flow.shared.now_ms()), server_side=True)
        try:
            async with asyncio.timeout(flow.shared.limits.settings.handshake_s):
                await tls.handshake(flow.client)
        except TimeoutError:
            flow.shared.limits.hit("handshake_s")
            return None
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason in _UNTRUSTED:
                self._report_untrusting(flow, hello)
            return None
        return tls

    def _report_untrusting(self, flow: Flow, hello: Hello) -> None:
        name = str(flow.host)
        if name in self._untrusting or len(self._untrusting) >= MAX_UNTRUSTING:
            return
        self._untrusting.add(name)
        # What little tells one tool from another.
        hint = f"client hello of {hello.length} bytes"
        entry = flow.describe(Event.CLIENT_UNTRUSTED_CA)
        alpn = b",".join(hello.alpn).decode("latin-1")
        flow.shared.audit.record(msgspec.structs.replace(entry, sni=name, alpn=alpn, note=hint))

    async def _run(self, flow: Flow, tls: Tls | None, context: ssl.SSLContext | None) -> None:
        client = Stream(flow.client, tls, flow.shared.limits.settings.buffer_bytes)
        connection = Connection(flow, self._prepared, client, context)
        flow.still_fits = connection.still_fits
        self._connections.add(connection)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            flow.still_fits = None

    def _tick(self) -> None:
        for connection in tuple(self._connections):
            connection.tick()
        self._ticking = bool(self._connections)
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
