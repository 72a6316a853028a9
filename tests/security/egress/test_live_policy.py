"""What owners do while code runs (G7, G40, R26, M11), by command line and by REST."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.policy.verdict import Reason
from tests.harness.origins.network import Internet
from tests.harness.skerry_up import SkerryUp
from tests.harness.waiting import until_true
from tests.security.egress.conftest import OTHER_VALUE, PLENTY, VALUE, Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

Rest = Callable[..., tuple[int, Any]]

WIDE = """
[[allow]]
host = "api.test"
websocket = true
[[allow]]
host = "other.test"
ports = [443, 80, 7000]
tcp = true
[[allow]]
host = "web.test"
"""
NARROW = """
[[allow]]
host = "web.test"
"""

FLOWS = r"""
context = ssl.create_default_context()
def secure(host):
    return context.wrap_socket(socket.create_connection((host, 443), timeout=10), server_hostname=host)
def first(sock, data):
    sock.sendall(data)
    return sock.recv(100)
def get(path, host, *lines):
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()
raw = socket.create_connection(("other.test", 7000), timeout=10)
spliced, inspected, stays = secure("other.test"), secure("api.test"), secure("web.test")
websocket = secure("api.test")
plain = socket.create_connection(("other.test", 80), timeout=10)
tunnel = socket.create_connection(("198.18.0.1", 3128), timeout=10)
auth = "Authorization: Bearer " + os.environ["KEY"]
begun = {
    "raw": first(raw, b"\0x"), "spliced": first(spliced, get("/sse/100000", "other.test")),
    "inspected": first(inspected, get("/sse/100000", "api.test", auth)),
    "websocket": first(websocket, get("/ws", "api.test", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", auth)),
    "plain": first(plain, get("/sse/100000", "other.test")),
    "tunnel": first(tunnel, b"CONNECT other.test:7000 HTTP/1.1\r\nHost: other.test:7000\r\n\r\n"),
    "stays": first(stays, get("/sse/100000", "web.test")),
}
print("begun", flush=True)
socks = {"raw": raw, "spliced": spliced, "inspected": inspected, "websocket": websocket}
socks |= {"plain": plain, "tunnel": tunnel}
ended = {}
def watch(name):
    sock = socks[name]
    sock.settimeout(60)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return
    except OSError:
        pass
    ended[name] = time.time()
import threading
threads = [threading.Thread(target=watch, args=(name,), daemon=True) for name in socks]
for thread in threads:
    thread.start()
def at_the_end():
    deadline = time.monotonic() + 60
    while len(ended) < len(socks) and time.monotonic() < deadline:
        time.sleep(0.01)
    stays.settimeout(5)
    return [sorted(name for name, data in begun.items() if not data), ended, bool(stays.recv(100))]
result = at_the_end()
"""


@pytest.fixture
def rest(skerry: SkerryUp) -> Rest:
    """Asks the server as the administrator: method, path, what is sent → status, what comes."""
    environment = skerry.json("env")
    url = json.loads(skerry.data.endpoint.read_text())["url"]
    token = next(value for name, value in environment.items() if name.endswith("TOKEN"))

    def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/skerry/v1/{path}", data=data, method=method)  # noqa: S310
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return ask


def test_tightening_ends_what_is_under_way(
    create: Create, skerry: SkerryUp, net: Internet, tmp_path: Path
) -> None:
    """G7, R26: tunnels, spliced and raw connections, streams, WebSockets; nothing that is still allowed."""
    file = tmp_path / "wide.toml"
    file.write_text(WIDE)
    skerry.command("policy", "set", "shrinking", str(file))
    net.forget()
    secret = {"hosts": ["api.test"], "value": VALUE, "budget": PLENTY}
    with create(
        allow_net=["other.test", "web.test"], secrets={"KEY": secret}, labels={"policy": "shrinking"}
    ) as guest:
        outcome: list[Any] = []
        thread = threading.Thread(target=lambda: outcome.append(guest(FLOWS)))
        thread.start()
        until_true(lambda: len(net.recorded("request")) >= 5, what="the connections")
        time.sleep(0.5)
        file.write_text(NARROW)
        at = time.time()
        skerry.command("policy", "set", "shrinking", str(file))
        took_s = time.time() - at
        thread.join(90)
    skerry.command("policy", "delete", "shrinking", expect=None)
    unbegun, ended, stays = outcome[0]
    assert unbegun == []
    assert stays is True
    assert set(ended) == {"raw", "spliced", "inspected", "websocket", "plain", "tunnel"}
    assert max(ended.values()) - at < took_s + 1.0, {name: when - at for name, when in ended.items()}


def test_what_is_allowed_live_works_at_once(create: Create, skerry: SkerryUp, rest: Rest) -> None:
    """G7: when the verb has returned, the next attempt succeeds, through the resolver too."""
    with create(allow_net=[]) as guest:
        ask = 'result = attempt(lambda: request("https://other.test/echo", timeout=8)[0])["value"]'
        assert guest(ask) != 200
        skerry.command("policy", "allow", guest.id, "other.test")
        assert guest(ask) == 200
        plain = 'result = attempt(lambda: request("http://web.test/echo", timeout=8)[0])["value"]'
        assert guest(plain) != 200
        status, _ = rest("POST", f"sandboxes/{guest.id}/allow", {"host": "web.test:80"})
        assert status == 200
        assert guest(plain) == 200
        for bad in ("*.com", "169.254.169.254", "10.0.0.0/8", "a b", "", "x" * 300, "*", "http://x/"):
            status, text = rest("POST", f"sandboxes/{guest.id}/allow", {"host": bad})
            assert status in (200, 400), (bad, status, text)
            if status == 200:  # what is allowed in vain stays denied
                assert bad in ("169.254.169.254", "10.0.0.0/8"), bad
        metadata = guest(
            'result = attempt(tcp, "169.254.169.254", 80, b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")'
        )
        assert "200" not in metadata["value"][:12]


def test_explain_says_what_happens(roomy: Guest, skerry: SkerryUp, rest: Rest) -> None:
    """G52, G8: what is explained is what the sandbox meets, in both ways of asking."""
    targets = {
        "https://api.test/echo": 200, "https://other.test/echo": 200, "http://other.test/echo": 200,
        "http://api.test/echo": 403, "https://evil.example/": None, "http://169.254.169.254/": 403,
        "http://127.0.0.1/": None, "https://a.web.test/": 200, "http://other.test:25/": None,
    }  # fmt: skip
    found = roomy(
        'result = {url: attempt(lambda: request(url, timeout=8)[0])["value"] for url in targets}',
        targets=list(targets),
    )
    for url, expected in targets.items():
        status, explained = rest(
            "GET", f"sandboxes/{roomy.id}/explain?target={urllib.parse.quote(url, safe='')}"
        )
        assert status == 200, (url, explained)
        assert explained == skerry.json("explain", roomy.id, url, expect=None)
        if url != "http://127.0.0.1/":  # that one never leaves the sandbox
            assert explained["allowed"] == (found[url] == 200), (url, explained, found[url])
        assert expected is None or found[url] == expected, (url, found[url])
        assert VALUE not in json.dumps(explained)


def test_secrets_change_while_they_are_used(create: Create, net: Internet, rest: Rest) -> None:
    """G40, M11: rotation on a kept connection, revoking a stream that carries the secret, expiry."""
    secrets = {
        "KEY": {"hosts": ["api.test"], "value": VALUE, "budget": PLENTY},
        "SOON": {"hosts": ["web.test"], "value": OTHER_VALUE, "expires": 6},
    }
    net.forget()
    with create(secrets=secrets) as guest:
        soon = """
def soon():
    value = "Bearer " + os.environ["SOON"]
    status, _, text = request("https://web.test/echo", headers=[["Authorization", value]])
    return [status, json.loads(text).get("reason")]
"""
        assert guest(soon + "result = soon()[0]") == 200
        status, _ = rest("PUT", f"sandboxes/{guest.id}/secrets/KEY", {"value": OTHER_VALUE + "rotated"})
        assert status == 204
        guest(
            """
value = "Bearer " + os.environ["KEY"]
result = request("https://api.test/echo", headers=[["Authorization", value]])[0]
"""
        )
        assert f"Bearer {OTHER_VALUE}rotated" in json.dumps(net.recorded("request")[-1]["fields"])
        status, listed = rest("GET", f"sandboxes/{guest.id}/secrets")
        assert status == 200
        assert OTHER_VALUE not in json.dumps(listed)
        assert {row["name"]: row["used"] for row in listed}.keys() == {"KEY", "SOON"}
        outcome: list[Any] = []
        stream = r"""
connection = http.client.HTTPSConnection("api.test", timeout=60)
connection.request("GET", "/sse/100000", headers={"Authorization": "Bearer " + os.environ["KEY"]})
answer = connection.getresponse()
try:
    while answer.readline():
        pass
except (OSError, http.client.HTTPException):
    pass
result = time.time()
"""
        net.forget()
        thread = threading.Thread(target=lambda: outcome.append(guest(stream)))
        thread.start()
        until_true(lambda: net.recorded("request"), what="the stream")
        at = time.time()
        assert rest("DELETE", f"sandboxes/{guest.id}/secrets/KEY")[0] == 204
        thread.join(60)
        assert outcome
        assert outcome[0] - at < 3
        until_true(lambda: guest(soon + "result = soon()") == [403, Reason.SECRET_EXPIRED], what="the expiry")
        for path, body in (
            ("KEY", {"value": "short"}),
            ("KEY", {"value": "with\nnewline-12345678"}),
            ("NONE", {"value": VALUE}),
        ):
            status, text = rest("PUT", f"sandboxes/{guest.id}/secrets/{path}", body)
            assert status in (400, 404), (path, status, text)


def test_one_owner_does_not_see_or_change_anothers(create: Create, skerry: SkerryUp, rest: Rest) -> None:
    """S2: tokens of other owners get 404 for all of it, the sandbox itself has no way there."""
    with create(allow_net=[], secrets=None) as guest:
        token = skerry.json("token", "create", "of-mallory", "--owner", "mallory")
        url = json.loads(skerry.data.endpoint.read_text())["url"]
        secret = token["token"]
        for method, path in (
            ("GET", "explain?target=https://x.test/"), ("GET", "audit"), ("GET", "secrets"), ("POST",
            "allow"),
            ("PUT", "secrets/KEY"), ("DELETE", "secrets/KEY"),
        ):  # fmt: skip
            data = (
                b'{"host": "other.test", "value": "0123456789abcdef0123"}'
                if method in ("PUT", "POST")
                else None
            )
            request = urllib.request.Request(  # noqa: S310
                f"{url}/skerry/v1/sandboxes/{guest.id}/{path}", method=method, data=data
            )
            request.add_header("Authorization", f"Bearer {secret}")
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, timeout=20)  # noqa: S310
            error.value.close()
            assert error.value.code in (400, 403, 404), (method, path)
            assert method != "GET" or error.value.code == 404
        port = int(url.rsplit(":", 1)[1])
        reached = guest(
            """
ask = b"GET /skerry/v1/health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
result = [attempt(tcp, host, port, ask)["value"][:12] for host in hosts]
""",
            hosts=["198.18.0.1", "10.201.0.0", "10.201.0.1", "10.201.0.2", "192.0.2.1"],
            port=port,
        )
        assert not [one for one in reached if one.startswith("HTTP/1.1 200")]
