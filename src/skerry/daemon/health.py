"""Where the API listens, and whether it answers there."""

import asyncio
import ipaddress
import socket

from skerry.daemon.launch import DaemonFailed

HEALTH_PATH = "/skerry/v1/health"
_RETRY_S = 0.1


def bind(host: str, port: int) -> socket.socket:
    """The API's listening socket, inheritable by api only through `launch`.

    It lives in `up`, so the port stays the same and clients wait, not fail, while api starts again.

    Raises:
        OSError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(listener: socket.socket) -> str:
    """``address:port`` where it listens."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Address for clients on this machine."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return host, port


def url_of(listener: socket.socket) -> str:
    """The API's URL for clients on this machine, without a slash at the end."""
    host, port = _reachable(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def probe_health(listener: socket.socket, *, timeout_s: float) -> None:
    """Wait until the API answers a request for its health.

    Raises:
        DaemonFailed: It does not within the time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            # Polled: nothing announces that a server accepts connections on an inherited socket.
            while not await _answers(*_reachable(listener)):  # noqa: ASYNC110
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        message = f"it does not answer {url_of(listener)}{HEALTH_PATH} within {timeout_s:g} s"
        raise DaemonFailed(message) from None


async def _answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        name = f"[{host}]" if ":" in host else host
        request = f"GET {HEALTH_PATH} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.close()
