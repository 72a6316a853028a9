"""Where a placeholder may not stand (S9, S10, S11, M1, M6); names and ports with two meanings (R18, R20)."""

import base64
import json
from typing import Any

import pytest

from tests.harness.origins.network import Internet
from tests.security.egress.conftest import OTHER_VALUE, PLENTY, VALUE, Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

RAW = r"""
key = os.environ["KEY"]
def once(text):
    text = text.replace("UPPER", key.upper()).replace("LOWER", key.lower())
    text = text.replace("TWICE", "".join(f"%25{ord(one):02x}" for one in key))
    text = text.replace("ENCODED", "".join(f"%{ord(one):02x}" for one in key))
    text = text.replace("PARTLY", "%44" + key[1:])
    text = text.replace("BASE64", base64.b64encode(key.encode()).decode())
    text = text.replace("BASIC", base64.b64encode(f"a:{key}:{key}".encode()).decode())
    text = text.replace("HALF1", key[:40]).replace("HALF2", key[40:]).replace("KEY", key)
    text = text.replace("CHUNK", f"{len(key):x}\r\n{key}\r\n0\r\n\r\n")
    try:
        return tls("api.test", text.encode("latin-1"))[:300]
    except OSError as error:
        return type(error).__name__
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(once, texts.values()))
result = dict(zip(texts, answers))
"""


def _get(*lines: str, target: str = "/echo", method: str = "GET", body: str = "") -> str:
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", "Host: api.test", "Connection: close", *lines, "", body]
    )


REFUSED = {
    "twice in one field": _get("Authorization: Bearer KEY KEY"),
    "a list": _get("Authorization: Bearer KEY, Bearer KEY"),
    "two fields": _get("Authorization: Bearer KEY", "Authorization: Bearer KEY"),
    "two fields, one other": _get("Authorization: Bearer KEY", "Authorization: Basic eDp5"),
    "two families": _get("Authorization: Bearer KEY", "X-Api-Key: KEY"),
    "with underscore": _get("X_Api_Key: KEY"),
    "in a name": _get("KEY: x"),
    "in a name, lower": _get("LOWER: x"),
    "in a cookie": _get("Cookie: a=b; s=KEY"),
    "in referer": _get("Referer: https://api.test/KEY"),
    "in origin": _get("Origin: https://KEY.api.test"),
    "in user agent": _get("User-Agent: x/KEY"),
    "in forwarded": _get("X-Forwarded-For: KEY"),
    "in accept": _get("Accept: KEY"),
    "in range": _get("Range: KEY", "Authorization: Bearer KEY"),
    "in content type": _get("Content-Type: KEY", "Content-Length: 0", method="POST"),
    "in host": "GET / HTTP/1.1\r\nHost: KEY.api.test\r\n\r\n",
    "in userinfo": _get(target="https://KEY@api.test/"),
    "in the path": _get(target="/x/KEY"),
    "in the path, encoded": _get(target="/x/ENCODED"),
    "in the path, partly": _get(target="/x/PARTLY"),
    "in the path, twice": _get(target="/x/TWICE"),
    "in the query": _get(target="/echo?a=KEY"),
    "in the query, encoded": _get(target="/echo?a=ENCODED"),
    "in the query's name": _get(target="/echo?KEY"),
    "in basic, both in one": _get("Authorization: Basic BASIC"),
    "with a suffix": _get("Authorization: Bearer KEY;x=1"),
    "with a prefix": _get("Authorization: Bearer xKEY"),
    "encoded in its slot": _get("Authorization: Bearer ENCODED"),
    "in quotes": _get('Authorization: Bearer "KEY"'),
    "folded in Basic": _get("Authorization: Basic BASE64"),
    "upper case": _get("Authorization: Bearer UPPER"),
    "half": _get("Authorization: Bearer HALF1"),
    "split over fields": _get("Authorization: Bearer HALF1", "X-Api-Key: HALF2"),
    "with a tab": _get("Authorization: Bearer\tKEY"),
    "two spaces": _get("Authorization: Bearer  KEY"),
    "digest": _get('Authorization: Digest username="KEY", response="x"'),
    "foreign beside it": _get("Authorization: Bearer KEY", "X-Api-Key: other-account"),
    "websocket extension": _get(
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: KEY", target="/ws",
    ),
}  # fmt: skip

