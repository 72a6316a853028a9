"""Numbered steps from an empty database to the present schema.

A step never changes once it is released. They are modules in a list, not files found in a directory, because
an interpreter that has dropped its privileges may no longer be able to read files. For the same reason
alembic is imported by `skerry.control.store.opening.preload`, while the process still can, and not by these
modules.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from skerry.control.store.migrations import m0001_initial, m0002_egress

if TYPE_CHECKING:
    from alembic.operations import Operations


class Migration(msgspec.Struct, frozen=True):
    """One step.

    Attributes:
        version: The schema version it leads to; steps are numbered from 1 without gaps.
        compatible_from: The oldest schema version whose code still works with the result.
        upgrade: Makes the change; it runs in a transaction of its own.
    """

    version: int
    compatible_from: int
    upgrade: "Callable[[Operations], None]"


MIGRATIONS = (
    Migration(version=1, compatible_from=1, upgrade=m0001_initial.upgrade),
    Migration(version=2, compatible_from=1, upgrade=m0002_egress.upgrade),
)
