"""Sandbox roots on real loop devices, XFS, ext4, EROFS and overlays.

Every child process plays one life of hostd.
"""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skerry.hostd.sys import loop, mount_namespace
from tests.conftest import REPOSITORY, Built
from tests.integration.storage_child import FILL

pytestmark = pytest.mark.needs_root

A, B, C = (f"sbx_ord_{letter * 20}" for letter in "abc")
MIB = 1 << 20
PATIENCE_S = 20.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for the kernel to do what it does a little later."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Host:
    """Directories of one instance."""

    runtime: Path
    data: Path
    image: Path

    def live(self, *steps: list[object]) -> list[Any]:
        """One life of hostd: open the store, carry out steps, go away leaving everything.

        Returns the steps' answers.
        """
        done = self._start(["open"], *steps)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))[1:]

    def be_killed(self, where: tuple[str, int, bool], *steps: list[object]) -> None:
        """One that must end by SIGKILL on the way."""
        assert self._start(["die_around", *where], *steps).returncode == -9

    def _start(self, *steps: list[object]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tests.integration.storage_child", str(self.runtime), str(self.data)],
            input=json.dumps(steps),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    def loop_devices(self) -> list[str]:
        """Files behind loop devices that are this instance's."""
        ours = (str(self.runtime), str(self.data), str(self.image))
        return [device.backing_file for device in loop.devices() if device.backing_file.startswith(ours)]

    def merged(self, sandbox_id: str) -> str:
        """Where a root is expected."""
        return f"{self.runtime}/mounts/roots/{sandbox_id}/merged"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    image = tmp_path / "image.erofs"
    tree = tmp_path / "tree"
    (tree / "etc" / "sub").mkdir(parents=True)
    (tree / "etc" / "name").write_text("from the image\n")
    (tree / "home").mkdir()
    subprocess.run(["mkfs.erofs", image, tree], check=True, capture_output=True)
    host = Host(tmp_path / "run", tmp_path / "data", image)
    host.runtime.mkdir()
    yield host
    mount_namespace.remove(host.runtime / "mntns")
    until(lambda: host.loop_devices() == [])


def test_a_root_shows_the_image_takes_writes_and_goes_without_a_trace(host: Host) -> None:
    write = f"cd {host.merged(A)} && cat etc/name && echo changed > etc/name && cat etc/name"
    path, before, written, usage, mounted, _, present, after, left = host.live(
        ["prepare", A, str(host.image), 256],
        ["usage", A],
        ["shell", write],
        ["usage", A],
        ["mounted"],
        ["release", A],
        ["present"],
        ["usage", A],
        ["mounted"],
    )

    assert path == host.merged(A)
    assert written == [0, "from the image\nchanged\n"]
    assert before < MIB
    assert before < usage < before + MIB
    assert {f"mounts/roots/{A}/disk", f"mounts/roots/{A}/merged", "mounts/pool"} < set(mounted)
    assert present == []
    assert after["error"] == "NotFound"
    assert not [path for path in left if A in path]
    assert list((host.runtime / "mounts" / "roots").iterdir()) == []


def test_closing_unmounts_everything_and_keeps_the_pool_file(host: Host) -> None:
    host.live(["prepare", A, str(host.image), 256], ["prepare", B, str(host.image), 256], ["close", False])

    until(lambda: host.loop_devices() == [])
    assert [path.name for path in host.data.iterdir()] == ["pool.img"]
    assert host.live(["present"], ["mounted"]) == [[], ["mounts/pool"]]


def test_releasing_what_is_not_there_is_fine(host: Host) -> None:
    assert host.live(["release", A], ["release", A]) == [None, None]


def test_a_second_root_for_a_sandbox_is_refused_and_the_first_is_unharmed(host: Host) -> None:
    _, second, output = host.live(
        ["prepare", A, str(host.image), 256],
        ["prepare", A, str(host.image), 256],
        ["shell", f"cat {host.merged(A)}/etc/name"],
    )

    assert second["error"] == "Conflict"
    assert output == [0, "from the image\n"]


def test_roots_share_the_image_and_nothing_else(host: Host) -> None:
    *_, seen, devices = host.live(
        ["prepare", A, str(host.image), 256],
        ["prepare", B, str(host.image), 256],
        ["shell", f"echo mine > {host.merged(A)}/etc/name"],
        ["shell", f"cat {host.merged(B)}/etc/name"],
        ["shell", "cat /sys/block/loop*/loop/backing_file"],
    )

    assert seen == [0, "from the image\n"]
    assert devices[1].splitlines().count(str(host.image)) == 1


def test_directories_of_the_image_can_be_renamed(host: Host) -> None:
    rename = f"import os; os.rename('{host.merged(A)}/etc', '{host.merged(A)}/moved')"
    *_, renamed, seen = host.live(
        ["prepare", A, str(host.image), 256],
        ["shell", f'{sys.executable} -c "{rename}"'],
        ["shell", f"cat {host.merged(A)}/moved/name"],
    )

    assert renamed == [0, ""]
    assert seen == [0, "from the image\n"]


def test_the_host_sees_none_of_the_mounts(host: Host) -> None:
    host.live(["prepare", A, str(host.image), 256])

    assert str(host.runtime / "mounts") not in Path("/proc/self/mountinfo").read_text()
    assert list((host.runtime / "mounts" / "pool").iterdir()) == []


def test_the_next_hostd_finds_and_frees_what_is_there(host: Host) -> None:
    host.live(["prepare", A, str(host.image), 256], ["shell", f"echo kept > {host.merged(A)}/home/note"])

    present, output, _, left = host.live(
        ["present"], ["shell", f"cat {host.merged(A)}/home/note"], ["release", A], ["present"]
    )

    assert present == [A]
    assert output == [0, "kept\n"]
    assert left == []


STEPS_OF_PREPARE = [
    ("clone", 1, True),
    ("configure", 1, True),
    ("mount_disk", 1, True),
    ("mount", 1, False),
    ("mount", 1, True),
]


@pytest.mark.parametrize("where", STEPS_OF_PREPARE)
def test_killed_while_preparing(host: Host, where: tuple[str, int, bool]) -> None:
    host.live(["prepare", B, str(host.image), 256])
    host.be_killed(where, ["open"], ["prepare", A, str(host.image), 256])

    before, _, after_release, neighbour = host.live(
        ["present"], ["release", A], ["present"], ["shell", f"cat {host.merged(B)}/etc/name"]
    )

    assert before == [A, B]
    assert after_release == [B]
    assert neighbour == [0, "from the image\n"]
    until(lambda: len(host.loop_devices()) == 3)  # pool, image, the neighbour's disk


@pytest.mark.parametrize(
    "where",
    [("shut_down", 1, True), ("unmount", 1, True), ("unmount", 3, True), ("unmount", 4, False)],
)
def test_killed_while_releasing(host: Host, where: tuple[str, int, bool]) -> None:
    host.live(["prepare", A, str(host.image), 256])
    host.be_killed(where, ["open"], ["release", A])

    before, _, left, mounted = host.live(["present"], ["release", A], ["present"], ["mounted"])

    assert before == [A]
    assert left == []
    assert not [path for path in mounted if A in path]


@pytest.mark.parametrize("namespace_lost", [False, True])
def test_killed_while_making_the_pool(host: Host, namespace_lost: bool) -> None:
    host.be_killed(("configure", 1, True), ["open"])
    if namespace_lost:
        mount_namespace.remove(host.runtime / "mntns")

    assert host.live(["prepare", B, str(host.image), 256], ["present"])[1] == [B]


def test_when_everything_died_and_the_namespace_went_only_files_are_left(host: Host) -> None:
    host.live(["prepare", A, str(host.image), 256])
    mount_namespace.remove(host.runtime / "mntns")
    until(lambda: host.loop_devices() == [])

    present, _, left = host.live(["present"], ["release", A], ["present"])

    assert present == [A]
    assert left == []


def test_cancelled_preparations_leave_nothing_and_harm_no_other(host: Host) -> None:
    kept = host.live(["prepare_many_and_cancel_some", str(host.image), 24])[0]

    assert 12 <= len(kept) < 24
    assert host.live(["present"]) == [kept]


def test_a_busy_root_is_released_in_bounded_time_and_watched_until_it_is_gone(host: Host) -> None:
    _, pid = host.live(["prepare", A, str(host.image), 256], ["hold", f"{host.merged(A)}/home"])
    try:
        _, present, mounted, held = host.live(["release", A], ["present"], ["mounted"], ["held_by_others"])

        assert present == []
        assert not [path for path in mounted if A in path]
        assert len(held) == 1
    finally:
        subprocess.run(["kill", "-9", str(pid)], check=True)

    until(lambda: host.live(["held_by_others"]) == [[]])


def test_space_comes_back_after_deleting_inside_and_after_release(host: Host) -> None:
    def taken_mib() -> int:
        host.live(["shell", f"sync -f {host.runtime}/mounts/pool"])
        return (host.data / "pool.img").stat().st_blocks // 2048

    host.live(["prepare", A, str(host.image), 1024])
    empty = taken_mib()
    file = f"{host.merged(A)}/home/big"

    filled = host.live(["fill", file, 300], ["shell", f"sync -f {host.runtime}/mounts/roots/{A}/disk"])[0]
    assert filled == [300, 0]
    assert taken_mib() >= empty + 300

    host.live(["shell", f"rm {file}; sync -f {host.runtime}/mounts/roots/{A}/disk"])
    until(lambda: taken_mib() < empty + 50)

    host.live(["fill", file, 300], ["release", A])
    until(lambda: taken_mib() < empty + 50)


def test_an_unusable_image_is_said_without_a_path_and_leaves_nothing(host: Host, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.erofs"
    damaged.write_bytes(b"\0" * MIB)

    missing, broken, present, mounted = host.live(
        ["prepare", A, str(tmp_path / "missing.erofs"), 256],
        ["prepare", A, str(damaged), 256],
        ["present"],
        ["mounted"],
    )

    assert missing["error"] == broken["error"] == "HostUnusable"
    assert "missing" in missing["message"]
    assert "damaged" in broken["message"]
    assert str(tmp_path) not in missing["message"] + broken["message"]
    assert present == []
    assert mounted == ["mounts/pool"]


def test_only_a_disk_can_be_shut_down(host: Host) -> None:
    root = host.runtime / "mounts" / "roots" / A
    _, parent, inside, output = host.live(
        ["prepare", A, str(host.image), 256],
        ["shut_down", "/dev/shm"],
        ["shut_down", str(root / "disk" / "upper")],
        ["shell", f"echo works > {root}/disk/upper/file && cat {host.merged(A)}/file"],
    )

    assert parent == inside == "NotMounted"
    assert output == [0, "works\n"]


def small_filesystem(tmp_path: Path, *mkfs: str, size_mib: int) -> Path:
    """A file system of its own for the data directory, mounted on the host's side."""
    file, at = tmp_path / "small.img", tmp_path / "small"
    file.touch()
    with file.open("r+b") as image:
        image.truncate(size_mib * MIB)
    subprocess.run([*mkfs, file], check=True, capture_output=True)
    at.mkdir()
    subprocess.run(["mount", "-o", "loop", file, at], check=True)
    return at


def test_a_data_directory_with_reflinks_is_the_pool_itself(host: Host, tmp_path: Path) -> None:
    at = small_filesystem(tmp_path, "mkfs.xfs", "-q", "-m", "reflink=1", size_mib=2048)
    native = Host(host.runtime, at / "data", host.image)
    try:
        _, mounted, _ = native.live(["prepare", A, str(host.image), 256], ["mounted"], ["close", False])

        assert f"mounts/roots/{A}/merged" in mounted
        assert "mounts/pool" not in mounted
        assert native.live(["present"]) == [[]]
        assert [path.name for path in native.data.iterdir()] == ["pool"]
    finally:
        mount_namespace.remove(host.runtime / "mntns")
        until(lambda: subprocess.run(["umount", at], check=False, capture_output=True).returncode == 0)


def test_a_host_that_fills_up_is_no_space_left_never_an_io_error(host: Host, tmp_path: Path) -> None:
    at = small_filesystem(tmp_path, "mkfs.ext4", "-q", "-m", "0", size_mib=1536)
    tight = Host(host.runtime, at / "data", host.image)
    home, disk = f"{host.merged(A)}/home", host.runtime / "mounts" / "roots" / A / "disk"
    rounds: list[list[object]] = []
    for n in range(8):
        rounds += [["fill", f"{home}/{n}", 4096], ["look"]]
    try:
        tight.live(["prepare", A, str(host.image), 4096], ["prepare", B, str(host.image), 4096], ["look"])
        *filled, _ = tight.live(*rounds, ["shell", f"sync -f {disk}"])[::2]
        left = os.statvfs(at)
        refused, neighbour = tight.live(
            ["prepare", C, str(host.image), 4096], ["fill", f"{host.merged(B)}/home/file", 1]
        )
        tight.live(["shell", f"rm {home}/*; sync -f {disk}"])

        def neighbour_can_write() -> bool:  # as soon as the discards are through
            fill = ["fill", f"{host.merged(B)}/home/file", 50]
            answers = tight.live(["shell", f"sync -f {host.runtime}/mounts/pool"], fill)
            return bool(answers[1] == [50, 0])

        assert {error for _, error in filled} == {errno.ENOSPC}
        assert filled[0][0] > 100
        assert left.f_bavail * left.f_frsize > 450 * MIB  # the reserve is 512
        assert refused["error"] == "ResourceExhausted"
        assert "almost full" in refused["message"]
        assert neighbour[1] in (0, errno.ENOSPC)
        until(neighbour_can_write)
    finally:
        mount_namespace.remove(host.runtime / "mntns")
        until(lambda: subprocess.run(["umount", at], check=False, capture_output=True).returncode == 0)


def test_a_full_disk_is_one_sandboxs_own_trouble(host: Host, built: Built) -> None:
    image, runsc = str(built.image), str(built.runsc)
    fill = f"import sys; sys.argv=['', '/root/fill', '4096']\n{FILL}\nsys.stdin.read()"
    write = f"import sys; sys.argv=['', '/root/fill', '50']\n{FILL}"
    *_, filled, neighbour, _, full, own, _, held, _, _ = host.live(
        ["prepare", A, image, 256],
        ["prepare", B, image, 256],
        ["sandbox", runsc, "filler", host.merged(A), "python3", "-c", fill],
        ["sandbox", runsc, "neighbour", host.merged(B), "python3", "-c", write],
        ["finish", "neighbour"],
        ["usage", A],
        ["usage", B],
        ["release", B],
        ["held_by_others"],
        ["finish", "filler"],
        ["release", A],
    )

    written_mib, error = (int(number) for number in filled.split())
    assert error == errno.ENOSPC
    assert 180 < written_mib < 256
    assert neighbour.split() == ["50", "0"]
    assert full > 180 * MIB
    assert own < 60 * MIB
    assert held == []  # a sandbox that runs keeps nobody else's mounts
