"""One connection to egressd."""

import socket
from typing import assert_never

import msgspec
import structlog

from skerry import errors
from skerry.egress.broker.background import Background
from skerry.egress.broker.service import Broker
from skerry.egress.raised_at import raised_at
from skerry.errors import SkerryError
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
from skerry.serving import connection
from skerry.serving.replies import UNDECODABLE, NotUnderstood, refusal, result

MAX_CALLS = 1024
"""Calls under way, those that wait for audit lines included; while there are as many, no more is read."""

_log = structlog.get_logger("skerry.egress.connection")
_calls = msgspec.msgpack.Decoder(EgressCall)


class Connection(connection.Connection):
    """See `skerry.serving.connection.Connection`."""

    def __init__(self, sock: socket.socket, broker: Broker, background: Background) -> None:
        super().__init__(sock, background, max_calls=MAX_CALLS, log=_log)
        self._broker = broker

    async def answer(self, body: bytes) -> None:
        """See `skerry.serving.connection.Connection.answer`."""
        await self._send(await self._answer(body))

    async def _answer(self, body: bytes) -> bytes:
        call_id = 0
        try:
            call = _decode(body)
            call_id = call.id
            return result(call_id, await self._carry_out(call.verb), _log)
        except SkerryError as error:
            return refusal(call_id, error, _log)
        except Exception as error:
            # The type alone: what an exception says may quote what was sent, and that may be a secret.
            _log.error("verb_failed", error=type(error).__name__, where=raised_at(error))
            return refusal(call_id, errors.RuntimeFailed("egressd failed; see its log"), _log)

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


def _decode(body: bytes) -> EgressCall:
    try:
        return _calls.decode(body)
    except UNDECODABLE as error:
        # A message of msgspec may quote a value, and what is sent here may be a secret.
        raise NotUnderstood(body, "egressd", type(error).__name__) from None
