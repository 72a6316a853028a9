"""FileInfo and error objects have every member, with values that JavaScript can hold."""

import stat
from datetime import datetime

import msgspec
import pytest

from skerry.protocol.deno_errors import error_of_code, process_gone
from skerry.protocol.deno_files import directory_entry, file_info, iso_time, string_map
from skerry.protocol.messages import Stat


def status(**changes: object) -> Stat:
    plain: dict[str, object] = {
        "kind": "file", "size": 5, "mode": stat.S_IFREG | 0o644, "uid": 1000, "gid": 1000, "dev": 3, "ino": 4,
        "nlink": 1, "rdev": 0, "blksize": 4096, "blocks": 8, "atime_ns": 0, "mtime_ns": 1_500_000_000,
        "ctime_ns": 7_000_000, "birthtime_ns": None,
    }  # fmt: skip
    return msgspec.convert({**plain, **changes}, Stat)


def test_all_21_members_are_there_and_none_is_null() -> None:
    info = file_info(status())
    assert len(info) == 21
    assert None not in info.values()
    assert info["mtime"] == "1970-01-01T00:00:01.500Z"
    assert info["birthtime"] == info["ctime"] == "1970-01-01T00:00:00.007Z"


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        (stat.S_IFREG, "isFile"),
        (stat.S_IFDIR, "isDirectory"),
        (stat.S_IFLNK, "isSymlink"),
        (stat.S_IFBLK, "isBlockDevice"),
        (stat.S_IFCHR, "isCharDevice"),
        (stat.S_IFIFO, "isFifo"),
        (stat.S_IFSOCK, "isSocket"),
    ],
)
def test_exactly_one_kind(kind: int, member: str) -> None:
    info = file_info(status(mode=kind | 0o600))
    assert [name for name, value in info.items() if value is True] == [member]


def test_large_numbers_stay_safe_integers() -> None:
    info = file_info(status(ino=2**64 - 1, dev=2**60 + 5))
    assert info["ino"] == 2**53 - 1
    assert info["dev"] == 5


@pytest.mark.parametrize("time_ns", [-(2**63), -1, 0, 2**63 - 1, -62_135_596_800 * 10**9])
def test_any_time_a_guest_can_set_is_parsed_again(time_ns: int) -> None:
    text = iso_time(time_ns)
    assert len(text) == 24
    assert datetime.fromisoformat(text).tzinfo is not None


def test_names_that_are_no_utf_8() -> None:
    assert string_map({b"A\xff": b"\xfe", "B": "x"}) == {"A\ufffd": "\ufffd", "B": "x"}
    assert directory_entry("n", "other") == {
        "name": "n", "isFile": False, "isDirectory": False, "isSymlink": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "constructor"),
    [
        ("ENOENT", "NotFound"), ("EACCES", "PermissionDenied"), ("EEXIST", "AlreadyExists"),
        ("EISDIR", "IsADirectory"), ("ENOTDIR", "NotADirectory"), ("ELOOP", "FilesystemLoop"),
        ("EBUSY", "Busy"), ("ENOSPC", "Error"),
        ("EINVAL", "TypeError"), ("TOO_LARGE", "RangeError"),
    ],
)  # fmt: skip
def test_errno_names_map_to_classes(code: str, constructor: str) -> None:
    error = error_of_code(code, "said so", doing="stat 'a'")
    assert error["constructorName"] == constructor
    assert error["code"] == code
    assert error["message"].endswith(": stat 'a'")
    assert set(error) == {
        "constructorName", "message", "code", "name", "stack", "cause", "errors", "suppressed", "error",
    }  # fmt: skip


def test_only_a_process_is_a_type_error_with_enoent() -> None:
    assert (process_gone()["constructorName"], process_gone()["code"]) == ("TypeError", "ENOENT")
    assert error_of_code("ENOENT", "")["constructorName"] != "TypeError"
