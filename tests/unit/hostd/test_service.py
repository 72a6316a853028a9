"""What hostd does when it is asked, over a scripted driver."""

import asyncio
import socket
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest

from skerry.errors import Conflict, InvalidRequest, NotFound, NotSupported, RuntimeFailed
from skerry.hostd.background import Background
from skerry.hostd.drivers.base import AgentEndpoint, Driver
from skerry.hostd.listeners import AgentListeners
from skerry.hostd.service import HostService
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import DriverReport, Ended, Isolation, Observed, Phase, StartSpec, Usage

A = SandboxId("sbx_ord_" + "a" * 20)
B = SandboxId("sbx_ord_" + "b" * 20)
SPEC = StartSpec(A, Isolation.FAKE, "image", 128, 1.0, 64, 16)


class ScriptedDriver:
    """Keeps a list; does not pause."""

    isolation = Isolation.FAKE

    def __init__(self) -> None:
        self.there: dict[SandboxId, Observed] = {}
        self.calls: list[str] = []
        self.start_begun = asyncio.Event()
        self.start_may_end = asyncio.Event()
        self.start_may_end.set()
        self.failure: Exception | None = None

    async def probe(self) -> DriverReport:
        return DriverReport(Isolation.FAKE, True, "1", frozenset())

    async def recover(self) -> list[Observed]:
        return list(self.there.values())

    async def start(self, spec: StartSpec, endpoint: AgentEndpoint) -> None:
        self.start_begun.set()
        try:
            await self.start_may_end.wait()
        except asyncio.CancelledError:
            self.calls.append("undone")
            raise
        if self.failure is not None:
            raise self.failure
        self.there[spec.sandbox_id] = Observed(spec.sandbox_id, Isolation.FAKE, Phase.RUNNING)
        self.calls.append(f"started {endpoint.socket}")

    async def observe(self) -> list[Observed]:
        return list(self.there.values())

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        return Usage(1, 2, 3, 4)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        self.calls.append(f"destroyed {sandbox_id}")
        return Ended(0 if self.there.pop(sandbox_id, None) else None, oom=False)

    async def close(self) -> None:
        self.calls.append("closed")


class StubListeners:
    """Remembers for whom there is a listener."""

    def __init__(self) -> None:
        self.made: dict[SandboxId, socket.socket] = {}
        self.swept: set[SandboxId] | None = None

    def listener(self, sandbox_id: SandboxId, used: Container[SandboxId]) -> socket.socket:
        return self.made.setdefault(sandbox_id, cast(socket.socket, object()))

    def endpoint(self, sandbox_id: SandboxId) -> AgentEndpoint:
        return AgentEndpoint(Path("/agents", sandbox_id), Path("/agents", sandbox_id, "agent.sock"))

    def remove(self, sandbox_id: SandboxId) -> None:
        self.made.pop(sandbox_id, None)

    def sweep(self, used: Container[SandboxId]) -> None:
        self.swept = {one for one in (A, B) if one in used}

    def close(self) -> None:
        pass


class Fixture:
    """A service with its parts."""

    def __init__(self, background: Background) -> None:
        self.driver = ScriptedDriver()
        self.listeners = StubListeners()
        self.service = HostService(
            drivers=[cast(Driver, self.driver)],
            unusable=[DriverReport(Isolation.GVISOR, False, "", frozenset(), ("no runsc",))],
            images={"image": "sha256:0"},
            listeners=cast(AgentListeners, self.listeners),
            background=background,
        )


@asynccontextmanager
async def made() -> AsyncIterator[Fixture]:
    async with Background() as background:
        yield Fixture(background)


async def test_the_description_names_every_driver_and_why_one_cannot_be_used() -> None:
    async with made() as fixture:
        found = await fixture.service.describe()

    assert {report.isolation: report.usable for report in found.drivers} == {
        Isolation.FAKE: True,
        Isolation.GVISOR: False,
    }
    assert found.images == {"image": "sha256:0"}
    assert found.memory_mib > 0


async def test_a_start_makes_the_listener_and_can_be_asked_only_once() -> None:
    async with made() as fixture:
        await fixture.service.start(SPEC)
        with pytest.raises(Conflict):
            await fixture.service.start(SPEC)

    assert fixture.driver.calls == [f"started /agents/{A}/agent.sock"]
    assert list(fixture.listeners.made) == [A]


