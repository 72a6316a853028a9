"""The line between broker and worker: messages of `skerry.egress.messages` in datagrams that keep their
order.
"""

import socket

import msgspec

from skerry.egress.messages import MAX_MESSAGE_BYTES, FromWorker, ToWorker

_SEND_BUFFER_BYTES = MAX_MESSAGE_BYTES
_BOOKKEEPING_BYTES = 4096

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, for the broker and for a worker."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    for end in ends:
        # The kernel gives less when net.core.wmem_max says so (socket(7)).
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return ends


def largest_message_bytes() -> int:
    """What one message may have here: a datagram must fit into the send buffer (unix(7))."""
    ours, theirs = pair()
    with ours, theirs:
        given = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    return min(MAX_MESSAGE_BYTES, given - _BOOKKEEPING_BYTES)
