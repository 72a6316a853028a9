"""What every part of control stands on."""

from dataclasses import dataclass

from skerry.control.clock import Clock
from skerry.control.egress import Egress
from skerry.control.host import Host
from skerry.control.store.policies import PolicyStore
from skerry.control.store.sandboxes import SandboxStore
from skerry.control.tasks import Tasks
from skerry.spec.settings import Settings


@dataclass(frozen=True, slots=True)
class Ground:
    """The host, the outbound gateway, the records, the time and the settings.

    Attributes:
        tasks: Owns every task that control starts.
        epoch: Minted when this process started; tells agents that requests of an earlier one are void.
    """

    host: Host
    egress: Egress
    store: SandboxStore
    policies: PolicyStore
    clock: Clock
    tasks: Tasks
    settings: Settings
    epoch: int
