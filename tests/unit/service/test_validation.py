"""Every bound of a create, at the bound and one beyond it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import InvalidRequest, NotSupported, SkerryError
from skerry.service.requests import CreateRequest
from skerry.service.validation import Bounds, check_create
from skerry.spec.settings import SandboxLimits, Settings

SECRET = "a-secret-value-that-must-not-be-repeated"
GOOD = {"hosts": ["a.example"], "value": SECRET}
NOW_MS = 1_700_000_000_000
BOUNDS = Bounds(Settings(data_dir="/d"), host_memory_mib=8192, now_ms=NOW_MS)
HOSTED = msgspec.structs.replace(
    BOUNDS,
    settings=Settings(data_dir="/d", sandbox=SandboxLimits(max_memory_mib=4096, max_lifetime_s=1800)),
)


def request(**changes: object) -> CreateRequest:
    return msgspec.structs.replace(CreateRequest(), **changes)


def timed(**changes: object) -> CreateRequest:
    return request(session=False, **changes)


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request(memory_mib=768),
        request(memory_mib=8192),
        timed(duration_s=1),
        timed(duration_s=86_400 * 365),
        timed(stop_at_ms=NOW_MS + 1),
        request(labels={"k" * 64: "v" * 128}),
        request(labels={str(n): "" for n in range(5)}),
        request(labels={"ü" * 32: "é" * 64}),
        request(env={"A": "", "b.c-d": "x=y", "LONG": "v" * (131_071 - 5)}),
        request(allow_net=[]),
        request(allow_net=["example.com", "*.example.com:443", "[::1]:80"]),
        request(secrets={"K": GOOD}),
        request(secrets={"K": GOOD | {"slots": ["header:x-token"], "methods": ["GET"], "expires": "2h"}}),
        request(region="ord"),
        request(region="ams"),
    ],
)
def test_what_is_allowed(good: CreateRequest) -> None:
    check_create(good, BOUNDS)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (request(memory_mib=767), "from 768 to 8192 MiB"),
        (request(memory_mib=8193), "from 768 to 8192 MiB"),
        (request(memory_mib=-1), "memory_mb"),
        (request(memory_mib=10**400), "memory_mb"),
        (timed(), "timeout"),
        (request(duration_s=5), "timeout"),
        (request(stop_at_ms=NOW_MS + 5), "timeout"),
        (timed(duration_s=5, stop_at_ms=NOW_MS + 5), "not both"),
        (timed(duration_s=0), "timeout"),
        (timed(duration_s=-5), "timeout"),
        (timed(duration_s=10**11), "timeout"),
        (timed(stop_at_ms=NOW_MS), f"in the past; by this server's clock it is {NOW_MS}"),
        (timed(stop_at_ms=0), "in the past"),
        (timed(stop_at_ms=NOW_MS * 2), "stop_at_ms: at most"),
        (timed(stop_at_ms=10**400), "stop_at_ms"),
        (request(labels={str(n): "" for n in range(6)}), "6 were given, at most 5"),
        (request(labels={"k" * 65: ""}), "64"),
        (request(labels={"": ""}), "key"),
        (request(labels={"ü" * 33: ""}), "66"),
        (request(labels={"k": "v" * 129}), "129 bytes"),
        (request(labels={"k": "é" * 65}), "130 bytes"),
        (request(env={"": "x"}), "env"),
        (request(env={"A=B": "x"}), "'A=B'"),
        (request(env={"A\0": "x"}), "env"),
        (request(env={"A": "x\0"}), "NUL"),
        (request(env={"A": "v" * 131_071}), "Linux"),
        (request(env={f"A{n}": "v" * 100_000 for n in range(11)}), "in all"),
        (request(allow_net=["*"]), "allow_net"),
        (request(allow_net=["10.0.0.0/8"]), "10.0.0.0/8"),
        (request(allow_net=[], secrets={"K": GOOD}), "allow_net: [] allows no connection"),
        (request(secrets={"K": GOOD | {"slotz": []}}), "secrets.K"),
        (request(secrets={"K": GOOD | {"hosts": []}}), "secrets.K.hosts"),
        (request(secrets={"K": GOOD | {"value": "short"}}), "secrets.K.value"),
        (request(secrets={"K": {"hosts": ["a.example"]}}), "value"),
        (request(secrets={"K": GOOD}, env={"K": "x"}), "is a secret too"),
        (request(allow_net=["a.example"] * 257), "257 patterns"),
        (request(region="fra"), "only region is ord"),
        (request(region=""), "region"),
    ],
)
def test_what_is_refused_in_words(bad: CreateRequest, word: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        check_create(bad, BOUNDS)
    assert word in error.value.message
    assert len(error.value.message) < 600
    assert SECRET not in error.value.message


@pytest.mark.parametrize(("memory_mib", "allowed"), [(767, False), (768, True), (4096, True), (4097, False)])
def test_the_memory_bounds_of_the_hosted_service(memory_mib: int, allowed: bool) -> None:
    if allowed:
        check_create(request(memory_mib=memory_mib), HOSTED)
    else:
        with pytest.raises(InvalidRequest, match="from 768 to 4096 MiB"):
            check_create(request(memory_mib=memory_mib), HOSTED)


@pytest.mark.parametrize(("ahead_s", "allowed"), [(1800, True), (1801, False)])
def test_the_longest_lifetime_when_one_is_set(ahead_s: int, allowed: bool) -> None:
    for wanted in (timed(duration_s=ahead_s), timed(stop_at_ms=NOW_MS + ahead_s * 1000)):
        if allowed:
            check_create(wanted, HOSTED)
        else:
            with pytest.raises(InvalidRequest, match="1800 s"):
                check_create(wanted, HOSTED)


def test_a_host_whose_memory_is_unknown_bounds_nothing() -> None:
    unknown = msgspec.structs.replace(BOUNDS, host_memory_mib=0)
    check_create(request(memory_mib=1 << 20), unknown)
    with pytest.raises(InvalidRequest, match="at least 768 MiB"):
        check_create(request(memory_mib=1), unknown)


def test_the_smaller_of_setting_and_host_bounds_the_memory() -> None:
    small = msgspec.structs.replace(HOSTED, host_memory_mib=2048)
    with pytest.raises(InvalidRequest, match="to 2048 MiB"):
        check_create(request(memory_mib=4096), small)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (request(root="vol_ord_1"), "root"),
        (request(volumes={"/data": "vol_ord_1"}), "volumes"),
    ],
)
def test_what_comes_with_a_later_version(asked: CreateRequest, word: str) -> None:
    with pytest.raises(NotSupported) as error:
        check_create(asked, BOUNDS)
    assert word in error.value.message
    assert "later version" in error.value.message


def test_all_problems_come_at_once() -> None:
    bad = request(
        memory_mib=1,
        labels={"k": "v" * 129},
        env={"": "secret-value"},
        allow_net=["*"],
        region="fra",
        root="vol_ord_1",
        duration_s=0,
    )
    with pytest.raises(InvalidRequest) as error:
        check_create(bad, BOUNDS)
    for word in ("memory_mb", "labels", "env", "allow_net", "region", "root", "timeout"):
        assert word in error.value.message
    assert "secret-value" not in error.value.message


def test_the_list_of_problems_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="and 236 more problems") as error:
        check_create(request(allow_net=["*"] * 256), BOUNDS)
    assert len(error.value.message) < 4096


_TEXT = st.text(max_size=200)


@given(
    st.builds(
        CreateRequest,
        memory_mib=st.none() | st.integers(),
        session=st.booleans(),
        stop_at_ms=st.none() | st.integers(),
        duration_s=st.none() | st.integers(),
        labels=st.dictionaries(_TEXT, _TEXT, max_size=8),
        env=st.dictionaries(_TEXT, _TEXT, max_size=8),
        allow_net=st.none() | st.lists(_TEXT, max_size=8),
        region=st.none() | _TEXT,
    )
)
def test_no_request_does_anything_but_pass_or_be_refused_in_words_that_can_be_sent(
    asked: CreateRequest,
) -> None:
    refused: SkerryError | None = None
    try:
        check_create(asked, BOUNDS)
    except SkerryError as error:
        refused = error
    if refused is None:
        assert asked.memory_mib is None or 768 <= asked.memory_mib <= 8192
        assert len(asked.labels) <= 5
    else:
        assert len(json.dumps(refused.message)) < 40_000
