"""What a method is, and what it may use: the table of RPC methods is made of these."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.inbound import ClientStreams
from skerry.api.deno.outbound import SpawnedProcess
from skerry.api.deno.websocket import MessageSocket
from skerry.control.agent import AgentClient
from skerry.errors import SkerryError
from skerry.protocol.deno_errors import ErrorObject
from skerry.protocol.deno_flavour import Flavour

P = TypeVar("P", bound=msgspec.Struct)


class Base64(msgspec.Struct, frozen=True):
    """An answer that is a byte string."""

    data: bytes


class CallFailed(SkerryError):
    """A call failed with an error object that no family of errors stands for."""

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error["message"])
        self.error = error


class InvalidParams(SkerryError):
    """Parameters of the right types that make no sense together.

    Args:
        issues: What is wrong, in the shape of `skerry.protocol.deno_validation`.
    """

    def __init__(self, issues: list[Any]) -> None:
        super().__init__("Invalid params")
        self.issues = issues


class Context(Protocol):
    """The session, as far as methods see it."""

    agent: AgentClient
    flavour: Flavour
    socket: MessageSocket
    budget: MemoryBudget
    streams: ClientStreams
    stream_ids: Iterator[int]
    spawned: dict[int, SpawnedProcess]
    reads: asyncio.Semaphore
    writes: asyncio.Semaphore

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the connection lasts, at most."""
        ...

    def release_later(self, spawned: SpawnedProcess) -> None:
        """Let output flow without a `processWait`, where the client needs that."""
        ...

    def abort(self, abort_id: int) -> None:
        """End the call that was made with that abort ID, if it still runs."""
        ...


Handler = Callable[[Any, Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC method.

    Attributes:
        params: Type of its parameters.
        handler: Carries it out; what it returns is the answer: None, a JSON value, or `Base64`.
        doing: Operation and path for error messages, from the parameters.
    """

    params: type[msgspec.Struct]
    handler: Handler
    doing: Callable[[Any], str] = field(default=lambda _: "")
    decoder: "msgspec.json.Decoder[Any]" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.params))


Methods = Mapping[str, Method]


@dataclass(slots=True, eq=False)
class Call:
    """A request that is under way.

    Attributes:
        id_text: The ID to answer with, as JSON text.
        aborted: The client's abort signal fired.
    """

    id_text: bytes
    method: str
    task: asyncio.Task[None] | None = None
    aborted: bool = False
