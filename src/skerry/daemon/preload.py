"""Import everything that a daemon may need before it gives up its rights.

Afterwards the interpreter's own files may be out of reach (a checkout below a 0700 home): nothing may be
imported then.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType

import structlog

from skerry.policy import suffixes

_LATE_IN_ALL = (
    # Packages that import parts of themselves inside functions.
    "asyncio",
    "concurrent.futures",
    "encodings",
    "importlib.metadata",
    "json",
    "logging",
    "msgspec",
    "structlog",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a daemon may need.

    Attributes:
        own: Packages of Skerry.
        libraries: Packages that import parts of themselves inside functions.
    """

    own: tuple[str, ...]
    libraries: tuple[str, ...]


API = Needs(
    own=(
        "skerry.api",
        "skerry.control",
        "skerry.lifecycle",
        "skerry.policy",
        "skerry.protocol",
        "skerry.service",
        "skerry.spec",
    ),
    libraries=(
        *_LATE_IN_ALL,
        "aiohttp",
        "email",
        "http",
        "idna",
        "publicsuffixlist",
        "pybase64",
        "sqlalchemy.engine",
        "sqlalchemy.event",
        "sqlalchemy.pool",
        "sqlalchemy.sql",
        "sqlite3",
    ),
)

EGRESSD = Needs(
    own=("skerry.egress", "skerry.policy", "skerry.protocol", "skerry.spec"),
    libraries=(
        *_LATE_IN_ALL,
        "ahocorasick_rs",
        "cryptography",
        "dns",
        "idna",
        "publicsuffixlist",
    ),
)

_LATE_MODULES = (
    "_strptime",
    "ipaddress",
    "linecache",
    "locale",
    "mimetypes",
    "ssl",
    "stringprep",
    "traceback",
    "unicodedata",
)

_NOT_FOR_IMPORT = frozenset({"encodings.mbcs", "encodings.oem", "encodings.cp65001"})
"""Windows only."""

_PARTS_LEFT_OUT = frozenset({"__main__", "test", "tests", "pytest_plugin", "worker", "windows_events"})
"""Of libraries."""


def preload(needs: Needs) -> None:
    """Import every module of Skerry that a daemon may reach, and what its libraries import late, and read the
    list of public suffixes.

    A library module that cannot be imported here (another platform, a missing extra) never could be.
    """
    suffixes.load()
    for package in needs.own:
        for name in _modules_below(importlib.import_module(package)):
            importlib.import_module(name)
    for name in (*_LATE_MODULES, *_late_names(needs.libraries)):
        try:
            importlib.import_module(name)
        except (ImportError, AttributeError):
            continue


def _late_names(libraries: Iterable[str]) -> Iterable[str]:
    for package in libraries:
        for name in _modules_below(importlib.import_module(package)):
            if name not in _NOT_FOR_IMPORT and not set(name.split(".")) & _PARTS_LEFT_OUT:
                yield name


def _modules_below(package: ModuleType) -> Iterable[str]:
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        yield found.name


class LateImports:
    """Stands first in `sys.meta_path` and logs what is imported after `preload`: each line is a defect."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Log the name and let the others find it."""
        structlog.get_logger(__name__).warning("late_import", module=name)
        return None


def watch_late_imports() -> None:
    """From now on log every import that needs the file system."""
    sys.meta_path.insert(0, LateImports())
