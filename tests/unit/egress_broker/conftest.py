"""A broker for tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.egress_ground import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Everything around a broker, and nothing of it afterwards."""
    made = Scene(tmp_path, now_ms=lambda: 1_700_000_000_000)
    yield made
    made.close()
