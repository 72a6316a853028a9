"""One connection to egressd."""

import asyncio
import socket
from typing import assert_never

import msgspec
import structlog

from skerry import errors
from skerry.egress.broker.background import Background
from skerry.egress.broker.service import Broker
from skerry.egress.raised_at import raised_at
from skerry.errors import InvalidRequest, ResourceExhausted, SkerryError
from skerry.protocol.egress_verbs import (
    AllowHost,
    EgressCall,
    EgressDescribe,
    EgressVerb,
    Explain,
    ForgetAudit,
    Grant,
    ListSecrets,
    ReadAudit,
    Release,
    RevokeSecret,
    RotateSecret,
    SetLayers,
)
from skerry.protocol.host_verbs import MAX_FRAME_BYTES, Failure, FrameReader, Reply, frame

MAX_CALLS = 1024
"""Calls under way, those that wait for audit lines included; while there are as many, no more is read."""

FRAME_S = 10.0
"""A frame that has begun must be complete in this time."""

WRITE_S = 10.0
"""A peer that does not read for this long is dropped."""

LENGTH_BYTES = 4

_READ_BYTES = 65_536
_log = structlog.get_logger("skerry.egress.connection")
_calls = msgspec.msgpack.Decoder(EgressCall)
_encode = msgspec.msgpack.Encoder().encode


class _AnyCall(msgspec.Struct):
    """What is needed to refuse a call that is not understood."""

    id: int = 0


_any_calls = msgspec.msgpack.Decoder(_AnyCall)


class Connection:
    """Serves one peer until it goes, breaks the framing or does not read. Verbs that it began are carried out
    all the same.

    Descriptors that the peer sends are dropped by the kernel, because they are never received (unix(7)).
    """

    def __init__(self, sock: socket.socket, broker: Broker, background: Background) -> None:
        self._sock = sock
        self._broker = broker
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._writing = asyncio.Lock()
        self._closed = False

    async def serve(self) -> None:
        """Read and answer until the end."""
        try:
            await self._read_frames()
        except (OSError, ValueError, TimeoutError) as error:
            _log.info("connection_dropped", error=str(error))
        finally:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sock.close()

    async def _read_frames(self) -> None:
        reader, begun_bytes = FrameReader(), 0
        complete_at_s: float | None = None
        while True:
            async with asyncio.timeout_at(complete_at_s):
                data = await self._loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                return
            bodies = reader.feed(data)
            begun_bytes += len(data) - sum(LENGTH_BYTES + len(body) for body in bodies)
            if begun_bytes == 0:
                complete_at_s = None
            elif bodies or complete_at_s is None:
                complete_at_s = self._loop.time() + FRAME_S
            waited_s = -self._loop.time()
            for body in bodies:
                await self._slots.acquire()
                self._background.start(self._handle(body), name="verb")
            waited_s += self._loop.time()
            if complete_at_s is not None:
                complete_at_s += waited_s  # it was not the peer that took this time

    async def _handle(self, body: bytes) -> None:
        try:
            await self._send(await self._answer(body))
        except (OSError, TimeoutError) as error:
            # The peer is gone or does not read: what was asked is done, only nobody hears of it.
            _log.info("answer_lost", error=str(error))
            self._close()
        finally:
            self._slots.release()

    async def _answer(self, body: bytes) -> bytes:
        call_id = 0
        try:
            call = _decode(body)
            call_id = call.id
            value = await self._carry_out(call.verb)
            return _framed(Reply(call_id, msgspec.Raw(_encode(value))))
        except SkerryError as error:
            call_id = error.call_id if isinstance(error, _NotUnderstood) else call_id
            return _framed(Reply(call_id, failure=_failure(error)))
        except Exception as error:
            # The type alone: what an exception says may quote what was sent, and that may be a secret.
            _log.error("verb_failed", error=type(error).__name__, where=raised_at(error))
            failed = errors.RuntimeFailed("egressd failed; see its log")
            return _framed(Reply(call_id, failure=_failure(failed)))

    async def _carry_out(self, verb: EgressVerb) -> object:
        match verb:
            case EgressDescribe():
                return self._broker.describe()
            case Grant():
                return await self._broker.grant(verb)
            case AllowHost(sandbox_id=sandbox_id, rule=rule):
                return await self._broker.allow_host(sandbox_id, rule)
            case SetLayers(sandbox_id=sandbox_id, layers=layers):
                return await self._broker.set_layers(sandbox_id, layers)
            case Explain(sandbox_id=sandbox_id, target=target, method=method):
                return self._broker.explain(sandbox_id, target, method)
            case ListSecrets(sandbox_id=sandbox_id):
                return self._broker.secrets(sandbox_id)
            case ReadAudit():
                return await self._broker.read_audit(verb)
            case Release(sandbox_id=sandbox_id):
                await self._broker.release(sandbox_id)
            case RotateSecret(sandbox_id=sandbox_id, name=name, value=value):
                await self._broker.rotate(sandbox_id, name, value)
            case RevokeSecret(sandbox_id=sandbox_id, name=name):
                await self._broker.revoke(sandbox_id, name)
            case ForgetAudit(keep=keep):
                self._broker.forget_audit(keep)
            case _:
                assert_never(verb)
        return None

    async def _send(self, data: bytes) -> None:
        async with self._writing, asyncio.timeout(WRITE_S):
            if not self._closed:
                await self._loop.sock_sendall(self._sock, data)


class _NotUnderstood(InvalidRequest):
    """A call that could not be decoded.

    Attributes:
        call_id: Its number as far as that could be read, else 0.
    """

    def __init__(self, call_id: int, problem: str) -> None:
        super().__init__(f"not a call that egressd understands: {problem}")
        self.call_id = call_id


def _decode(body: bytes) -> EgressCall:
    try:
        return _calls.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        try:
            call_id = _any_calls.decode(body).id
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            call_id = 0
        # A message of msgspec may quote a value, and what is sent here may be a secret.
        raise _NotUnderstood(call_id, type(error).__name__) from None


def _failure(error: SkerryError) -> Failure:
    """What the peer may know: the family, never the detail, which is logged."""
    family = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
    if error.detail:
        _log.warning("verb_refused", family=family, message=error.message, detail=error.detail)
    return Failure(family, error.code, error.message)


def _framed(reply: Reply) -> bytes:
    try:
        return frame(reply)
    except ValueError:
        error = ResourceExhausted(f"the answer is larger than {MAX_FRAME_BYTES} bytes")
        return frame(Reply(reply.id, failure=_failure(error)))
