"""What is loaded into the packet filter. What the kernel makes of it is seen in tests/integration."""

import re
from ipaddress import ip_address, ip_network

import pytest

from skerry.hostd.network import gateway_rules, uplink_rules
from skerry.hostd.network.uplink_rules import Uplink
from skerry.policy.addresses import denied, denied_ranges
from skerry.spec.ids import InstanceId

INSTANCE = InstanceId("abc123")


def test_the_gateway_s_table_is_named_by_what_is_in_it() -> None:
    first, same, other = (gateway_rules.rules(max_connections=count) for count in (64, 64, 65))
    assert first == same
    assert first.table != other.table
    assert re.fullmatch(r"gateway_[0-9a-f]{12}", first.table)


def test_other_tables_go_in_the_same_transaction() -> None:
    rules = gateway_rules.rules(max_connections=64)
    assert rules.script([]).startswith(f"table inet {rules.table} {{")
    assert rules.script(["old", "older"]).startswith(
        f"delete table inet old\ndelete table inet older\ntable inet {rules.table} {{"
    )


def test_nothing_is_answered_before_the_source_was_checked() -> None:
    script = gateway_rules.rules(max_connections=64).script([])
    assert script.index("fib saddr") < script.index("reject")
    assert "policy drop" in script[: script.index("fib saddr")]
    assert "$" not in script


def test_a_few_more_connections_are_let_in_than_are_served() -> None:
    most = 64 + gateway_rules.REFUSED_READABLY
    assert f"ct count over {most} " in gateway_rules.rules(max_connections=64).script([])


def test_the_second_line_counts_for_one_user_and_group_only() -> None:
    script = uplink_rules.script(INSTANCE, Uplink(uid=995, gid=0x40000001))
    assert script.count("meta skuid 995 meta skgid 1073741825") == 1
    assert "policy accept" in script
    assert script.startswith("table inet skerry_abc123\ndelete table inet skerry_abc123\ntable inet")
    assert uplink_rules.removal(INSTANCE) == script[: len(uplink_rules.removal(INSTANCE))]


def test_exceptions_come_first_and_have_a_protocol_and_a_port() -> None:
    uplink = Uplink(
        uid=1,
        gid=2,
        resolvers=((ip_address("127.0.0.53"), 53),),
        proxies=((ip_address("2001:db8::1"), 3128),),
        internal=uplink_rules.networks(["10.1.0.0/16", "fd00:1::/32"]),
    )
    lines = [line.strip() for line in uplink_rules.script(INSTANCE, uplink).splitlines()]
    assert [line for line in lines if line.endswith(" accept")] == [
        "ip daddr . meta l4proto . th dport { 127.0.0.53 . tcp . 53, 127.0.0.53 . udp . 53 } accept",
        "ip6 daddr . meta l4proto . th dport { 2001:db8::1 . tcp . 3128 } accept",
        "ip daddr 10.1.0.0/16 accept",
        "ip6 daddr fd00:1::/32 accept",
    ]
    first_refusal = next(number for number, line in enumerate(lines) if "reject" in line)
    assert "l4proto != tcp" in lines[first_refusal]


def test_what_is_no_prefix_is_an_error() -> None:
    assert uplink_rules.networks(["10.1.2.3/8"]) == (ip_network("10.0.0.0/8"),)
    with pytest.raises(ValueError, match="does not appear"):
        uplink_rules.networks(["10.0.0.0/8; flush ruleset"])


@pytest.mark.parametrize("version", [4, 6])
def test_the_second_line_refuses_what_policy_does(version: int) -> None:
    ranges = denied_ranges(version)
    assert ranges == sorted(ranges)
    for first, last in ranges:
        assert int(first) <= int(last)
        assert denied(first)
        assert denied(last)
        for outside in (int(first) - 1, int(last) + 1):
            if 0 <= outside < 1 << (32 if version == 4 else 128):
                assert denied(type(first)(outside)) is None
