"""What is said where the packet filter cannot be used."""

from pathlib import Path

import pytest

from skerry.errors import HostUnusable
from skerry.hostd.sys import nftables


def put_on_path(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str | None) -> None:
    if script is not None:
        (directory / "nft").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "nft").chmod(0o755)
    monkeypatch.setattr(nftables, "_PATH", f"{directory}:/bin")


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nftables, "_PATH", str(tmp_path))
    with pytest.raises(HostUnusable, match="apt install nftables"):
        nftables.load("")


def test_rules_that_the_kernel_refuses_are_told_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_on_path(monkeypatch, tmp_path, "cat; echo 'Operation not supported'; exit 1")
    with pytest.raises(HostUnusable, match="NFT_FIB_INET") as refused:
        nftables.load("table inet x {}")
    assert refused.value.detail == "table inet x {}Operation not supported\n"


def test_only_tables_with_plain_names_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = (
        '{"nftables": [{"metainfo": {"version": "1.0.6"}},'
        ' {"table": {"family": "inet", "name": "gateway_0a1b", "handle": 1}},'
        ' {"table": {"family": "inet", "name": "x; flush ruleset", "handle": 2}}]}'
    )
    put_on_path(monkeypatch, tmp_path, f"cat >/dev/null; echo '{listed}'")
    assert nftables.tables() == ["gateway_0a1b"]
