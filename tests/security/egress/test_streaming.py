"""What must keep working through inspection: streams, long connections, slow peers (G18 to G30)."""

import json
import statistics
from typing import Any

import pytest

from tests.harness.origins.network import Internet
from tests.harness.skerry_up import SkerryUp
from tests.security.egress.conftest import VALUE, Guest
from tests.security.egress.processes import memory_mib, peak_mib, worker_of

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

CLIENT = r"""
key = os.environ["KEY"]
auth = {"Authorization": "Bearer " + key}
context = ssl.create_default_context()
def connect(host="api.test", timeout=20):
    return http.client.HTTPSConnection(host, timeout=timeout, context=context)
def raw(host="api.test", timeout=15):
    return context.wrap_socket(socket.create_connection((host, 443), timeout=timeout), server_hostname=host)
def head_of(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data.decode("latin-1")
"""


def test_events_arrive_as_they_are_sent(roomy: Guest) -> None:
    """G19: each event is there before the next one is sent, with the scrubber at work."""
    found = roomy(
        CLIENT
        + r"""
connection = connect()
connection.request("GET", "/sse/50", headers=auth)
answer = connection.getresponse()
result = []
while line := answer.readline():
    if line.startswith(b"data: "):
        result.append(time.time() - float(line[6:]))
"""
    )
    assert len(found) == 50
    assert statistics.median(found) < 0.02, sorted(found)[-5:]


def test_chunks_trailers_and_lengths(roomy: Guest, net: Internet) -> None:
    """G18, G22, G24: nothing is added, lost or merged into another answer on one connection."""
    net.forget()
    found = roomy(
        CLIENT
        + r"""
connection = connect()
result = []
for method, path, body in [
    ("GET", "/chunked/20", None), ("HEAD", "/bytes/1000", None), ("GET", "/status/204", None), ("GET",
    "/status/304", None),
    ("GET", "/bytes/0", None), ("POST", "/echo", b"x" * 100_000), ("PUT", "/echo", b""), ("GET",
    "/bytes/70000", None),
]:
    connection.request(method, path, body=body, headers={} if method == "HEAD" else auth)
    answer = connection.getresponse()
    data = answer.read()
    result.append([answer.status, len(data) if path != "/echo" else len(json.loads(data)["body"])])
with raw() as sock:
    sock.sendall(b"GET /chunked/2 HTTP/1.1\r\nHost: api.test\r\nTE: trailers\r\nConnection: TE,close\r\n\r\n")
    data = b""
    while piece := sock.recv(65536):
        data += piece
result.append(data.decode("latin-1")[-30:])
"""
    )
    assert found[:8] == [
        [200, 20_480], [200, 0], [204, 0], [304, 0], [200, 0], [200, 100_000], [200, 0], [200, 70_000]
    ]  # fmt: skip
    assert found[8].endswith("0\r\nX-Sum: done\r\n\r\n")


def test_permission_to_go_on_and_an_early_end(roomy: Guest, net: Internet) -> None:
    """G21: 100-continue is the origin's to give; an early 413 reaches a client that is still sending."""
    net.forget()
    found = roomy(
        CLIENT
        + r"""
result = []
with raw() as sock:
    sock.sendall(f"POST /echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {key}\r\n"
        f"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode())
    result.append(head_of(sock)[:12])
    sock.sendall(b"hello")
    result.append(head_of(sock)[:12])
def early():
    with raw() as sock:
        sock.settimeout(10)
        sock.sendall(f"POST /early HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: 100000000\r\n\r\n".encode())
        answer = b""
        try:
            for _ in range(2000):
                sock.sendall(b"x" * 50_000)
        except OSError:
            pass
        try:
            answer = sock.recv(65536)
        except OSError as error:
            answer = type(error).__name__.encode()
        return answer.decode("latin-1")[:12]
def refused():
    with raw() as sock:
        sock.sendall(f"POST /early HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\n"
            f"Content-Length: 100\r\n\r\n".encode())
        return head_of(sock)[:12]
result += [attempt(early), attempt(refused)]
"""
    )
    assert found[:2] == ["HTTP/1.1 100", "HTTP/1.1 200"]
    assert found[2]["value"] == "HTTP/1.1 413"
    assert found[2]["s"] < 10
    assert found[3]["value"] == "HTTP/1.1 413"


