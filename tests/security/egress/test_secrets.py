"""Threat tables 2.2 and 2.3: obtaining a secret, and misusing it."""

import base64
import json
from typing import Any

import pytest

from skerry.policy.verdict import Reason
from tests.harness.origins.http_origin import ENCODINGS
from tests.harness.origins.network import Internet
from tests.harness.skerry_up import SkerryUp
from tests.harness.waiting import until_true
from tests.security.egress.conftest import OTHER_VALUE, VALUE, Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

ASK = """
key = os.environ["KEY"]
result = request(url, method, [[name, value.replace("KEY", key)] for name, value in headers], body and
body.replace("KEY", key))
"""


def ask(
    guest: Guest,
    url: str,
    *,
    method: str = "GET",
    headers: list[list[str]] | None = None,
    body: str | None = None,
) -> tuple[int, dict[str, str], str]:
    """A request from the guest; ``KEY`` stands for the placeholder in headers and body."""
    status, fields, text = guest(ASK, url=url, method=method, headers=headers or [], body=body)
    return status, {name.lower(): value for name, value in fields}, text


def denied(answer: tuple[int, dict[str, str], str]) -> dict[str, Any]:
    """The explanation of a denial."""
    status, _, text = answer
    assert status == 403, answer
    explanation = json.loads(text)
    assert {"error", "reason", "request_id"} <= explanation.keys()
    return dict(explanation)


BEARER = [["Authorization", "Bearer KEY"]]


def test_the_value_reaches_its_host_and_nobody_else(bound: Guest, net: Internet) -> None:
    net.forget()
    placeholder = bound('result = os.environ["KEY"]')
    assert placeholder != VALUE
    assert placeholder.startswith("DENO_SECRET_PLACEHOLDER_")
    assert ask(bound, "https://api.test/echo", headers=BEARER)[0] == 200
    assert ask(bound, "https://other.test/echo", headers=BEARER)[0] == 200
    to_host, to_other = net.recorded("request")
    assert ["Authorization", f"Bearer {VALUE}"] in to_host["fields"]
    assert ["Authorization", f"Bearer {placeholder}"] in to_other["fields"]


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("Authorization", "Bearer KEY", f"Bearer {VALUE}"),
        ("Authorization", "token KEY", f"token {VALUE}"),
        ("Authorization", "KEY", VALUE),
        ("X-Api-Key", "KEY", VALUE),
        ("x-goog-api-key", "KEY", VALUE),
        ("Private-Token", "KEY", VALUE),
    ],
)
def test_credential_headers_are_slots_by_default(
    bound: Guest, net: Internet, name: str, form: str, expected: str
) -> None:
    net.forget()
    status, _, _ = ask(bound, "https://api.test/status/204", headers=[[name, form]])
    assert status == 204
    (got,) = net.recorded("request")
    assert expected in [value for key, value in got["fields"] if key.lower() == name.lower()]


def test_basic_credentials_are_a_slot(bound: Guest, net: Internet) -> None:
    net.forget()
    status, text = bound.shell(
        'curl -sS -o /dev/null -w "%{http_code}" -u "user:$KEY" https://api.test/status/204'
    )
    assert (status, text) == (0, "204")
    (got,) = net.recorded("request")
    (value,) = [value for key, value in got["fields"] if key.lower() == "authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")) == f"user:{VALUE}".encode()


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_an_echo_does_not_give_it_back(bound: Guest, encoding: str) -> None:
    """S3, S6: the origin repeats the header in its body."""
    status, _, text = ask(bound, f"https://api.test/reflect?as={encoding}", headers=BEARER)
    leaked = ENCODINGS[encoding](VALUE.encode()).decode("latin-1")
    if encoding == "shifted-base64":
        leaked = leaked[4:-4]
    if encoding == "middle":
        leaked = VALUE[4:-4]
    assert status == 200
    assert leaked not in text, text


def test_an_echo_in_a_header_or_compressed_does_not_either(bound: Guest) -> None:
    for path in (
        "/reflect-header?in=authorization&out=X-Debug",
        "/reflect-header?in=authorization&out=Location",
    ):
        _, fields, _ = ask(bound, f"https://api.test{path}", headers=BEARER)
        assert VALUE not in json.dumps(fields)
    _, _, text = ask(
        bound, "https://api.test/gzip?in=authorization", headers=[*BEARER, ["Accept-Encoding", "gzip"]]
    )
    assert VALUE not in text
    code, printed = bound.shell(
        'curl -sS --compressed -H "Authorization: Bearer $KEY" "https://api.test/gzip?in=authorization"'
    )
    assert code == 0
    assert "before " in printed
    assert VALUE not in printed


