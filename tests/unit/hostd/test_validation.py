"""hostd checks every argument again."""

import math

import msgspec
import pytest

from skerry.errors import InvalidRequest, NotFound, NotSupported, SkerryError
from skerry.hostd.validation import check_start, checked_id
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Isolation, StartSpec

GOOD = StartSpec(
    sandbox_id=SandboxId("sbx_ord_" + "a" * 20),
    isolation=Isolation.GVISOR,
    image="builtin:debian-13",
    memory_mib=768,
    cpus=2.0,
    disk_mib=1024,
    max_processes=256,
)


def check(**changes: object) -> None:
    check_start(
        msgspec.structs.replace(GOOD, **changes), isolations={Isolation.GVISOR}, images={"builtin:debian-13"}
    )


def test_a_good_request_passes() -> None:
    check()
    check(memory_mib=128, cpus=0.1, disk_mib=64, max_processes=16)
    check(memory_mib=1 << 20, cpus=1024.0, disk_mib=1 << 20, max_processes=1_000_000)


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"sandbox_id": "../../etc"}, InvalidRequest),
        ({"sandbox_id": "sbx_ord_" + "a" * 21}, InvalidRequest),
        ({"sandbox_id": "sbx_ord_" + "a" * 20 + "\n"}, InvalidRequest),
        ({"isolation": Isolation.FAKE}, NotSupported),
        ({"isolation": Isolation.MICROVM}, NotSupported),
        ({"image": "/etc/shadow"}, NotFound),
        ({"image": ""}, NotFound),
        ({"memory_mib": 127}, InvalidRequest),
        ({"memory_mib": (1 << 20) + 1}, InvalidRequest),
        ({"memory_mib": -1}, InvalidRequest),
        ({"cpus": 0.0}, InvalidRequest),
        ({"cpus": math.nan}, InvalidRequest),
        ({"cpus": math.inf}, InvalidRequest),
        ({"disk_mib": 63}, InvalidRequest),
        ({"max_processes": 15}, InvalidRequest),
        ({"max_processes": 1_000_001}, InvalidRequest),
    ],
)
def test_a_bad_one_is_refused_by_family(changes: dict[str, object], family: type[SkerryError]) -> None:
    with pytest.raises(family):
        check(**changes)


@pytest.mark.parametrize(
    "text", ["", "sbx_ord_", "sbx_ORD_" + "a" * 20, "sbx_ord_" + "i" * 20, "x" * 100_000]
)
def test_a_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_id(SandboxId(text))
