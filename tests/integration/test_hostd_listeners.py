"""The sockets on which agents are awaited."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import ResourceExhausted
from skerry.hostd import listeners as module
from skerry.hostd.listeners import UNUSED_S, AgentListeners
from skerry.hostd.places import Places
from skerry.spec.ids import InstanceId, SandboxId

A, B = (SandboxId(f"sbx_ord_{letter * 20}") for letter in "ab")


class Bench:
    """Listeners in a directory, with a clock that the test sets."""

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory, InstanceId("test00"))
        self.places.make()
        self.now_s = 0.0
        self.listeners = self.after_a_restart()

    def after_a_restart(self) -> AgentListeners:
        return AgentListeners(self.places, lambda: self.now_s)

    def dial(self, sandbox_id: SandboxId) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(self.listeners.endpoint(sandbox_id).socket))
        except OSError:
            peer.close()
            raise
        return peer


@pytest.fixture
def bench() -> Iterator[Bench]:
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    made = Bench(directory)
    yield made
    made.listeners.close()
    shutil.rmtree(directory)


def test_every_question_is_answered_with_the_same_listener(bench: Bench) -> None:
    first = bench.listeners.listener(A, ())

    assert bench.listeners.listener(A, ()) is first
    with bench.dial(A), first.accept()[0]:
        pass


def test_only_root_in_the_guest_may_dial_and_nothing_else_is_seen_there(bench: Bench) -> None:
    bench.listeners.listener(A, ())
    endpoint = bench.listeners.endpoint(A)

    assert list(endpoint.directory.iterdir()) == [endpoint.socket]
    assert endpoint.socket.stat().st_mode & 0o777 == 0o600


def test_a_duplicate_goes_on_after_a_restart_until_the_listener_is_asked_for_again(bench: Bench) -> None:
    with bench.listeners.listener(A, ()).dup() as old:
        bench.listeners.close()
        bench.listeners = bench.after_a_restart()
        with bench.dial(A), old.accept()[0]:
            pass

        new = bench.listeners.listener(A, (A,))
        with bench.dial(A), new.accept()[0]:
            pass


def test_a_removed_listener_leaves_nothing(bench: Bench) -> None:
    bench.listeners.listener(A, ())
    bench.listeners.remove(A)
    bench.listeners.remove(A)

    assert list(bench.places.agents.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        bench.dial(A)


def test_a_sweep_removes_what_belongs_to_no_sandbox(bench: Bench) -> None:
    for sandbox_id in (A, B):
        bench.listeners.listener(sandbox_id, ())
    bench.listeners.close()
    bench.listeners = bench.after_a_restart()

    bench.listeners.sweep({B})

    assert [path.name for path in bench.places.agents.iterdir()] == [B]


def test_a_sweep_removes_a_socket_that_was_not_finished(bench: Bench) -> None:
    bench.listeners.listener(A, ())
    unfinished = bench.places.agents / f".{B}"  # as a hostd leaves it that is killed between bind and rename
    with socket.socket(socket.AF_UNIX) as never_listened:
        never_listened.bind(str(unfinished))

    bench.listeners.sweep({A})

    assert [path.name for path in bench.places.agents.iterdir()] == [A]


def test_listeners_whose_sandbox_never_came_go_after_a_while(bench: Bench) -> None:
    bench.listeners.listener(A, ())
    bench.now_s = UNUSED_S + 1
    bench.listeners.listener(B, (B,))

    assert [path.name for path in bench.places.agents.iterdir()] == [B]


def test_there_are_only_so_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 1)
    bench.listeners.listener(A, (A,))
    with pytest.raises(ResourceExhausted):
        bench.listeners.listener(B, (A,))
