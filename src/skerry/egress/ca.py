"""A sandbox's own certificate authority, and the certificates that its gateway shows instead of an origin's.

The authority's certificate goes into the sandbox; its key stays in the broker, in the vault and in the one
worker of that sandbox, and signs for nobody else.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skerry.egress.messages import Authority
from skerry.spec.ids import SandboxId

AUTHORITY_BACKDATED = timedelta(days=1)
"""A guest that was frozen may wake with the clock of the moment at which it was put to sleep."""

AUTHORITY_LIFETIME = timedelta(days=30)
"""Validity of an authority, the time that it is back-dated included. A sandbox may have no end that is known
when it is made, and most end within hours; one that gets older must be granted again."""

LEAF_BACKDATED = timedelta(hours=6)
LEAF_LIFETIME = timedelta(hours=24)

MAX_CONSTRAINED_NAMES = 500
"""With more names than this the authority is not constrained: clients check every name of a certificate
against every constraint, and some refuse large certificates."""

# RFC 5280, appendix A.1: ub-common-name.
_MAX_COMMON_NAME = 64
_EVERY_ADDRESS = (x509.IPAddress(IPv4Network("0.0.0.0/0")), x509.IPAddress(IPv6Network("::/0")))


def make_authority(
    sandbox_id: SandboxId, names: Sequence[str] | None, now_ms: int, *, earlier: Authority | None = None
) -> Authority:
    """Make a certificate authority for one sandbox.

    Args:
        names: The only names that it can certify, with what is below them; None: any.
        now_ms: Milliseconds since 1970.
        earlier: Its key and its name are used again, so that what it has signed stays valid beside what this
            one will sign.
    """
    key = ec.generate_private_key(ec.SECP256R1()) if earlier is None else _key_of(earlier)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Skerry"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Skerry gateway of {sandbox_id}"),
        ]
    )
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    begin = _moment(now_ms) - AUTHORITY_BACKDATED
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(key_id.digest, None, None), critical=False)
    )
    constraints = _constraints(names)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return Authority(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key_pem=_key_pem(key).decode(),
    )


class Issuer:
    """Makes the certificates of one worker.

    Attributes:
        leaf_key: The key that all of them have, PKCS #8 in DER.
    """

    def __init__(self, authority: Authority) -> None:
        certificate = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        self._issuer = certificate.subject
        self._begin = certificate.not_valid_before_utc
        self._end = certificate.not_valid_after_utc
        self._signing_key = _key_of(authority)
        self._authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
        key = ec.generate_private_key(ec.SECP256R1())
        self._key = key.public_key()
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(self._key)
        self.leaf_key = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def leaf(self, name: str, now_ms: int) -> bytes:
        """A certificate for exactly one name, in DER.

        Args:
            name: A canonical host name, or an address.
            now_ms: Milliseconds since 1970; it is valid for `LEAF_LIFETIME` less `LEAF_BACKDATED` from then.
        """
        begin = max(_moment(now_ms) - LEAF_BACKDATED, self._begin)
        common_name = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= _MAX_COMMON_NAME else []
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(common_name))
            .issuer_name(self._issuer)
            .public_key(self._key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(max(begin, min(begin + LEAF_LIFETIME, self._end)))
            # RFC 5280, section 4.2.1.6: critical when the subject is empty.
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=not common_name)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._key_id, critical=False)
            .add_extension(self._authority_key_id, critical=False)
            .sign(self._signing_key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.DER)


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def _constraints(names: Sequence[str] | None) -> x509.NameConstraints | None:
    if not names or len(names) > MAX_CONSTRAINED_NAMES:
        return None
    if any(isinstance(_general_name(name), x509.IPAddress) for name in names):
        return None
    return x509.NameConstraints([x509.DNSName(name) for name in names], list(_EVERY_ADDRESS))


def _general_name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_of(authority: Authority) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(authority.key_pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a key of an elliptic curve")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
