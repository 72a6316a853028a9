"""TLS contexts for names: what a client sees, and how many are made."""

import ssl
import time

import pytest

from skerry.egress.ca import Issuer, make_authority
from skerry.egress.messages import Authority
from skerry.egress.worker.inspect_certificates import Certificates, server_context
from skerry.egress.worker.inspect_openssl import OPENS_FILES, LeafKey, file_key, native_key
from skerry.spec.ids import SandboxId
from tests.unit.egress.worker.test_seccomp import ALLOWED, outcome

ID = SandboxId("sbx_ord_" + "a" * 20)
NAME = "api.example.com"
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000


def made(earlier: Authority | None = None) -> Authority:
    return make_authority(ID, [NAME, "other.example.com"], NOW_MS, earlier=earlier)


def client_context(authority: Authority) -> ssl.SSLContext:
    """As strict as Python 3.13 is by default."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=authority.certificate_pem)
    return context


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = NAME, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """A handshake in memory; returns the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    theirs.write(b"!")
    assert ours.read(1) == b"!"
    return ours


@pytest.mark.parametrize("key_of", [native_key, file_key])
def test_a_strict_client_accepts_a_certificate_however_it_was_given(key_of: object) -> None:
    authority = made()
    issuer = Issuer(authority)
    key: LeafKey | None = key_of(issuer.leaf_key)  # type: ignore[operator]
    if key is None:
        pytest.skip("Python is linked with OpenSSL statically")
    context = server_context()
    key.give(context, issuer.leaf(NAME, NOW_MS))
    client = shake(context, client_context(authority))
    certificate = client.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", NAME),)


@pytest.mark.parametrize("key_of", [native_key, file_key])
def test_a_certificate_of_another_key_is_refused(key_of: object) -> None:
    one, other = Issuer(made()), Issuer(made())
    key: LeafKey | None = key_of(other.leaf_key)  # type: ignore[operator]
    if key is None:
        pytest.skip("Python is linked with OpenSSL statically")
    with pytest.raises(ssl.SSLError):
        key.give(server_context(), one.leaf(NAME, NOW_MS))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_not_resumed(version: ssl.TLSVersion) -> None:
    authority = made()
    context = Certificates(authority, 4).context(NAME, NOW_MS)
    client = client_context(authority)
    client.minimum_version = client.maximum_version = version
    first = shake(context, client)
    second = shake(context, client, session=first.session)
    assert not second.session_reused


def test_only_http_1_is_negotiated() -> None:
    authority = made()
    context = Certificates(authority, 4).context(NAME, NOW_MS)
    client = client_context(authority)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert shake(context, client).selected_alpn_protocol() == "http/1.1"


def test_a_context_is_kept_and_the_one_that_was_not_used_goes() -> None:
    certificates = Certificates(make_authority(ID, None, NOW_MS), 2)
    first = certificates.context("a.example", NOW_MS)
    certificates.context("b.example", NOW_MS)
    assert certificates.context("a.example", NOW_MS) is first
    certificates.context("c.example", NOW_MS)
    assert certificates.context("a.example", NOW_MS) is first
    second = certificates.context("b.example", NOW_MS)
    assert certificates.context("b.example", NOW_MS) is second


def test_a_certificate_is_renewed_long_before_it_ends() -> None:
    certificates = Certificates(made(), 2)
    first = certificates.context(NAME, NOW_MS)
    assert certificates.context(NAME, NOW_MS + 8 * HOUR_MS) is first
    assert certificates.context(NAME, NOW_MS + 10 * HOUR_MS) is not first


def test_an_authority_that_follows_keeps_what_the_earlier_one_signed() -> None:
    first = made()
    certificates = Certificates(first, 2)
    context = certificates.context(NAME, NOW_MS)
    certificates.adopt(made(first))
    assert certificates.context(NAME, NOW_MS) is context
    other = made()
    certificates.adopt(other)
    shake(certificates.context(NAME, NOW_MS), client_context(other))


def test_a_new_name_needs_no_file() -> None:
    authority = make_authority(ID, None, NOW_MS)
    certificates = Certificates(authority, 2)
    client = client_context(authority)

    def serve_a_new_name() -> None:
        shake(certificates.context("new.example.com", NOW_MS), client, "new.example.com")

    assert outcome(serve_a_new_name, opens_files=OPENS_FILES) == ALLOWED