def test_a_cut_answer_is_an_error(roomy: Guest) -> None:
    """G22: never a clean end."""
    code, printed = roomy.shell(
        'curl -sS -o /dev/null https://api.test/truncated; echo "exit $?";'
        ' curl -sS -o /dev/null -H "Authorization: Bearer $KEY" https://api.test/truncated; echo "exit $?";'
        " curl -sS -o /dev/null http://other.test/truncated; echo exit $?"
    )
    assert code == 0
    exits = [line for line in printed.splitlines() if line.startswith("exit")]
    assert len(exits) == 3
    assert "exit 0" not in exits, printed


def test_a_thousand_requests_on_one_connection(roomy: Guest, net: Internet, skerry: SkerryUp) -> None:
    """G20: one connection on each side, all in order, all with the secret."""
    net.forget()
    count = roomy(
        CLIENT
        + r"""
connection = connect()
result = 0
for at in range(1_000):
    connection.request("GET", f"/status/204?n={at}", headers=auth)
    answer = connection.getresponse()
    answer.read()
    result += answer.status == 204
"""
    )
    assert count == 1_000
    got = net.recorded("request")
    assert [one["target"] for one in got] == [f"/status/204?n={at}" for at in range(1_000)]
    assert all(f"Bearer {VALUE}" in json.dumps(one["fields"]) for one in got)
    assert len(net.recorded("hello")) == 1
    lines = [json.loads(line) for line in skerry.command("audit", roomy.id, "--json").stdout.splitlines()]
    assert sum(VALUE in json.dumps(line) for line in lines) == 0
    assert len([line for line in lines if line.get("event") == "request"]) >= 1_000


def test_pipelined_requests_are_answered_in_order(roomy: Guest, net: Internet) -> None:
    """G20: all sent before the first answer."""
    net.forget()
    found = roomy(
        CLIENT
        + r"""
with raw() as sock:
    lines = [f"GET /echo?n={at} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {key}\r\n\r\n"
        f"" for at in range(30)]
    lines[-1] = lines[-1].replace("Host", "Connection: close\r\nHost")
    sock.sendall("".join(lines).encode())
    data = b""
    while piece := sock.recv(65536):
        data += piece
result = data.decode("latin-1")
"""
    )
    places = [found.find(f'"/echo?n={at}"') for at in range(30)]
    assert -1 not in places
    assert places == sorted(places)


def test_slow_clients_and_slow_origins(roomy: Guest) -> None:
    """A head in pieces, a body in pieces, an answer in pieces: slow is not wrong."""
    found = roomy(
        CLIENT
        + r"""
with raw() as sock:
    text = f"POST /echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    text += "Content-Length: 40\r\n\r\n"
    for at in range(0, len(text), 8):
        sock.sendall(text[at:at + 8].encode())
        time.sleep(0.02)
    for _ in range(20):
        sock.sendall(b"ab")
        time.sleep(0.02)
    first = head_of(sock)[:12]
plain = socket.create_connection(("other.test", 80), timeout=15)
for byte in b"GET /echo HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n":
    plain.sendall(bytes([byte]))
    time.sleep(0.03)
drops = request("https://api.test/drip?in=user-agent", headers=[["User-Agent", "y" * 500]])[2]
result = [first, head_of(plain)[:12], drops]
"""
    )
    assert found == ["HTTP/1.1 200", "HTTP/1.1 200", "y" * 500]


def test_a_dead_origin_is_told_soon(roomy: Guest) -> None:
    """Closed ports and names that do not resolve: readable at once, whatever the client speaks."""
    found = roomy(
        r"""
result = {
    "closed": attempt(tls, "other.test", b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", None, 4444),
    "plain": attempt(tcp, "other.test", 4445, b"GET / HTTP/1.1\r\nHost: other.test:4445\r\n\r\n"),
    "no such name": attempt(tcp, "gone.web.test", 80, b"GET / HTTP/1.1\r\nHost: gone.web.test\r\n\r\n"),
    "inspected": attempt(tls, "gone.web.test", b"GET / HTTP/1.1\r\nHost: gone.web.test\r\n\r\n"),
}
"""
    )
    assert all(one["s"] < 5 for one in found.values()), found
    assert "Error" in found["closed"]["value"]
    for name in ("plain", "no such name", "inspected"):
        assert found[name]["value"].startswith("HTTP/1.1 502"), (name, found[name])


