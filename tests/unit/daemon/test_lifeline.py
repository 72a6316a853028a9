"""What passes between `up` and a daemon, and what each sees when the other is gone."""

import asyncio
import socket

import pytest

from skerry.daemon.lifeline import DaemonEnd, Failed, Hello, ParentEnd, Ready, Stop, pair

SECRET = "ddo_" + "s" * 40


@pytest.fixture
def ends() -> tuple[socket.socket, socket.socket]:
    return pair()


async def stopped(daemon: DaemonEnd) -> bool:
    """Wait until the daemon is told to stop; what it is told."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[bool] = loop.create_future()
    daemon.on_stop(loop, asked.set_result)
    async with asyncio.timeout(5):
        return await asked


async def test_a_start_and_a_stop(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon = ParentEnd(ends[0]), DaemonEnd(ends[1])
    parent.say(Hello(SECRET))
    assert daemon.hello(timeout_s=1) == Hello(SECRET)
    daemon.say(Ready("1.0", SECRET))
    assert await parent.answer() == Ready("1.0", SECRET)
    parent.say(Stop(keep=False))
    assert await stopped(daemon) is False
    parent.close()
    ends[1].close()


async def test_the_end_of_up_means_stop_and_keep(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon = ParentEnd(ends[0]), DaemonEnd(ends[1])
    parent.close()
    assert await stopped(daemon) is True
    daemon.say(Failed("nobody hears it"))
    ends[1].close()


async def test_up_gone_before_it_said_anything(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    assert DaemonEnd(ends[1]).hello(timeout_s=1) is None
    ends[1].close()


async def test_a_daemon_that_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    parent = ParentEnd(ends[0])
    ends[1].close()
    assert await parent.answer() is None
    parent.say(Stop(keep=True))
    parent.close()


@pytest.mark.parametrize("data", [b"x", b"{}", b'{"type": "Stop", "keep": true}', b"[" * 5000])
async def test_a_daemon_that_talks_nonsense(ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    parent = ParentEnd(ends[0])
    ends[1].send(data)
    assert isinstance(await parent.answer(), Failed)
    parent.close()
    ends[1].close()


def test_messages_do_not_show_the_token() -> None:
    assert SECRET not in repr(Hello(SECRET)) + repr(Ready("1", SECRET))
