"""Slots in a circle, and what belongs to one."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from skerry.errors import ResourceExhausted
from skerry.hostd.network import addresses
from skerry.hostd.network.slots import Slots
from skerry.spec.ids import InstanceId, SandboxId, egress_group


def sandbox(number: int) -> SandboxId:
    return SandboxId(f"sbx_ord_{number:020d}")


def test_a_freed_slot_is_used_again_as_late_as_possible() -> None:
    slots = Slots()
    taken = []
    for number in range(addresses.SLOTS + 3):
        taken.append(slots.take(sandbox(number)))
        slots.free(sandbox(number))

    assert taken == [*range(addresses.SLOTS), 0, 1, 2]


def test_a_slot_has_one_sandbox() -> None:
    slots = Slots()
    assert slots.take(sandbox(1)) == 0
    assert slots.take(sandbox(2)) == 1
    assert (slots.of(sandbox(1)), slots.of(sandbox(3))) == (0, None)
    slots.free(sandbox(1))
    slots.free(sandbox(1))
    assert slots.of(sandbox(1)) is None
    assert slots.sandboxes() == [sandbox(2)]


def test_there_is_an_end_to_slots() -> None:
    slots = Slots()
    for number in range(addresses.SLOTS):
        slots.take(sandbox(number))
    with pytest.raises(ResourceExhausted):
        slots.take(sandbox(addresses.SLOTS))
    slots.free(sandbox(17))
    assert slots.take(sandbox(addresses.SLOTS)) == 17


def test_found_slots_are_taken_and_the_circle_goes_on_behind_the_last() -> None:
    slots = Slots()
    slots.adopt(7, sandbox(1))
    slots.adopt(3, sandbox(2))
    assert slots.take(sandbox(3)) == 4
    assert [slots.take(sandbox(number)) for number in range(4, 7)] == [5, 6, 8]


def test_every_slot_has_a_link_of_its_own() -> None:
    links = [
        IPv4Network((addresses.gateway_address(slot), addresses.PREFIX_LENGTH))
        for slot in range(addresses.SLOTS)
    ]
    assert len(set(links)) == addresses.SLOTS
    for slot in (0, 1, 127, 128, addresses.SLOTS - 1):
        assert list(links[slot]) == [addresses.gateway_address(slot), addresses.guest_address(slot)]
    assert addresses.guest_address(addresses.SLOTS - 1) == IPv4Address("10.201.31.255")


def test_interfaces_are_named_by_their_slot() -> None:
    for slot in (0, 9, 10, addresses.SLOTS - 1):
        assert addresses.slot_of(addresses.interface(slot)) == slot
    for name in ("lo", "g", "g01", "g-1", "g4096", "g99999", "eth0", "g1x", "xg1", "g\u0661", ""):
        assert addresses.slot_of(name) is None


def test_every_instance_has_a_group_of_its_own_that_is_a_number() -> None:
    groups = [egress_group(InstanceId(name)) for name in ("000000", "000001", "abc123", "zzzzzz")]
    assert groups == [0x40000000, 0x40000001, 0x40000000 + int("abc123", 36), 0x40000000 + 36**6 - 1]
    assert max(groups) < 2**32 - 1  # which means "none" to the kernel
