"""What no parser should take for a request (S14, R18, M3, M4): refused, and the origin has seen nothing.

Each goes raw through TLS to a bound host, and in clear to an unbound one.
"""

from typing import Any

import pytest

from tests.harness.origins.network import Internet
from tests.security.egress.conftest import VALUE, Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

SEND = r"""
key = os.environ["KEY"]
def plain(host, data):
    with socket.create_connection((host, 80), timeout=10) as connection:
        connection.sendall(data)
        connection.settimeout(4)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer.decode("latin-1")
def once(name, text, port):
    host = "api.test" if port == 443 else "other.test"
    data = text.replace("HOST", host).replace("KEY", key).encode("latin-1")
    try:
        answer = tls(host, data) if port == 443 else plain(host, data)
    except TimeoutError:
        return "hangs"
    except OSError:
        return "closed"
    return answer[:12] if answer else "closed"
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(12) as pool:
    answers = list(pool.map(lambda case: once(*case, port), cases.items()))
result = dict(zip(cases, answers))
"""

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n"
AUTH = "Authorization: Bearer KEY\r\n"


def _post(lines: str, body: str = "0\r\n\r\n" + SMUGGLED) -> str:
    return f"POST /malformed HTTP/1.1\r\nHost: HOST\r\n{AUTH}{lines}\r\n{body}"


def _chunked(body: str) -> str:
    return _post("Transfer-Encoding: chunked\r\n", body)


def _get(lines: str = "", target: str = "/malformed", method: str = "GET", version: str = "HTTP/1.1") -> str:
    return f"{method} {target} {version}\r\nHost: HOST\r\n{AUTH}{lines}\r\n"


FRAMING = {
    "length and coding": _post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    "coding and length": _post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    "coding and no length": _post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
    "two lengths": _post("Content-Length: 5\r\nContent-Length: 6\r\n"),
    "equal lengths": _post("Content-Length: 5\r\nContent-Length: 5\r\n"),
    "list of lengths": _post("Content-Length: 5, 5\r\n"),
    "signed length": _post("Content-Length: +5\r\n"),
    "negative length": _post("Content-Length: -5\r\n"),
    "hexadecimal length": _post("Content-Length: 0x5\r\n"),
    "octal length": _post("Content-Length: 05\r\n"),
    "length with underscore": _post("Content-Length: 1_0\r\n"),
    "length with exponent": _post("Content-Length: 5e0\r\n"),
    "length with fraction": _post("Content-Length: 5.0\r\n"),
    "length in other digits": _post("Content-Length: \xb2\r\n"),
    "length with a space": _post("Content-Length: 1 0\r\n"),
    "empty length": _post("Content-Length: \r\n"),
    "huge length": _post("Content-Length: 99999999999999999999\r\n"),
    "coding identity": _post("Transfer-Encoding: identity\r\n"),
    "coding identity, chunked": _post("Transfer-Encoding: identity, chunked\r\n"),
    "coding gzip, chunked": _post("Transfer-Encoding: gzip, chunked\r\n"),
    "coding chunked, gzip": _post("Transfer-Encoding: chunked, gzip\r\n"),
    "coding chunked twice": _post("Transfer-Encoding: chunked, chunked\r\n"),
    "coding in two fields": _post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    "coding with vertical tab": _post("Transfer-Encoding: \x0bchunked\r\n"),
    "coding with a parameter": _post("Transfer-Encoding: chunked;q=1\r\n"),
    "coding in quotes": _post('Transfer-Encoding: "chunked"\r\n'),
    "coding upper case": _post("Transfer-Encoding: CHUNKED\r\n"),
    "coding with a comma": _post("Transfer-Encoding: ,chunked\r\n"),
    "coding xchunked": _post("Transfer-Encoding: xchunked\r\n"),
    "coding empty": _post("Transfer-Encoding:\r\n"),
    "coding with underscore": _post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n"),
    "length with underscore in name": _post("Content_Length: 5\r\n"),
    "coding in HTTP/1.0": _get("Transfer-Encoding: chunked\r\n", method="POST", version="HTTP/1.0"),
    "coding named by connection": _post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
    "length named by connection": _post("Connection: content-length\r\nContent-Length: 5\r\n"),
}

