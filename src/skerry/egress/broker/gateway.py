"""Ask hostd for a sandbox's end of the gateway: its own two sockets."""

import array
import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skerry.egress.broker.descriptors import close_all, readable
from skerry.errors import HostUnusable, NotFound, RuntimeFailed, SkerryError, TimedOut
from skerry.protocol.host_verbs import Call, Failure, FrameReader, OpenGateway, Reply, frame
from skerry.spec.ids import SandboxId

ASK_S = 5.0
MAX_AT_ONCE = 8
_SOCKETS = 2
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Gateway:
    """A sandbox's sockets.

    Attributes:
        tcp: Listens; gets every TCP connection of the sandbox.
        udp: Gets its packets to port 53.
    """

    tcp: socket.socket
    udp: socket.socket

    def close(self) -> None:
        """Close both. Idempotent."""
        self.tcp.close()
        self.udp.close()


class Gateways:
    """Asks for the gateways of many sandboxes, a few at a time: hostd's queue of connections is short."""

    def __init__(self, hostd_socket: Path) -> None:
        self._hostd_socket = hostd_socket
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def open(self, sandbox_id: SandboxId) -> Gateway:
        """See `open_gateway`."""
        async with self._slots:
            return await open_gateway(self._hostd_socket, sandbox_id)


async def open_gateway(hostd_socket: Path, sandbox_id: SandboxId) -> Gateway:
    """Ask, on a connection of its own.

    Raises:
        HostUnusable: hostd cannot be reached.
        SkerryError: It refuses; `NotFound` while the sandbox does not exist.
        TimedOut: It does not answer.
    """
    try:
        async with asyncio.timeout(ASK_S):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asked:
                loop = asyncio.get_running_loop()
                await loop.sock_connect(asked, str(hostd_socket))
                await loop.sock_sendall(asked, frame(Call(id=1, verb=OpenGateway(sandbox_id))))
                return await _receive(asked)
    except TimeoutError:
        raise TimedOut("hostd (OpenGateway)", ASK_S) from None
    except OSError as error:
        raise HostUnusable("hostd cannot be reached", detail=str(error)) from error


async def _receive(asked: socket.socket) -> Gateway:
    reader = FrameReader()
    received = array.array("i")
    try:
        while True:
            try:
                data, ancillary, _, _ = asked.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(2 * _SOCKETS * received.itemsize), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await readable(asked)
                continue
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
            if not data:
                raise HostUnusable("hostd closed the connection without an answer")
            for body in reader.feed(data):
                return _gateway(msgspec.msgpack.decode(body, type=Reply), received)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RuntimeFailed("hostd gave an answer that is not understood", detail=str(error)) from error
    finally:
        close_all(received)


def _gateway(reply: Reply, received: "array.array[int]") -> Gateway:
    """Make the sockets; takes the descriptors that it uses out of what was received."""
    if reply.failure is not None:
        raise _error_of(reply.failure)
    if len(received) != _SOCKETS:
        raise RuntimeFailed("hostd sent no gateway", detail=f"{len(received)} descriptors")
    udp, tcp = socket.socket(fileno=received.pop()), socket.socket(fileno=received.pop())
    gateway = Gateway(tcp, udp)
    kinds = (tcp.type, udp.type)
    if kinds != (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        gateway.close()
        raise RuntimeFailed("hostd sent other sockets than a gateway's", detail=str(kinds))
    for sock in (tcp, udp):
        sock.setblocking(False)
    return gateway


def _error_of(failure: Failure) -> SkerryError:
    """The error that hostd reported; what matters here is only whether the sandbox exists."""
    family = NotFound if failure.family == NotFound.__name__ else RuntimeFailed
    return family(failure.message, code=failure.code)
