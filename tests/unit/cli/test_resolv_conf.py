"""The host's own name servers."""

from pathlib import Path

import pytest

from skerry.cli.resolv_conf import MAX_SERVERS, host_resolvers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example\n", ("127.0.0.53:53",)),
        ("nameserver ::1\n\tnameserver\t192.0.2.1 # comment\n", ("[::1]:53", "192.0.2.1:53")),
        ("#nameserver 192.0.2.1\nnameserver\nnameserver resolver.example\n", ()),
        ("nameserver fe80::1%eth0\n", ()),
        ("nameserver 192.0.2.1\n" * 9, ("192.0.2.1:53",) * MAX_SERVERS),
        ("\x00\xff", ()),
    ],
)
def test_name_servers_of_a_file(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    assert host_resolvers(file) == expected


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert host_resolvers(tmp_path / "none") == ()
