"""`skerry cp`: files and trees between here and sandboxes."""

import posixpath
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skerry.cli.output import Json, note, plain_line, say_json, usage_error, verb
from skerry.cli.progress import Update, progress
from skerry.cli.server import DataDirOption, Server, find_server
from skerry.spec.ids import is_sandbox_id

if TYPE_CHECKING:
    from skerry.cli.rpc import Session
    from skerry.cli.trees import Report, Tree


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("cp")(verb(cp))


@dataclass(frozen=True, slots=True)
class Place:
    """A path; ``sandbox_id`` is None for a path here."""

    sandbox_id: str | None
    path: str

    @property
    def label(self) -> str:
        """How the user typed it."""
        return f"{self.sandbox_id}:{self.path}" if self.sandbox_id else self.path

    @property
    def own_name(self) -> str:
        """The last component; empty where the contents and not the directory are meant (``/``, ``..``)."""
        name = posixpath.basename(self.path.rstrip("/"))
        return "" if name in (".", "..") else name

    def below(self, name: str) -> "Place":
        """A path in this directory."""
        return Place(self.sandbox_id, posixpath.join(self.path, name) if name else self.path)


def parse_place(text: str) -> Place:
    """``sbx_…:/path`` is in a sandbox, everything else is here; a relative path there begins at /home/app."""
    head, separator, path = text.partition(":")
    if separator and is_sandbox_id(head):
        return Place(head, posixpath.join("/home/app", path))
    if not text:
        usage_error("an empty path names nothing")
    return Place(None, text)


def cp(
    paths: Annotated[list[str], typer.Argument(metavar="SRC... DST", help="sbx_...:/path is in a sandbox.")],
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Copy files and directories between here and sandboxes, or between sandboxes.

    Into DST if it is a directory, else under that name. Links and special files in a directory are left out.
    """
    import asyncio

    if len(paths) < 2:
        usage_error("expected at least one source and a destination: skerry cp file sbx_…:/path")
    *sources, target = [parse_place(path) for path in paths]
    if target.sandbox_id is None and all(source.sandbox_id is None for source in sources):
        usage_error("no path is in a sandbox: write it as sbx_…:/path")
    return asyncio.run(_copy_all(find_server(data_dir), sources, target, as_json=as_json))


async def _copy_all(server: Server, sources: list[Place], target: Place, *, as_json: bool) -> int:
    async with AsyncExitStack() as stack:
        total = await copy_all(Trees(server, stack), sources, target, as_json=as_json)
    if as_json:
        say_json(
            {
                "files": total.files,
                "bytes": total.bytes,
                "left_out": total.left_out,
                "problems": total.problems,
            }
        )
    return 1 if total.problems else 0


async def copy_all(trees: "Trees", sources: list[Place], target: Place, *, as_json: bool) -> "Report":
    """Copy each source into the target if that is a directory, else under its name.

    Args:
        as_json: Show no progress and no problems; the report has them.
    """
    from skerry.cli.trees import Report

    total = Report("")
    found = await (await trees.at(target)).look(())
    is_directory = found is not None and found.kind == "dir"
    into = is_directory or target.path.endswith("/") or len(sources) > 1
    if into and not is_directory:
        await (await trees.at(target)).make_directory(())
    for source in sources:
        where = target.below(source.own_name) if into else target
        with progress(f"copying {source.label}", quiet=as_json) as update:
            report = _shown_report(source.label, update, as_json=as_json)
            await _copy(await trees.at(source), await trees.at(where), report)
        total.add(report)
    return total


async def _copy(source: "Tree", target: "Tree", report: "Report") -> None:
    from skerry.cli.trees import copy_tree

    with report.problems_of(()):
        await copy_tree(source, target, report)


class Trees:
    """Trees of places; one connection for each sandbox.

    Args:
        stack: Closes the connections that are made.
        session: A connection that is there already.
    """

    def __init__(self, server: Server, stack: AsyncExitStack, session: "Session | None" = None) -> None:
        self._server = server
        self._stack = stack
        self._sessions: dict[str, Session] = {} if session is None else {session.sandbox_id: session}

    async def at(self, place: Place) -> "Tree":
        """The tree of a place."""
        from skerry.cli.remote_tree import RemoteTree
        from skerry.cli.rpc import connected
        from skerry.cli.trees import LocalTree

        if place.sandbox_id is None:
            return LocalTree(Path(place.path))
        if place.sandbox_id not in self._sessions:
            session = await self._stack.enter_async_context(connected(self._server, place.sandbox_id))
            self._sessions[place.sandbox_id] = session
        return RemoteTree(self._sessions[place.sandbox_id], place.path)


def _shown_report(label: str, update: Update, *, as_json: bool) -> "Report":
    from skerry.cli.trees import Names, Report

    class Shown(Report):
        """Says on standard error how far it is, what was left out and what failed."""

        def copied(self, names: Names, size_bytes: int) -> None:
            super().copied(names, size_bytes)
            update(f"copying {label}: {self.files} files, {self.bytes / 1e6:.1f} MB")

        def skipped(self, names: Names, reason: str) -> None:
            super().skipped(names, reason)
            if not as_json:
                note(plain_line(f"skerry: left out {self.left_out[-1]}"))

        def failed(self, problem: str) -> None:
            super().failed(problem)
            if not as_json:
                note(plain_line(f"skerry: {problem}"))

    return Shown(label)
