"""TLS towards origins: who is trusted, and the handshake. There is no switch that verifies less."""

import socket
import ssl
from functools import cache
from pathlib import Path

from skerry.egress.worker.inspect_tls import Tls
from skerry.errors import HostUnusable

ALPN = "http/1.1"

# Where distributions keep all roots in one file; directories of hashed names would be read at each handshake,
# and a worker reads no files.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class UntrustedOrigin(Exception):
    """The origin's certificate is not good for the name (`Reason.UPSTREAM_CERTIFICATE`)."""


class HandshakeFailed(Exception):
    """The origin does not speak TLS as we do (`Reason.UPSTREAM_UNREACHABLE`)."""


@cache
def upstream_context(extra_roots: tuple[str, ...], bundles: tuple[str, ...] = _BUNDLES) -> ssl.SSLContext:
    """The context for connections to origins. The first call reads files, for some 20 ms: it should be made
    before workers are forked.

    It verifies chain and name, against the system's roots and the operator's. Sessions are not resumed. It is
    not `ssl.create_default_context`, which writes keys to the file that ``SSLKEYLOGFILE`` names.

    Args:
        extra_roots: Paths of PEM files.
    Raises:
        HostUnusable: No roots, or a file that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols([ALPN])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    system = next((path for path in bundles if Path(path).is_file()), None)
    if system is None and not extra_roots:
        raise HostUnusable(
            "there are no certificate authorities on this machine to verify servers with; "
            "install the package ca-certificates, or name files in [egress] extra_roots"
        )
    for path in ([system] if system is not None else []) + list(extra_roots):
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise HostUnusable(
                "a file with certificate authorities cannot be read; see [egress] extra_roots",
                detail=f"{path}: {error}",
            ) from error
    return context


async def connect_tls(sock: socket.socket, name: str, context: ssl.SSLContext) -> Tls:
    """Do a handshake as the client. The caller sets the deadline, and owns the socket.

    Args:
        sock: Connected and non-blocking.
        name: Canonical host name or address, which the certificate must be good for.
    Raises:
        UntrustedOrigin: The certificate is not good.
        HandshakeFailed: Anything else.
    """
    try:
        tls = Tls(context, server_name=name)
        await tls.handshake(sock)
    except ssl.SSLCertVerificationError:
        raise UntrustedOrigin from None
    except (OSError, ValueError):
        raise HandshakeFailed from None
    return tls
