"""A process that is left behind tells its starter how it went."""

import os
from pathlib import Path

from skerry.daemon.background import Tell, fork_into_background


def test_it_tells_and_goes_on_in_a_session_of_its_own(tmp_path: Path) -> None:
    kept, stray = os.pipe()

    def is_open(fd: int) -> bool:
        return Path(f"/proc/self/fd/{fd}").exists()

    def work(tell: Tell) -> None:
        stdin = os.readlink("/proc/self/fd/0")
        found = {"session": os.getsid(0), "stdin": stdin, "kept": is_open(kept), "stray": is_open(stray)}
        tell(found)

    child = fork_into_background(work, errors_to=tmp_path / "log", keep_fds=[kept])
    answer = child.first_answer(timeout_s=30)
    assert answer == {"session": child.pid, "stdin": "/dev/null", "kept": True, "stray": False}
    os.close(kept)
    os.close(stray)
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
        os.read(hold, 1)

    child = fork_into_background(work, errors_to=tmp_path / "log", keep_fds=[hold])
    os.close(hold)
    assert child.first_answer(timeout_s=0.01) is None
    child.end()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) < 0
    os.close(release)
