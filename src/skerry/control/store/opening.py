"""Opening the database file: creation, refusal of what is too new, migration."""

import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from skerry.control.store.migrations import MIGRATIONS, Migration
from skerry.control.store.schema import COMPATIBLE_FROM, meta
from skerry.errors import HostUnusable

if TYPE_CHECKING:
    from alembic.operations import Operations

_FILE_MODE = 0o600
_USER_VERSION_OFFSET = 60
"""Source: SQLite file format, section 1.3 (the database header), "user version"."""

BUSY_TIMEOUT_S = 5.0


def preload(path: Path) -> None:
    """Import what opening the file will need, while the interpreter can still read its own files.

    Only alembic is left out when it is not due: it costs 0.2 s and several MiB. The header may lag behind the
    write-ahead log, so it can make this import alembic in vain, never the other way round.

    Effects: reads 100 bytes of the file, without following a symbolic link; changes nothing.
    """
    if _version_in_header(path) < MIGRATIONS[-1].version:
        import alembic.ddl.sqlite
        import alembic.migration
        import alembic.operations  # noqa: F401


def _version_in_header(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        header = os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)
    return int(struct.unpack_from(">I", header, _USER_VERSION_OFFSET)[0]) if len(header) == 100 else 0


def open_engine(path: Path) -> sa.Engine:
    """Make sure that the file exists with mode 0600 (SQLite gives its side files the same), and describe how
    to connect to it for a migration."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE))
    return sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",  # transactions are begun by hand, as immediate ones
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )


def connect(path: Path) -> sqlite3.Connection:
    """A connection for the thread that calls; transactions are begun by hand."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    # A checkpoint syncs the disk; left to SQLite one would stall the commit that happens to cross its limit.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def migrate(connection: sa.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest schema; nothing happens when it is there.

    Each step is one transaction together with its version number, so that an interrupted one leaves the step
    before.

    Raises:
        HostUnusable: A newer Skerry wrote this database in a form that this one would damage.
    """
    found = schema_version(connection)
    newest = migrations[-1].version
    if found > newest:
        _refuse_if_incompatible(connection, found, newest)
        return
    due = [migration for migration in migrations if migration.version > found]
    if not due:
        return
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for migration in due:
        _apply(connection, operations, migration)


def _apply(connection: sa.Connection, operations: "Operations", migration: Migration) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        if schema_version(connection) < migration.version:
            migration.upgrade(operations)
            connection.execute(sa.delete(meta).where(meta.c.name == COMPATIBLE_FROM))
            connection.execute(
                sa.insert(meta).values(name=COMPATIBLE_FROM, value=str(migration.compatible_from))
            )
            connection.exec_driver_sql(f"PRAGMA user_version = {migration.version:d}")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def schema_version(connection: sa.Connection) -> int:
    """The number of the last migration that was applied; 0 for an empty database."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _refuse_if_incompatible(connection: sa.Connection, found: int, newest: int) -> None:
    oldest = connection.execute(sa.select(meta.c.value).where(meta.c.name == COMPATIBLE_FROM)).scalar_one()
    if newest < int(oldest):
        raise HostUnusable(
            f"the database has schema {found}, written by a newer Skerry; this one knows schema {newest} "
            f"and would damage it. Start the newer version again, or use another data directory",
            code="DATABASE_TOO_NEW",
        )
