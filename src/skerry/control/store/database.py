"""One SQLite file behind two threads: one that writes, one that reads and moves the log into the file."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from skerry.control.store.opening import connect, migrate, open_engine
from skerry.errors import ResourceExhausted, RuntimeFailed

_T = TypeVar("_T")

MAX_WAITING = 4096
"""Pieces of work queued for one thread."""

CHECKPOINT_EVERY = 500
"""Commits between checkpoints; a claim writes about 4 pages, so the log stays below some 10 MiB."""

CLOSE_TIMEOUT_S = 10.0


class Database:
    """The open file. Make it with `open`; use it from one event loop; end it with `close`."""

    def __init__(self, path: Path) -> None:
        self._writer = _Worker(path, "skerry-store-write")
        self._reader = _Worker(path, "skerry-store-read")
        self._since_checkpoint = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create the file or bring it up to date, and start the threads.

        Blocks; it is meant for the start of the process.

        Raises:
            HostUnusable: The file was written by a newer version.
            RuntimeFailed: The file cannot be opened or is damaged.
        """
        try:
            with open_engine(path).connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                migrate(connection)
            return cls(path)
        except (OSError, SQLAlchemyError) as error:
            raise _failed("opened", error) from error

    async def write(self, work: Callable[[sqlite3.Connection], _T], *, durable: bool = False) -> _T:
        """Run work in an immediate transaction and commit it; any exception rolls it back.

        Args:
            durable: Return only when it would survive a power failure (`PRAGMA synchronous = FULL`);
                otherwise it survives the death of any process, but the last commits may be lost with the
                machine, which loses the sandboxes as well.

        Raises:
            ResourceExhausted: Too much is waiting already.
            RuntimeFailed: The database refused (a full disk, damage); nothing was changed.
        Cancellation: the work is still done.
        """
        self._since_checkpoint += 1
        if self._since_checkpoint >= CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self._reader.post(lambda connection: _checkpoint(connection))
        return await self._writer.run(lambda connection: _transaction(connection, work, durable=durable))

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run work that only reads; it sees every write that was awaited before.

        Raises:
            As `write`.
        """
        return await self._reader.run(work)

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        await self._writer.stop()
        await self._reader.stop()


def _transaction(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T], *, durable: bool
) -> _T:
    if durable:
        connection.execute("PRAGMA synchronous = FULL")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        if durable:
            connection.execute("PRAGMA synchronous = NORMAL")
    return result


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the log into the file; PASSIVE waits for nobody and blocks no writer. Source: SQLite pragma.html,
    wal_checkpoint.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()


class _Job:
    __slots__ = ("future", "loop", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any],
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Any] | None",
    ) -> None:
        self.work = work
        self.loop = loop
        self.future = future

    def done(self, result: Any, error: BaseException | None) -> None:
        """Back in the loop: hand over the outcome, unless the one who waited has gone."""
        if self.future is None or self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Worker:
    """One thread with one connection, which does pieces of work in order."""

    def __init__(self, path: Path, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, args=(path,), name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._put(_Job(work, loop, future))
        return await future

    def post(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Queue work whose outcome nobody waits for."""
        self._put(_Job(work, asyncio.get_running_loop(), None))

    def _put(self, job: _Job) -> None:
        if self._stopped:
            raise RuntimeFailed("the server is stopping")
        if self._jobs.qsize() >= MAX_WAITING:
            raise ResourceExhausted(
                f"the server is overloaded: {MAX_WAITING} database operations are waiting; try again"
            )
        self._jobs.put(job)

    async def stop(self) -> None:
        """Do what is queued, then end the thread."""
        self._stopped = True
        self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, CLOSE_TIMEOUT_S)

    def _serve(self, path: Path) -> None:
        with closing(connect(path)) as connection:
            while (job := self._jobs.get()) is not None:
                result, error = _attempt(job.work, connection)
                job.loop.call_soon_threadsafe(job.done, result, error)


def _attempt(
    work: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection
) -> tuple[Any, BaseException | None]:
    try:
        return work(connection), None
    except sqlite3.Error as error:
        return None, _failed("used", error)
    except Exception as error:
        return None, error


def _failed(what: str, error: Exception) -> RuntimeFailed:
    return RuntimeFailed(
        f"the database could not be {what}; see the server's log and the free space of its data directory",
        detail=repr(error),
    )
