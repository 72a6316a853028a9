"""The table of tokens. Every change is on disk when the method returns: a revoked token must not come back
with the next boot.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.records import TokenRecord
from skerry.control.store.schema import tokens
from skerry.errors import NotFound, ResourceExhausted
from skerry.spec.ids import TokenId
from skerry.spec.limits import MAX_TOKENS

_c = tokens.c
_NAMES = TokenRecord.__struct_fields__
_ROW = sa.select(*(_c[name] for name in _NAMES))
_BY_HASH = _ROW.where(_c.sha256 == sa.bindparam("sha256_"))
_ALL = _ROW.order_by(_c.created_at_ms.desc(), _c.token_id)
_COUNT = sa.select(sa.func.count()).select_from(tokens)
_INSERT = sa.insert(tokens)
_EXISTS = sa.select(_c.token_id).where(_c.token_id == sa.bindparam("key"))
_REVOKE = (
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
        row = msgspec.to_builtins(record)

        def work(connection: sa.Connection) -> None:
            if connection.execute(_COUNT).scalar_one() >= MAX_TOKENS:
                raise ResourceExhausted(f"there are {MAX_TOKENS} tokens, and that is the limit")
            connection.execute(_INSERT, row)

        await self._database.write(work, durable=True)

    async def insert_first(self, record: TokenRecord) -> bool:
        """Record a token if there is none at all yet; say whether it was recorded."""
        row = msgspec.to_builtins(record)

        def work(connection: sa.Connection) -> bool:
            if connection.execute(_COUNT).scalar_one() > 0:
                return False
            connection.execute(_INSERT, row)
            return True

        return await self._database.write(work, durable=True)

    async def by_hash(self, sha256: str) -> TokenRecord | None:
        """The token with this hash, revoked and expired ones included."""
        rows = await self._database.read(
            lambda connection: connection.execute(_BY_HASH, {"sha256_": sha256}).all()
        )
        return _record(rows[0]) if rows else None

    async def all(self) -> list[TokenRecord]:
        """Every token, newest first."""
        rows = await self._database.read(lambda connection: connection.execute(_ALL).all())
        return [_record(row) for row in rows]

    async def revoke(self, token_id: TokenId, *, now_ms: int) -> None:
        """Revoke a token; one that is revoked already stays as it is.

        Raises:
            NotFound: There is no such token.
        """

        def work(connection: sa.Connection) -> None:
            if connection.execute(_EXISTS, {"key": token_id}).one_or_none() is None:
                raise NotFound("there is no such token", code="TOKEN_NOT_FOUND")
            connection.execute(_REVOKE, {"key": token_id, "now_ms": now_ms})

        await self._database.write(work, durable=True)


def _record(row: sa.Row[Any]) -> TokenRecord:
    return msgspec.convert(dict(zip(_NAMES, row, strict=True)), TokenRecord)
