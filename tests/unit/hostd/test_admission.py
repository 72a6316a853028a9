import pytest

from skerry.errors import ResourceExhausted
from skerry.hostd.admission import MEMORY_INFO, check_memory


def info(total_mib: int, available_mib: int) -> str:
    return f"MemTotal: {total_mib * 1024} kB\nMemFree: 1 kB\nMemAvailable: {available_mib * 1024} kB\n"


@pytest.mark.parametrize(("total_mib", "available_mib"), [(2048, 352), (24_000, 816)])
def test_enough_memory_is_enough(total_mib: int, available_mib: int) -> None:
    check_memory(info(total_mib, available_mib))


@pytest.mark.parametrize(("total_mib", "available_mib"), [(2048, 351), (24_000, 815), (24_000, 0)])
def test_the_host_keeps_a_reserve(total_mib: int, available_mib: int) -> None:
    with pytest.raises(ResourceExhausted, match=f"{available_mib} MiB are left"):
        check_memory(info(total_mib, available_mib))


def test_this_machine_says_what_is_needed() -> None:
    check_memory(MEMORY_INFO.read_text())
