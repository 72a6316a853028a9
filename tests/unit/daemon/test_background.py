"""A process that is left behind tells its starter how it went."""

import os
from pathlib import Path

from skerry.daemon.background import Tell, fork_into_background


def test_it_tells_and_goes_on_in_a_session_of_its_own(tmp_path: Path) -> None:
    def work(tell: Tell) -> None:
        tell({"session": os.getsid(0), "pid": os.getpid(), "stdin": os.readlink("/proc/self/fd/0")})

    child = fork_into_background(work, errors_to=tmp_path / "log")
    answer = child.first_answer(timeout_s=30)
    assert answer == {"session": child.pid, "pid": child.pid, "stdin": "/dev/null"}
    assert os.waitpid(child.pid, 0) == (child.pid, 0)
    child.end()


def test_what_breaks_stands_in_its_log(tmp_path: Path) -> None:
    def work(_: Tell) -> None:
        raise ValueError("the reason")

    child = fork_into_background(work, errors_to=tmp_path / "log")
    assert child.first_answer(timeout_s=30) is None
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 1
    assert "ValueError: the reason" in (tmp_path / "log").read_text()


def test_one_that_takes_too_long(tmp_path: Path) -> None:
    hold, release = os.pipe()

    def work(_: Tell) -> None:
        os.close(release)
        os.read(hold, 1)

    child = fork_into_background(work, errors_to=tmp_path / "log")
    os.close(hold)
    assert child.first_answer(timeout_s=0.01) is None
    child.end()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) < 0
    os.close(release)
