"""One connection of the sandbox: where it wants to go, what was decided, what has passed."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Protocol

import msgspec

from skerry.egress.dns import SyntheticNames
from skerry.egress.dns.names import NAME_SERVER
from skerry.egress.hello import Hello
from skerry.egress.messages import Rules
from skerry.egress.own_places import own_of
from skerry.egress.worker.audit import AuditTrail, Entry, Event
from skerry.egress.worker.dial import Dialled, Dialler
from skerry.egress.worker.limits import Limits
from skerry.policy.compiled import Policy
from skerry.policy.verdict import Mode, Reason, Verdict

SYNTHETIC = IPv4Network("198.18.0.0/15")

UNDECIDED = Verdict(allowed=False, rule="builtin.gateway", reason=Reason.SELF)
_UNKNOWN_ADDRESS = Verdict(allowed=False, rule="builtin.gateway", reason=Reason.ADDRESS_NOT_ALLOWED)

Host = str | IPv4Address | IPv6Address
"""A canonical name, or an address."""


class Current:
    """What the worker goes by now. Read it for each decision; never keep a part of it over an ``await``.

    Attributes:
        rules: The last ones that came.
        policy: Made of them.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.policy = _policy(rules)

    def adopt(self, rules: Rules) -> None:
        """Go by these from now on."""
        policy = _policy(rules)
        self.rules = rules
        self.policy = policy

    @property
    def version(self) -> int:
        """Of the policy."""
        return self.rules.version


def _policy(rules: Rules) -> Policy:
    return Policy(
        rules.layers,
        [secret.rule for secret in rules.secrets],
        rules.settings.internal,
        own=own_of(rules.own),
    )


class Broker(Protocol):
    """What the broker is told about secrets."""

    def used(self, secret: str) -> None:
        """A request carried it. To be called for each such request; counts go out about once a second."""
        ...

    def cut(self, secret: str) -> None:
        """Its placeholder strayed and its rule says ``kill``. The broker will end this worker."""
        ...


class Inspector(Protocol):
    """Takes connections whose requests are looked at.

    Both methods own the flow's client socket from the call on (`Flow.client`, non-blocking, nothing taken
    yet) and return when the connection is over, however it ended; they may be cancelled at any time, which
    means that the rules do not allow the flow any more or that the worker ends: drop both sides at once. The
    caller closes the socket afterwards if that was not done.
    """

    def adopt(self, rules: Rules) -> None:
        """Other rules or secrets count from now on.

        Called after `Current` has them, before the flows are asked whether they still fit. What is prepared
        from rules (needles, contexts) is made anew.
        """
        ...

    async def serve(self, flow: "Flow", hello: Hello) -> None:
        """Terminate TLS for `Flow.host`, whose name the hello has, and serve its requests."""
        ...

    async def serve_plain(self, flow: "Flow") -> None:
        """Serve HTTP in clear. No secret is bound to the host.

        With `Flow.via_proxy` the request has the absolute form, its authority is `Flow.host` and `Flow.port`
        (checked already), and exactly one is served: clients of a proxy go on with other hosts, each of which
        needs a decision of its own.
        """
        ...


@dataclass(slots=True)
class Shared:
    """What all connections of a worker share.

    Attributes:
        now_ms: Wall clock.
        on_defect: Called with an exception that should not have been; its connection is closed.
    """

    current: Current
    audit: AuditTrail
    limits: Limits
    dialler: Dialler
    names: SyntheticNames
    inspector: Inspector
    broker: Broker
    now_ms: Callable[[], int]
    on_defect: Callable[[Exception], None]


