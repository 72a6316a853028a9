"""The table of addresses that nothing may reach (R11)."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.addresses import denied


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0.0.0.1", "this-network"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.1", "shared"),
        ("100.127.255.255", "shared"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.0.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("169.254.170.23", "metadata"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.1", "protocol"),
        ("192.0.0.192", "metadata"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "benchmark"),
        ("198.19.255.255", "benchmark"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:8.8.8.8", "ipv4-mapped"),
        ("::ffff:169.254.169.254", "ipv4-mapped"),
        ("64:ff9b::a9fe:a9fe", "nat64"),
        ("64:ff9b::8.8.8.8", "nat64"),
        ("64:ff9b:1::1", "nat64"),
        ("100::1", "discard"),
        ("2001::1", "teredo"),
        ("2002:a00:1::", "6to4"),
        ("fc00::1", "unique-local"),
        ("fd12:3456::1", "unique-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
    ],
)
def test_ranges_that_are_not_the_internet(text: str, name: str) -> None:
    assert denied(ip_address(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.113.1",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2001:db8::1",
        "2003::1",
        "2606:4700::1111",
        "3fff:ffff::1",
    ],
)
def test_the_internet_begins_right_beside_them(text: str) -> None:
    assert denied(ip_address(text)) is None


_SPECIAL: list[IPv4Network | IPv6Network] = [
    ip_network("0.0.0.0/8"),
    ip_network("10.0.0.0/8"),
    ip_network("100.64.0.0/10"),
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),
    ip_network("172.16.0.0/12"),
    ip_network("192.0.0.0/24"),
    ip_network("192.168.0.0/16"),
    ip_network("198.18.0.0/15"),
    ip_network("224.0.0.0/4"),
    ip_network("240.0.0.0/4"),
    ip_network("::/96"),
    ip_network("::ffff:0:0/96"),
    ip_network("64:ff9b::/96"),
    ip_network("64:ff9b:1::/48"),
    ip_network("2001::/32"),
    ip_network("2002::/16"),
    ip_network("fc00::/7"),
    ip_network("fe80::/10"),
    ip_network("ff00::/8"),
]


@given(st.sampled_from(_SPECIAL), st.integers(min_value=0))
def test_every_address_of_the_ranges_is_denied(network: IPv4Network | IPv6Network, number: int) -> None:
    assert denied(network[number % network.num_addresses]) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_ipv6_is_never_better_off(address: object) -> None:
    for front in ("::ffff:", "64:ff9b::", "::"):
        assert denied(ip_address(f"{front}{address}")) is not None
