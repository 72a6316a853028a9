"""From every earlier form to the present schema, and no further back."""

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from skerry.control.store.database import Database
from skerry.control.store.migrations import MIGRATIONS, Migration
from skerry.control.store.opening import migrate, open_engine, preload, schema_version
from skerry.control.store.schema import metadata
from skerry.errors import HostUnusable, RuntimeFailed

if TYPE_CHECKING:
    from alembic.operations import Operations


_COLUMNS = "PRAGMA table_info(sandboxes)"


def _schema(connection: sa.Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.split()) for name, sql in rows}


def _structure(connection: sa.Connection) -> dict[str, object]:
    """Columns in their order, and indexes: the text of a table differs when a column was added to it."""
    found: dict[str, object] = {}
    for name, sql in _schema(connection).items():
        columns = connection.exec_driver_sql(f"PRAGMA table_xinfo({name})").fetchall()
        found[name] = [tuple(column) for column in columns] if sql.startswith("CREATE TABLE") else sql
    return found


def test_the_migrations_lead_to_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    migrated, fresh = open_engine(tmp_path / "migrated.db"), open_engine(tmp_path / "fresh.db")
    metadata.create_all(fresh)
    with migrated.connect() as one, fresh.connect() as other:
        migrate(one)
        assert _structure(one) == _structure(other)
        assert schema_version(one) == MIGRATIONS[-1].version


def test_steps_are_numbered_without_gaps_and_never_claim_to_be_newer_than_they_are() -> None:
    assert [one.version for one in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert all(1 <= one.compatible_from <= one.version for one in MIGRATIONS)


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection)
        before = _schema(connection)
        migrate(connection)
        assert _schema(connection) == before


def _add_column(op: "Operations") -> None:
    op.add_column("tokens", sa.Column("note", sa.Text))


def test_a_later_step_is_applied_to_an_existing_database_and_keeps_its_rows(tmp_path: Path) -> None:
    later = (*MIGRATIONS, Migration(version=len(MIGRATIONS) + 1, compatible_from=1, upgrade=_add_column))
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection)
        connection.execute(sa.text("INSERT INTO meta VALUES ('kept', 'yes')"))
        migrate(connection, later)
        assert "note" in _schema(connection)["tokens"]
        assert connection.execute(sa.text("SELECT value FROM meta WHERE name = 'kept'")).scalar_one() == "yes"


def test_what_ran_before_the_gateway_goes_on_without_network(tmp_path: Path) -> None:
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection, MIGRATIONS[:1])
        columns: dict[str, object] = {
            row[1]: "x" if row[3] else None for row in connection.exec_driver_sql(_COLUMNS)
        }
        columns |= {"sandbox_id": "sbx_ord_" + "0" * 20, "stage": "running", "isolation": "fake"}
        columns |= {"labels": "{}", "memory_mib": 1, "cpus": 1, "disk_mib": 1, "max_processes": 1}
        columns |= {"session": 0, "created_at_ms": 1, "owner": "alice"}
        names = ", ".join(columns)
        places = ", ".join(f":{name}" for name in columns)
        connection.execute(sa.text(f"INSERT INTO sandboxes ({names}) VALUES ({places})"), columns)  # noqa: S608
        migrate(connection)
        assert connection.execute(sa.text("SELECT egress FROM sandboxes")).scalar_one() is None


def test_a_step_that_fails_leaves_the_step_before(tmp_path: Path) -> None:
    def broken(op: "Operations") -> None:
        _add_column(op)
        raise RuntimeError("power failure")

    later = (*MIGRATIONS, Migration(version=len(MIGRATIONS) + 1, compatible_from=1, upgrade=broken))
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection)
        before = _schema(connection)
        with pytest.raises(RuntimeError, match="power failure"):
            migrate(connection, later)
        assert _schema(connection) == before
        assert schema_version(connection) == MIGRATIONS[-1].version


@pytest.mark.parametrize(("back", "refused"), [(0, True), (1, False)])
def test_a_newer_database_is_used_only_if_it_says_that_it_may_be(
    tmp_path: Path, back: int, refused: bool
) -> None:
    newer = len(MIGRATIONS) + 1
    later = (*MIGRATIONS, Migration(version=newer, compatible_from=newer - back, upgrade=_add_column))
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection, later)
    if refused:
        with pytest.raises(HostUnusable, match="newer Skerry") as error:
            Database.open(tmp_path / "db")
        assert error.value.code == "DATABASE_TOO_NEW"
    else:
        with open_engine(tmp_path / "db").connect() as connection:
            migrate(connection)
            assert schema_version(connection) == newer


def _modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "skerry.db")
    await database.write(lambda connection: connection.execute("INSERT INTO meta VALUES ('a', 'b')").close())
    modes = _modes(tmp_path)
    await database.close()
    assert modes == {"skerry.db": 0o600, "skerry.db-wal": 0o600, "skerry.db-shm": 0o600}


def test_neither_opening_nor_preloading_follows_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    (tmp_path / "db").symlink_to(target)
    preload(tmp_path / "db")
    with pytest.raises(RuntimeFailed):
        Database.open(tmp_path / "db")
    assert target.read_bytes() == b""


def test_a_damaged_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(RuntimeFailed, match="database"):
        Database.open(tmp_path / "db")
