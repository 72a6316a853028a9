"""Watches the memory of sandboxes by the kernel's events.

Source: cgroup-v1/memory.rst sections 9 (thresholds), 10 (out of memory), 11 (pressure); cgroup-v2.rst,
memory.events.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import RuntimeFailed
from skerry.hostd.background import Background
from skerry.hostd.cgroups.group import Group, GroupV1, GroupV2
from skerry.hostd.cgroups.pressure import PressureGauge
from skerry.hostd.sys.inotify import Inotify

_LOOK_GAP_S = 0.01
"""Shortest time between two looks at one group: with a full page cache events come by the hundred."""


STEP_BYTES = 32 << 20


@dataclass(slots=True)
class _Watched:
    group: Group
    gauge: PressureGauge
    on_pressure: Callable[[int], None]
    on_kill: Callable[[], object]
    kills: int
    stop: Callable[[], None]
    looked_at_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class MemoryWatch:
    """Watches any number of groups on the running loop.

    Args:
        background: Owns what the kernel takes its time for.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._inotify: Inotify | None = None
        self._by_number: dict[int, str] = {}

    def add(
        self,
        group: Group,
        threshold_bytes: int,
        *,
        on_pressure: Callable[[int], None],
        on_kill: Callable[[], object],
    ) -> None:
        """Watch a group until `remove`.

        Args:
            threshold_bytes: Holding more than this is pressure.
            on_pressure: Called with the bytes held, again and again while it lasts.
            on_kill: Called when the kernel has killed a process of the group.

        Raises:
            RuntimeFailed: The kernel refused.
        """
        try:
            if isinstance(group, GroupV1):
                stop = self._register_v1(group, threshold_bytes)
            else:
                assert isinstance(group, GroupV2)  # noqa: S101 - there are two kinds
                stop = self._register_v2(group, threshold_bytes)
        except OSError as error:
            raise RuntimeFailed("the memory of a sandbox cannot be watched", detail=str(error)) from error
        kills = group.usage().out_of_memory_kills
        gauge = PressureGauge(threshold_bytes)
        self._watched[group.path] = _Watched(group, gauge, on_pressure, on_kill, kills, stop)
        self._wake(group.path)

    def remove(self, group: Group) -> None:
        """Stop to watch. Idempotent."""
        watched = self._watched.pop(group.path, None)
        if watched is not None:
            if watched.timer is not None:
                watched.timer.cancel()
            watched.stop()

    def close(self) -> None:
        """Stop to watch all."""
        for watched in list(self._watched.values()):
            self.remove(watched.group)
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def _register_v1(self, group: GroupV1, threshold_bytes: int) -> Callable[[], None]:
        """One eventfd for three kinds of events: pages are reclaimed, out of memory, use crosses a step.

        Page cache counts as use but not as held, so what is held may pass the threshold some time after the
        use did: either the use goes on to grow, and crosses further steps, or it is at the limit, and every
        further page is reclaimed from somewhere.
        """
        directory = group.directory("memory")
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(event)
            self._wake(group.path)

        def stop() -> None:
            self._loop.remove_reader(event)
            os.close(event)

        self._loop.add_reader(event, readable)
        try:
            _register(directory, event, "memory.pressure_level", "low")
            _register(directory, event, "memory.oom_control", "")
            steps = range(threshold_bytes, group.memory_limit_bytes(), STEP_BYTES)
            self._background.start(self._register_steps(group, event, steps), name="memory-thresholds")
        except BaseException:
            stop()
            raise
        return stop

    async def _register_steps(self, group: GroupV1, event: int, steps: range) -> None:
        if group.path in self._watched:
            await asyncio.to_thread(_register_steps, group.directory("memory"), os.dup(event), steps)

    def _register_v2(self, group: GroupV2, threshold_bytes: int) -> Callable[[], None]:
        """``memory.events`` changes when the use passes ``memory.high`` and when a process is killed."""
        group.set_memory_high(threshold_bytes)
        if self._inotify is None:
            self._inotify = Inotify()
            self._loop.add_reader(self._inotify.fileno(), self._inotify_readable)
        inotify = self._inotify
        number = inotify.watch(group.directory("") / "memory.events")
        self._by_number[number] = group.path

        def stop() -> None:
            self._by_number.pop(number, None)
            inotify.forget(number)

        return stop

    def _inotify_readable(self) -> None:
        if self._inotify is not None:
            for number in self._inotify.read():
                if number in self._by_number:
                    self._wake(self._by_number[number])

    def _wake(self, path: str) -> None:
        """Look soon; events that come meanwhile are one."""
        watched = self._watched.get(path)
        if watched is not None:
            self._look_at(path, watched, max(self._loop.time(), watched.looked_at_s + _LOOK_GAP_S))

    def _look_at(self, path: str, watched: _Watched, when_s: float) -> None:
        if watched.timer is not None:
            if watched.timer.when() <= when_s:
                return
            watched.timer.cancel()
        watched.timer = self._loop.call_at(when_s, self._look, path)

    def _look(self, path: str) -> None:
        watched = self._watched.get(path)
        if watched is None:
            return
        watched.timer = None
        watched.looked_at_s = now_s = self._loop.time()
        usage = watched.group.usage()
        if usage.out_of_memory_kills > watched.kills:
            watched.kills = usage.out_of_memory_kills
            watched.on_kill()
            return
        tell, again_s = watched.gauge.look(usage.held_bytes, now_s)
        if tell:
            watched.on_pressure(usage.held_bytes)
        if again_s is not None:
            self._look_at(path, watched, now_s + again_s)


def _register(directory: Path, event: int, name: str, argument: str) -> None:
    """Let the kernel signal an eventfd. Source: cgroup-v1/memory.rst."""
    file = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = os.open(directory / "cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(control, f"{event} {file} {argument}".encode())
        finally:
            os.close(control)
    finally:
        os.close(file)


def _register_steps(directory: Path, event: int, steps: range) -> None:
    """Register thresholds; each takes the kernel some 15 ms (it waits for all processors), hence the thread.

    Args:
        event: A duplicate that is closed here, so that its number means the same to the end.
    """
    try:
        for step in steps:
            _register(directory, event, "memory.usage_in_bytes", str(step))
    except OSError:
        return  # the group is gone
    finally:
        os.close(event)
