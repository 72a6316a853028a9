"""What belongs to the host, as the kernel tells it."""

from ipaddress import ip_address
from pathlib import Path

from skerry.egress import own_places as module
from skerry.egress.own_places import host_addresses, own_of, own_places

FIB = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 203.0.113.7
        /32 host LOCAL
Local:
     |-- 203.0.113.7
        /32 host LOCAL
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
garbage
"""


def test_addresses_out_of_the_kernels_tables(tmp_path: Path) -> None:
    fib, if_inet6 = tmp_path / "fib", tmp_path / "inet6"
    fib.write_text(FIB)
    if_inet6.write_text(IF_INET6)
    assert host_addresses(fib, if_inet6) == ("127.0.0.1", "2001:db8::7", "203.0.113.7", "::1")
    assert host_addresses(tmp_path / "none", tmp_path / "none") == ()


def test_this_host_has_some() -> None:
    assert "127.0.0.1" in host_addresses()


def test_listeners_at_every_address_are_spelled_out() -> None:
    found = own_places(("skerry.example",), "127.0.0.1:8787")
    assert found.listeners == ("127.0.0.1:8787",)
    everywhere = own_places((), "0.0.0.0:80")
    assert set(everywhere.listeners) == {
        f"[{one}]:80" if ":" in one else f"{one}:80" for one in module.host_addresses()
    }
    assert own_places((), "127.0.0.1:0").listeners == ()
    own = own_of(found)
    assert own.names == ("skerry.example",)
    assert own.listeners == {(ip_address("127.0.0.1"), 8787)}
    assert ip_address("127.0.0.1") in own.addresses
