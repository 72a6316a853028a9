"""What every test may ask for, and what happens where the machine does not have it.

A test that needs root says so with `pytest.mark.needs_root`, one that needs what `make setup` builds takes
the fixture `built`. Without them it is skipped with the reason; with ``CI=true`` it fails, so that nothing
is left out unseen.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Built:
    """What the set-up built.

    Attributes:
        agent: The guest agent's binary.
        runsc: gVisor's runsc.
        image: The root image `builtin:debian-13`, an EROFS file.
        image_digest: ``sha256:…`` of it.
    """

    agent: Path
    runsc: Path
    image: Path
    image_digest: str


def unavailable(reason: str) -> None:
    """End the test: skipped, or failed in continuous integration."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true")
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look whether the test's needs are met, before its fixtures are made."""
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        unavailable("needs root")


@pytest.fixture(scope="session")
def built() -> Built:
    """What `make setup` built for this checkout."""
    try:
        manifest = json.loads((REPOSITORY / "build" / "setup.json").read_text())
    except FileNotFoundError:
        unavailable("needs `make setup`")
        raise
    image = manifest["images"]["builtin:debian-13"]
    return Built(
        agent=Path(manifest["agent"]),
        runsc=Path(manifest["runsc"]),
        image=Path(image["path"]),
        image_digest=image["digest"],
    )