INERT = {
    "in a body": _get("Content-Length: 88", method="POST", body="KEY"),
    "in a chunk": _get("Transfer-Encoding: chunked", method="POST", body="CHUNK"),
    "in an extension": _get(
        "Transfer-Encoding: chunked", "Authorization: Bearer KEY", method="POST",
        body="2;a=KEY\r\nab\r\n0\r\n\r\n"
    ),
    "in a trailer": _get(
        "Transfer-Encoding: chunked", "Authorization: Bearer KEY", "Trailer: X-Sum", method="POST",
        body="2\r\nab\r\n0\r\nX-Sum: KEY\r\n\r\n",
    ),
    "proxy credential": _get("Proxy-Authorization: Bearer KEY"),
    "nominated": _get("Connection: X-Secret", "X-Secret: KEY"),
    "in Connection": _get("Connection: KEY"),
    "in TE": _get("TE: KEY"),
    "OPTIONS": _get("Authorization: Bearer KEY", method="OPTIONS"),
    "HEAD": _get("Authorization: Bearer KEY", method="HEAD"),
    "TRACE": _get("Authorization: Bearer KEY", method="TRACE"),
}  # fmt: skip


def test_a_placeholder_out_of_its_place_is_refused(roomy: Guest, net: Internet) -> None:
    """S9."""
    net.forget()
    found = roomy(RAW, texts=REFUSED)
    wrong = {name: answer for name, answer in found.items() if answer[9:12] not in ("400", "403", "421")}
    assert wrong == {}
    assert [one["raw"] for one in net.recorded("request")] == []


def test_where_it_passes_it_stays_inert(roomy: Guest, net: Internet) -> None:
    """S4, S9, G24, G37: bodies and trailers are never slots, and methods that echo carry nothing."""
    net.forget()
    roomy(RAW, texts=INERT)
    for got in net.recorded("request"):
        fields = "\n".join(value for name, value in got["fields"] if name.lower() == "authorization")
        assert VALUE not in got["raw"].replace(fields, ""), got
        assert got["method"] == "POST" or VALUE not in got["raw"], got
        assert "PLACEHOLDER" not in got["raw"].split("\r\n\r\n")[0] or got["method"] in ("OPTIONS", "HEAD"), (
            got
        )
        assert "proxy-authorization" not in [name.lower() for name, _ in got["fields"]]


def test_one_request_behind_another_is_decided_for_itself(roomy: Guest, net: Internet) -> None:
    """S14: pipelined behind a body, another host, another credential; each is judged as if it came alone."""
    net.forget()
    first = _get("Authorization: Bearer KEY", "Content-Length: 2", method="POST", body="ab").replace(
        "Connection: close\r\n", ""
    )
    texts = {
        "other host": first + _get().replace("api.test", "other.test"),
        "foreign": first + _get("Authorization: Bearer other"),
        "stray": first + _get("X-A: KEY"),
        "good": first + _get("Authorization: Bearer KEY", target="/second"),
        "sse": first + "\r\n\r\n" + _get(),
    }
    found = roomy(RAW.replace("[:300]", ""), texts=texts)
    assert found["good"].count("HTTP/1.1 200") == 2
    for name in ("other host", "foreign", "stray"):
        assert found[name].count("HTTP/1.1 200") == 1, name
        assert found[name].count("HTTP/1.1 4") == 1, name
    assert [one["target"] for one in net.recorded("request")].count("/second") == 1
    assert all(one["host"] == "api.test" for one in net.recorded("request"))