LINES = {
    "folded": _get("X-A: a\r\n b\r\n"),
    "folded with a tab": _get("X-A: a\r\n\tb\r\n"),
    "folded first": f"GET /malformed HTTP/1.1\r\n X-A: a\r\nHost: HOST\r\n{AUTH}\r\n",
    "folded credential": "GET /malformed HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer\r\n KEY\r\n\r\n",
    "folded coding": _post("Transfer-Encoding:\r\n chunked\r\n"),
    "bare LF": _get("X-A: a\n"),
    "all bare LF": _get().replace("\r\n", "\n"),
    "bare LF at the end": _get().removesuffix("\r\n") + "\n",
    "bare CR": _get("X-A: a\rX-B: b\r\n"),
    "CR CR LF": _get("X-A: a\r\r\n"),
    "NUL in a value": _get("X-A: a\0b\r\n"),
    "NUL in a name": _get("X-\0A: a\r\n"),
    "control character": _get("X-A: a\x01b\r\n"),
    "DEL": _get("X-A: a\x7fb\r\n"),
    "space before colon": _get("X-A : a\r\n"),
    "tab before colon": _get("X-A\t: a\r\n"),
    "no colon": _get("X-A\r\n"),
    "no name": _get(": a\r\n"),
    "brackets in a name": _get("X(A): a\r\n"),
    "high byte in a name": _get("X-\xe4: a\r\n"),
    "long line": _get("X-A: " + "a" * 9_000 + "\r\n"),
    "many fields": _get("X-A: a\r\n" * 150),
    "long head": _get(("X-A: " + "a" * 1_000 + "\r\n") * 90),
    "connection names Host": _get("Connection: Host\r\n"),
    "connection names Authorization": _get("Connection: close, Authorization\r\n"),
    "connection names a length": _get("Connection: Content-Type\r\n"),
    "connection with a space": _get("Connection: x y\r\n"),
    "unknown expectation": _post("Expect: 200-ok\r\nContent-Length: 0\r\n", ""),
    "two expectations": _post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 0\r\n", ""),
}

REQUEST_LINES = {
    "version 2": _get(version="HTTP/2.0"),
    "version 1.2": _get(version="HTTP/1.2"),
    "version 1.10": _get(version="HTTP/1.10"),
    "version 0.9": "GET /malformed\r\n\r\n",
    "version lower case": _get(version="http/1.1"),
    "version with a space": _get(version="HTTP/ 1.1"),
    "version ends with a space": _get(version="HTTP/1.1 "),
    "two spaces": _get(target=" /malformed"),
    "a tab": _get().replace("GET /", "GET\t/", 1),
    "vertical tab": _get(version="\x0bHTTP/1.1"),
    "leading space": " " + _get(),
    "leading line": "\r\n" + _get(),
    "lower case method": _get(method="get"),
    "mixed case method": _get(method="GeT"),
    "odd method": _get(method="G@T"),
    "TRACE": _get(method="TRACE"),
    "TRACK": _get(method="Trace"),
    "CONNECT": _get(method="CONNECT", target="HOST:443"),
    "CONNECT elsewhere": _get(method="CONNECT", target="evil.example:443"),
    "CONNECT with a path": _get(method="CONNECT", target="/malformed"),
    "no slash": _get(target="malformed"),
    "asterisk": _get(target="*"),
    "authority form": _get(target="HOST:443"),
    "fragment": _get(target="/malformed#x"),
    "space in the target": _get(target="/mal formed"),
    "NUL in the target": _get(target="/mal\0formed"),
    "high byte in the target": _get(target="/malf\xf6rmed"),
    "absolute elsewhere": _get(target="http://evil.example/malformed"),
    "absolute with user": _get(target="https://x@HOST/malformed"),
    "absolute with secret as user": _get(target="https://KEY@HOST/malformed"),
    "absolute other port": _get(target="https://HOST:444/malformed"),
    "absolute ftp": _get(target="ftp://HOST/malformed"),
    "absolute without host": _get(target="http:///malformed"),
    "absolute backslash": _get(target="http:\\\\HOST\\malformed"),
}

