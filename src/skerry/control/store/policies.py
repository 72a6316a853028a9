"""The table of named policies. Every change is on disk when the method returns: what an operator forbade must
not be allowed again by the next boot.
"""

import sqlite3
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.records import SHARED, PolicyRecord, PolicyRef
from skerry.control.store.schema import policies, sandboxes, tokens
from skerry.control.store.statement import Statement
from skerry.errors import Conflict, NotFound, ResourceExhausted
from skerry.lifecycle.events import Stage
from skerry.policy.document import PolicyDocument
from skerry.spec.ids import OwnerId
from skerry.spec.limits import MAX_POLICIES

_c = policies.c
_NAMES = PolicyRecord.__struct_fields__
_ROW = sa.select(*(_c[name] for name in _NAMES))
_OWNER: sa.BindParameter[str] = sa.bindparam("owner")
_NAME: sa.BindParameter[str] = sa.bindparam("name")
_THIS = sa.and_(_c.owner == _OWNER, _c.name == _NAME)

_GET = Statement(_ROW.where(_THIS))
_ALL = Statement(_ROW.order_by(_c.name, _c.owner))
_OF_OWNER = Statement(_ROW.where(sa.or_(_c.owner == _OWNER, _c.owner == SHARED)).order_by(_c.name, _c.owner))
_COUNT = Statement(sa.select(sa.func.count()).select_from(policies).where(_c.owner == _OWNER))
_INSERT = Statement(sa.insert(policies))
_UPDATE = Statement(
    sa.update(policies)
    .where(_THIS)
    .values({name: sa.bindparam(f"new_{name}") for name in ("document", "version", "updated_at_ms")})
)
_DELETE = Statement(sa.delete(policies).where(_THIS))
_SANDBOXES = Statement(
    sa.select(sa.func.count())
    .select_from(sandboxes)
    .where(
        sandboxes.c.stage != Stage.STOPPED.value,
        sa.func.json_extract(sandboxes.c.egress, "$.policy.owner") == _OWNER,
        sa.func.json_extract(sandboxes.c.egress, "$.policy.name") == _NAME,
    )
)
_TOKENS = Statement(
    sa.select(tokens.c.token_id, tokens.c.owner).where(
        tokens.c.policy == _NAME, tokens.c.revoked_at_ms.is_(None)
    )
)

_decode_document = msgspec.json.Decoder(PolicyDocument).decode


class PolicyStore:
    """Policies as records. Look-ups by an owner see that owner's, and the shared ones behind them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, ref: PolicyRef, document: PolicyDocument, *, now_ms: int) -> PolicyRecord:
        """Make or replace a policy.

        Raises:
            ResourceExhausted: The owner has too many.
        """
        text = msgspec.json.encode(document).decode()

        def work(connection: sqlite3.Connection) -> PolicyRecord:
            found = _get(connection, ref)
            version = 1 if found is None else found.version + 1
            values = {"owner": ref.owner, "name": ref.name}
            row = {"document": text, "version": version, "updated_at_ms": now_ms}
            if found is not None:
                _UPDATE.run(connection, values | {f"new_{name}": value for name, value in row.items()})
            elif _COUNT.run(connection, {"owner": ref.owner}).fetchone()[0] >= MAX_POLICIES:
                raise ResourceExhausted(f"there are {MAX_POLICIES} policies, and that is the limit")
            else:
                _INSERT.run(connection, values | row)
            return PolicyRecord(
                owner=ref.owner, name=ref.name, document=document, version=version, updated_at_ms=now_ms
            )

        return await self._database.write(work, durable=True)

    async def get(self, ref: PolicyRef) -> PolicyRecord | None:
        """That very policy."""
        return await self._database.read(lambda connection: _get(connection, ref))

    async def find(self, owner: OwnerId, name: str) -> PolicyRecord | None:
        """The policy that an owner means by a name: its own, else the shared one."""

        def work(connection: sqlite3.Connection) -> PolicyRecord | None:
            own = _get(connection, PolicyRef(owner, name))
            return own or _get(connection, PolicyRef(SHARED, name))

        return await self._database.read(work)

    async def of_owner(self, owner: OwnerId | None) -> list[PolicyRecord]:
        """All that an owner may choose, by name; those of every owner when it is None."""
        statement, values = (_ALL, {}) if owner is None else (_OF_OWNER, {"owner": owner})
        rows = await self._database.read(lambda connection: statement.run(connection, values).fetchall())
        return [_record(row) for row in rows]

    async def delete(self, ref: PolicyRef) -> None:
        """Remove a policy.

        Raises:
            NotFound: There is none.
            Conflict: Sandboxes that are not stopped, or tokens, go by it; the message says which.
        """

        def work(connection: sqlite3.Connection) -> None:
            values = {"owner": ref.owner, "name": ref.name}
            if _get(connection, ref) is None:
                raise NotFound("there is no such policy", code="POLICY_NOT_FOUND")
            used = _SANDBOXES.run(connection, values).fetchone()[0]
            if used:
                raise Conflict(f"{used} running sandboxes go by this policy: end them first")
            meant = [
                token_id
                for token_id, owner in _TOKENS.run(connection, {"name": ref.name}).fetchall()
                if _is_meant(connection, ref, owner)
            ]
            if meant:
                raise Conflict(f"tokens have this policy as their default: {', '.join(meant[:20])}")
            _DELETE.run(connection, values)

        await self._database.write(work, durable=True)


def _is_meant(connection: sqlite3.Connection, ref: PolicyRef, owner: OwnerId) -> bool:
    """Whether an owner means this policy by its name."""
    if ref.owner != SHARED:
        return owner == ref.owner
    return _get(connection, PolicyRef(owner, ref.name)) is None


def _get(connection: sqlite3.Connection, ref: PolicyRef) -> PolicyRecord | None:
    row = _GET.run(connection, {"owner": ref.owner, "name": ref.name}).fetchone()
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> PolicyRecord:
    values = dict(zip(_NAMES, row, strict=True))
    return PolicyRecord(**{**values, "document": _decode_document(values["document"])})
