"""What passes between `up` and a daemon, and what each sees when the other is gone."""

import asyncio
import os
import socket

import pytest

from skerry.daemon.lifeline import (
    DaemonEnd,
    Failed,
    Forget,
    Hello,
    Keep,
    Kept,
    ParentEnd,
    Ready,
    Stop,
    pair,
)
from tests.harness.waiting import until

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


class Taken:
    """What a daemon had kept, read as soon as it arrives."""

    def __init__(self) -> None:
        self.said: list[tuple[Kept, list[bytes]]] = []

    def take(self, message: Kept, descriptors: list[int]) -> None:
        self.said.append((message, [os.pread(descriptor, 100, 0) for descriptor in descriptors]))
        for descriptor in descriptors:
            os.close(descriptor)


def memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


async def test_a_daemon_has_files_kept(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon, taken = ParentEnd(ends[0]), DaemonEnd(ends[1]), Taken()
    daemon.say(Ready("1.0"))
    assert await parent.answer() == Ready("1.0")
    parent.on_kept(taken.take)
    descriptor = memory_file(b"state")
    await daemon.tell(Keep("a"), descriptor)
    await daemon.tell(Forget("b"))
    os.close(descriptor)
    await until(lambda: len(taken.said) == 2)
    assert taken.said == [(Keep("a"), [b"state"]), (Forget("b"), [])]
    parent.close()
    parent.close()
    ends[1].close()


async def test_the_last_words_of_a_daemon_that_died_are_heard(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    parent, daemon, taken = ParentEnd(ends[0]), DaemonEnd(ends[1]), Taken()
    descriptor = memory_file(b"last")
    for number in range(20):
        await daemon.tell(Keep(str(number)), descriptor)
    os.close(descriptor)
    ends[1].close()
    parent.on_kept(taken.take)
    parent.close()
    assert [message.name for message, _ in taken.said] == [str(number) for number in range(20)]


async def test_the_last_words_of_a_daemon_that_did_not_listen_any_more(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    parent, daemon, taken = ParentEnd(ends[0]), DaemonEnd(ends[1]), Taken()
    parent.on_kept(taken.take)
    parent.say(Stop(keep=True))
    for number in range(3):
        await daemon.tell(Forget(str(number)))
    ends[1].close()
    parent.close()
    assert [message.name for message, _ in taken.said] == ["0", "1", "2"]


async def test_more_than_fits_waits_for_up(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon, taken = ParentEnd(ends[0]), DaemonEnd(ends[1]), Taken()
    descriptor = memory_file(b"x")

    async def tell_all() -> None:
        for number in range(1_000):
            await daemon.tell(Keep(str(number)), descriptor)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        telling = group.create_task(tell_all())
        await asyncio.sleep(0)
        assert not telling.done()
        parent.on_kept(taken.take)
    await until(lambda: len(taken.said) == 1_000)
    os.close(descriptor)
    parent.close()
    ends[1].close()


@pytest.mark.parametrize(
    "data", [b"x", b"{}", b'{"type": "Ready", "version": "2"}', b'{"type": "Keep"}', b"[" * 5000]
)
async def test_nonsense_instead_of_something_to_keep(
    ends: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    parent, taken = ParentEnd(ends[0]), Taken()
    before = set(os.listdir("/proc/self/fd"))
    parent.on_kept(taken.take)
    descriptor = memory_file(b"x")
    socket.send_fds(ends[1], [data], [descriptor] * 50)
    os.close(descriptor)
    daemon = DaemonEnd(ends[1])
    await daemon.tell(Forget("after it"))
    await until(lambda: taken.said)
    assert taken.said == [(Forget("after it"), [])]
    assert set(os.listdir("/proc/self/fd")) == before
    parent.close()
    ends[1].close()


async def test_what_was_kept_is_handed_back(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon = ParentEnd(ends[0]), DaemonEnd(ends[1])
    files = [memory_file(str(number).encode()) for number in range(250)]
    hello = Hello(handed_back=len(files))
    parent.say(hello)
    handing = parent.hand_back(files)
    heard = daemon.hello(timeout_s=1)
    assert heard == hello
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(handing)
        found = await asyncio.to_thread(daemon.handed_back, heard, timeout_s=5)
    assert [os.pread(descriptor, 100, 0) for descriptor in found] == [b"%d" % n for n in range(250)]
    for descriptor in (*files, *found):
        os.close(descriptor)
    parent.say(Stop(keep=True))
    assert await stopped(daemon) is True
    parent.close()
    ends[1].close()


async def test_what_is_handed_back_when_up_dies_meanwhile(ends: tuple[socket.socket, socket.socket]) -> None:
    parent, daemon = ParentEnd(ends[0]), DaemonEnd(ends[1])
    descriptor = memory_file(b"one")
    await parent.hand_back([descriptor])
    parent.close()
    found = daemon.handed_back(Hello(handed_back=2), timeout_s=1)
    assert len(found) == 1
    for one in (descriptor, *found):
        os.close(one)
    ends[1].close()


async def test_a_daemon_that_is_gone_is_handed_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    parent = ParentEnd(ends[0])
    ends[1].close()
    descriptor = memory_file(b"one")
    await parent.hand_back([descriptor])
    os.close(descriptor)
    parent.close()
