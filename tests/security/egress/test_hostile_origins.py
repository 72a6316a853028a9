"""An origin that means harm, or is broken: what it gives back, what has no end (S3, S6, S14, X6)."""

import base64
import codecs
from typing import Any

import pytest

from tests.harness.origins import hostile
from tests.harness.skerry_up import SkerryUp
from tests.security.egress.conftest import VALUE, Guest
from tests.security.egress.processes import memory_mib, worker_of

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

ASK = r"""
key = os.environ["KEY"]
def once(name):
    text = f"GET /hostile/{name} HTTP/1.1\r\nHost: api.test\r\nAccept-Encoding: gzip, br\r\n"
    text += f"Authorization: Bearer {key}\r\n\r\n"
    start = time.monotonic()
    try:
        answer = tls("api.test", text.encode(), timeout=20)
    except OSError as error:
        answer = type(error).__name__
    return [answer[:65536], len(answer), time.monotonic() - start]
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(once, names))
result = dict(zip(names, answers))
"""


def ask(guest: Guest, names: list[str]) -> dict[str, tuple[str, int, float]]:
    """Ask for each, with the secret: the answer, its length and how long it took."""
    return {name: tuple(found) for name, found in guest(ASK, names=names).items()}


def in_some_form(text: str) -> bool:
    """Whether half of the value or more is there, in a form that anybody could undo."""
    texts = [
        text,
        text.replace("\r\n", "").replace("\n", ""),
        text.replace("\0", ""),
        codecs.encode(text, "rot13"),
    ]
    halves = [VALUE[: len(VALUE) // 2], VALUE[len(VALUE) // 2 :], VALUE[8:24]]
    halves += [half[::-1] for half in halves]
    halves += [half.encode().hex() for half in halves]
    halves += ["".join(f"&#{ord(one):03d};" for one in half) for half in halves[:3]]
    halves += ["".join(f"%25{ord(one):02x}" for one in half) for half in halves[:3]]
    halves += ["".join(f"\\{ord(one):03o}" for one in half) for half in halves[:3]]
    halves += [", ".join(str(ord(one)) for one in half) for half in halves[:3]]
    halves += [half.encode().hex(" ") for half in halves[:3]]
    for shift in range(3):
        halves += [
            base64.b64encode(bytes(shift) + half.encode()).decode()[4:-4] for half in (VALUE[:20], VALUE[12:])
        ]
    return any(half.lower() in one.lower() for half in halves for one in texts)


def test_malformed_answers_become_errors(roomy: Guest) -> None:
    """S14: the client must not take a part of them for the answer."""
    found = ask(roomy, sorted(hostile.MALFORMED))
    assert {name: one[0][:60] for name, one in found.items() if not one[0].startswith("HTTP/1.1 502")} == {}


def test_nothing_comes_back(roomy: Guest) -> None:
    """S3, S6, G43 to G46: the value in places and forms that are hard to see."""
    found = ask(roomy, sorted(hostile.GIVING_BACK))
    assert {name: one[0] for name, one in found.items() if in_some_form(one[0])} == {}
    assert {name: one[0] for name, one in found.items() if not one[0].startswith("HTTP/1.1")} == {}
    # An answer that nobody asked for is not given to the next request.
    assert found["after-the-end"][0].endswith("ab")


def test_endless_answers_end(roomy: Guest, skerry: SkerryUp) -> None:
    """X6: early, without much of it in memory."""
    found = ask(roomy, sorted(hostile.ENDLESS))
    for name, (answer, _, took_s) in found.items():
        assert "200 OK" not in answer or "0\r\n\r\n" not in answer[-5:], (name, answer[:100])
        assert took_s < 15, (name, took_s)
    assert memory_mib(worker_of(skerry, roomy.id)) < 64


@pytest.mark.parametrize("name", ["bomb", "double-bomb"])
def test_decompression_bombs_are_refused(roomy: Guest, skerry: SkerryUp, name: str) -> None:
    """X5, X14: what the gateway decodes is bounded."""
    ((answer, size, _),) = ask(roomy, [name]).values()
    assert size < 64 << 20
    assert not answer.endswith("0\r\n\r\n")
    assert memory_mib(worker_of(skerry, roomy.id)) < 64


def test_a_reset_in_an_answer_is_one_for_the_client(roomy: Guest) -> None:
    found: Any = roomy(
        """
def read():
    connection = http.client.HTTPSConnection("api.test", timeout=10)
    connection.request("GET", "/hostile/reset", headers={"Authorization": "Bearer " + os.environ["KEY"]})
    try:
        return connection.getresponse().read().decode()
    except http.client.IncompleteRead as error:
        return "IncompleteRead"
result = attempt(read)["value"]
"""
    )
    assert "Error" in found or found == "IncompleteRead"
