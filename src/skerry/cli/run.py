"""`skerry create` and `skerry exec`."""

from typing import Annotated, Any

import typer

from skerry.cli.network_options import AllowNetOption, SecretOption, network_config
from skerry.cli.output import Json, note, say, say_json, usage_error, verb
from skerry.cli.sandbox_id import split_default
from skerry.cli.server import DataDirOption, Server, find_server

_DEFAULT_LIFETIME = "30m"
COMMAND_LINE = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Everything after the first word that is no option of ours belongs to the command."""

EnvOption = Annotated[
    list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment of the command.")
]
MemoryOption = Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 2GiB.")]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="A label; may be repeated. The label `policy` names a policy to go by."
    ),
]
CwdOption = Annotated[
    str | None, typer.Option("--cwd", metavar="PATH", help="Where the command runs; default /home/app.")
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("create", context_settings=COMMAND_LINE)(verb(create))
    app.command("exec", context_settings=COMMAND_LINE)(verb(exec_))


def create(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run this in it; see `skerry exec`.")
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long it lives, such as 10m; `session`: as long as this command. "
            f"Default: session with a command, {_DEFAULT_LIFETIME} without.",
        ),
    ] = None,
    memory: MemoryOption = None,
    label: LabelOption = None,
    allow_net: AllowNetOption = None,
    secret: SecretOption = None,
    cwd: CwdOption = None,
    env: EnvOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Make a sandbox. Without a command print its ID; with one, run it there and end with its exit code."""
    import asyncio

    from skerry.cli.quantities import parse_duration_s, parse_size_mib

    lifetime = timeout or ("session" if command else _DEFAULT_LIFETIME)
    config: dict[str, Any] = {"labels": pairs(label, "--label"), "env": pairs(env, "--env")}
    if lifetime != "session":
        lifetime = f"{max(1, round(parse_duration_s(lifetime)))}s"
    config["timeout"] = lifetime
    if memory is not None:
        config["memory_mb"] = parse_size_mib(memory)
    server = find_server(data_dir)
    config |= network_config(allow_net, secret)
    return asyncio.run(_create(server, config, command or [], cwd=cwd, as_json=as_json))


async def _create(
    server: Server, config: dict[str, Any], command: list[str], *, cwd: str | None, as_json: bool
) -> int:
    from skerry.cli.process import program_of
    from skerry.cli.rpc import created

    async with created(server, config) as session:
        if command:
            if config["timeout"] != "session":
                note(session.sandbox_id)
            return await run_here(session, program_of(command, cwd=cwd, env={}), as_json=as_json)
        if as_json:
            say_json(await _view(server, session.sandbox_id))
        else:
            say(session.sandbox_id)
        if config["timeout"] == "session":
            note("The sandbox lives until you press Ctrl-C.")
            await _wait_for_end(session)
    return 0


async def _view(server: Server, sandbox_id: str) -> Any:
    import asyncio

    from skerry.cli import rest

    target = rest.path("skerry", "v1", "sandboxes", sandbox_id)
    return await asyncio.to_thread(rest.call, server, "GET", target)


async def _wait_for_end(session: Any) -> None:
    """Wait for a signal that means stop; when the sandbox ends first, that is an error."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    session.ended.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if session.ended.done():
        raise session.ended.result()


def exec_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID] COMMAND...",
            help="One word is a line for bash; several are a program and its arguments, exactly. "
            "Default ID: SANDBOX_ID from the environment.",
        ),
    ],
    cwd: CwdOption = None,
    env: EnvOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Run a command in a sandbox, with our standard input, and end with its exit code."""
    import asyncio

    from skerry.cli.process import program_of

    sandbox_id, command = split_default(words)
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        usage_error("which command? skerry exec sbx_… COMMAND")
    program = program_of(command, cwd=cwd, env=pairs(env, "--env"))
    return asyncio.run(_exec(find_server(data_dir), sandbox_id, program, as_json=as_json))


async def _exec(server: Server, sandbox_id: str, program: Any, *, as_json: bool) -> int:
    from skerry.cli.rpc import connected

    async with connected(server, sandbox_id) as session:
        return await run_here(session, program, as_json=as_json)


async def run_here(session: Any, program: Any, *, as_json: bool) -> int:
    """Run a program with our streams; its exit code. With JSON: collect what it prints, and print that."""
    from skerry.cli.process import run, start_failure_status
    from skerry.errors import SkerryError

    output = _Collected() if as_json else _Passed()
    try:
        ending = await run(session, program, output.take)
    except SkerryError as problem:
        status = start_failure_status(problem)
        if status is None or as_json:
            raise
        note(f"skerry: {problem.message}")
        return status
    if isinstance(output, _Collected):
        say_json({"sandbox_id": session.sandbox_id, "exit_code": ending.code, **output.as_fields(ending)})
    elif ending.oom:
        note("skerry: the command was killed because the sandbox ran out of memory")
    return int(ending.code)


class _Passed:
    """Hands output on as it comes."""

    def take(self, stream: str, chunk: bytes) -> None:
        import sys

        file = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
        file.write(chunk)
        file.flush()


class _Collected:
    """Keeps output, up to a bound, for one JSON object at the end."""

    MAX_BYTES = 16 << 20

    def __init__(self) -> None:
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = False

    def take(self, stream: str, chunk: bytes) -> None:
        room = self.MAX_BYTES - len(self._kept[stream])
        self._kept[stream] += chunk[:room]
        self._truncated |= len(chunk) > room

    def as_fields(self, ending: Any) -> dict[str, Any]:
        texts = {name: bytes(data).decode(errors="replace") for name, data in self._kept.items()}
        return {"signal": ending.signal, "oom": ending.oom, "truncated": self._truncated, **texts}


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """What was given as NAME=VALUE."""
    pairs: dict[str, str] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not name or not separator:
            usage_error(f"{option} {text!r}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
