"""Import everything that a daemon may need before it gives up its rights.

Afterwards the interpreter's own files may be out of reach (a checkout below a 0700 home): nothing may be
imported then.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import structlog

_OWN = (
    "skerry.api",
    "skerry.control",
    "skerry.daemon",
    "skerry.lifecycle",
    "skerry.protocol",
    "skerry.service",
    "skerry.spec",
)

_LATE_IN_LIBRARIES = (
    # Packages that import parts of themselves inside functions.
    "aiohttp",
    "asyncio",
    "concurrent.futures",
    "email",
    "encodings",
    "http",
    "importlib.metadata",
    "json",
    "logging",
    "msgspec",
    "pybase64",
    "sqlalchemy.engine",
    "sqlalchemy.event",
    "sqlalchemy.pool",
    "sqlalchemy.sql",
    "sqlite3",
    "structlog",
    "uvloop",
)

_LATE_MODULES = (
    "_strptime",
    "ipaddress",
    "linecache",
    "locale",
    "mimetypes",
    "stringprep",
    "traceback",
    "unicodedata",
)

_NOT_FOR_IMPORT = frozenset({"encodings.mbcs", "encodings.oem", "encodings.cp65001"})
"""Windows only."""

_PARTS_LEFT_OUT = frozenset({"__main__", "test", "tests", "pytest_plugin", "worker", "windows_events"})


def preload() -> None:
    """Import every module of Skerry that api may reach, and what its libraries import late.

    A library module that cannot be imported here (another platform, a missing extra) never could be.
    """
    for package in _OWN:
        if importlib.util.find_spec(package) is not None:
            for name in _modules_below(importlib.import_module(package)):
                importlib.import_module(name)
    for name in (*_LATE_MODULES, *_late_names()):
        try:
            importlib.import_module(name)
        except (ImportError, AttributeError):
            continue


def _late_names() -> Iterable[str]:
    for package in _LATE_IN_LIBRARIES:
        module = importlib.import_module(package)
        yield from _modules_below(module)


def _modules_below(package: ModuleType) -> Iterable[str]:
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        parts = set(found.name.split("."))
        if found.name not in _NOT_FOR_IMPORT and not parts & _PARTS_LEFT_OUT:
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
