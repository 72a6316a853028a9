"""The layering is enforced: `make lint` fails on each kind of import that the architecture forbids."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, where violations can be planted."""
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPOSITORY / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    return copy


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    # `python -P` would still find the installed sources first; PYTHONPATH comes before them.
    return subprocess.run(
        [program, "--no-logo", "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_code_as_it_is_keeps_every_contract(checkout: Path) -> None:
    done = lint_imports(checkout)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "violation", "contract"),
    [
        ("api", "import skerry.hostd.sys", "Only main and the supervisor"),
        ("cli", "from skerry.hostd import sys", "Only main and the supervisor"),
        ("hostd", "import skerry.control", "The daemon that is root"),
        ("hostd", "from skerry import api", "The daemon that is root"),
        ("control", "import skerry.egress", "Only main and the supervisor know the gateway"),
        ("hostd", "from skerry.egress import ca", "Only main and the supervisor know the gateway"),
        ("egress", "import skerry.hostd", "The gateway knows nothing"),
        ("egress", "from skerry import control", "The gateway knows nothing"),
        ("policy", "from time import time", "Pure packages"),
        ("service", "from skerry.api import deno", "Each layer"),
        ("control", "import skerry.main", "Each layer"),
        ("spec", "from skerry import control", "Each layer"),
        ("protocol", "import asyncio", "Pure packages"),
        ("lifecycle", "from time import monotonic", "Pure packages"),
        ("errors", "import random", "Pure packages"),
    ],
)
def test_a_planted_violation_is_caught(checkout: Path, module: str, violation: str, contract: str) -> None:
    source = checkout / "src" / "skerry" / module
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    original = source.read_text()
    source.write_text(f"{original}\n{violation}\n")
    try:
        done = lint_imports(checkout)
    finally:
        source.write_text(original)

    assert done.returncode == 1, done.stdout
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), done.stdout