def test_raw_protocols_pass_on_unbound_hosts(roomy: Guest) -> None:
    """Bytes that are neither TLS nor HTTP, also such as could still become HTTP; a half-closed end."""
    found = roomy(
        r"""
def echo(data, close=False):
    with socket.create_connection(("other.test", 7000), timeout=10) as sock:
        sock.sendall(data)
        if close:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) < len(data):
            piece = sock.recv(65536)
            if not piece:
                break
            answer += piece
        return answer == data
texts = [b"\0binary", b"hello\n", b"hello", b"PING\r\n", b"x" * 100_000, b"{\"a\": 1}", b"GET"]
result = [attempt(echo, text)["value"] for text in texts] + [attempt(echo, b"half\0closed", True)["value"]]
"""
    )
    assert found == [True] * 8


def test_a_request_in_two_parts_does_not_pass_as_another_protocol(roomy: Guest, net: Internet) -> None:
    """R14: who pauses within the method's name does not get past the look at ``Host``."""
    net.forget()
    found = roomy(
        r"""
def slowly():
    with socket.create_connection(("other.test", 80), timeout=10) as sock:
        sock.sendall(b"GE")
        time.sleep(1.8)
        sock.sendall(b"T /front HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        return sock.recv(65536).decode("latin-1")[:12]
result = attempt(slowly)["value"]
"""
    )
    assert "Error" in found or found[9:12] == "421", found
    assert net.recorded("request") == []


LARGE = r"""
import hashlib
connection = connect(timeout=120)
def body():
    for _ in range(size >> 16):
        yield b"u" * 65536
connection.request("POST", "/bytes/0", body=body(), headers=auth | {"Content-Length": str(size)})
up = connection.getresponse()
up.read()
connection = connect(timeout=120)
connection.request("GET", f"/bytes/{size}", headers=auth)
answer = connection.getresponse()
got = 0
while piece := answer.read(1 << 20):
    got += len(piece)
result = [up.status, got]
"""


@pytest.mark.parametrize(
    "size", [100 << 20, pytest.param(10 << 30, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_large_bodies_with_little_memory(roomy: Guest, skerry: SkerryUp, size: int) -> None:
    """G23: both ways, scrubbed."""
    worker = (
        worker_of(skerry, roomy.id) if roomy(CLIENT + 'result = request("https://api.test/echo")[0]') else 0
    )
    before = peak_mib(worker)
    assert roomy(CLIENT + LARGE, size=size) == [200, size]
    assert worker_of(skerry, roomy.id) == worker
    assert peak_mib(worker) - before < 32
    assert memory_mib(worker) < 64


def test_back_pressure_reaches_the_origin(roomy: Guest, skerry: SkerryUp) -> None:
    """X5: a client that does not read costs no memory, and gets everything once it does."""
    found: Any = roomy(
        CLIENT
        + r"""
sockets = []
for _ in range(6):
    sock = raw(timeout=60)
    sock.sendall(f"GET /bytes/12000000 HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\n\r\n".encode())
    sockets.append(sock)
time.sleep(1)
result = []
for sock in sockets:
    size = 0
    while piece := sock.recv(1 << 20):
        size += len(piece)
    result.append(size > 12_000_000)
"""
    )
    assert found == [True] * 6
    assert memory_mib(worker_of(skerry, roomy.id)) < 64


def test_messages_stay_what_they_are(roomy: Guest, net: Internet) -> None:
    """G27 to G30: order, case, duplicates, caching and ranges; only what is about the connection goes."""
    net.forget()
    roomy(
        CLIENT
        + r"""
with raw() as sock:
    sock.sendall(
        b"GET /echo?b=2&a=1&a=%20x HTTP/1.1\r\nHost: api.test\r\nX-Zeta: 1\r\nx-alpha: 2\r\nX-Zeta: 3\r\n"
        b"Cookie: a=b; c=d\r\n"
        b"Range: bytes=0-10\r\nIf-None-Match: \"x\"\r\nAccept-Encoding: br, zstd\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: x\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: y\r\nX-Empty:\r\n\r\n"
    )
    result = head_of(sock)
"""
    )
    (got,) = net.recorded("request")
    assert got["target"] == "/echo?b=2&a=1&a=%20x"
    names = [name for name, _ in got["fields"]]
    assert [name for name in names if name.lower() in ("x-zeta", "x-alpha")] == [
        "X-Zeta",
        "x-alpha",
        "X-Zeta",
    ]
    assert ["Range", "bytes=0-10"] in got["fields"]
    assert ["Accept-Encoding", "br, zstd"] in got["fields"]
    assert ["X-Empty", ""] in got["fields"]
    lower = {name.lower() for name in names}
    assert lower.isdisjoint(
        {"keep-alive", "proxy-connection", "x-hop", "via", "x-forwarded-for", "forwarded"}
    )
