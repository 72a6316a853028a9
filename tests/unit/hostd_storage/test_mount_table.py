"""Reading what is mounted."""

from pathlib import Path

import pytest

from skerry.hostd.sys import mounts
from skerry.hostd.sys.mounts import MountPoint, is_mount_point, mounts_below


def test_the_root_is_a_mount_point_and_a_fresh_directory_is_not(tmp_path: Path) -> None:
    assert is_mount_point(Path("/"))
    assert not is_mount_point(tmp_path / "nothing")


def test_a_name_that_only_begins_alike_is_not_below() -> None:
    assert all(point.path.is_relative_to("/proc") for point in mounts_below(Path("/proc")))
    assert mounts_below(Path("/pro")) == []


@pytest.mark.parametrize(
    ("line", "point"),
    [
        (
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            MountPoint(Path("/mnt2"), "ext3", "/dev/root"),
        ),
        (
            r"40 35 7:3 / /a\040b\134c rw shared:9 propagate_from:2 - ext4 /dev/loop3 rw",
            MountPoint(Path("/a b\\c"), "ext4", "/dev/loop3"),
        ),
    ],
)
def test_mountinfo_lines_with_and_without_optional_fields(line: str, point: MountPoint) -> None:
    assert mounts._parse(line) == point
