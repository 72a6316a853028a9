"""`skerry run`: a sandbox for one command."""

import posixpath
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skerry.cli.cp import Place
from skerry.cli.network_options import AllowNetOption, SecretOption, network_config
from skerry.cli.output import Json, note, usage_error, verb
from skerry.cli.run import COMMAND_LINE, CwdOption, EnvOption, LabelOption, MemoryOption, pairs, run_here
from skerry.cli.server import DataDirOption, Server, find_server

if TYPE_CHECKING:
    from skerry.cli.rpc import Session

COPY_TARGET = "/app"
_HOME = "/home/app"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run", context_settings=COMMAND_LINE)(verb(run))


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="See `skerry exec`.")],
    secret: SecretOption = None,
    allow_net: AllowNetOption = None,
    copy: Annotated[
        list[str] | None,
        typer.Option(
            "--copy",
            metavar="PATH",
            help=f"Copy a file or folder (`.`: its contents) to {COPY_TARGET} first, and run the command "
            "there; may be repeated.",
        ),
    ] = None,
    copy_out: Annotated[
        list[str] | None,
        typer.Option(
            "--copy-out",
            metavar="SRC:DST",
            help="Copy SRC of the sandbox to DST here afterwards; may be repeated. Nothing else comes out.",
        ),
    ] = None,
    memory: MemoryOption = None,
    label: LabelOption = None,
    cwd: CwdOption = None,
    env: EnvOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Run a command in a sandbox made for it, with our streams, and end with its exit code."""
    import asyncio

    from skerry.cli.quantities import parse_size_mib

    chosen = cwd or (COPY_TARGET if copy else None)
    outs = [_way_out(text, posixpath.join(_HOME, chosen or "")) for text in copy_out or []]
    config: dict[str, Any] = {"timeout": "session", "labels": pairs(label, "--label")}
    config["env"] = pairs(env, "--env")
    if memory is not None:
        config["memory_mb"] = parse_size_mib(memory)
    server = find_server(data_dir)
    config |= network_config(allow_net, secret)
    job = _Job(server, as_json=as_json)
    return asyncio.run(job.run(config, copy or [], command, chosen, outs))


def _way_out(text: str, workdir: str) -> tuple[str, str]:
    source, separator, target = text.partition(":")
    if not separator or not source or not target:
        usage_error(f"--copy-out {text!r}: expected SRC:DST, a path of the sandbox and one here")
    return posixpath.join(workdir, source), target


class _Job:
    """One sandbox from its creation to its end."""

    def __init__(self, server: Server, *, as_json: bool) -> None:
        self._server = server
        self._as_json = as_json

    async def run(
        self,
        config: dict[str, Any],
        copies: list[str],
        command: list[str],
        cwd: str | None,
        outs: list[tuple[str, str]],
    ) -> int:
        """Make it, copy in, run, copy out; leaving the context ends it."""
        from skerry.cli.process import program_of
        from skerry.cli.rpc import created

        async with created(self._server, config) as session:
            into = Place(session.sandbox_id, COPY_TARGET)
            if copies and not await self._copy(session, [Place(None, path) for path in copies], into):
                note("skerry: the command was not run, because not everything could be copied")
                return 1
            code = await run_here(session, program_of(command, cwd=cwd, env={}), as_json=self._as_json)
            for source, target in outs:
                whole = await self._copy(session, [Place(session.sandbox_id, source)], Place(None, target))
                code = code or (0 if whole else 1)
        return code

    async def _copy(self, session: "Session", sources: list[Place], target: Place) -> bool:
        from skerry.cli.cp import Trees, copy_all

        async with AsyncExitStack() as stack:
            trees = Trees(self._server, stack, session)
            report = await copy_all(trees, sources, target, as_json=self._as_json)
        for problem in report.problems if self._as_json else ():
            note(f"skerry: {problem}")
        return not report.problems
