"""What earlier requests of a connection mean for later ones."""

from skerry.egress.http1 import RequestHead
from skerry.egress.scrub import Needles
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_admission import Refusal, admit, admit_again
from skerry.egress.worker.inspect_exchange import Admitted, Exchange
from skerry.egress.worker.inspect_rules import Prepared


class History:
    """Of one connection.

    Attributes:
        count: Requests that were admitted.

    Args:
        tls: Requests come over TLS.
    """

    def __init__(self, flow: Flow, prepared: Prepared, *, tls: bool) -> None:
        self.count = 0
        self._flow = flow
        self._prepared = prepared
        self._tls = tls
        self._last: Admitted | None = None
        self._values: dict[str, bytes | None] = {}
        self._scrubs = False

    @property
    def needles(self) -> Needles | None:
        """What answers are searched for, once a request has carried a secret; until then None."""
        return self._prepared.needles if self._scrubs else None

    @property
    def outdated(self) -> bool:
        """A secret that was used has another value now: no further request may be served, because what the
        origin sends would not be searched for the earlier one."""
        return any(self._prepared.value_of(name) != value for name, value in self._values.items())

    def decide(self, head: RequestHead, now_s: float) -> Admitted | Refusal:
        """Decide about a request, more quickly when it has the very head of the one before."""
        last = self._last
        if last is not None and last.head is head and admit_again(last, self._prepared, now_s=now_s):
            return last
        return admit(head, self._flow, self._prepared, now_s=now_s, tls=self._tls)

    def begin(self, admitted: Admitted, now_s: float) -> Exchange:
        """Begin to carry a request out."""
        self.count += 1
        self._last = admitted
        for name in admitted.secrets:
            self._values[name] = self._prepared.value_of(name)
        self._scrubs = self._scrubs or admitted.scrub
        limits = self._flow.shared.limits.settings
        return self._prepared.exchange(admitted, limits, now_s, needles=self.needles)
