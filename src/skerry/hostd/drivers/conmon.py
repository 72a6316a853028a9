"""conmon(8): the parent of a sandbox's processes, which goes on when hostd dies, reaps them and writes down
how the first one ended.

Source: conmon.8; conmon 2.1 sources (src/conmon.c, src/parent_pipe_fd.c).
"""

import asyncio
import os
import re
import shutil
import subprocess  # noqa: TID251 - hostd starts runtimes
from pathlib import Path

import msgspec

from skerry.errors import HostUnusable, RuntimeFailed, TimedOut
from skerry.hostd.drivers.runsc import Runsc
from skerry.hostd.places import SandboxPlace
from skerry.hostd.sys.processes import ProcessHandle, run_program

CREATE_S = 15.0
VERSION_S = 5.0
LOG_BYTES = 65_536

_MAX_REPORT_BYTES = 65_536
_VERSION = re.compile(r"conmon version (\S+)")
_SYNC_PIPE = "_OCI_SYNCPIPE"


_CREATE_AND_START = """
runsc="$1"; shift
for word do
    shift
    if [ "$word" = create ]; then set -- "$@" run --detach; else set -- "$@" "$word"; fi
done
exec "$runsc" "$@"
"""
"""conmon asks its runtime to ``create``; a ``start`` after that would be one more process of 15 ms CPU, so a
shell that makes it ``run --detach`` stands between them. Not a file, because /run is often mounted noexec."""


_LAST_WORDS = "--panic-log=/proc/self/fd/2"
"""What Go says when gVisor's own kernel breaks goes into the bounded log, beside what the guest's first
process prints; without this it is lost. Another name for the pipe that runsc has already."""


class _Report(msgspec.Struct):
    """What conmon writes to its sync pipe: a process number, or a negative number and why."""

    data: int
    message: str = ""


def find() -> Path | None:
    """Where conmon is installed."""
    found = shutil.which(
        "conmon", path="/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/usr/libexec/podman"
    )
    return Path(found) if found else None


async def version(conmon: Path) -> str:
    """Its version, or ``unknown``."""
    printed = await run_program([str(conmon), "--version"], timeout_s=VERSION_S)
    match = _VERSION.search(printed.output)
    return match[1] if match else "unknown"


def arguments(conmon: Path, runsc: Runsc, place: SandboxPlace) -> list[str]:
    """The command that starts a sandbox from its bundle and stays as its parent."""
    runtime = [
        argument
        for word in ("-c", _CREATE_AND_START, "runsc", str(runsc.binary), *runsc.flags, _LAST_WORDS)
        for argument in ("--runtime-arg", word)
    ]
    return [
        *(str(conmon), "--api-version", "1"),
        *("--cid", place.name, "--cuuid", place.name, "--name", place.name),
        *("--runtime", "/bin/sh", *runtime),
        *("--bundle", str(place.path)),
        *("--container-pidfile", str(place.pid_file), "--conmon-pidfile", str(place.parent_pid_file)),
        *("--exit-dir", str(place.exits), "--socket-dir-path", str(place.attach)),
        *("--log-path", f"k8s-file:{place.log}", "--log-size-max", str(LOG_BYTES), "--no-sync-log"),
    ]


async def create(runsc: Runsc, place: SandboxPlace) -> int:
    """Start a sandbox below a conmon of its own; when this returns, its first process runs.

    Returns:
        The process number of the sandbox on the host.

    Raises:
        HostUnusable: There is no conmon.
        RuntimeFailed: It did not work. Processes may be left; the caller removes them.
        TimedOut: Likewise.
    """
    conmon = find()
    if conmon is None:
        raise HostUnusable("conmon is not installed: `apt install conmon`")
    reading, writing = os.pipe()
    try:
        try:
            await _launch(arguments(conmon, runsc, place), writing)
        finally:
            os.close(writing)
        report = await _read_report(reading)
    finally:
        os.close(reading)
    return parse_report(report)


def parse_report(report: bytes) -> int:
    """Read what conmon says of the creation.

    Raises:
        RuntimeFailed: It failed; the detail has what the runtime said.
    """
    try:
        message = msgspec.json.decode(report.partition(b"\n")[0], type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = _Report(-1, f"conmon said {report[:200]!r}")
    if message.data <= 0:
        raise RuntimeFailed("gVisor could not create the sandbox", detail=message.message[:4096])
    return message.data


async def _launch(argv: list[str], report_to: int) -> None:
    """Start conmon; the process that is started here only forks the one that stays, and ends.

    Not the loop's own way of starting processes: uvloop forks, which takes 10 ms and more for a process of
    hostd's size, subprocess uses vfork(2).
    """
    process = subprocess.Popen(  # noqa: ASYNC220 - returns as soon as conmon is executed
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(report_to,),
        env={"PATH": os.defpath, _SYNC_PIPE: str(report_to)},
        cwd="/",
        start_new_session=True,
    )
    # Never killed half way, since then nobody would know the one that it forked.
    status = await asyncio.shield(_reaped(process))
    if status != 0:
        raise RuntimeFailed("conmon could not be started", detail=f"exit status {status}")


async def _reaped(process: "subprocess.Popen[bytes]") -> int:
    handle = ProcessHandle.of_child(process.pid)
    try:
        async with asyncio.timeout(CREATE_S):
            await handle.wait()
    except TimeoutError:
        raise TimedOut("starting conmon", CREATE_S) from None
    finally:
        handle.close()
    return process.wait()


async def _read_report(descriptor: int) -> bytes:
    """Read until the first line is complete or nobody can write any more."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    report = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            data = os.read(descriptor, _MAX_REPORT_BYTES)
        except BlockingIOError:
            return
        report.extend(data)
        if (not data or b"\n" in data or len(report) > _MAX_REPORT_BYTES) and not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, readable)
    try:
        async with asyncio.timeout(CREATE_S):
            await done
    except TimeoutError:
        raise TimedOut("creating the sandbox", CREATE_S) from None
    finally:
        loop.remove_reader(descriptor)
    return bytes(report)


def read_exit_status(place: SandboxPlace) -> int | None:
    """How the first process ended; None when that is not written."""
    try:
        text = place.exit_file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def read_log(log: Path, *, max_bytes: int) -> str:
    """The last of what the first process printed."""
    try:
        return log.read_bytes()[-max_bytes:].decode(errors="replace")
    except OSError:
        return ""
