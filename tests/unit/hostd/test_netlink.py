"""Messages to the kernel, byte by byte."""

from ipaddress import IPv4Address

from skerry.hostd.sys import netlink, rtnetlink


def test_attributes_are_padded_and_read_again() -> None:
    assert netlink.attribute(3, b"ab") == b"\x06\0\x03\0ab\0\0"
    assert netlink.text(3, "g1") == b"\x07\0\x03\0g1\0\0"
    data = netlink.text(3, "g1") + netlink.number(27, 5) + netlink.nested(18, netlink.text(1, "veth"))
    found = netlink.attributes(data)
    assert (found[3], found[27]) == (b"g1\0", b"\5\0\0\0")
    assert netlink.attributes(found[18]) == {1: b"veth\0"}


def test_what_is_cut_short_is_read_as_far_as_it_goes() -> None:
    assert netlink.attributes(b"\x06\0\x03\0a") == {3: b"a"}
    assert netlink.attributes(b"\0\0\x03\0\x05\0\x01\0x") == {3: b"", 1: b"x"}
    assert netlink.attributes(b"\x06") == {}
    assert list(netlink.messages(b"\0" * 16)) == [(0, 0, b"")]
    assert list(netlink.messages(b"\0" * 15)) == []


def test_a_pair_names_both_ends_and_where_the_second_is_made() -> None:
    request = rtnetlink.add_veth("eth0", 2, peer="g7", peer_namespace=9)
    fixed, attributes = request.body[:16], netlink.attributes(request.body[16:])
    assert fixed == b"\0\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0"
    assert attributes[3] == b"eth0\0"
    information = netlink.attributes(attributes[18])
    assert information[1] == b"veth\0"
    peer = netlink.attributes(information[2])[1]
    assert netlink.attributes(peer[16:]) == {3: b"g7\0", 28: b"\x09\0\0\0"}


def test_an_address_is_given_with_its_prefix() -> None:
    request = rtnetlink.add_address(2, IPv4Address("10.201.0.1"), 31)
    assert request.body[:8] == b"\x02\x1f\0\0\x02\0\0\0"
    assert netlink.attributes(request.body[8:]) == {1: b"\x0a\xc9\0\x01", 2: b"\x0a\xc9\0\x01"}


def test_the_default_route_has_no_destination() -> None:
    request = rtnetlink.add_default_route(IPv4Address("10.201.0.0"))
    assert request.body[:12] == b"\x02\0\0\0\xfe\x04\0\x01\0\0\0\0"
    assert netlink.attributes(request.body[12:]) == {5: b"\x0a\xc9\0\0"}
