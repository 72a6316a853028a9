"""`spawn`, `processWait`, `processKill`, and `abort`.

Source: protocol notes, sections 2.7 and 3.3.
"""

from skerry.api.deno.calls import CallFailed, Context, Method
from skerry.api.deno.outbound import OutputPump, SpawnedProcess
from skerry.control.agent import Exit, OutputStream, Process
from skerry.errors import AgentError
from skerry.protocol import deno_params as params
from skerry.protocol.deno_errors import process_gone

_OOM_EXIT_CODE = 137

_GROUP_SIGNALS = frozenset({"SIGTERM", "SIGKILL", "SIGINT", "SIGHUP", "SIGQUIT"})
"""Signals that mean "end": they go to the whole process group, so that what a shell started ends with it.
Others go to the process alone."""

_PROCESS_IS_GONE = frozenset({"ESRCH", "UNKNOWN_PROCESS"})


async def spawn(context: Context, given: params.Spawn) -> object:
    """Start a process; its output is held back until `processWait`."""
    source = None if given.stdin_stream_id is None else context.streams.get(given.stdin_stream_id)
    try:
        process = await context.agent.spawn(
            command=given.command,
            args=given.args or [],
            env={name: value for name, value in (given.env or {}).items()},
            clear_env=bool(given.clear_env),
            cwd=given.cwd,
            stdin=source is not None,
            stdout=given.stdout != "null",
            stderr=given.stderr != "null",
        )
    except BaseException:
        if source is not None:
            context.streams.cancel(source, None)
        raise
    stdout = _pump(context, process.stdout)
    stderr = _pump(context, process.stderr)
    spawned = SpawnedProcess(
        process, tuple(pump for pump in (stdout, stderr) if pump is not None), source, context.streams
    )
    context.spawned[process.pid] = spawned
    spawned.start_feeding(context.start_task)
    context.release_later(spawned)
    return {
        "pid": process.pid,
        "stdoutStreamId": None if stdout is None else stdout.stream_id,
        "stderrStreamId": None if stderr is None else stderr.stream_id,
    }


def _pump(context: Context, output: OutputStream | None) -> OutputPump | None:
    return None if output is None else OutputPump(next(context.stream_ids), output, context.socket)


async def process_wait(context: Context, given: params.ProcessWait) -> object:
    """Let the process's output flow, and answer when it has ended; any number of times, also afterwards."""
    spawned = context.spawned.get(given.pid)
    if spawned is None:
        return wait_result(await _known(context, given.pid).wait())
    spawned.release(context.start_task)
    ended = await spawned.process.wait()
    spawned.on_exit()
    return wait_result(ended)


def wait_result(ended: Exit) -> dict[str, object]:
    """How a process ended, in the shape of the protocol. ``oom`` stands only beside the code of SIGKILL."""
    oom = "high-confidence" if ended.oom and ended.code == _OOM_EXIT_CODE else None
    return {
        "success": ended.code == 0 and ended.signal is None,
        "code": ended.code,
        "signal": ended.signal,
        "oom": oom,
    }


async def process_kill(context: Context, given: params.ProcessKill) -> None:
    """Send a signal; does not wait for the end."""
    signal = given.signal or "SIGTERM"
    process = _known(context, given.pid)
    try:
        await process.kill(signal, group=signal in _GROUP_SIGNALS)
    except AgentError as error:
        if error.code in _PROCESS_IS_GONE:
            raise CallFailed(process_gone()) from error
        raise


def _known(context: Context, pid: int) -> Process:
    """A process of the sandbox, whoever started it.

    Raises:
        CallFailed: There is none, in the words that both SDKs understand.
    """
    process = context.agent.process(pid)
    if process is None:
        raise CallFailed(process_gone())
    return process


async def abort(context: Context, given: params.Abort) -> None:
    """End a call by its abort ID. One that has finished, or never was, is fine: an error here would surface
    in the user's process."""
    context.abort(given.abort_id)


METHODS = {
    "spawn": Method(params.Spawn, spawn, lambda given: f"spawn '{given.command}'"),
    "processWait": Method(params.ProcessWait, process_wait),
    "processKill": Method(params.ProcessKill, process_kill),
    "abort": Method(params.Abort, abort),
}
