"""How much each secret has been used, and whether it may be used once more."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from skerry.egress.messages import Secret
from skerry.policy.document import Budget
from skerry.policy.verdict import Reason


@dataclass(slots=True)
class _Account:
    budget: Budget
    left: float
    at_s: float
    used: int
    now_open: int = 0


class Budgets:
    """Of one sandbox. Kept while its rules change."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._unreported: dict[str, int] = {}

    def adopt(self, secrets: Sequence[Secret], *, now_s: float) -> None:
        """Go by these secrets' budgets from now on. What has been used stays used.

        Args:
            now_s: Of the clock that `take` is asked with; monotonic.
        """
        accounts: dict[str, _Account] = {}
        for secret in secrets:
            budget = secret.rule.budget
            account = self._accounts.get(secret.rule.name)
            if account is None:
                account = _Account(budget, float(budget.at_once()), now_s, secret.used)
            account.budget = budget
            account.left = min(account.left, float(budget.at_once()))
            accounts[secret.rule.name] = account
        self._accounts = accounts

    def take(self, name: str, now_s: float) -> Reason | None:
        """Use a secret for one request, until `release`; the reason if its budget does not allow it."""
        account = self._accounts[name]
        budget = account.budget
        if budget.requests is not None and account.used >= budget.requests:
            return Reason.BUDGET_EXHAUSTED
        if budget.concurrent is not None and account.now_open >= budget.concurrent:
            return Reason.LIMIT_REACHED
        earned = (now_s - account.at_s) * budget.requests_per_min / 60
        account.left = min(float(budget.at_once()), account.left + earned)
        account.at_s = now_s
        if account.left < 1:
            return Reason.RATE_LIMITED
        account.left -= 1
        account.used += 1
        account.now_open += 1
        self._unreported[name] = self._unreported.get(name, 0) + 1
        return None

    def release(self, names: Iterable[str]) -> None:
        """The answers to requests that carried these secrets have ended. Once for each `take`."""
        for name in names:
            account = self._accounts.get(name)
            if account is not None and account.now_open:
                account.now_open -= 1

    def unreported(self) -> dict[str, int]:
        """Uses by name since the last call."""
        counts, self._unreported = self._unreported, {}
        return counts
