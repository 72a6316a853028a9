"""What survives the broker: one sealed memory file for each sandbox, held by whoever started egressd.

Nothing of it is on any disk. Source: memfd_create(2), F_ADD_SEALS in fcntl(2).
"""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog

from skerry.egress.broker.held import Held
from skerry.spec.ids import SandboxId

MAX_BYTES = 2 << 20
"""The largest that is kept of one sandbox; a frame with a grant has at most half of it."""

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_log = structlog.get_logger("skerry.egress.vault")
_encode = msgspec.msgpack.Encoder().encode
_held = msgspec.msgpack.Decoder(Held)


class Keeper(Protocol):
    """Who keeps the files. Both raise `OSError` when it cannot be told."""

    async def keep(self, sandbox_id: SandboxId, descriptor: int) -> None:
        """Keep a duplicate of this file for a sandbox, in place of an earlier one. When this returns, it
        survives the end of this process."""
        ...

    async def forget(self, sandbox_id: SandboxId) -> None:
        """Keep nothing for a sandbox any more. Idempotent."""
        ...


class Vault:
    """Puts away what is held of sandboxes."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def save(self, held: Held) -> None:
        """Put a sandbox's state away.

        Raises:
            OSError: It could not be; an earlier state is kept still.
        """
        descriptor = sealed(_encode(held))
        try:
            await self._keeper.keep(held.sandbox_id, descriptor)
        finally:
            os.close(descriptor)

    async def remove(self, sandbox_id: SandboxId) -> None:
        """Forget a sandbox.

        Raises:
            OSError: It could not be told.
        """
        await self._keeper.forget(sandbox_id)


def sealed(data: bytes) -> int:
    """A memory file that nobody can change any more.

    Raises:
        OSError: There is no memory for it.
    """
    descriptor = os.memfd_create("skerry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def restore(descriptors: Sequence[int]) -> list[Held]:
    """Read what an earlier process has put away; closes the descriptors. What is damaged is left out."""
    found: list[Held] = []
    for descriptor in descriptors:
        try:
            found.append(_held.decode(_content(descriptor)))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("vault_entry_damaged", error=type(error).__name__)
        finally:
            with suppress(OSError):
                os.close(descriptor)
    return found


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > MAX_BYTES:
        raise OSError("too large")
    return os.pread(descriptor, size, 0)