def test_each_secret_is_for_its_own_host(create: Create, net: Internet) -> None:
    """S10, S11, M1, I5: other hosts, other sandboxes, guesses."""
    net.forget()
    secrets = {
        "KEY": {"hosts": ["api.test"], "value": VALUE},
        "OTHER": {"hosts": ["a.web.test"], "value": OTHER_VALUE},
    }
    with (
        create(allow_net=["other.test"], secrets=secrets) as one,
        create(secrets={"KEY": {"hosts": ["api.test"], "value": "value-of-the-second-Xy7Qw3Er5Ty9"}}) as two,
    ):
        mine = one('result = os.environ["KEY"]')
        theirs = two('result = os.environ["KEY"]')
        assert mine != theirs
        found = one(
            """
key, other = os.environ["KEY"], os.environ["OTHER"]
guess = "DENO_SECRET_PLACEHOLDER_" + "0" * 64
def status(host, value):
    return request(f"https://{host}/echo", headers=[["Authorization", "Bearer " + value]])[0]
result = {
    "swapped": status("api.test", other),
    "swapped back": status("a.web.test", key),
    "unbound": status("other.test", key),
    "theirs": status("api.test", theirs),
    "guess": status("api.test", guess),
}
""",
            theirs=theirs,
        )
    assert found == {"swapped": 403, "swapped back": 403, "unbound": 200, "theirs": 403, "guess": 403}
    raw = json.dumps(net.recorded("request"))
    assert VALUE not in raw
    assert OTHER_VALUE not in raw


def test_addresses_in_all_spellings(roomy: Guest, net: Internet) -> None:
    """R18: through the proxy and as a name; none is taken for a host that is allowed."""
    net.forget()
    spellings = [
        "127.0.0.1", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433",
        "017700000001", "0", "00000000",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518",
        "[::ffff:a9fe:a9fe]",
        "localhost", "localhost.localdomain", "ip6-localhost", "api.test.", "api.test..", ".api.test",
        "api..test",
        "xn--api-test", "api%2etest", "api.test%00", "other.test.evil.example", "api_test", "*",
        "a" * 64 + ".web.test",
    ]  # fmt: skip
    found = roomy(
        r"""
def once(line):
    try:
        with socket.create_connection(("198.18.0.1", 3128), timeout=8) as connection:
            connection.sendall(line.encode("latin-1"))
            return connection.recv(4096).decode("latin-1")[:12] or "closed"
    except OSError as error:
        return type(error).__name__
from concurrent.futures import ThreadPoolExecutor
lines = {}
for text in spellings:
    lines["CONNECT " + text] = f"CONNECT {text}:443 HTTP/1.1\r\nHost: {text}:443\r\n\r\n"
    lines["GET " + text] = f"GET http://{text}/ HTTP/1.1\r\nHost: {text}\r\n\r\n"
with ThreadPoolExecutor(12) as pool:
    result = dict(zip(lines, pool.map(once, lines.values())))
""",
        spellings=spellings,
    )
    wrong = {name: answer for name, answer in found.items() if answer[9:12] not in ("400", "403", "421")}
    assert wrong == {}
    assert net.recorded("request") == []


def test_ports_that_are_none(roomy: Guest, net: Internet) -> None:
    """R20: 0, 65535, the gateway's own."""
    net.forget()
    found: Any = roomy(
        r"""
def line(port):
    with socket.create_connection(("198.18.0.1", 3128), timeout=8) as connection:
        connection.sendall(f"CONNECT other.test:{port} HTTP/1.1\r\nHost: other.test:{port}\r\n\r\n".encode())
        return connection.recv(4096).decode("latin-1")[:12]
result = {
    "proxy": {port: attempt(line, port)["value"] for port in ("0", "65536", "-1", "+443", "0443", "25",
    "465", "587", "")},
    "direct": {port: attempt(tcp, "other.test", port, b"\0") for port in (25, 65535)},
    "gateway": {port: attempt(tcp, "198.18.0.1", port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for port in (80,
    443, 20000, 22)},
}
"""
    )
    for port, answer in found["proxy"].items():
        assert answer[9:12] in ("400", "403") or port == "0443", (port, answer)
    for outcomes in (found["direct"], found["gateway"]):
        for port, outcome in outcomes.items():
            assert outcome["s"] < 5, (port, outcome)
            assert "200" not in outcome["value"][:12], (port, outcome)
    assert net.recorded("request") == []


