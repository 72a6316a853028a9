"""What is put away comes back as it was, cannot be changed, and shows nothing by accident."""

import os

import pytest

from skerry.egress.broker import vault
from skerry.egress.broker.held import Certified, Held
from skerry.egress.messages import Authority, Secret
from skerry.policy.document import SecretRule
from tests.harness.egress_ground import HOST, ID, OWNER, VALUE, layer

HELD = Held(
    sandbox_id=ID,
    owner=OWNER,
    version=7,
    layers=(layer(HOST),),
    secrets=(
        Secret(rule=SecretRule(name="KEY", hosts=(HOST,)), placeholder="p" * 40, value=VALUE, used=5),
        Secret(rule=SecretRule(name="OLD", hosts=(HOST,)), placeholder="q" * 40, value=None, state="revoked"),
    ),
    certified=Certified(authority=Authority("CERTIFICATE", "PRIVATE"), names=(HOST,), made_ms=1),
    cut=True,
)


class Keeper:
    """Keeps one."""

    def __init__(self) -> None:
        self.kept = -1

    async def keep(self, sandbox_id: str, descriptor: int) -> None:
        self.kept = os.dup(descriptor)

    async def forget(self, sandbox_id: str) -> None:
        os.close(self.kept)


async def test_what_was_put_away_comes_back_whole() -> None:
    keeper = Keeper()
    before = set(os.listdir("/proc/self/fd"))
    await vault.Vault(keeper).save(HELD)
    assert vault.restore([os.dup(keeper.kept)]) == [HELD]
    await vault.Vault(keeper).remove(ID)
    assert set(os.listdir("/proc/self/fd")) == before


def test_nobody_can_change_it() -> None:
    descriptor = vault.sealed(b"state")
    for change in (
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 1),
        lambda: os.ftruncate(descriptor, 100),
    ):
        with pytest.raises(PermissionError):
            change()
    assert os.pread(descriptor, 100, 0) == b"state"
    os.close(descriptor)


def test_what_is_damaged_is_left_out_and_the_rest_is_not() -> None:
    good = vault._encode(HELD)
    before = set(os.listdir("/proc/self/fd"))
    large = os.memfd_create("large")
    os.ftruncate(large, vault.MAX_BYTES + 1)
    bad = [vault.sealed(data) for data in (b"", b"x", good[:-1], b"\x91" * 5_000)]
    assert vault.restore([*bad, large, vault.sealed(good)]) == [HELD]
    assert set(os.listdir("/proc/self/fd")) == before


def test_no_representation_shows_a_value_or_a_key() -> None:
    shown = repr(HELD) + str(HELD) + repr(HELD.secrets) + repr(HELD.certified)
    assert VALUE.decode() not in shown
    assert "PRIVATE" not in shown
