"""What egressd reads as root: the operator's policy and certificate authorities."""

from pathlib import Path

import pytest
from cryptography import x509

from skerry.daemon import trust_roots
from skerry.daemon.operator_policy import read_layer
from skerry.daemon.trust_roots import further_roots, roots_for_guests, write_roots
from skerry.errors import HostUnusable
from skerry.policy.document import AllowRule
from skerry.spec.settings import EgressSettings
from tests.harness.certificates import certificate


def names(pem: str) -> list[str]:
    found = x509.load_pem_x509_certificates(pem.encode())
    return [one.subject.rfc4514_string().removeprefix("CN=") for one in found]


def test_without_a_policy_the_operator_allows_the_public_internet() -> None:
    layer = read_layer(EgressSettings())
    assert (layer.name, layer.document.default) == ("operator", "public")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.toml", '[[allow]]\nhost = "api.example.com"\n'),
        ("policy.json", '{"allow": [{"host": "api.example.com"}]}'),
    ],
)
def test_the_operators_policy_is_read(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    layer = read_layer(EgressSettings(policy=str(file)))
    assert (layer.name, layer.document.default) == ("operator", "deny")
    assert layer.document.allow == (AllowRule(host="api.example.com"),)


@pytest.mark.parametrize("text", ["= 1", "[[allow]]\nhost = 1", "\x00", '[[allow]]\nhost = "*.com"'])
def test_a_policy_that_is_wrong_stops_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(HostUnusable, match=f"egress.policy: {file}"):
        read_layer(EgressSettings(policy=str(file)))


def test_a_policy_that_is_missing_or_huge_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    with pytest.raises(HostUnusable, match="cannot be read"):
        read_layer(EgressSettings(policy=str(file)))
    file.write_text("#" * (1 << 21))
    with pytest.raises(HostUnusable, match="larger than"):
        read_layer(EgressSettings(policy=str(file)))


def test_further_authorities_are_put_into_one_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.write_bytes(b"a comment\n" + certificate("one") + certificate("more"))
    two.write_bytes(certificate("two"))
    pem = further_roots(EgressSettings(extra_roots=(str(one), str(two))))
    assert names(pem) == ["one", "more", "two"]


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"x" * (1 << 21)])
def test_a_file_without_authorities_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(HostUnusable, match=f"egress.extra_roots: {file}"):
        further_roots(EgressSettings(extra_roots=(str(file),)))


@pytest.mark.needs_root
def test_the_file_can_be_read_by_everyone_and_goes_when_it_is_not_needed(tmp_path: Path) -> None:
    target = tmp_path / "roots.pem"
    assert write_roots(target, "PEM") == (str(target),)
    assert target.read_text() == "PEM"
    assert target.stat().st_mode & 0o777 == 0o644
    assert write_roots(target, "") == ()
    assert not target.exists()


def test_guests_get_what_the_host_has_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, anchors, bundle = tmp_path / "usual", tmp_path / "anchors", tmp_path / "bundle.pem"
    usual.mkdir()
    (anchors / "below").mkdir(parents=True)
    known = certificate("usual")
    (usual / "known.crt").write_bytes(known)
    (anchors / "company.crt").write_bytes(certificate("company"))
    (anchors / "below" / "proxy.crt").write_bytes(certificate("proxy"))
    (anchors / "README").write_text("not a certificate")
    bundle.write_bytes(known + certificate("only in the bundle"))
    monkeypatch.setattr(trust_roots, "_USUAL", usual)
    monkeypatch.setattr(trust_roots, "_OWN_ANCHORS", (anchors, tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    further = certificate("further").decode()
    found = roots_for_guests(further)
    assert sorted(names(found)) == ["company", "further", "only in the bundle", "proxy"]
    monkeypatch.setattr(trust_roots, "MAX_FOR_GUESTS_BYTES", 100)
    with pytest.raises(HostUnusable, match="more than guests can be given"):
        roots_for_guests(further)
