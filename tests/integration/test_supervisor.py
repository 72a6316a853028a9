"""The supervisor with stand-ins for the daemons, which behave as badly as they can."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skerry.cli.invoker import Invoker
from skerry.cli.places import DataDir, RuntimeDir
from skerry.cli.processes import Recorded, identify, recorded, send
from skerry.daemon import launch, restarts, supervisor
from skerry.daemon.data_dir import DataDirLock
from skerry.daemon.health import bind
from skerry.daemon.journal import Journal
from skerry.daemon.launch import DaemonFailed
from skerry.daemon.site import Site
from skerry.daemon.supervisor import Supervisor
from skerry.spec.ids import InstanceId
from tests.harness.waiting import until

pytestmark = pytest.mark.needs_root

NAMES = ("api", "egressd", "hostd")
STAND_IN = Path(__file__).parents[1] / "harness" / "stand_in_daemon.py"
PROGRAM = (sys.executable, str(STAND_IN))
DEADLINE_S = 20.0


class Scene:
    """A supervisor on a site of its own.

    Attributes:
        ready: Done with the URL when it calls back.
    """

    def __init__(self, site: Site, journal: Journal) -> None:
        self.site = site
        self.supervisor = Supervisor(site, journal, program=PROGRAM)
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def behave(self, *, api: str = "serve", egressd: str = "serve", hostd: str = "serve") -> None:
        """What the stand-ins do when they start from now on."""
        text = json.dumps({"api": api, "egressd": egressd, "hostd": hostd})
        (self.site.runtime.path / "behaviour.json").write_text(text)

    async def run(self) -> bool:
        """Run it to its end."""
        return await self.supervisor.run(self.ready.set_result)

    def starts(self, name: str) -> list[int]:
        """Process numbers of all its lives."""
        file = self.site.runtime.path / f"starts-{name}"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def stopped(self, name: str) -> str:
        """How it was told to stop."""
        return (self.site.runtime.path / f"stopped-{name}").read_text()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """One, and nothing of it afterwards."""
    data, runtime = DataDir(tmp_path / "data"), RuntimeDir(tmp_path / "run")
    for path in (data.path, data.logs, runtime.path):
        path.mkdir()
    lock = DataDirLock.take(data)
    who = Invoker(0, 0, tmp_path)
    site = Site(InstanceId("000000"), data, runtime, who, bind("127.0.0.1", 0), lock)
    journal = Journal(data.logs, None)
    made = Scene(site, journal)
    yield made
    journal.close()
    site.close()
    for name in NAMES:
        assert not [pid for pid in made.starts(name) if identify(pid)]


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[Awaitable[bool]]:
    """Run it while the body runs, from the moment when it serves."""
    async with asyncio.timeout(DEADLINE_S * 3), asyncio.TaskGroup() as group:
        task = group.create_task(scene.run())
        await scene.ready
        yield task


async def test_it_serves_says_where_and_stops(scene: Scene) -> None:
    scene.behave()
    async with running(scene) as task:
        url = await scene.ready
        assert json.loads(scene.site.data.endpoint.read_text())["url"] == url
        assert scene.site.data.client_token.read_text() == "ddo_made_by_the_stand_in\n"
        rows = recorded(scene.site.runtime.processes)
        assert {row.name: row.process.pid for row in rows if row.name != "up"} == {
            name: scene.starts(name)[0] for name in NAMES
        }
        scene.supervisor.request_stop(keep=True)
        assert await task is True
    assert [scene.stopped(name) for name in NAMES] == ["keep"] * 3
    assert not scene.site.data.endpoint.exists()
    assert (scene.site.data.logs / "api.log").read_bytes() == b"api will serve\n"


async def test_the_first_request_to_stop_counts(scene: Scene) -> None:
    scene.behave()
    async with running(scene) as task:
        scene.supervisor.request_stop(keep=False)
        scene.supervisor.request_stop(keep=True)
        assert await task is False
    assert [scene.stopped(name) for name in NAMES] == ["destroy"] * 3


@pytest.mark.parametrize("name", NAMES)
async def test_what_dies_is_started_again(scene: Scene, name: str) -> None:
    def lives() -> list[Recorded]:
        return recorded(scene.site.runtime.processes)

    scene.behave()
    async with running(scene):
        first = recorded(scene.site.runtime.processes)
        (row,) = [row for row in first if row.name == name]
        assert send(row.process, signal.SIGKILL)
        await until(lambda: [one for one in lives() if one.name == name and one.version and one != row])
        scene.supervisor.request_stop(keep=True)
    assert sum(len(scene.starts(one)) for one in NAMES) == 4


@pytest.mark.parametrize("behaviour", ["die", "crash", "fail"])
async def test_it_gives_up_on_what_keeps_dying(
    scene: Scene, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "MAX_DELAY_S", 0.05)
    monkeypatch.setattr(supervisor, "_HEALTH_S", 0.5)
    scene.behave()

    async def die_again_and_again() -> None:
        async with running(scene) as task:
            scene.behave(hostd=behaviour)
            (row,) = [row for row in recorded(scene.site.runtime.processes) if row.name == "hostd"]
            send(row.process, signal.SIGKILL)
            await task

    with pytest.raises(ExceptionGroup) as failed:
        await die_again_and_again()
    (problem,) = failed.value.exceptions
    assert isinstance(problem, DaemonFailed)
    assert "hostd keeps dying, giving up" in problem.message
    assert f"hostd will {behaviour}" in problem.message
    assert len(scene.starts("hostd")) == restarts.LIMIT + 1
    assert scene.stopped("api") == scene.stopped("egressd") == "keep"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("fail", "the stand-in cannot"),
        ("crash", "it ended (exit status 3)"),
        ("hang", "did not start within"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
async def test_a_first_start_that_fails_is_not_repeated(
    scene: Scene, name: str, behaviour: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor.Supervisor._start, "__kwdefaults__", {"timeout_s": 3.0})
    scene.behave(**{name: behaviour})
    with pytest.raises(DaemonFailed) as failed:
        await scene.run()
    assert message in failed.value.message
    assert f"{name} will {behaviour}" in failed.value.message
    assert len(scene.starts(name)) == 1


async def test_what_does_not_stop_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STOP_S", {"api": 0.2, "egressd": 0.2, "hostd": 5.0})
    scene.behave(api="deaf", egressd="deaf")
    async with running(scene) as task:
        scene.supervisor.request_stop(keep=False)
        assert await task is False
    assert scene.stopped("hostd") == "destroy"


async def test_what_is_left_on_the_host_is_said(scene: Scene) -> None:
    scene.behave(hostd="dirty")
    with pytest.raises(ExceptionGroup) as failed:
        async with running(scene):
            scene.supervisor.request_stop(keep=False)
    (problem,) = failed.value.exceptions
    assert isinstance(problem, DaemonFailed)
    assert "skerry down" in problem.message


async def test_a_stop_revives_hostd_to_clean_up(scene: Scene) -> None:
    scene.behave(hostd="serve")
    await scene.supervisor.stop(keep=False)
    assert scene.stopped("hostd") == "destroy"
    assert scene.starts("api") == []


async def test_what_egressd_has_kept_survives_it_and_not_up(scene: Scene) -> None:
    scene.behave(egressd="count")
    counted = scene.site.runtime.path / "counted"

    def count() -> str:
        return counted.read_text() if counted.exists() else ""

    def egressd() -> Recorded | None:
        rows = [one for one in recorded(scene.site.runtime.processes) if one.name == "egressd"]
        return rows[0] if rows else None

    async def kill_after(expected: str) -> None:
        await until(lambda: count() == expected)
        row = egressd()
        assert row is not None
        send(row.process, signal.SIGKILL)
        await until(lambda: egressd() not in (row, None))

    async with running(scene):
        for expected in ("0", "1", "2"):
            await kill_after(expected)
        await until(lambda: count() == "3")
        scene.supervisor.request_stop(keep=True)


def test_exits_in_words() -> None:
    assert launch.describe_exit(3) == "exit status 3"
    assert launch.describe_exit(-9) == "killed by SIGKILL"
    assert launch.describe_exit(-99) == "killed by signal 99"
