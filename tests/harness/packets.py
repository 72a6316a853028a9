"""Raw packets, as an attacker builds them."""

import socket
import struct


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet.

    Args:
        fragment: The field of flags and offset.
        options: A multiple of 4 bytes.
    """
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x40 | words, 0, words * 4 + len(payload), 0x1234, fragment, 64, protocol, 0),
        *(socket.inet_aton(source), socket.inet_aton(destination)),
    )
    head += options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(source: str, destination: str, port: int, data: bytes, *, source_port: int = 40_000) -> bytes:
    """A UDP datagram inside an IPv4 packet."""
    return ipv4(
        source, destination, 17, udp_payload(source, destination, port, data, source_port=source_port)
    )


def udp_payload(source: str, destination: str, port: int, data: bytes, *, source_port: int = 40_000) -> bytes:
    """A UDP datagram."""
    length = 8 + len(data)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">BBH", 0, 17, length)
    head = struct.pack(">HHHH", source_port, port, length, 0)
    return head[:6] + struct.pack(">H", checksum(pseudo + head + data) or 0xFFFF) + data


def tcp_syn(source: str, destination: str, port: int, *, source_port: int = 40_000) -> bytes:
    """The first packet of a TCP connection."""
    head = struct.pack(">HHIIBBHHH", source_port, port, 7, 0, 5 << 4, 2, 65_535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">BBH", 0, 6, len(head))
    head = head[:16] + struct.pack(">H", checksum(pseudo + head)) + head[18:]
    return ipv4(source, destination, 6, head)


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame."""
    return destination + source + struct.pack(">H", kind) + payload


def arp_request(sender: bytes, sender_address: str, wanted: str) -> bytes:
    """An Ethernet frame that asks who has an address."""
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + sender + socket.inet_aton(sender_address)
    body += bytes(6) + socket.inet_aton(wanted)
    return ethernet(b"\xff" * 6, sender, 0x0806, body)
