"""What `skerry doctor` says of the kernel's network, and of the way out."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from skerry.cli import host_checks, outbound_check
from skerry.cli.host_checks import Check
from skerry.cli.host_checks import host_checks as all_checks
from skerry.cli.output import Unreachable
from skerry.cli.server import Server
from skerry.errors import NotSupported, SkerryError
from skerry.spec.settings import Settings

SYMBOLS = [symbol for symbol, _ in host_checks._NETWORK_FEATURES.values()]


def network(monkeypatch: pytest.MonkeyPatch, *, config: dict[str, str], modules: str = "") -> Check:
    monkeypatch.setattr(host_checks, "_kernel_config", lambda: config)
    monkeypatch.setattr(host_checks, "_modules", lambda: modules)
    (check,) = [one for one in all_checks(Settings(data_dir="/")) if one.name == "network"]
    return check


def test_what_the_kernel_has_built_in_or_as_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = dict.fromkeys(SYMBOLS, "y") | {"CONFIG_VETH": "m"}
    assert network(monkeypatch, config=everything).state == "ok"
    modules = "\n".join(f"kernel/net/{module}.ko.xz:" for _, module in host_checks._NETWORK_FEATURES.values())
    assert network(monkeypatch, config={}, modules=modules).state == "ok"


def test_what_the_kernel_lacks_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = dict.fromkeys(SYMBOLS, "y")
    del lacking["CONFIG_VETH"], lacking["CONFIG_NFT_REDIR"]
    check = network(monkeypatch, config=lacking)
    assert (check.state, check.detail) == ("missing", "the kernel lacks veth, nftables redirect")
    assert "modprobe -a veth nft_redir" in check.fix


def test_a_kernel_that_does_not_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network(monkeypatch, config={}).state == "warning"


def test_a_kernel_s_configuration_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "config.gz"
    file.write_bytes(gzip.compress(b"# CONFIG_A is not set\nCONFIG_VETH=y\nCONFIG_NFT_NAT=m\n"))
    monkeypatch.setattr(host_checks, "Path", lambda path: file if path == "/proc/config.gz" else Path(path))
    assert host_checks._kernel_config() == {"CONFIG_VETH": "y", "CONFIG_NFT_NAT": "m"}


class _Outside:
    """Skerry and the internet as a test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcome: tuple[int, str] | Exception = (0, "200 1256")
        self.trouble: str | None = None
        monkeypatch.setattr(outbound_check, "find_server", lambda _: Server("http://127.0.0.1:1", "ddo_x"))
        monkeypatch.setattr(outbound_check, "_fetch_inside", self._fetch)
        monkeypatch.setattr(outbound_check, "_trouble_without_sandbox", lambda _: self.trouble)

    async def _fetch(self, _server: Any, _host: str) -> tuple[int, str]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> _Outside:
    return _Outside(monkeypatch)


def test_a_sandbox_that_got_the_page(outside: _Outside) -> None:
    check = outbound_check.outbound_check(None)
    assert check.state == "ok"
    assert "https://example.com/" in check.detail


@pytest.mark.parametrize(
    ("outcome", "trouble", "state", "word"),
    [
        ((1, "HTTP 502: upstream_certificate"), None, "missing", "answers this machine, but not a sandbox"),
        ((1, "HTTP 502: name_not_found"), "no such name", "warning", "this machine itself does not reach"),
        ((127, ""), None, "warning", "no python3"),
        (TimeoutError(), "no such name", "warning", "no answer within"),
        (Unreachable("down"), None, "warning", "does not run"),
        (NotSupported("isolation fake gives no network"), None, "missing", "isolation fake"),
    ],
)
def test_whose_fault_it_is(
    outside: _Outside,
    outcome: tuple[int, str] | SkerryError,
    trouble: str | None,
    state: str,
    word: str,
) -> None:
    outside.outcome, outside.trouble = outcome, trouble
    check = outbound_check.outbound_check(None)
    assert check.state == state
    assert word in check.detail
    assert check.state == "ok" or check.fix or isinstance(outcome, SkerryError) or outcome == (127, "")
