"""Programs that hostd runs, and processes that it holds."""

import asyncio
import subprocess
import sys

import pytest

from skerry.errors import TimedOut
from skerry.hostd.sys.processes import ProcessHandle, command_line, run_program

WAIT_S = 10.0


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_status_and_output_of_both_streams_are_returned() -> None:
    done = await run_program(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=WAIT_S)

    assert (done.status, sorted(done.output.split())) == (3, ["err", "out"])


async def test_output_beyond_the_bound_is_thrown_away() -> None:
    done = await run_program(python("print('x' * 1_000_000)"), timeout_s=WAIT_S, max_output_bytes=100)

    assert (done.status, done.output) == (0, "x" * 100)


async def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimedOut):
        await run_program(["/bin/sleep", "1000"], timeout_s=0.05)


@pytest.mark.parametrize("pid", [0, -1, -4711])
def test_numbers_that_mean_groups_are_never_processes(pid: int) -> None:
    assert ProcessHandle.open(pid) is None


async def test_a_held_process_is_killed_and_its_end_is_seen() -> None:
    child = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    handle = ProcessHandle.open(child.pid)
    assert handle is not None
    try:
        assert not handle.has_ended()
        handle.kill()
        async with asyncio.timeout(WAIT_S):
            await handle.wait()
        assert handle.has_ended()
    finally:
        await child.wait()
        handle.kill()  # of one that is gone: nothing happens
        handle.close()
        handle.close()


def test_a_process_that_is_gone_has_no_command_line() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()

    assert command_line(child.pid) == []
    assert ProcessHandle.open(child.pid) is None