async def test_the_listener_can_be_asked_before_the_start_and_is_the_same() -> None:
    async with made() as fixture:
        before = fixture.service.listener(A)
        await fixture.service.start(SPEC)

        assert fixture.service.listener(A) is before


async def test_a_start_that_fails_leaves_no_listener_and_can_be_tried_again() -> None:
    async with made() as fixture:
        fixture.driver.failure = RuntimeFailed("broken")
        with pytest.raises(RuntimeFailed, match="broken"):
            await fixture.service.start(SPEC)
        assert fixture.listeners.made == {}

        fixture.driver.failure = None
        await fixture.service.start(SPEC)


async def test_a_driver_that_breaks_does_not_take_hostd_with_it() -> None:
    async with made() as fixture:
        fixture.driver.failure = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await fixture.service.start(SPEC)

        assert await fixture.service.inspect() == []


async def test_a_destroy_cuts_a_start_short_and_comes_after_its_undoing() -> None:
    async with made() as fixture:
        fixture.driver.start_may_end.clear()
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(_refusal(fixture.service.start(SPEC)))
            await fixture.driver.start_begun.wait()
            ended = await fixture.service.destroy(A)

    assert ended == Ended(None, oom=False)
    assert starting.result() is RuntimeFailed
    assert fixture.driver.calls == ["undone", f"destroyed {A}"]


async def test_a_start_whose_caller_is_cancelled_is_undone_before_that_is_seen() -> None:
    async with made() as fixture:
        fixture.driver.start_may_end.clear()
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(fixture.service.start(SPEC))
            await fixture.driver.start_begun.wait()
            starting.cancel()
            await asyncio.wait([starting])

            assert fixture.driver.calls == ["undone"]


async def test_calls_about_an_unknown_sandbox_are_refused_but_destroying_it_is_not() -> None:
    async with made() as fixture:
        with pytest.raises(NotFound):
            await fixture.service.stats(B)
        with pytest.raises(NotFound):
            await fixture.service.pause(B)

        assert await fixture.service.destroy(B) == Ended(None, oom=False)


@pytest.mark.parametrize("bad", ["", "../x", "skerry-abc123-ord-" + "a" * 20, "sbx_ord_" + "a" * 4096])
async def test_malformed_ids_reach_no_driver(bad: str) -> None:
    async with made() as fixture:
        sandbox_id, service = SandboxId(bad), fixture.service
        for call in (service.destroy, service.pause, service.resume, service.stats):
            with pytest.raises(InvalidRequest):
                await call(sandbox_id)
        with pytest.raises(InvalidRequest):
            service.listener(sandbox_id)
        with pytest.raises(InvalidRequest):
            await service.start(msgspec.structs.replace(SPEC, sandbox_id=sandbox_id))

    assert fixture.driver.calls == []
    assert fixture.listeners.made == {}


async def test_an_ability_that_the_driver_lacks_is_an_error() -> None:
    async with made() as fixture:
        await fixture.service.start(SPEC)
        with pytest.raises(NotSupported):
            await fixture.service.pause(A)


async def test_recovery_takes_over_what_is_there_and_sweeps_the_rest() -> None:
    async with made() as fixture:
        fixture.driver.there[A] = Observed(A, Isolation.FAKE, Phase.ENDED, Ended(3, oom=False))

        assert await fixture.service.recover() == [fixture.driver.there[A]]
        assert fixture.listeners.swept == {A}
        assert await fixture.service.destroy(A) == Ended(0, oom=False)


async def test_at_the_end_everything_is_destroyed_though_one_cannot_be() -> None:
    async with made() as fixture:
        for sandbox_id in (A, B):
            await fixture.service.start(msgspec.structs.replace(SPEC, sandbox_id=sandbox_id))
        destroy = fixture.driver.destroy

        async def stubborn(sandbox_id: SandboxId) -> Ended:
            if sandbox_id == A:
                raise RuntimeFailed("stuck")
            return await destroy(sandbox_id)

        fixture.driver.destroy = stubborn  # type: ignore[method-assign]
        with pytest.raises(RuntimeFailed, match="stuck"):
            await fixture.service.destroy_all()

        assert list(fixture.driver.there) == [A]


async def _refusal(work: object) -> type[Exception] | None:
    try:
        await work  # type: ignore[misc]
    except Exception as error:
        return type(error)
    return None
