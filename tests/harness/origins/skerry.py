"""A whole Skerry whose sandboxes reach the internet of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.origins.network import Internet
from tests.harness.skerry_up import SkerryUp


@contextmanager
def skerry_on(net: Internet, directory: Path) -> Iterator[SkerryUp]:
    """Start one, and take it down at the end; then nothing may be left.

    Args:
        directory: Where its settings and its data directory are made.
    """
    config = directory / "skerry.toml"
    config.write_text(net.settings(trust_host_roots=True) + "[pool]\nsize = 1\n")
    made = SkerryUp(directory / "data")
    made.up("--config", str(config))
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []
