"""Which sandbox has which slot. Pure; what is so is seen in the kernel, this only remembers it."""

from skerry.errors import ResourceExhausted
from skerry.hostd.network.addresses import SLOTS
from skerry.spec.ids import SandboxId


class Slots:
    """Slots in a circle: one that was freed is used again as late as possible."""

    def __init__(self) -> None:
        self._by_sandbox: dict[SandboxId, int] = {}
        self._taken: set[int] = set()
        self._next = 0

    def adopt(self, slot: int, sandbox_id: SandboxId) -> None:
        """Note a slot that was found in use."""
        self._by_sandbox[sandbox_id] = slot
        self._taken.add(slot)
        self._next = (slot + 1) % SLOTS

    def take(self, sandbox_id: SandboxId) -> int:
        """Give a sandbox the next free slot.

        Raises:
            ResourceExhausted: All are taken.
        """
        for step in range(SLOTS):
            slot = (self._next + step) % SLOTS
            if slot not in self._taken:
                self.adopt(slot, sandbox_id)
                return slot
        raise ResourceExhausted(f"{SLOTS} sandboxes with a network are the most: destroy some")

    def of(self, sandbox_id: SandboxId) -> int | None:
        """The slot of a sandbox; None when it has none."""
        return self._by_sandbox.get(sandbox_id)

    def free(self, sandbox_id: SandboxId) -> None:
        """Take a sandbox's slot back. Idempotent."""
        slot = self._by_sandbox.pop(sandbox_id, None)
        if slot is not None:
            self._taken.discard(slot)

    def sandboxes(self) -> list[SandboxId]:
        """Who has one."""
        return list(self._by_sandbox)
