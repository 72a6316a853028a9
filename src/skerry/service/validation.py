"""What a create may ask for. All problems are found at once, so that nobody has to mend them one by one."""

from collections.abc import Iterator

import msgspec

from skerry.errors import InvalidRequest, NotSupported
from skerry.policy.deno_fields import SandboxFields, sandbox_layer
from skerry.service.requests import CreateRequest
from skerry.spec import limits
from skerry.spec.settings import Settings

REGION_ALIAS = "ams"
"""There is one region, whatever it is called; clients made for the hosted service also know this name."""


class Bounds(msgspec.Struct, frozen=True):
    """What depends on the moment.

    Attributes:
        host_memory_mib: All of the host's memory; 0: unknown.
    """

    settings: Settings
    host_memory_mib: int
    now_ms: int

    def max_memory_mib(self) -> int | None:
        """The most that a sandbox may have; None: no bound is known."""
        bounds = [one for one in (self.settings.sandbox.max_memory_mib, self.host_memory_mib) if one > 0]
        return min(bounds, default=None)

    def max_lifetime_s(self) -> int:
        """How far ahead an end may be."""
        return self.settings.sandbox.max_lifetime_s or limits.MAX_LIFETIME_S


def check_create(request: CreateRequest, bounds: Bounds) -> SandboxFields:
    """Check everything that a create asks for.

    Returns:
        What its `allow_net` and `secrets` mean.

    Raises:
        InvalidRequest: Something can never work; the message lists all problems.
        NotSupported: All is well but for what this version does not have.
    """
    missing = list(_not_supported(request))
    fields = sandbox_layer(request.allow_net, dict(request.secrets), now_ms=bounds.now_ms)
    wrong = [
        *_memory_problems(request, bounds),
        *_end_problems(request, bounds),
        *_label_problems(request.labels),
        *_env_problems(request.env),
        *fields.problems,
        *_twice_problems(request),
        *_region_problems(request.region, bounds.settings.region),
    ]
    if wrong:
        raise InvalidRequest(_listed(wrong + missing), code="INVALID_SANDBOX_CONFIG")
    if missing:
        raise NotSupported(_listed(missing))
    return fields


def check_end(stop_at_ms: int, bounds: Bounds) -> int:
    """Check a new end and cut it to what is allowed.

    Raises:
        InvalidRequest: It is in the past.
    """
    problem = _past_problem(stop_at_ms, bounds.now_ms)
    if problem is not None:
        raise InvalidRequest(problem)
    return min(stop_at_ms, bounds.now_ms + bounds.max_lifetime_s() * 1000)


def _listed(problems: list[str]) -> str:
    shown = problems[: limits.MAX_LISTED_PROBLEMS]
    rest = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more problems" if rest else "")


def _not_supported(request: CreateRequest) -> Iterator[str]:
    later = "this version of Skerry does not have them yet: create without"
    if request.root is not None:
        yield f"root: volumes and snapshots to boot from come with a later version; {later} `root`"
    if request.volumes:
        yield f"volumes: they come with a later version; {later} `volumes`"


def _memory_problems(request: CreateRequest, bounds: Bounds) -> Iterator[str]:
    if request.memory_mib is None:
        return
    least, most = bounds.settings.sandbox.min_memory_mib, bounds.max_memory_mib()
    if request.memory_mib < least or (most is not None and request.memory_mib > most):
        allowed = f"at least {least} MiB" if most is None else f"from {least} to {most} MiB"
        yield f"memory_mb: {_shown(request.memory_mib)} is not allowed here; ask for {allowed}"


def _end_problems(request: CreateRequest, bounds: Bounds) -> Iterator[str]:
    longest_s = bounds.max_lifetime_s()
    if request.session != (request.stop_at_ms is None and request.duration_s is None):
        yield "timeout: either session, or a duration or an end"
    if request.stop_at_ms is not None and request.duration_s is not None:
        yield "timeout: either a duration or stop_at_ms, not both"
    if request.stop_at_ms is not None:
        if (problem := _past_problem(request.stop_at_ms, bounds.now_ms)) is not None:
            yield problem
        elif request.stop_at_ms > bounds.now_ms + longest_s * 1000:
            yield f"stop_at_ms: at most {longest_s} s ahead are allowed here"
    if request.duration_s is not None and not 0 < request.duration_s <= longest_s:
        yield f"timeout: {_shown(request.duration_s)} s is not allowed here; ask for 1 to {longest_s} s"


def _past_problem(stop_at_ms: int, now_ms: int) -> str | None:
    if stop_at_ms > now_ms:
        return None
    return f"stop_at_ms: {_shown(stop_at_ms)} is in the past; by this server's clock it is {now_ms}"


def _label_problems(labels: dict[str, str]) -> Iterator[str]:
    if len(labels) > limits.MAX_LABELS:
        yield f"labels: {len(labels)} were given, at most {limits.MAX_LABELS} are allowed"
    for key, value in labels.items():
        if not key or _size(key) > limits.MAX_LABEL_KEY_BYTES:
            longest = limits.MAX_LABEL_KEY_BYTES
            yield f"labels: a key must have 1 to {longest} bytes of UTF-8, not {_size(key)}"
        if _size(value) > limits.MAX_LABEL_VALUE_BYTES:
            yield (
                f"labels: the value of {_quoted(key)} has {_size(value)} bytes of UTF-8, "
                f"at most {limits.MAX_LABEL_VALUE_BYTES} are allowed"
            )


def _env_problems(env: dict[str, str]) -> Iterator[str]:
    """Values are never repeated: they may be secret."""
    total = 0
    for name, value in env.items():
        size = _size(name) + 1 + _size(value)
        total += size
        if not name or "=" in name or "\0" in name:
            yield f"env: {_quoted(name)} is no name of a variable; it must not be empty, nor hold = or a NUL"
        if "\0" in value:
            yield f"env: the value of {_quoted(name)} holds a NUL character"
        if size > limits.MAX_ENV_ENTRY_BYTES:
            most = limits.MAX_ENV_ENTRY_BYTES
            yield f"env: {_quoted(name)} with its value has {size} bytes, and Linux takes at most {most}"
    if total > limits.MAX_ENV_BYTES:
        yield f"env: {total} bytes in all, at most {limits.MAX_ENV_BYTES} are allowed"


def _twice_problems(request: CreateRequest) -> Iterator[str]:
    for name in request.secrets:
        if name in request.env:
            yield f"env: {_quoted(name)} is a secret too, whose placeholder is in that variable; leave it out"


def _region_problems(region: str | None, own: str) -> Iterator[str]:
    if region not in (None, own, REGION_ALIAS):
        yield f"region: {_quoted(region or '')} is not here; this server's only region is {own}"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _shown(number: int) -> str:
    """A number from outside; JSON has no bound for them."""
    return str(number) if abs(number) < 10**18 else "this number"
