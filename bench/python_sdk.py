"""Measures with the official Python SDK against whatever endpoint the environment names; prints one JSON
object.

Run as a process of its own, so that the SDK finds its three environment variables: ``python -m
bench.python_sdk create|create_with_secret|roundtrip|transfer|kill TIMES PAUSE_S``.
"""

import asyncio
import io
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from deno_sandbox import AsyncDenoDeploy, DenoDeploy

SIZE_MIB = 64
_MIB = 1024 * 1024


_SECRET: dict[str, Any] = {
    "allow_net": ["api.example.com"],
    "secrets": {"API_KEY": {"hosts": ["api.example.com"], "value": "sk-0123456789abcdef0123456789abcdef"}},
}


def create(times: int, pause_s: float, **asked: Any) -> dict[str, list[float]]:
    """Create, run ``echo``, read its output, close: milliseconds to the 101 and to the output."""
    sdk = DenoDeploy()
    result: dict[str, list[float]] = {"create_ms": [], "create_and_run_ms": []}
    for round_number in range(times + 1):
        time.sleep(pause_s)
        started = time.perf_counter()
        with sdk.sandbox.create(**asked) as sandbox:
            created = time.perf_counter()
            process = sandbox.spawn("echo", args=["hello"], stdout="piped", stderr="null")
            output = process.stdout.read(-1)
            process.wait()
            ran = time.perf_counter()
        if output != b"hello\n":
            raise AssertionError(f"unexpected output {output!r}")
        if round_number:
            result["create_ms"].append((created - started) * 1e3)
            result["create_and_run_ms"].append((ran - started) * 1e3)
    return result


async def roundtrip(times: int, _pause_s: float) -> dict[str, list[float]]:
    """Spawn ``true`` and wait for it on one open connection."""
    result: dict[str, list[float]] = {"true_ms": []}
    async with AsyncDenoDeploy().sandbox.create() as sandbox:
        for round_number in range(times + 10):
            started = time.perf_counter()
            process = await sandbox.spawn("true", stdout="null", stderr="null")
            await process.wait()
            if round_number >= 10:
                result["true_ms"].append((time.perf_counter() - started) * 1e3)
    return result


async def transfer(times: int, _pause_s: float) -> dict[str, list[float]]:
    """64 MiB by each way that moves a whole file, in MiB/s."""
    data = bytes(SIZE_MIB * _MIB)
    text = "x" * (SIZE_MIB * _MIB)
    rates: dict[str, list[float]] = {}

    async def timed(name: str, action: Callable[[], Awaitable[Any]]) -> None:
        started = time.perf_counter()
        await action()
        rates.setdefault(name, []).append(SIZE_MIB / (time.perf_counter() - started))

    async with AsyncDenoDeploy().sandbox.create() as sandbox:

        async def read_through_cat() -> None:
            process = await sandbox.spawn("cat", args=["/tmp/bytes"], stdout="piped", stderr="null")  # noqa: S108
            if len(await process.stdout.read(-1)) != len(data):
                raise AssertionError("output is not complete")
            await process.wait()

        for _ in range(times):
            await timed("write_file, file-like", lambda: sandbox.fs.write_file("/tmp/file", io.BytesIO(data)))  # noqa: S108
            await timed("write_file, bytes", lambda: sandbox.fs.write_file("/tmp/bytes", data))  # noqa: S108
            await timed("write_text_file", lambda: sandbox.fs.write_text_file("/tmp/text", text))  # noqa: S108
            await timed("cat to stdout", read_through_cat)
    return rates


def kill(times: int, pause_s: float) -> dict[str, list[float]]:
    """End a running sandbox and wait until the server says that it is gone."""
    sdk = DenoDeploy()
    result: dict[str, list[float]] = {"kill_ms": []}
    for _ in range(times):
        time.sleep(pause_s)
        with sdk.sandbox.create() as sandbox:
            started = time.perf_counter()
            sandbox.kill()
            result["kill_ms"].append((time.perf_counter() - started) * 1e3)
    return result


def main() -> None:
    """Run the measurement that the arguments name."""
    what, times, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    match what:
        case "create":
            result = create(times, pause_s)
        case "create_with_secret":
            result = create(times, pause_s, **_SECRET)
        case "kill":
            result = kill(times, pause_s)
        case "roundtrip":
            result = asyncio.run(roundtrip(times, pause_s))
        case "transfer":
            result = asyncio.run(transfer(times, pause_s))
        case _:
            raise SystemExit(f"unknown measurement {what!r}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