@dataclass(slots=True, eq=False)
class Flow:
    """One connection.

    Attributes:
        number: Counted in the worker's life; stands in the audit lines.
        client: The sandbox's end: a plain non-blocking socket of which bytes have at most been peeked at.
        destination: As the sandbox's kernel addressed it.
        host, port: What was decided about. Of a connection to a synthetic address the host is its name.
        verdict: The decision; `UNDECIDED` before there is one.
        via_connect: It came through the explicit proxy, by CONNECT.
        via_proxy: It came through the explicit proxy, in the absolute form.
        sent_bytes, received_bytes: From and to the sandbox; whoever moves bytes counts them.
        mode: How it is served; None while that is not known.
        sni, alpn, has_ech: As the client's hello has them.
        dialled: The address that was connected to last, for the audit trail.
        opened_at_s: When it was found to be allowed, by the monotonic clock.
        still_fits: Asked after each change of the rules, beyond what `fits` asks; returning False ends the
            flow. Set by whoever serves it (a WebSocket, a response that goes on for long, a secret in use).
    """

    shared: Shared
    number: int
    client: socket.socket
    destination: tuple[IPv4Address, int]
    host: Host
    port: int
    verdict: Verdict = UNDECIDED
    via_connect: bool = False
    via_proxy: bool = False
    mode: Mode | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    sni: str = ""
    alpn: str = ""
    has_ech: bool = False
    dialled: str = ""
    opened_at_s: float | None = None
    dialled_address: IPv4Address | IPv6Address | None = None
    still_fits: Callable[[], bool] | None = None

    def decide(self, host: Host, port: int) -> None:
        """Ask the present policy about a host, which the flow is about from now on.

        All ways in come here: a synthetic address stands for its name in each of them.
        """
        if isinstance(host, IPv4Address) and host in SYNTHETIC:
            host = self.shared.names.name(host) or host
        self.host, self.port = host, port
        if host == NAME_SERVER:
            self.verdict = UNDECIDED
        elif isinstance(host, IPv4Address) and host in SYNTHETIC:
            self.verdict = _UNKNOWN_ADDRESS
        else:
            self.verdict = self.shared.current.policy.decide(host, port)

    def describe(self, event: Event) -> Entry:
        """An audit line about the flow as it is now; more can be added with `msgspec.structs.replace`."""
        return Entry(
            event=event,
            flow=self.number,
            host=str(self.host),
            port=self.port,
            sni="" if self.sni.lower() == self.host else self.sni,
            alpn=self.alpn,
            rule=self.verdict.rule,
            mode=self.mode,
            dialled=self.dialled,
            via="connect" if self.via_connect else "proxy" if self.via_proxy else "",
        )

    def denied(self, event: Event, reason: Reason) -> Entry:
        """The same about a refusal."""
        return msgspec.structs.replace(self.describe(event), decision="deny", reason=reason)

    def opened(self) -> None:
        """Record that the flow is allowed, and how it is served. Whoever accepted it records its end."""
        self.opened_at_s = self.shared.limits.clock()
        self.shared.audit.record(msgspec.structs.replace(self.describe(Event.CONNECTION), decision="allow"))

    async def dial(self) -> Dialled:
        """Connect to the flow's host and port.

        Returns:
            A connected, non-blocking socket that the caller owns; the address was checked.
        Raises:
            DialFailed: With the reason to be told.
        """
        found = await self.shared.dialler.dial(self.host, self.port, self.verdict)
        self.dialled_address = found.address
        self.dialled = found.text
        return found

    def fits(self) -> bool:
        """Whether the present rules allow the flow as it is being served.

        One that is not allowed yet, or is just being refused, fits always.
        """
        if not self.verdict.allowed:
            return True
        policy = self.shared.current.policy
        verdict = policy.decide(self.host, self.port)
        if not verdict.allowed or not self._mode_fits(verdict):
            return False
        address = self.dialled_address
        if address is not None and policy.may_dial(self.host, address, self.port) is not None:
            return False
        self.verdict = verdict
        return self.still_fits is None or self.still_fits()

    def _mode_fits(self, verdict: Verdict) -> bool:
        match self.mode:
            case Mode.SPLICE:
                hidden = self.has_ech and verdict.inspect_ech
                return verdict.mode is not Mode.INSPECT and not hidden
            case Mode.TCP:
                return verdict.tcp and not verdict.bound
            case _:
                return True
