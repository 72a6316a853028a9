"""What `up` keeps for egressd, and what it refuses to keep."""

import fcntl
import os
from collections.abc import Iterator

import pytest

from skerry.daemon import kept_files
from skerry.daemon.kept_files import MAX_FILE_BYTES, KeptFiles
from skerry.daemon.lifeline import Forget, Keep
from skerry.egress.broker.vault import sealed

ID = "sbx_ord_" + "a" * 20
OTHER = "sbx_ord_" + "b" * 20


class Kept:
    """Files that are kept, and the complaints about others."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.files = KeptFiles(self.complaints.append)

    def contents(self) -> list[bytes]:
        return [os.pread(fd, 100, 0) for fd in self.files.descriptors()]


@pytest.fixture
def kept() -> Iterator[Kept]:
    before = set(os.listdir("/proc/self/fd"))
    made = Kept()
    yield made
    made.files.close()
    made.files.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_last_of_a_name_is_kept_until_it_is_forgotten(kept: Kept) -> None:
    kept.files.take(Keep(ID), [sealed(b"old")])
    kept.files.take(Keep(OTHER), [sealed(b"other")])
    kept.files.take(Keep(ID), [sealed(b"new")])
    assert sorted(kept.contents()) == [b"new", b"other"]
    kept.files.take(Forget(ID), [])
    kept.files.take(Forget(ID), [])
    assert kept.contents() == [b"other"]
    assert kept.complaints == []


@pytest.mark.parametrize("name", ["", "up", "../x", "sbx_ord_" + "a" * 19, ID + "\n", "x" * 60_000])
def test_other_names_are_refused(kept: Kept, name: str) -> None:
    kept.files.take(Keep(name), [sealed(b"x")])
    kept.files.take(Forget(name), [sealed(b"x")])
    assert kept.contents() == []
    assert len(kept.complaints) == 2


def test_what_comes_without_a_descriptor_or_with_two_is_refused(kept: Kept) -> None:
    kept.files.take(Keep(ID), [])
    kept.files.take(Keep(ID), [sealed(b"x"), sealed(b"y")])
    assert kept.contents() == []
    assert len(kept.complaints) == 2


def test_only_sealed_memory_files_are_kept(kept: Kept) -> None:
    kept.files.take(Keep(ID), [sealed(b"good")])
    half = os.memfd_create("half", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(half, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    pipe = os.pipe()
    for bad in (os.open("/dev/zero", os.O_RDONLY), os.memfd_create("x", os.MFD_ALLOW_SEALING), half, *pipe):
        kept.files.take(Keep(ID), [bad])
    assert kept.contents() == [b"good"]
    assert len(kept.complaints) == 5


def test_there_is_a_largest_size_and_a_largest_number(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.files.take(Keep(ID), [sealed(b"x" * (MAX_FILE_BYTES + 1))])
    assert kept.contents() == []
    monkeypatch.setattr(kept_files, "MAX_KEPT", 1)
    kept.files.take(Keep(ID), [sealed(b"one")])
    kept.files.take(Keep(OTHER), [sealed(b"two")])
    kept.files.take(Keep(ID), [sealed(b"again")])
    assert kept.contents() == [b"again"]
    monkeypatch.setattr(kept_files, "MAX_BYTES", 10)
    kept.files.take(Keep(ID), [sealed(b"x" * 11)])
    assert kept.contents() == [b"again"]
    assert len(kept.complaints) == 3
