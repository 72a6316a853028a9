"""The command line starts fast because it loads little."""

import subprocess
import sys

SLOW = {
    "aiohttp",
    "alembic",
    "asyncio",
    "msgspec",
    "pydantic",
    "pyroute2",
    "rich",
    "sqlalchemy",
    "structlog",
    "uvloop",
}

_LIST = """
import sys
from skerry.main import run
sys.argv = ["skerry", "list", "--data-dir", "/nonexistent"]
try:
    run()
except SystemExit as end:
    print(end.code, *sys.modules)
"""


def test_a_listing_loads_nothing_slow() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _LIST], capture_output=True, text=True, check=True, timeout=30
    )
    code, *modules = done.stdout.split()
    assert code == "6"
    assert "skerry.cli.server" in modules
    assert SLOW & set(modules) == set()
