"""The table of sandboxes."""

from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.records import Given, Quotas, SandboxRecord
from skerry.control.store.schema import OCCUPYING, STOPPED, sandboxes
from skerry.errors import Conflict, ResourceExhausted
from skerry.lifecycle.events import Stage
from skerry.spec.ids import OwnerId, SandboxId, TokenId

_c = sandboxes.c
_NAMES = SandboxRecord.__struct_fields__
_ROW = sa.select(*(_c[name] for name in _NAMES))
_ID: sa.BindParameter[str] = sa.bindparam("key")

_INSERT = sa.insert(sandboxes)
_CLAIM = (
    sa.update(sandboxes)
    .where(_c.sandbox_id == _ID, _c.stage == Stage.POOLED.value)
    .values(
        {
            name: sa.bindparam(name)
            for name in ("owner", "token_id", "stage", "session", "stop_at_ms", "labels", "created_at_ms")
        }
    )
)
_SAVE = (
    sa.update(sandboxes)
    .where(_c.sandbox_id == _ID)
    .values(
        {
            name: sa.bindparam(name)
            for name in ("stage", "session", "stop_at_ms", "stopped_at_ms", "end_reason", "exit_code")
        }
    )
)
_FORGET = sa.delete(sandboxes).where(_c.sandbox_id == _ID)
_OCCUPIED = sa.select(
    sa.func.count().label("server"),
    sa.func.count().filter(_c.owner == sa.bindparam("owner")).label("owner"),
    sa.func.count()
    .filter(_c.token_id == sa.bindparam("token_id"), _c.owner == sa.bindparam("owner"))
    .label("token"),
).where(sa.text(OCCUPYING))
_GET = _ROW.where(_c.sandbox_id == _ID)
_ACTIVE = _ROW.where(_c.stage != Stage.STOPPED.value)
_LIST = _ROW.where(_c.owner.is_not(None)).order_by(_c.created_at_ms.desc(), _c.sandbox_id)
_LIST_OF_OWNER = _LIST.where(_c.owner == sa.bindparam("owner"))
_NEWEST_STOPPED = (
    sa.select(_c.sandbox_id)
    .where(sa.text(STOPPED))
    .order_by(_c.stopped_at_ms.desc())
    .limit(sa.bindparam("keep"))
    .scalar_subquery()
)
_PRUNE = sa.delete(sandboxes).where(
    sa.text(STOPPED),
    sa.or_(_c.stopped_at_ms < sa.bindparam("before_ms"), _c.sandbox_id.not_in(_NEWEST_STOPPED)),
)


class SandboxStore:
    """Sandboxes as records. Every method that changes something has committed when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, record: SandboxRecord, quotas: Quotas | None) -> None:
        """Record the intent to start a sandbox.

        Args:
            quotas: Checked in the same transaction; None for a pool member.

        Raises:
            ResourceExhausted: A quota is used up; nothing was recorded.
        """
        row = msgspec.to_builtins(record)

        def work(connection: sa.Connection) -> None:
            if quotas is not None:
                _check(connection, quotas, record.owner, record.token_id)
            connection.execute(_INSERT, row)

        await self._database.write(work)

    async def claim(self, sandbox_id: SandboxId, given: Given, quotas: Quotas) -> None:
        """Give a pool member to a client; from here on it runs for that client and never returns to the pool.

        Raises:
            ResourceExhausted: A quota is used up; the member is still pooled.
            Conflict: It is no pool member (any more).
        """
        values = {
            "key": sandbox_id,
            "owner": given.owner,
            "token_id": given.token_id,
            "stage": Stage.RUNNING.value,
            "session": given.session,
            "stop_at_ms": given.stop_at_ms,
            "labels": given.labels,
            "created_at_ms": given.created_at_ms,
        }

        def work(connection: sa.Connection) -> None:
            _check(connection, quotas, given.owner, given.token_id)
            if connection.execute(_CLAIM, values).rowcount != 1:
                raise Conflict("the sandbox is not in the pool", detail=sandbox_id)

        await self._database.write(work)

    async def save(self, record: SandboxRecord) -> None:
        """Write what changes during a life: stage, end, how it ended."""
        values = {
            "key": record.sandbox_id,
            "stage": record.stage.value,
            "session": record.session,
            "stop_at_ms": record.stop_at_ms,
            "stopped_at_ms": record.stopped_at_ms,
            "end_reason": record.end_reason.value if record.end_reason else None,
            "exit_code": record.exit_code,
        }
        await self._execute(_SAVE, values)

    async def forget(self, sandbox_id: SandboxId) -> None:
        """Remove the record of a pool member that no client ever had."""
        await self._execute(_FORGET, {"key": sandbox_id})

    async def get(self, sandbox_id: SandboxId) -> SandboxRecord | None:
        """One sandbox, whatever its stage and owner."""
        rows = await self._database.read(
            lambda connection: connection.execute(_GET, {"key": sandbox_id}).all()
        )
        return _record(rows[0]) if rows else None

    async def active(self) -> list[SandboxRecord]:
        """Every sandbox that is not stopped, pool members included."""
        rows = await self._database.read(lambda connection: connection.execute(_ACTIVE).all())
        return [_record(row) for row in rows]

    async def of_owner(self, owner: OwnerId | None) -> list[SandboxRecord]:
        """Sandboxes that clients have or had, newest first; those of every owner when it is None."""
        statement, values = (_LIST, {}) if owner is None else (_LIST_OF_OWNER, {"owner": owner})
        rows = await self._database.read(lambda connection: connection.execute(statement, values).all())
        return [_record(row) for row in rows]

    async def prune(self, *, before_ms: int, keep: int) -> None:
        """Forget sandboxes that stopped before a time, and all stopped ones but the newest ``keep``."""
        await self._execute(_PRUNE, {"before_ms": before_ms, "keep": keep})

    async def _execute(self, statement: sa.Executable, values: dict[str, Any]) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(statement, values)

        await self._database.write(work)


def _check(
    connection: sa.Connection, quotas: Quotas, owner: OwnerId | None, token_id: TokenId | None
) -> None:
    used = connection.execute(_OCCUPIED, {"owner": owner, "token_id": token_id}).one()
    for whose, limit, count in (
        ("this token", quotas.token, used.token),
        ("this owner", quotas.owner, used.owner),
        ("this server", quotas.server, used.server),
    ):
        if limit is not None and count >= limit:
            raise ResourceExhausted(
                f"{count} sandboxes of {whose} are running, and the limit is {limit}; "
                f"end one, or ask the operator to raise the limit",
                code="SANDBOX_LIMIT_REACHED",
            )


def _record(row: sa.Row[Any]) -> SandboxRecord:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), SandboxRecord)
