"""Certificate authorities beside the usual ones: for connections to origins, and perhaps for guests."""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from skerry.daemon.files import write_file
from skerry.errors import HostUnusable
from skerry.spec.settings import EgressSettings

MAX_BYTES = 1 << 20
MAX_FOR_GUESTS_BYTES = 512 << 10

_USUAL = Path("/usr/share/ca-certificates/mozilla")
"""Debian: what every guest trusts anyway."""

_OWN_ANCHORS = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
"""Where administrators put theirs: Debian, and the RHEL family."""


def further_roots(settings: EgressSettings) -> str:
    """The certificates of all ``extra_roots``, in PEM.

    Raises:
        HostUnusable: A file cannot be read, or holds no certificate.
    """
    return "".join(_pem(_certificates(Path(name))) for name in settings.extra_roots)


def write_roots(target: Path, roots_pem: str) -> tuple[str, ...]:
    """Put them where the plain user can read them; they are no secret. The path, if there are any."""
    if not roots_pem:
        target.unlink(missing_ok=True)
        return ()
    write_file(target, roots_pem.encode(), mode=0o644)
    return (str(target),)


def roots_for_guests(further_pem: str) -> str:
    """The host's own authorities and the further ones, without those that guests trust anyway, in PEM.

    Raises:
        HostUnusable: There are too many.
    """
    usual = {_fingerprint(one) for one in _readable(sorted(_USUAL.glob("*.crt")))}
    bundle = ssl.get_default_verify_paths().cafile
    anchors = [path for place in _OWN_ANCHORS for path in sorted(place.rglob("*")) if path.is_file()]
    found = _readable([*anchors, *([Path(bundle)] if bundle else [])])
    found += x509.load_pem_x509_certificates(further_pem.encode()) if further_pem else []
    own = {_fingerprint(one): one for one in found if _fingerprint(one) not in usual}
    text = _pem(list(own.values()))
    if len(text) > MAX_FOR_GUESTS_BYTES:
        raise HostUnusable(
            f"egress.trust_host_roots: this host has {len(own)} authorities of its own, more than guests can "
            "be given; name the few that matter in egress.extra_roots"
        )
    return text


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        return x509.load_pem_x509_certificates(data)
    except OSError as error:
        raise HostUnusable(f"egress.extra_roots: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise HostUnusable(f"egress.extra_roots: {path} holds no certificates: {error}") from None


def _readable(paths: list[Path]) -> list[x509.Certificate]:
    """Certificates in those files that can be read and hold some."""
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            found += _certificates(path)
        except HostUnusable:
            continue
    return found


def _fingerprint(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())


def _pem(certificates: list[x509.Certificate]) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)
