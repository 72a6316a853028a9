"""Whether a driver really works: a sandbox is started, its agent heard, and all removed. What a host looks
like says too little.
"""

import asyncio
import secrets

from skerry.errors import SkerryError, TimedOut
from skerry.hostd.drivers.base import Driver
from skerry.hostd.listeners import AgentListeners
from skerry.spec.ids import SandboxId, new_sandbox_id
from skerry.spec.sandbox import Isolation, StartSpec

HEARD_S = 10.0
RETRY_S = 30.0
"""A failure is believed for this long."""

_REGION = "try"
_MEMORY_MIB, _CPUS, _DISK_MIB, _PROCESSES = 256, 1.0, 64, 256


class Trials:
    """Remembers which drivers have proven to work.

    Args:
        image: Root image of the trial.
    """

    def __init__(self, listeners: AgentListeners, image: str) -> None:
        self._listeners = listeners
        self._image = image
        self._proven: set[Isolation] = set()
        self._failed: dict[Isolation, tuple[float, str]] = {}
        self._lock = asyncio.Lock()
        self.running: set[SandboxId] = set()
        """Sandboxes that exist only for a trial, so nobody is told of them."""

    def prove(self, isolation: Isolation) -> None:
        """Take note that a driver works: sandboxes of it run."""
        self._proven.add(isolation)

    async def problem(self, driver: Driver) -> str | None:
        """Why the driver does not work, in one sentence; None when it does. Runs a trial when it is not
        known.
        """
        async with self._lock:
            if driver.isolation in self._proven:
                return None
            now_s = asyncio.get_running_loop().time()
            failed_s, problem = self._failed.get(driver.isolation, (-RETRY_S, ""))
            if now_s - failed_s >= RETRY_S:
                found = await self._try(driver)
                if found is None:
                    self._proven.add(driver.isolation)
                    return None
                problem = found
                self._failed[driver.isolation] = now_s, problem
            return problem

    async def _try(self, driver: Driver) -> str | None:
        sandbox_id = new_sandbox_id(_REGION, secrets.randbelow)
        spec = StartSpec(sandbox_id, driver.isolation, self._image, _MEMORY_MIB, _CPUS, _DISK_MIB, _PROCESSES)
        self.running.add(sandbox_id)
        try:
            await self._start_and_hear(driver, spec)
            return None
        except (SkerryError, TimeoutError) as error:
            message = error.message if isinstance(error, SkerryError) else "its agent was not heard in time"
            detail = error.detail if isinstance(error, SkerryError) else ""
            return f"a trial sandbox did not work: {message} {detail[:300]}".strip()
        finally:
            self._listeners.remove(sandbox_id)
            self.running.discard(sandbox_id)

    async def _start_and_hear(self, driver: Driver, spec: StartSpec) -> None:
        listener = self._listeners.listener(spec.sandbox_id, self.running)
        loop = asyncio.get_running_loop()
        try:
            await driver.start(spec, self._listeners.endpoint(spec.sandbox_id))
            async with asyncio.timeout(HEARD_S):
                connection, _ = await loop.sock_accept(listener)
                with connection:
                    if not await loop.sock_recv(connection, 1):
                        raise TimedOut("the agent of a trial sandbox", HEARD_S)
        finally:
            await driver.destroy(spec.sandbox_id)
