"""Hostile host names and paths, against readers that are less strict than ours.

Whatever comes: a name that we accept is a name for every other parser, too; a path that a pattern allows
stays below that pattern's front however an origin decodes, merges and resolves it.
"""

import socket
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote_to_bytes, urlsplit

import idna
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.policy.compiled import Policy
from skerry.policy.document import AllowRule, PolicyDocument
from skerry.policy.names import BadName, canonical, host
from skerry.protocol.egress_verbs import NamedLayer

FUZZ = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))

_NAME_PARTS = st.sampled_from(
    [
        "a",
        "Example",
        "com",
        ".",
        ".",
        "..",
        "-",
        "_",
        "@",
        "#",
        ":",
        "/",
        "\\",
        "%2e",
        "%00",
        "\0",
        " ",
        "\t",
        "\n",
        "xn--",
        "xn--bcher-kva",
        "0x7f",
        "127",
        "1",
        "256",
        "0",
        "2130706433",
        "[",
        "]",
        "::1",
        "*",
        "\u3002",
        "\uff0e",
        "\uff61",
        "ß",
        "\u212a",
        "\u200b",
        "\u0430",
        "localhost",
        "a" * 63,
        "b" * 64,
    ]
)
_LABELS = st.sampled_from(
    ["a", "B-c", "xn--bcher-kva", "0x7f", "127", "1", "com", "-d", "localhost", "2130706433"]
)
names = (
    st.lists(_NAME_PARTS, max_size=8).map("".join)
    | st.lists(_LABELS, min_size=1, max_size=5).map(".".join)
    | st.text(max_size=20)
)

_PATH_PARTS = st.sampled_from(
    [
        b"/",
        b"/",
        b"v1",
        b"v1",
        b"admin",
        b".",
        b"..",
        b"...",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%2F",
        b"%5c",
        b"\\",
        b"%",
        b"%25",
        b"%252e",
        b"%252f",
        b"%c0%ae",
        b"%c0%af",
        b"%e0%80%af",
        b"%ef%bc%8f",
        b"%ef%bc%8e",
        b"%e2%80%a5",
        b";",
        b"%3b",
        b";x=y",
        b"?",
        b"%3f",
        b"#",
        b"%23",
        b" ",
        b"%20",
        b"+",
        b"%00",
        b"\0",
        b"%0d%0a",
        b"\r\n",
        b"%u002e",
        b"\xc3\xa9",
        b"%c3%a9",
        b"\xff",
        b"*",
        b"~",
        b"%7e",
        b"%61",
        b"http://a.example",
        b"@",
        b":",
    ]
)
targets = st.builds(
    lambda front, parts: front + b"".join(parts),
    st.sampled_from([b"/v1/", b"/v1", b"/", b"//", b""]),
    st.lists(_PATH_PARTS, max_size=10),
) | st.binary(max_size=30).map(lambda rest: b"/v1/" + rest)

POLICY = Policy(
    [
        NamedLayer(
            name="sandbox",
            document=PolicyDocument(
                allow=(AllowRule(host="a.example", paths=("/v1/**",), methods=("GET",)),)
            ),
        )
    ]
)


@FUZZ
@given(names)
def test_what_we_take_for_a_name_no_other_parser_takes_for_something_else(text: str) -> None:
    try:
        name = canonical(text)
    except BadName:
        event("refused")
        return

    event("taken")
    assert canonical(name) == name
    with pytest.raises(OSError, match="illegal IP"):
        socket.inet_aton(name)
    parts = urlsplit(f"https://{name}/x")
    assert (parts.hostname, parts.port, parts.username, parts.path) == (name, None, None, "/x")
    if "xn--" not in name:
        assert idna.uts46_remap(name) == name


@FUZZ
@given(names)
def test_a_host_is_a_canonical_name_or_an_address_that_is_written_plainly(text: str) -> None:
    try:
        found = host(text)
    except BadName:
        return

    if isinstance(found, str):
        assert found == canonical(text)
    elif found.version == 4:
        assert str(found) == text
        assert socket.inet_aton(text) == found.packed
    else:
        assert text.startswith("[")
        assert socket.inet_pton(socket.AF_INET6, text[1:-1]) == found.packed


def _resolved(path: bytes) -> list[bytes]:
    done: list[bytes] = []
    for part in path.split(b"/")[1:]:
        if part == b"..":
            del done[-1:]
        elif part != b".":
            done.append(part)
    return done


def _folded(path: bytes) -> bytes:
    return unicodedata.normalize("NFKC", path.decode("utf-8", "replace")).encode("utf-8", "replace")


ORIGINS: list[Callable[[bytes], bytes]] = [
    lambda path: path,
    unquote_to_bytes,
    lambda path: unquote_to_bytes(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(path).replace(b"\\", b"/"),
    lambda path: b"/".join(part.partition(b";")[0] for part in unquote_to_bytes(path).split(b"/")),
    lambda path: b"/" + b"/".join(part for part in unquote_to_bytes(path).split(b"/") if part),
    lambda path: unquote_to_bytes(path).partition(b"\0")[0],
    lambda path: unquote_to_bytes(path).partition(b"?")[0].partition(b"#")[0],
    lambda path: b"/".join(part.rstrip(b". ") or part for part in unquote_to_bytes(path).split(b"/")),
    lambda path: _folded(unquote_to_bytes(path)),
    lambda path: unquote_to_bytes(path).decode("utf-8", "ignore").encode(),
]


@FUZZ
@given(targets)
def test_an_allowed_path_stays_below_its_pattern_for_every_origin(raw: bytes) -> None:
    verdict = POLICY.decide_request("a.example", 443, "GET", raw, ())

    event("allowed" if verdict.allowed else str(verdict.reason))
    if not verdict.allowed:
        assert verdict.target == b""
        return
    again = POLICY.decide_request("a.example", 443, "GET", verdict.target, ())
    assert (again.allowed, again.target) == (True, verdict.target)
    path = verdict.target.partition(b"?")[0]
    for origin in ORIGINS:
        seen = _resolved(origin(path))
        assert seen[:1] == [b"v1"], (path, seen)