def test_drops_of_it_do_not_either(bound: Guest) -> None:
    """S6, G45: the value byte by byte, each in a chunk of its own."""
    status, _, text = ask(bound, "https://api.test/drip?in=authorization", headers=BEARER)
    assert status == 200
    assert len(text) == len(f"Bearer {VALUE}")
    assert VALUE not in text


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://api.test/echo?key=PLACE", []),
        ("https://api.test/PLACE/x", []),
        ("https://api.test/echo", [["User-Agent", "KEY"]]),
        ("https://api.test/echo", [["X-Request-Id", "id-KEY"]]),
        ("https://api.test/echo", [["Cookie", "session=KEY"]]),
    ],
)
def test_elsewhere_the_placeholder_is_refused_with_the_line_to_add(
    bound: Guest, net: Internet, url: str, headers: list[list[str]]
) -> None:
    net.forget()
    placeholder = bound('result = os.environ["KEY"]')
    explanation = denied(ask(bound, url.replace("PLACE", placeholder), headers=headers))
    assert explanation["reason"] == Reason.PLACEHOLDER_OUTSIDE_SLOT
    assert "slots" in json.dumps(explanation)
    assert net.recorded("request") == []


def test_in_a_body_the_placeholder_stays_inert(bound: Guest, net: Internet) -> None:
    net.forget()
    status, _, _ = ask(
        bound, "https://api.test/echo", method="POST", headers=BEARER, body='{"prompt": "KEY"}'
    )
    assert status == 200
    (got,) = net.recorded("request")
    body = got["raw"].split("\r\n\r\n", 1)[1]
    assert "DENO_SECRET_PLACEHOLDER_" in body
    assert VALUE not in body


def test_slots_can_be_named(create: Create, net: Internet) -> None:
    net.forget()
    secrets = {
        "KEY": {"hosts": ["api.test"], "value": VALUE, "slots": ["query:key"]},
        "PATH_KEY": {"hosts": ["other.test"], "value": OTHER_VALUE, "slots": ["path:/bot{}/**"]},
    }
    with create(allow_net=["api.test", "other.test"], secrets=secrets) as guest:
        found = guest(
            """
result = [
    request("https://api.test/echo?a=1&key=" + os.environ["KEY"])[0],
    request("https://other.test/bot" + os.environ["PATH_KEY"] + "/send")[0],
    request("https://api.test/echo", headers=[["Authorization", "Bearer " + os.environ["KEY"]]])[0],
    request("https://api.test/echo?key=" + os.environ["PATH_KEY"])[0],
]
"""
        )
    assert found == [200, 200, 403, 403]
    targets = [one["target"] for one in net.recorded("request")]
    assert targets == [f"/echo?a=1&key={VALUE}", f"/bot{OTHER_VALUE}/send"]


@pytest.mark.parametrize(
    "headers",
    [
        [["Authorization", "Bearer stolen-elsewhere"]],
        [["X-Api-Key", "mine"]],
        [["Authorization", "Basic dTpw"]],
    ],
)
def test_other_credentials_are_refused_on_a_bound_host(
    bound: Guest, net: Internet, headers: list[list[str]]
) -> None:
    """M6: the attacker's own account on an allowed host."""
    net.forget()
    assert (
        denied(ask(bound, "https://api.test/echo", headers=headers))["reason"] == Reason.FOREIGN_CREDENTIALS
    )
    assert net.recorded("request") == []
    assert ask(bound, "https://api.test/echo", headers=[["Cookie", "a=b"], ["X-Other", "c"]])[0] == 200


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "HEAD"])
def test_methods_that_echo_never_carry_it(bound: Guest, net: Internet, method: str) -> None:
    """G37."""
    net.forget()
    ask(bound, "https://api.test/echo", method=method, headers=BEARER)
    assert all(VALUE not in one["raw"] for one in net.recorded("request"))


def test_plain_http_never_carries_it(bound: Guest, net: Internet) -> None:
    """S13."""
    net.forget()
    explanation = denied(ask(bound, "http://api.test/echo", headers=BEARER))
    assert explanation["reason"] == Reason.PLAINTEXT_TO_BOUND_HOST
    assert net.recorded("request") == []


def test_an_origin_with_a_wrong_certificate_gets_nothing(create: Create, net: Internet) -> None:
    """S12."""
    net.forget()
    with create(secrets={"KEY": {"hosts": ["badcert.test"], "value": VALUE}}) as guest:
        status, _, text = ask(guest, "https://badcert.test/echo", headers=BEARER)
    assert status == 502
    assert json.loads(text)["reason"] == Reason.UPSTREAM_CERTIFICATE
    assert net.recorded("request") == []


