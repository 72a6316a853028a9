"""The sandbox's authority and the certificates that it signs, as strict verifiers see them."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from skerry.egress.ca import MAX_CONSTRAINED_NAMES, Issuer, make_authority
from skerry.egress.messages import Authority
from skerry.spec.ids import SandboxId

ID = SandboxId("sbx_ord_" + "a" * 20)
NOW_MS = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1000)
NAME = "api.example.com"


def authority(*names: str, earlier: Authority | None = None) -> Authority:
    return make_authority(ID, names or None, NOW_MS, earlier=earlier)


def certificate_of(made: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate_pem.encode())


def leaf_of(made: Authority, name: str = NAME, now_ms: int = NOW_MS) -> x509.Certificate:
    return x509.load_der_x509_certificate(Issuer(made).leaf(name, now_ms))


def verify(made: Authority, leaf: x509.Certificate, tmp_path: Path, *options: str) -> str:
    """What OpenSSL's own verifier says, in its strictest mode."""
    root, file = tmp_path / "root.pem", tmp_path / "leaf.pem"
    root.write_text(made.certificate_pem)
    file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    strict = ["-x509_strict", "-purpose", "sslserver", "-attime", str(NOW_MS // 1000)]
    found = subprocess.run(
        ["openssl", "verify", *strict, *options, "-CAfile", str(root), str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return (found.stdout + found.stderr).strip()


def test_the_authority_can_sign_servers_only_and_no_authority() -> None:
    made = certificate_of(authority())
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert made.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)


def test_the_authority_is_back_dated_and_ends() -> None:
    made = certificate_of(authority())
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    assert made.not_valid_before_utc <= now - timedelta(hours=24)
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=30)
    assert made.not_valid_after_utc > now + timedelta(days=28)


def test_authorities_differ() -> None:
    assert authority().key_pem != authority().key_pem


def test_an_authority_does_not_show_its_key() -> None:
    assert "PRIVATE" not in repr(authority())


def test_a_leaf_has_one_name_one_day_and_what_strict_verifiers_want() -> None:
    made = authority(NAME)
    leaf = leaf_of(made)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(NAME)]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(hours=24)
    assert leaf.not_valid_before_utc <= datetime.fromtimestamp(NOW_MS / 1000, UTC) - timedelta(hours=6)
    issuer = certificate_of(made).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_id == issuer.digest
    assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


@pytest.mark.parametrize(
    "name", [NAME, "a." * 60 + "example.com", "203.0.113.7", "2001:db8::1", "bucket.example.s3"]
)
def test_openssl_accepts_leaves_in_its_strictest_mode(name: str, tmp_path: Path) -> None:
    made = authority()
    option = "-verify_ip" if name[0] == "2" else "-verify_hostname"
    assert verify(made, leaf_of(made, name), tmp_path, option, name).endswith("OK")


def test_openssl_refuses_another_name(tmp_path: Path) -> None:
    made = authority(NAME)
    assert verify(made, leaf_of(made), tmp_path, "-verify_hostname", NAME).endswith("OK")
    assert "permitted subtree violation" in verify(made, leaf_of(made, "other.example.org"), tmp_path)


def test_an_authority_for_exact_names_signs_no_addresses(tmp_path: Path) -> None:
    made = authority(NAME)
    assert "excluded subtree violation" in verify(made, leaf_of(made, "203.0.113.7"), tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(None, id="any"),
        pytest.param([f"h{n}.example.com" for n in range(MAX_CONSTRAINED_NAMES + 1)], id="too many"),
        pytest.param(["203.0.113.7"], id="address"),
    ],
)
def test_some_authorities_are_not_constrained(names: list[str] | None) -> None:
    made = certificate_of(make_authority(ID, names, NOW_MS))
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.NameConstraints)


def test_an_authority_that_follows_another_one_keeps_its_key_and_name(tmp_path: Path) -> None:
    first = authority(NAME)
    second = authority(NAME, "more.example.com", earlier=first)
    assert second.certificate_pem != first.certificate_pem
    # What was trusted before the change is still good for what it was good for.
    assert verify(first, leaf_of(second), tmp_path).endswith("OK")
    assert verify(second, leaf_of(first), tmp_path).endswith("OK")


def test_a_leaf_does_not_outlive_its_authority() -> None:
    made = authority()
    end = certificate_of(made).not_valid_after_utc
    late_ms = int(end.timestamp() * 1000) - 3_600_000
    assert leaf_of(made, now_ms=late_ms).not_valid_after_utc == end
