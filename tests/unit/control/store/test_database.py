"""The two threads behind the database: transactions, errors, cancellation, closing."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import skerry.control.store.database as database_module
from skerry.control.store.database import Database
from skerry.errors import ResourceExhausted, RuntimeFailed


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "skerry.db")
    yield opened
    await opened.close()


def _put(name: str) -> str:
    return f"INSERT INTO meta VALUES ('{name}', 'x')"  # noqa: S608


def _insert(name: str) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.execute(_put(name)).close()


def _names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM meta WHERE value = 'x' ORDER BY name")
    return [name for (name,) in rows]


async def test_a_read_sees_every_write_that_was_awaited(database: Database) -> None:
    await database.write(lambda connection: connection.execute(_put("a")).close())
    assert await database.read(_names) == ["a"]


async def test_a_failing_transaction_changes_nothing_and_the_next_one_works(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(_put("a"))
        raise KeyError("no")

    with pytest.raises(KeyError):
        await database.write(fail)
    await database.write(lambda connection: connection.execute(_put("b")).close())
    assert await database.read(_names) == ["b"]


async def test_an_error_of_the_database_tells_no_values(database: Database) -> None:
    statement = "INSERT INTO meta VALUES (:name, NULL)"
    with pytest.raises(RuntimeFailed) as error:
        await database.write(
            lambda connection: connection.execute(statement, {"name": "confidential"}).close()
        )
    assert "confidential" not in error.value.message + error.value.detail
    assert "NOT NULL" in error.value.detail


async def test_durable_commits_are_synchronous_and_others_are_not(database: Database) -> None:
    def mode(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    normal, full = 1, 2
    assert await database.write(mode) == normal
    assert await database.write(mode, durable=True) == full
    assert await database.write(mode) == normal


async def test_work_whose_caller_went_away_is_still_done(database: Database) -> None:
    gate = threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        assert gate.wait(10)
        connection.execute(_put("a"))

    waiting = asyncio.create_task(database.write(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await database.write(lambda connection: connection.execute(_put("b")).close())
    assert await database.read(_names) == ["a", "b"]


async def test_the_queue_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "MAX_WAITING", 1)
    gate, busy = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        busy.set()
        assert gate.wait(10)

    held = asyncio.create_task(database.read(hold))
    await asyncio.to_thread(busy.wait, 10)
    queued = asyncio.create_task(database.read(_names))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="overloaded"):
        await database.read(_names)
    gate.set()
    await asyncio.gather(held, queued)


async def test_the_log_is_moved_into_the_file_as_commits_go_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_EVERY", 5)
    for number in range(20):
        await database.write(_insert(f"n{number:02}"))
    await database.read(_names)
    # Read without the log: what is in the main file alone.
    (tmp_path / "copy.db").write_bytes((tmp_path / "skerry.db").read_bytes())
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        (rows,) = copy.execute("SELECT count(*) FROM meta WHERE value = 'x'").fetchone()
    copy.close()
    assert rows >= 10


async def test_closing_finishes_what_is_queued_and_refuses_the_rest(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "skerry.db")
    queued = [asyncio.create_task(database.write(_insert(f"n{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*queued)
    with pytest.raises(RuntimeFailed, match="stopping"):
        await database.read(_names)
    reopened = Database.open(tmp_path / "skerry.db")
    assert await reopened.read(_names) == [f"n{n}" for n in range(5)]
    await reopened.close()


async def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "skerry.db")
    await database.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("skerry-store")]