def test_a_session_of_one_host_does_not_open_another(roomy: Guest, net: Internet) -> None:
    """R15: a ticket that was issued for one name, with another name in the hello."""
    net.forget()
    found = roomy(
        r"""
context = ssl.create_default_context()
context.maximum_version = ssl.TLSVersion.TLSv1_2
def connect(name, session=None):
    plain = socket.create_connection((name, 443), timeout=8)
    return context.wrap_socket(plain, server_hostname=name, session=session)
one = connect("api.test")
session = one.session
again = connect("api.test", session)
def other():
    with connect("a.web.test", session) as secure:
        return [secure.session_reused, [name for _, name in secure.getpeercert()["subjectAltName"]]]
result = attempt(other)["value"]
"""
    )
    assert found in ("SSLError",) or found == [False, ["a.web.test"]], found


def test_half_closed_and_reset_connections_leave_nothing(roomy: Guest, net: Internet) -> None:
    """A client that sends and goes, or half closes, in every phase; the next one is served as before."""
    found = roomy(
        r"""
linger = struct.pack("ii", 1, 0)
def hit_and_run(port, data, half):
    sock = socket.create_connection(("api.test" if port == 443 else "other.test", port), timeout=5)
    sock.sendall(data)
    if half:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(5)
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()
good = hello("api.test")
ask = b"GET /sse/10 HTTP/1.1\r\nHost: other.test\r\n\r\n"
for half in (False, True):
    secure = [(443, b""), (443, good[:20]), (443, good)]
    for port, data in [*secure, (80, ask[:10]), (80, ask), (7000, b"x" * 100)]:
        for _ in range(3):
            attempt(hit_and_run, port, data, half)
result = [request("https://api.test/echo")[0], request("http://other.test/echo")[0]]
"""
    )
    assert found == [200, 200]


def test_basic_credentials_of_somebody_else_beside_ours(roomy: Guest, net: Internet) -> None:
    """M6: our placeholder as the user, a token of the attacker's as the password."""
    net.forget()
    foreign = "ghp_attackersOwnTokenWhichIsLong0123456789"
    status = roomy(
        """
value = base64.b64encode((os.environ["KEY"] + ":" + foreign).encode()).decode()
result = request("https://api.test/echo", headers=[["Authorization", "Basic " + value]])[0]
""",
        foreign=foreign,
    )
    assert status == 403
    assert base64.b64encode(foreign.encode())[4:-4].decode() not in json.dumps(net.recorded("request"))


def test_names_below_a_wildcard_are_a_narrow_channel(create: Create, net: Internet) -> None:
    """R9: nothing is resolved when a name is only looked up; what is dialled is bounded."""
    net.forget()
    with create(allow_net=["*.web.test"]) as guest:
        found = guest(
            r"""
looked_up = [dns(f"{at}-looked-up.web.test")["rcode"] for at in range(20)]
long = [dns("a" * 41 + ".web.test")["rcode"], dns(".".join(["b" * 30] * 5) + ".web.test")["rcode"]]
def status(at):
    try:
        return tcp(f"n{at}.web.test", 80, f"GET / HTTP/1.1\r\nHost: n{at}.web.test\r\n\r\n".encode())[9:12]
    except OSError as error:
        return type(error).__name__
result = {"looked_up": looked_up, "long": long, "dialled": [status(at) for at in range(75)]}
"""
        )
    asked = {one["name"] for one in net.recorded("dns")}
    assert set(found["looked_up"]) == {0}
    assert found["long"] == [3, 3]
    assert not [name for name in asked if "looked-up" in name]
    assert len(asked) <= 60
    assert set(found["dialled"]) <= {"502", "503"}


def test_the_budget_bounds_what_a_secret_is_used_for(create: Create, net: Internet) -> None:
    """M8."""
    net.forget()
    secret = {"hosts": ["api.test"], "value": VALUE, "budget": PLENTY | {"requests": 3}}
    with create(secrets={"KEY": secret}) as guest:
        found = guest(
            """
ask = lambda: request("https://api.test/echo", headers=[["Authorization", "Bearer " + os.environ["KEY"]]])[0]
result = [ask() for _ in range(5)] + [request("https://api.test/echo")[0]]
"""
        )
    assert found == [200, 200, 200, 429, 429, 200]
