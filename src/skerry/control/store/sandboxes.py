"""The table of sandboxes."""

import sqlite3
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.records import EgressIntent, Given, Quotas, SandboxRecord
from skerry.control.store.schema import OCCUPYING, STOPPED, policies, sandboxes
from skerry.control.store.statement import Statement
from skerry.errors import Conflict, InvalidRequest, ResourceExhausted
from skerry.lifecycle.events import Stage
from skerry.spec.ids import OwnerId, SandboxId, TokenId

_c = sandboxes.c
_NAMES = SandboxRecord.__struct_fields__
_ROW = sa.select(*(_c[name] for name in _NAMES))
_KEY: sa.BindParameter[str] = sa.bindparam("key")
_decode_egress = msgspec.json.Decoder(EgressIntent).decode

_INSERT = Statement(sa.insert(sandboxes))
_CLAIM = Statement(
    sa.update(sandboxes)
    .where(_c.sandbox_id == _KEY, _c.stage == Stage.POOLED.value)
    .values(
        {
            name: sa.bindparam(name)
            for name in (
                "owner",
                "token_id",
                "stage",
                "session",
                "stop_at_ms",
                "labels",
                "created_at_ms",
                "egress",
            )
        }
    )
)
_SAVE = Statement(
    sa.update(sandboxes)
    .where(_c.sandbox_id == _KEY)
    .values(
        {
            name: sa.bindparam(name)
            for name in ("stage", "session", "stop_at_ms", "stopped_at_ms", "end_reason", "exit_code")
        }
    )
)
_SAVE_EGRESS = Statement(
    sa.update(sandboxes).where(_c.sandbox_id == _KEY).values(egress=sa.bindparam("egress"))
)
_FORGET = Statement(sa.delete(sandboxes).where(_c.sandbox_id == _KEY))
_OCCUPIED = Statement(
    sa.select(
        sa.func.count().filter(_c.owner == sa.bindparam("owner"), _c.token_id == sa.bindparam("token_id")),
        sa.func.count().filter(_c.owner == sa.bindparam("owner")),
        sa.func.count(),
    ).where(sa.text(OCCUPYING))
)
_ALL_IDS = Statement(sa.select(_c.sandbox_id).where(_c.owner.is_not(None)))
_GET = Statement(_ROW.where(_c.sandbox_id == _KEY))
_ACTIVE = Statement(_ROW.where(_c.stage != Stage.STOPPED.value))
_POLICY = Statement(
    sa.select(policies.c.version).where(
        policies.c.owner == sa.bindparam("owner"), policies.c.name == sa.bindparam("name")
    )
)
_NEWEST_FIRST = _ROW.where(_c.owner.is_not(None)).order_by(_c.created_at_ms.desc(), _c.sandbox_id)
_LIST = Statement(_NEWEST_FIRST)
_LIST_OF_OWNER = Statement(_NEWEST_FIRST.where(_c.owner == sa.bindparam("owner")))
_NEWEST_STOPPED = (
    sa.select(_c.sandbox_id)
    .where(sa.text(STOPPED))
    .order_by(_c.stopped_at_ms.desc())
    .limit(sa.bindparam("keep"))
    .scalar_subquery()
)
_PRUNE = Statement(
    sa.delete(sandboxes).where(
        sa.text(STOPPED),
        sa.or_(_c.stopped_at_ms < sa.bindparam("before_ms"), _c.sandbox_id.not_in(_NEWEST_STOPPED)),
    )
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
            InvalidRequest: Its policy was deleted a moment ago; nothing was recorded.
        """
        row = _row(record)

        def work(connection: sqlite3.Connection) -> None:
            if quotas is not None:
                _check(connection, quotas, record.owner, record.token_id)
            _check_policy(connection, record.egress)
            _INSERT.run(connection, row)

        await self._database.write(work)

    async def claim(self, sandbox_id: SandboxId, given: Given, quotas: Quotas) -> None:
        """Give a pool member to a client; from here on it runs for that client and never returns to the pool.

        Raises:
            ResourceExhausted: A quota is used up; the member is still pooled.
            InvalidRequest: Its policy was deleted a moment ago; the member is still pooled.
            Conflict: It is no pool member (any more).
        """
        values = {
            "key": sandbox_id,
            "owner": given.owner,
            "token_id": given.token_id,
            "stage": Stage.RUNNING.value,
            "session": given.session,
            "stop_at_ms": given.stop_at_ms,
            "labels": _json(given.labels),
            "created_at_ms": given.created_at_ms,
            "egress": _egress_json(given.egress),
        }

        def work(connection: sqlite3.Connection) -> None:
            _check(connection, quotas, given.owner, given.token_id)
            _check_policy(connection, given.egress)
            if _CLAIM.run(connection, values).rowcount != 1:
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

    async def save_egress(self, sandbox_id: SandboxId, egress: EgressIntent) -> None:
        """Write what a sandbox may reach."""
        await self._execute(_SAVE_EGRESS, {"key": sandbox_id, "egress": _egress_json(egress)})

    async def forget(self, sandbox_id: SandboxId) -> None:
        """Remove the record of a pool member that no client ever had."""
        await self._execute(_FORGET, {"key": sandbox_id})

    async def get(self, sandbox_id: SandboxId) -> SandboxRecord | None:
        """One sandbox, whatever its stage and owner."""
        rows = await self._rows(_GET, {"key": sandbox_id})
        return _record(rows[0]) if rows else None

    async def active(self) -> list[SandboxRecord]:
        """Every sandbox that is not stopped, pool members included."""
        return [_record(row) for row in await self._rows(_ACTIVE, {})]

    async def of_owner(self, owner: OwnerId | None) -> list[SandboxRecord]:
        """Sandboxes that clients have or had, newest first; those of every owner when it is None."""
        rows = await (
            self._rows(_LIST, {}) if owner is None else self._rows(_LIST_OF_OWNER, {"owner": owner})
        )
        return [_record(row) for row in rows]

    async def known(self) -> list[SandboxId]:
        """The IDs of all sandboxes that clients have or had."""
        return [SandboxId(row[0]) for row in await self._rows(_ALL_IDS, {})]

    async def prune(self, *, before_ms: int, keep: int) -> int:
        """Forget sandboxes that stopped before a time, and all stopped ones but the newest ``keep``.

        Returns:
            How many were forgotten.
        """
        values = {"before_ms": before_ms, "keep": keep}
        return await self._database.write(lambda connection: _PRUNE.run(connection, values).rowcount)

    async def _execute(self, statement: Statement, values: dict[str, Any]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            statement.run(connection, values)

        await self._database.write(work)

    async def _rows(self, statement: Statement, values: dict[str, Any]) -> list[Any]:
        return await self._database.read(lambda connection: statement.run(connection, values).fetchall())


def _check(
    connection: sqlite3.Connection, quotas: Quotas, owner: OwnerId | None, token_id: TokenId | None
) -> None:
    used = _OCCUPIED.run(connection, {"owner": owner, "token_id": token_id}).fetchone()
    limits = (quotas.token, quotas.owner, quotas.server)
    for whose, limit, count in zip(("token", "owner", "server"), limits, used, strict=True):
        if limit is not None and count >= limit:
            raise ResourceExhausted(
                f"{count} sandboxes of this {whose} are running, and the limit is {limit}; "
                f"end one, or ask the operator to raise the limit",
                code="SANDBOX_LIMIT_REACHED",
            )


def _check_policy(connection: sqlite3.Connection, egress: EgressIntent | None) -> None:
    """In the transaction that begins to use it: a policy is only deleted while no sandbox does."""
    ref = egress.policy if egress is not None else None
    if ref is None:
        return
    if _POLICY.run(connection, {"owner": ref.owner, "name": ref.name}).fetchone() is None:
        raise InvalidRequest(f"the policy {ref.name!r} was deleted a moment ago", code="POLICY_NOT_FOUND")


def _egress_json(egress: EgressIntent | None) -> str | None:
    return None if egress is None else msgspec.json.encode(egress).decode()


def _json(labels: dict[str, str]) -> str:
    return msgspec.json.encode(labels).decode()


def _row(record: SandboxRecord) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(record),
        "labels": _json(record.labels),
        "egress": _egress_json(record.egress),
    }


def _record(row: tuple[Any, ...]) -> SandboxRecord:
    values = dict(zip(_NAMES, row, strict=True))
    values["labels"] = msgspec.json.decode(values["labels"])
    values["session"] = bool(values["session"])
    if values["egress"] is not None:
        values["egress"] = _decode_egress(values["egress"])
    return msgspec.convert(values, SandboxRecord)
