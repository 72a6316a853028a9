"""What inspected requests are judged by, made ready once for each set of rules."""

import os
from itertools import count

from skerry.egress.messages import Rules, Secret
from skerry.egress.scrub import Needles
from skerry.egress.substitution import Bindings, Budgets, Issued, Placeholders, Strays
from skerry.egress.worker.flow import Host
from skerry.egress.worker.inspect_answer import Answer
from skerry.egress.worker.inspect_exchange import Admitted, Exchange
from skerry.egress.worker.limits import Clock, TokenBucket
from skerry.policy.compiled import RequestVerdict
from skerry.spec.settings import EgressLimits

MAX_HOSTS = 512
"""Whose bindings are kept ready."""

MAX_RULES = 4096
"""Whose rates are counted."""

_KEY_BYTES = 32
_LARGEST_NUMBER = (1 << 64) - 1


class Prepared:
    """Secrets, needles and budgets of one sandbox.

    Attributes:
        generation: Grows with every change of the rules.
        secrets: By name, as they are now.
        needles: What answers are searched for.
        on_stray: By name: what happens to requests with the placeholder where it is inert.
        budgets, issued: Kept while rules change.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self.budgets = Budgets()
        self.issued = Issued(os.urandom(_KEY_BYTES))
        self._clock = clock
        # Unlike any other worker's; to draw each at random would cost a system call.
        self._numbers = count(int.from_bytes(os.urandom(8), "big"))
        self._right: dict[bytes, tuple[Host, int]] = {}
        self._buckets: dict[tuple[str, int], TokenBucket] = {}
        self._secrets: tuple[Secret, ...] = ()
        self.generation = 0
        self.needles = Needles(())
        self.adopt(rules)

    def adopt(self, rules: Rules) -> None:
        """Go by other rules from now on."""
        self.generation += 1
        if rules.secrets != self._secrets:
            self.needles = Needles(rules.secrets)
        self._secrets = rules.secrets
        self.secrets = {secret.rule.name: secret for secret in rules.secrets}
        self.on_stray = {secret.rule.name: str(secret.rule.on_stray) for secret in rules.secrets}
        self._placeholders = Placeholders(rules.secrets)
        self._bindings: dict[tuple[Host, int], Bindings] = {}
        self.budgets.adopt(rules.secrets, now_s=self._clock())

    def value_of(self, name: str) -> bytes | None:
        """A secret's value now; None when it has none."""
        secret = self.secrets.get(name)
        return None if secret is None else secret.value

    def bindings(self, host: Host, port: int, verdict: RequestVerdict) -> Bindings:
        """The secrets as seen from one host."""
        key = (host, port)
        found = self._bindings.get(key)
        if found is None:
            if len(self._bindings) >= MAX_HOSTS:
                self._bindings.clear()
            bound = [self.secrets[one.rule.name] for one in verdict.bindings]
            found = self._bindings[key] = Bindings(
                str(host), bound, self._secrets, budgets=self.budgets, issued=self.issued
            )
        return found

    def was_right(self, value: bytes, host: Host, port: int) -> bool:
        """Whether this value of ``Host`` was compared with these before; it comes again with each request."""
        return self._right.get(value) == (host, port)

    def is_right(self, value: bytes, host: Host, port: int) -> None:
        """It was compared, and agrees."""
        if len(self._right) >= MAX_HOSTS:
            self._right.clear()
        self._right[value] = (host, port)

    def exchange(
        self, admitted: Admitted, limits: EgressLimits, now_s: float, *, needles: Needles | None
    ) -> Exchange:
        """Begin to carry a request out.

        Args:
            needles: What its answer is searched for; None: it is not.
        """
        answer = Answer(
            limits,
            client_minor=admitted.head.minor,
            needles=needles,
            max_bytes=admitted.max_response_bytes,
        )
        says_more = admitted.has_body or admitted.websocket_key is not None
        searched = Strays(self._placeholders) if says_more and self._placeholders else None
        return Exchange(
            admitted,
            answer,
            request_id=f"req_{next(self._numbers) & _LARGEST_NUMBER:016x}",
            started_s=now_s,
            searched=searched,
            on_stray=self.on_stray,
        )

    def within_rates(self, rates: tuple[tuple[str, int], ...]) -> bool:
        """Count one request against the rates of rules; False when one is used up."""
        return all([self._bucket(rule, per_min).take() for rule, per_min in rates])

    def _bucket(self, rule: str, per_min: int) -> TokenBucket:
        found = self._buckets.get((rule, per_min))
        if found is None:
            if len(self._buckets) >= MAX_RULES:
                self._buckets.clear()
            # A tenth of a minute's worth may come at once.
            found = TokenBucket(per_min / 60, max(1, per_min // 10), self._clock)
            self._buckets[rule, per_min] = found
        return found

    def last(self, names: tuple[str, ...]) -> bool:
        """Whether none of these secrets expires."""
        return all(self.secrets[name].rule.expires_at_ms is None for name in names)

    def usable(self, names: tuple[str, ...], now_ms: int) -> bool:
        """Whether all of these secrets still have values that may be used."""
        return all(self._is_usable(self.secrets.get(name), now_ms) for name in names)

    @staticmethod
    def _is_usable(secret: Secret | None, now_ms: int) -> bool:
        if secret is None or secret.value is None or secret.state != "active":
            return False
        expires_at_ms = secret.rule.expires_at_ms
        return expires_at_ms is None or now_ms < expires_at_ms