HOSTS = {
    "two hosts": "GET /malformed HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
    "equal hosts": "GET /malformed HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
    "no host": "GET /malformed HTTP/1.1\r\n\r\n",
    "no host in 1.0": "GET /malformed HTTP/1.0\r\n\r\n",
    "empty host": "GET /malformed HTTP/1.1\r\nHost:\r\n\r\n",
    **{
        f"host {text}": f"GET /malformed HTTP/1.1\r\nHost: {text}\r\n{AUTH}\r\n"
        for text in (
            "evil.example", "HOST.evil.example", "evilHOST", "x.HOST", "HOST@evil.example",
            "evil.example@HOST",
            "HOST#evil.example", "HOST/evil", "HOST\\evil", "HOST%2eevil.example", "HOST%00.evil.example",
            "HOST:",
            "HOST:0", "HOST:65536", "HOST:99", "HOST:+443", "HOST:x", "HOST..", "HOST,evil.example",
            "HOST evil.example",
            "[HOST]", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]",
            "localhost",
            "\xe3\x80\x82HOST", "*", "_.HOST", "xn--HOST", "http://HOST", "user:pw@HOST",
        )
    },
}  # fmt: skip

CHUNKS = {
    "chunk LF in extension": _chunked("2;a\n=b\r\nab\r\n0\r\n\r\n" + SMUGGLED),
    "chunk CR in extension": _chunked("2;a\r=b\r\nab\r\n0\r\n\r\n"),
    "chunk NUL in extension": _chunked("2;a\0\r\nab\r\n0\r\n\r\n"),
    "chunk LF": _chunked("2\nab\n0\n\n" + SMUGGLED),
    "chunk LF after data": _chunked("2\r\nab\n0\r\n\r\n"),
    "chunk too long": _chunked("2\r\nabcd\r\n0\r\n\r\n"),
    "chunk overflow": _chunked("ffffffffffffffff2\r\nab\r\n0\r\n\r\n"),
    "chunk 2^64": _chunked("10000000000000000\r\nab\r\n0\r\n\r\n"),
    "chunk negative": _chunked("-2\r\nab\r\n0\r\n\r\n"),
    "chunk signed": _chunked("+2\r\nab\r\n0\r\n\r\n"),
    "chunk 0x": _chunked("0x2\r\nab\r\n0\r\n\r\n"),
    "chunk underscore": _chunked("0_2\r\nab\r\n0\r\n\r\n"),
    "chunk space": _chunked(" 2\r\nab\r\n0\r\n\r\n"),
    "chunk space after": _chunked("2 \r\nab\r\n0\r\n\r\n"),
    "chunk empty size": _chunked("\r\nab\r\n0\r\n\r\n"),
    "chunk long extension": _chunked("2;" + "a" * 400 + "\r\nab\r\n0\r\n\r\n"),
    "chunk other extension": _chunked("2,a=b\r\nab\r\n0\r\n\r\n"),
    "trailer length": _chunked("2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "trailer coding": _chunked("2\r\nab\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailer host": _chunked("2\r\nab\r\n0\r\nHost: evil.example\r\n\r\n"),
    "trailer credential": _chunked("2\r\nab\r\n0\r\nAuthorization: Bearer KEY\r\n\r\n"),
    "trailer folded": _chunked("2\r\nab\r\n0\r\nX-A: a\r\n b\r\n\r\n"),
    "trailer bare LF": _chunked("2\r\nab\r\n0\r\nX-A: a\n\r\n\r\n"),
    "trailer NUL": _chunked("2\r\nab\r\n0\r\nX-A: a\0\r\n\r\n"),
}

UPGRADES = {
    "upgrade with a body": _get("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n") + "ab",
    "upgrade elsewhere": _get("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
    "upgrade several": _get("Connection: Upgrade\r\nUpgrade: websocket, foo\r\n"),
    "websocket without key": _get(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    ),
    "websocket version": _get(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
    "preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

ALL = {
    "framing": FRAMING,
    "lines": LINES,
    "request lines": REQUEST_LINES,
    "hosts": HOSTS,
    "chunks": CHUNKS,
    "upgrades": UPGRADES,
}
REFUSED = {"400", "403", "405", "413", "417", "421", "431", "501", "505"}


@pytest.mark.parametrize("group", sorted(ALL))
@pytest.mark.parametrize("port", [443, 80])
def test_nothing_malformed_is_sent_on(bound: Guest, net: Internet, group: str, port: int) -> None:
    net.forget()
    cases = {
        name: text
        for name, text in ALL[group].items()
        if port == 443 or not name.startswith(("absolute with secret", "absolute other port"))
    }
    found: dict[str, str] = bound(SEND, cases=cases, port=port)
    wrong = {
        name: answer
        for name, answer in found.items()
        if answer != "closed" and answer[9:12] not in REFUSED and not _is_goaway(answer)
    }
    assert wrong == {}
    sent = [one["raw"] for one in net.recorded("request")]
    assert sent == []


def _is_goaway(answer: str) -> bool:
    return answer.startswith("\0\0\0\x04")


OVERRIDES = [
    "X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE",
    "X_HTTP_Method_Override: DELETE",
    "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Host: evil.example",
    "X-Forwarded-Prefix: /admin",
    "X-Forwarded-Path: /admin", "Forwarded: host=evil.example", "X-Host: evil.example",
    "X-Original-URI: /admin",
]  # fmt: skip
PATHS = [
    "/a/../admin", "/a/%2e%2e/admin", "/a/%2E%2E/admin", "/a/.%2e/admin", "/a/..%2fadmin", "/a/..%5cadmin",
    "/a/..\\admin", "/a%2fb", "/a%5cb", "/a/%252e%252e/admin", "/a/%00", "/a/x%00.txt", "//a/x", "/a//x",
    "/a/..;/admin",
    "/a/..;x=1/admin", "/a/;/../admin", "/a/./x", "/a/%2e/x", "/./a/x", "/../a/x", "/a/%c0%ae%c0%ae/admin",
    "/a/%e0%80%ae/x", "/a/%", "/a/%zz", "/A/x", "/a /x", "/a", "/ab/x", "/%61dmin/", "/a/..", "/a/../../a/x",
    "/a/x?_method=DELETE", "/a/x?%5fmethod=DELETE", "/a/x?a=1;_method=DELETE", "/a/%ff%fe/../x",
]  # fmt: skip

LIMITED = r"""
def once(lines, target):
    text = f"GET {target} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n"
    text += f"Authorization: Bearer {os.environ['KEY']}\r\n" + "".join(line + "\r\n" for line in lines)
    try:
        return tls("api.test", (text + "\r\n").encode("latin-1"))[9:12]
    except OSError:
        return "closed"
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(12) as pool:
    answers = list(pool.map(lambda case: once(*case), cases))
result = {str(lines) + target: answer for (lines, target), answer in zip(cases, answers)}
"""


@pytest.fixture(scope="module")
def limited(create: Create) -> Any:
    """A sandbox whose secret is for GET below /a only."""
    secret = {"hosts": ["api.test"], "value": VALUE, "methods": ["GET"], "paths": ["/a/**"]}
    with create(secrets={"KEY": secret}) as guest:
        yield guest


def test_override_headers_do_not_widen_a_rule(limited: Guest, net: Internet) -> None:
    """M4."""
    net.forget()
    found = limited(LIMITED, cases=[[[line], "/a/x"] for line in OVERRIDES])
    assert {name: answer for name, answer in found.items() if answer not in ("400", "403")} == {}
    assert net.recorded("request") == []


def test_paths_with_two_meanings_do_not_widen_a_rule(limited: Guest, net: Internet) -> None:
    """M3: refused, or sent in canonical form within the rule."""
    net.forget()
    limited(LIMITED, cases=[[[], path] for path in PATHS])
    carried = [one for one in net.recorded("request") if VALUE in one["raw"]]
    outside = [one["target"] for one in carried if not _is_plainly_below(one["target"])]
    assert outside == []
    assert limited(LIMITED, cases=[[[], "/a/x"]]) == {"[]/a/x": "200"}


def _is_plainly_below(target: str) -> bool:
    path = target.partition("?")[0]
    odd = ("..", "//", "/./", "%", "\\", ";", "\0")
    return path.startswith("/a/") and not any(one in path for one in odd) and "method" not in target.lower()
