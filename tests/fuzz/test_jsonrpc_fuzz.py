"""Random messages to a session; random headers, queries and parameters to their decoders.

Whatever comes: no exception escapes, every request with a good ID gets exactly one answer, none has an ID of
null, and every frame of ours is JSON.
"""

import asyncio
import base64
import json
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.methods import METHODS
from skerry.api.deno.session import Session
from skerry.api.deno.websocket import MessageSocket
from skerry.errors import AgentError, InvalidRequest
from skerry.policy.deno_fields import sandbox_layer
from skerry.protocol import jsonrpc
from skerry.protocol.deno_config import decode_config
from skerry.protocol.deno_filters import cursor_position, label_filter, page_size
from skerry.protocol.deno_flavour import Flavour
from skerry.protocol.deno_validation import issues_of
from skerry.service.attachment import Attachment

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=12,
)

names = st.sampled_from(
    ["path", "pid", "command", "stdout", "stderr", "content", "contentStreamId", "streamId", "data",
     "options", "key", "value", "abortId", "args", "env", "error", "signal"]
)  # fmt: skip

methods = st.sampled_from(
    [*METHODS, "walk", "$sandbox.stream.start", "$sandbox.stream.enqueue", "$sandbox.stream.end",
     "$sandbox.stream.error", "$sandbox.stream.cancel"]
)  # fmt: skip

requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | st.text(max_size=5) | json_values,
        "method": methods | st.text(max_size=10),
        "params": st.dictionaries(names | st.text(max_size=5), json_values, max_size=6) | json_values,
    },
)

messages = st.binary(max_size=60) | requests.map(lambda value: json.dumps(value).encode()) | st.just(b"ping")


class Agent:
    """An agent that can do nothing."""

    def process(self, pid: int) -> None:
        """Knows no process."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: object, **kwargs: object) -> None:
            raise AgentError("ENOENT", "there is nothing here")

        return fail


class Wire(asyncio.Transport):
    """Keeps what a socket writes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.WriteTransport`."""
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return False


class Recorder(MessageSocket):
    """A socket that keeps messages instead of framing them."""

    def __init__(self) -> None:
        super().__init__(MemoryBudget(), asyncio.get_running_loop(), lambda _: None)
        self.messages: list[bytes] = []
        self.close_codes: list[int] = []

    def send(self, message: bytes) -> None:
        """See `MessageSocket.send`."""
        self.messages.append(message)

    def close(self, code: int, reason: str) -> None:
        """See `MessageSocket.close`."""
        self.close_codes.append(code)


async def _serve(sent: list[bytes], flavour: Flavour) -> Recorder:
    socket = Recorder()
    loop = asyncio.get_running_loop()

    async def detach(*, clean: bool) -> None:
        pass

    attachment = SimpleNamespace(agent=Agent(), sandbox_id="sbx", ended=loop.create_future(), detach=detach)
    ids = jsonrpc.stream_ids(lambda _: 1)
    session = Session(cast(Attachment, attachment), socket, flavour, budget=MemoryBudget(), stream_ids=ids)

    async def feed() -> None:
        for message in sent:
            session.on_message(message)
            await asyncio.sleep(0)

    async def run() -> None:
        await session.run(feed(), stopping=lambda: False)

    running = asyncio.ensure_future(run())
    for _ in range(len(sent) * 3 + 20):
        await asyncio.sleep(0)
    session.streams.close()
    for _ in range(20):
        await asyncio.sleep(0)
    socket.connection_lost(None)
    await asyncio.wait_for(running, 10)
    return socket


@FUZZ
@given(st.lists(messages, max_size=12), st.sampled_from(Flavour))
def test_every_request_gets_one_answer_and_nothing_escapes(sent: list[bytes], flavour: Flavour) -> None:
    socket = asyncio.run(_serve(sent, flavour))
    answers: Counter[str] = Counter()
    for message in socket.messages:
        if message == b"pong":
            assert flavour is not Flavour.PYTHON
            continue
        value = json.loads(message)
        if "id" in value:
            assert value["id"] is not None
            assert ("result" in value) != ("error" in value)
            answers[json.dumps(value["id"])] += 1
        else:
            assert value["method"].startswith("$sandbox.stream.")
    assert answers == Counter(filter(None, map(_expected_id, sent)))


def _expected_id(message: bytes) -> str | None:
    try:
        incoming = jsonrpc.parse(message)
    except InvalidRequest:
        return None
    id_text = jsonrpc.request_id(incoming)
    return None if id_text is None else json.dumps(json.loads(id_text))


@FUZZ
@given(json_values, st.sampled_from(sorted(METHODS)))
def test_refused_params_always_have_well_formed_issues(value: object, method: str) -> None:
    text = json.dumps(value).encode()
    try:
        METHODS[method].decoder.decode(text)
    except msgspec.MsgspecError:
        for issue in issues_of(text, METHODS[method].params):
            assert issue["expected"]
            assert all(isinstance(part, str) for part in issue["path"])


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "memory_mb",
                "timeout",
                "labels",
                "root",
                "volumes",
                "secrets",
                "env",
                "port",
                "ssh",
                "allow_net",
            ]
        ),
        json_values,
    )
    | json_values,
    st.sampled_from(Flavour),
)
def test_headers_are_decoded_or_refused(config: object, flavour: Flavour) -> None:
    with suppress(InvalidRequest):
        decoded = decode_config(base64.b64encode(json.dumps(config).encode()).decode(), flavour)
        decoded.duration_s()
        decoded.mounts()
        sandbox_layer(decoded.allow_net, decoded.secrets, now_ms=1_700_000_000_000)


@FUZZ
@given(st.text(max_size=200), st.sampled_from(Flavour))
def test_header_texts_are_decoded_or_refused(text: str, flavour: Flavour) -> None:
    with suppress(InvalidRequest):
        decode_config(text, flavour)


@FUZZ
@given(
    st.lists(
        st.tuples(st.sampled_from(["labels", "labels[a]", "limit", "cursor"]), st.text(max_size=60)),
        max_size=4,
    )
)
def test_queries_are_understood_or_refused(query: list[tuple[str, str]]) -> None:
    for check in (
        lambda: label_filter(query),
        lambda: page_size([value for name, value in query if name == "limit"]),
        lambda: cursor_position([value for name, value in query if name == "cursor"]),
    ):
        with suppress(InvalidRequest):
            check()
