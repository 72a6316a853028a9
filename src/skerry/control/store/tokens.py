"""The table of tokens. Every change is on disk when the method returns: a revoked token must not come back
with the next boot.
"""

import sqlite3
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.records import TokenRecord
from skerry.control.store.schema import tokens
from skerry.control.store.statement import Statement
from skerry.errors import NotFound, ResourceExhausted
from skerry.spec.ids import TokenId
from skerry.spec.limits import MAX_TOKENS

_c = tokens.c
_NAMES = TokenRecord.__struct_fields__
_ROW = sa.select(*(_c[name] for name in _NAMES))
_BY_HASH = Statement(_ROW.where(_c.sha256 == sa.bindparam("key")))
_ALL = Statement(_ROW.order_by(_c.created_at_ms.desc(), _c.token_id))
_COUNT = Statement(sa.select(sa.func.count()).select_from(tokens))
_INSERT = Statement(sa.insert(tokens))
_EXISTS = Statement(sa.select(_c.token_id).where(_c.token_id == sa.bindparam("key")))
_REVOKE = Statement(
    sa.update(tokens)
    .where(_c.token_id == sa.bindparam("key"), _c.revoked_at_ms.is_(None))
    .values(revoked_at_ms=sa.bindparam("now_ms"))
)


class TokenStore:
    """Tokens as records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, record: TokenRecord) -> None:
        """Record a new token.

        Raises:
            ResourceExhausted: There are too many, revoked ones included.
        """
        row = _row(record)

        def work(connection: sqlite3.Connection) -> None:
            if _COUNT.run(connection).fetchone()[0] >= MAX_TOKENS:
                raise ResourceExhausted(f"there are {MAX_TOKENS} tokens, and that is the limit")
            _INSERT.run(connection, row)

        await self._database.write(work, durable=True)

    async def insert_first(self, record: TokenRecord) -> bool:
        """Record a token if there is none at all yet; say whether it was recorded."""
        row = _row(record)

        def work(connection: sqlite3.Connection) -> bool:
            if _COUNT.run(connection).fetchone()[0] > 0:
                return False
            _INSERT.run(connection, row)
            return True

        return await self._database.write(work, durable=True)

    async def by_hash(self, sha256: str) -> TokenRecord | None:
        """The token with this hash, revoked and expired ones included."""
        rows = await self._database.read(
            lambda connection: _BY_HASH.run(connection, {"key": sha256}).fetchall()
        )
        return _record(rows[0]) if rows else None

    async def all(self) -> list[TokenRecord]:
        """Every token, newest first."""
        rows = await self._database.read(lambda connection: _ALL.run(connection).fetchall())
        return [_record(row) for row in rows]

    async def revoke(self, token_id: TokenId, *, now_ms: int) -> None:
        """Revoke a token; one that is revoked already stays as it is.

        Raises:
            NotFound: There is no such token.
        """

        def work(connection: sqlite3.Connection) -> None:
            if _EXISTS.run(connection, {"key": token_id}).fetchone() is None:
                raise NotFound("there is no such token", code="TOKEN_NOT_FOUND")
            _REVOKE.run(connection, {"key": token_id, "now_ms": now_ms})

        await self._database.write(work, durable=True)


def _row(record: TokenRecord) -> dict[str, Any]:
    return {**msgspec.to_builtins(record), "scopes": msgspec.json.encode(record.scopes).decode()}


def _record(row: tuple[Any, ...]) -> TokenRecord:
    values = dict(zip(_NAMES, row, strict=True))
    values["scopes"] = msgspec.json.decode(values["scopes"])
    return msgspec.convert(values, TokenRecord)
