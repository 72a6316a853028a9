"""How often something may happen."""


class TokenBucket:
    """Allows bursts of `capacity` and `per_s` in the long run. Has no clock: the caller says what time it is.

    Args:
        capacity: Tokens of a full bucket, which it is at first.
        per_s: Tokens that come back each second.
        now_s: Time now, on any steady clock.
    """

    __slots__ = ("_capacity", "_per_s", "_tokens", "_updated_s")

    def __init__(self, *, capacity: float, per_s: float, now_s: float) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._tokens = capacity
        self._updated_s = now_s

    def try_take(self, now_s: float, tokens: float = 1.0) -> bool:
        """Take tokens if so many are there."""
        self._fill(now_s)
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def wait_s(self, now_s: float) -> float:
        """Seconds until one token is there; 0 when it is."""
        self._fill(now_s)
        return max(0.0, (1.0 - self._tokens) / self._per_s)

    def _fill(self, now_s: float) -> None:
        gained = max(0.0, now_s - self._updated_s) * self._per_s
        self._tokens = min(self._capacity, self._tokens + gained)
        self._updated_s = now_s
