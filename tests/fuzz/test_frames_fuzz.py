"""Hostile bytes to the frame decoder, and hostile agents to a whole link.

Runs for ``SKERRY_FUZZ_S`` seconds (10 by default), shared by the tests here. A failure names its seed; set
``SKERRY_FUZZ_SEED`` to it to see the failure again.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from skerry.control.agent import AgentClient, AgentLink, InputStream, OutputStream
from skerry.errors import SkerryError
from skerry.protocol import frames, messages
from skerry.protocol.frames import FROM_AGENT, FROM_HOST, Frame, FrameDecoder, FrameType
from skerry.protocol.messages import ProtocolError
from tests.compat.generate_golden import GOLDEN_FILE
from tests.harness.agent_peer import BOOT, KEY, exited, failure, gap, hello, ping, response

TESTS = 3
LARGEST_FRAME = 256 << 10


def _corpus() -> list[bytes]:
    golden = json.loads(GOLDEN_FILE.read_text())
    found = [bytes.fromhex(entry["hex"]) for entry in golden["valid"] + golden["invalid"]]
    return found + [bytes.fromhex("".join(entry["hex"])) for entry in golden["messages"]]


CORPUS = _corpus()


def _cases() -> Iterator[tuple[str, random.Random]]:
    """Generators of random numbers and their seeds, as long as the time lasts; at least one."""
    given = os.environ.get("SKERRY_FUZZ_SEED")
    if given is not None:
        yield given, random.Random(given)  # noqa: S311 - repeatable
        return
    base = os.urandom(4).hex()
    end_s = time.monotonic() + float(os.environ.get("SKERRY_FUZZ_S", "10")) / TESTS
    for number in itertools.count():
        seed = f"{base}-{number}"
        yield seed, random.Random(seed)  # noqa: S311 - repeatable
        if time.monotonic() >= end_s:
            return


def _mutated(dice: random.Random) -> bytes:
    wire = bytearray(b"".join(dice.choices(CORPUS, k=dice.randint(1, 4))))
    for _ in range(dice.choice([0, 1, 1, 2, 5])):
        at = dice.randrange(len(wire) + 1)
        match dice.randrange(4):
            case 0:
                wire[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del wire[at : at + dice.randint(1, 9)]
            case 2:
                wire[at:at] = dice.randbytes(dice.randint(1, 9))
            case 3:
                wire[at : at + 4] = dice.choice(
                    [bytes(4), b"\xff" * 4, b"\x00\x03\xff\xf4", b"\x00\x04\x00\x00"]
                )
    return bytes(wire)


def _decode(kinds: frozenset[FrameType], chunks: list[bytes], turn: int) -> tuple[list[Frame], str | None]:
    """Everything that is found, and what was wrong at the end."""
    decoder = FrameDecoder(kinds)
    found: list[Frame] = []
    for chunk in chunks:
        decoder.feed(chunk)
        while True:
            try:
                some = decoder.decode(turn)
            except ProtocolError as error:
                return found, error.part
            assert len(some) <= turn
            found += some
            if not decoder.pending:
                break
        assert decoder.held_bytes <= LARGEST_FRAME + sum(map(len, chunks))
    return found, None


def _cut(dice: random.Random, wire: bytes) -> list[bytes]:
    cuts = sorted(dice.randrange(len(wire) + 1) for _ in range(dice.randint(0, 6)))
    return [wire[a:b] for a, b in itertools.pairwise([0, *cuts, len(wire)])]


def test_decoder_finds_the_same_however_the_bytes_are_cut() -> None:
    cases = 0
    for seed, dice in _cases():
        kinds = dice.choice([FROM_AGENT, FROM_HOST])
        wire = _mutated(dice)
        whole = _decode(kinds, [wire], 1000)
        assert _decode(kinds, _cut(dice, wire), dice.randint(1, 5)) == whole, seed
        cases += 1
    assert cases


RESULTS: list[type[msgspec.Struct]] = [
    messages.Spawned, messages.ProcessList, messages.StreamList, messages.EnvAll, messages.ReadResult,
    messages.DirList, messages.Stat, messages.Reclaimed, messages.Hello, messages.Exit, messages.Failure,
]  # fmt: skip


def test_values_are_decoded_or_refused() -> None:
    refused = decoded = 0
    for _, dice in _cases():
        for _ in range(50):
            payload = _mutated(dice)[12:]
            try:
                value = messages.decode(payload, dice.choice(RESULTS))
            except ProtocolError:
                refused += 1
            else:
                decoded += 1
                assert isinstance(repr(value), str)
    assert refused


class _Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Game:
    """A client and an agent that do one random thing after another."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.link = AgentLink(sandbox_id="sbx_fuzz", epoch=1, reattach_window_ms=1)
        self._client = AgentClient(self.link)
        self._protocol: asyncio.Protocol | None = None
        self._wire = _Wire()
        self.tasks: list[asyncio.Task[Any]] = []
        self._inputs: list[InputStream] = []
        self._outputs: list[OutputStream] = []

    def _number(self) -> int:
        dice = self._dice
        return dice.choice(
            [0, 1, 2, 3, 4, 5, dice.randrange(1 << 18), 262_144, 262_145, 1 << 20, 2**62, 2**64 - 1]
        )

    def _stream(self) -> int:
        return self._dice.randint(1, 6)

    def step(self) -> None:
        """The agent or the client does something."""
        dice = self._dice
        if self._protocol is None or self._wire.closing or dice.random() < 0.01:
            self._dial()
        elif dice.random() < 0.6:
            self._protocol.data_received(self._agent_frame())
        else:
            self._client_call()

    def _dial(self) -> None:
        if self._protocol is not None:
            self._wire.abort()
            self._protocol.connection_lost(None)
        self._wire = _Wire()
        self._protocol = self.link.accept()
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.connection_made(self._wire)
        if not self._wire.closing:
            boot = BOOT if self._dice.random() < 0.9 else self._dice.randbytes(16)
            self._protocol.data_received(hello(boot=boot, key=KEY))

    def _agent_frame(self) -> bytes:
        dice, number = self._dice, self._number()
        made: list[Callable[[], bytes]] = [
            lambda: frames.data(self._stream(), number, bytes(dice.randint(1, 5000))),
            lambda: frames.data(self._stream(), 0, bytes(dice.randint(1, 300))),
            lambda: frames.end(self._stream(), number),
            lambda: frames.credit(self._stream(), number, max(number, 262_144)),
            lambda: frames.credit(self._stream(), 0, 2**64 - 1),
            lambda: frames.attach(self._stream(), number, 262_144),
            lambda: gap(self._stream(), number, number + 1 if number < 2**64 - 1 else 0),
            lambda: frames.reset(self._stream(), dice.choice(["EPIPE", "UNKNOWN_STREAM"]), "x"),
            lambda: exited(dice.randint(1, 5), 0),
            ping,
            self._answer,
            self._answer,
            self._answer,
            lambda: _mutated(dice),
        ]
        # Rarely the last: most of what it makes ends the connection.
        return dice.choices(made, weights=[4] * (len(made) - 1) + [1])[0]()

    def _answer(self) -> bytes:
        dice = self._dice
        pending = list(self.link.calls._requests)
        if not pending:
            return ping()
        asked = dice.choice(pending)
        if dice.random() < 0.2:
            return failure(asked.id, "EIO")
        first, second = dice.sample(range(1, 7), 2)
        values: dict[str, Any] = {
            "process.spawn": {"pid": dice.randint(1, 5), "stdout": first, "stdin": second},
            "fs.read": {"stream": first, "size": dice.choice([0, 5, 300])},
            "fs.write_open": {"stream": first},
            "process.list": {"processes": []},
            "fs.write_close": {"size": 1},
        }
        return response(asked.id, values.get(asked.method))

    def _client_call(self) -> None:
        dice = self._dice
        calls: list[Callable[[], Any]] = [
            lambda: self._keep(self._spawn()),
            lambda: self._keep(self._client.read_file("/f", max_bytes=200)),
            lambda: self._keep(self._client.write_file("/f", bytes(300_000))),
            lambda: self._keep(self._client.env_update({})),
            self._cancel_a_task,
            lambda: self._with_input(lambda stream: stream.end()),
            lambda: self._with_input(lambda stream: stream.reset("X", "x")),
            lambda: self._with_input(lambda stream: self._keep(stream.write(bytes(9000)))),
            lambda: self._with_input(lambda stream: self._keep(stream.write(bytes(300_000)))),
            lambda: self._with_output(lambda output: output.detach()),
            lambda: self._with_output(lambda output: output.attach(dice.choice([0, 1, 300, output.offset]))),
            lambda: self._with_output(lambda output: output.read_nowait(dice.choice([1, 100, 65536]))),
            lambda: self._with_output(lambda output: output.read_nowait()),
        ]
        dice.choice(calls)()

    async def _spawn(self) -> None:
        process = await self._client.spawn(command="x", stdin=True, stderr=False)
        assert process.stdin is not None
        assert process.stdout is not None
        self._inputs.append(process.stdin)
        self._outputs.append(process.stdout)

    def _keep(self, coroutine: Any) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))

    def _cancel_a_task(self) -> None:
        if self.tasks:
            self._dice.choice(self.tasks).cancel()

    def _with_input(self, act: Callable[[InputStream], object]) -> None:
        if self._inputs:
            act(self._dice.choice(self._inputs))

    def _with_output(self, act: Callable[[OutputStream], object]) -> None:
        if self._outputs:
            with contextlib.suppress(SkerryError):
                act(self._dice.choice(self._outputs))

    async def finish(self) -> None:
        """End the sandbox; everything must come to an end and be given back."""
        self.link.close("over")
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(
                result, asyncio.CancelledError | ValueError
            ):
                assert isinstance(result, SkerryError), result
        for output in self._outputs:
            output.detach()
        assert self.link.streams.output_pool.used_bytes == 0
        assert self.link.streams.input_pool.used_bytes == 0
        assert not self.link.streams.has_inputs
        assert self.link.unanswered == 0


@pytest.mark.timeout(120)
async def test_a_link_survives_whatever_agent_and_client_do() -> None:
    loop = asyncio.get_running_loop()
    wrong: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    games = 0
    for seed, dice in _cases():
        game = _Game(dice)
        try:
            for _ in range(dice.randint(5, 300)):
                game.step()
                if dice.random() < 0.3:
                    await asyncio.sleep(0)
                assert 0 <= game.link.streams.output_pool.used_bytes <= 32 << 20
                assert 0 <= game.link.streams.input_pool.used_bytes <= 64 << 20
            async with asyncio.timeout(20):
                await game.finish()
        except BaseException as error:
            error.add_note(f"SKERRY_FUZZ_SEED={seed}")
            raise
        assert not wrong, seed
        games += 1
    assert games