def test_methods_and_paths_limit_a_secret(create: Create, net: Internet) -> None:
    """M2, M3."""
    net.forget()
    secret = {"hosts": ["api.test"], "value": VALUE, "methods": ["GET"], "paths": ["/repos/acme/**"]}
    with create(secrets={"KEY": secret}) as guest:
        assert ask(guest, "https://api.test/repos/acme/x", headers=BEARER)[0] == 200
        for method, path in (
            ("DELETE", "/repos/acme/x"),
            ("GET", "/repos/evil/x"),
            ("GET", "/repos/acme/../evil/x"),
            ("GET", "/repos/acme/%2e%2e/evil"),
            ("GET", "/repos/acme%2f..%2fevil"),
            ("GET", "/repos/acme/..;/evil"),
            ("GET", "//repos/acme/x"),
        ):
            answer = guest(
                """
lines = [f"{method} {path} HTTP/1.1", "Host: api.test", "Connection: close"]
lines += [f"Authorization: Bearer {os.environ['KEY']}", "", ""]
result = tls("api.test", "\\r\\n".join(lines).encode())
""",
                method=method,
                path=path,
            )
            assert answer[9:12] in ("400", "403"), (method, path, answer)
    assert [one["target"] for one in net.recorded("request")] == ["/repos/acme/x"]


def test_revoking_and_rotating_work_at_once(create: Create, net: Internet, skerry: SkerryUp) -> None:
    """G40, M11."""
    with create(secrets={"KEY": {"hosts": ["api.test"], "value": VALUE}}) as guest:
        assert ask(guest, "https://api.test/echo", headers=BEARER)[0] == 200
        skerry.command("secrets", "revoke", guest.id, "KEY")
        until_true(lambda: ask(guest, "https://api.test/echo", headers=BEARER)[0] == 403)
        assert denied(ask(guest, "https://api.test/echo", headers=BEARER))["reason"] == Reason.SECRET_REVOKED
        skerry.command("secrets", "rotate", guest.id, "KEY", stdin=OTHER_VALUE.encode())
        until_true(lambda: ask(guest, "https://api.test/echo", headers=BEARER)[0] == 200)
    assert f"Bearer {OTHER_VALUE}" in json.dumps(net.recorded("request")[-1])


def test_a_websocket_carries_it_in_the_handshake_and_gives_nothing_back(bound: Guest, net: Internet) -> None:
    """G25."""
    net.forget()
    found = bound(
        """
def frame(payload, opcode=1):
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([0x80 | opcode, 0x80 | size])
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
context = ssl.create_default_context()
with socket.create_connection(("api.test", 443), timeout=10) as plain:
    with context.wrap_socket(plain, server_hostname="api.test") as secure:
        secure.sendall((
            "GET /ws HTTP/1.1\\r\\nHost: api.test\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
            "Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
            "Sec-WebSocket-Extensions: permessage-deflate\\r\\n"
            f"Authorization: Bearer {os.environ['KEY']}\\r\\n\\r\\n").encode())
        answer = b""
        while b"\\r\\n\\r\\n" not in answer:
            answer += secure.recv(4096)
        secure.sendall(frame(b"hello") + frame(b"authorization"))
        rest = answer.split(b"\\r\\n\\r\\n", 1)[1]
        while len(rest) < 7 + 2 + 7 + size:
            rest += secure.recv(4096)
        result = [answer.decode("latin-1"), rest.decode("latin-1")]
""",
        size=len(VALUE),
    )
    assert found[0].startswith("HTTP/1.1 101")
    assert "permessage-deflate" not in found[0]
    assert "hello" in found[1]
    assert VALUE not in found[1]
    (got,) = net.recorded("request")
    assert ["Authorization", f"Bearer {VALUE}"] in got["fields"]


def test_http2_gets_a_clear_answer(bound: Guest, net: Internet) -> None:
    """No hang for clients that speak nothing else."""
    net.forget()
    found = bound(
        """
lines = ["GET /echo HTTP/1.1", "Host: api.test", "Connection: Upgrade, HTTP2-Settings, close"]
upgrade = "\\r\\n".join([*lines, "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "", ""])
def only_h2():
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("api.test", 443), timeout=8) as plain:
        with context.wrap_socket(plain, server_hostname="api.test") as secure:
            return str(secure.selected_alpn_protocol())
result = {
    "alpn": attempt(only_h2),
    "preface": attempt(tls, "api.test", b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"),
    "upgrade": attempt(tls, "api.test", upgrade.encode()),
    "grpc": request("https://api.test/p.S/Call", "POST", [["Content-Type", "application/grpc"]], "x")[0],
}
"""
    )
    assert "Error" in found["alpn"]["value"] or found["alpn"]["value"] == "None"
    assert found["alpn"]["s"] < 8
    assert "h2" not in [one.get("alpn") for one in net.recorded("hello")]
    assert found["grpc"] == 403
