"""Read settings: flag before environment before file before default; all problems are reported at once."""

import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import msgspec

from skerry.cli.settings_parsers import is_loopback
from skerry.cli.settings_table import TABLE, Row
from skerry.errors import InvalidRequest, SkerryError
from skerry.spec.settings import Settings

CONFIG_ENV = "SKERRY_CONFIG"
_OWN_ENV = frozenset({CONFIG_ENV, "SKERRY_PARENT_FD", "SKERRY_LISTEN_FD"})
_SETUP_ENV = frozenset({"SKERRY_CACHE_DIR"})
_OTHERS_ENV_PREFIXES = ("SKERRY_TEST_", "SKERRY_BENCH_")
"""Of Skerry's own tests and measurements, which may be in the environment when they start a server."""
_MAX_FILE_BYTES = 1 << 20


class BadSettings(InvalidRequest):
    """Some settings are wrong; the message has one line for each, with where it stands and its key."""

    code = "BAD_SETTINGS"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("these settings are wrong:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


def resolve(
    *,
    flags: Mapping[str, Any],
    env: Mapping[str, str],
    config: Path | None,
    fallbacks: Mapping[str, Any],
) -> Settings:
    """Put settings together.

    Args:
        flags: Values of flags by key of the table; None counts as not given.
        env: The environment; only names that begin with ``SKERRY_`` are looked at.
        config: The TOML file, if any.
        fallbacks: By key, defaults of this machine (paths from set-up, the data directory of the user).
    Raises:
        BadSettings: One or more values or keys are wrong.
    """
    problems: list[str] = []
    from_file = _file_values(config, problems) if config else {}
    values: dict[str, Any] = {}
    for row in TABLE:
        for where, raw in _candidates(row, flags, env, config, from_file):
            try:
                values[row.key] = row.parser(raw)
            except SkerryError as problem:
                problems.append(f"{where}: {problem.message}")
            break
        else:
            if row.key in fallbacks:
                values[row.key] = fallbacks[row.key]
    problems += _unknown_env(env)
    if not problems:
        problems += _contradictions(values)
    if problems:
        raise BadSettings(problems)
    return _assemble(values, fallbacks)


def _candidates(
    row: Row,
    flags: Mapping[str, Any],
    env: Mapping[str, str],
    config: Path | None,
    from_file: Mapping[str, Any],
) -> list[tuple[str, Any]]:
    """Where the setting is given, strongest first."""
    found: list[tuple[str, Any]] = []
    if flags.get(row.key) is not None:
        found.append((f"flag {row.flag}", flags[row.key]))
    if row.env and env.get(row.env):
        found.append((f"environment variable {row.env}", env[row.env]))
    if row.key in from_file:
        found.append((f"{config}, key {row.key}", from_file[row.key]))
    return found


def _file_values(path: Path, problems: list[str]) -> dict[str, Any]:
    """The file's values by key of the table; adds to the problems what cannot be read and what is unknown."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            raise InvalidRequest(f"larger than {_MAX_FILE_BYTES} bytes")
        document = tomllib.loads(text.decode())
    except OSError as problem:
        problems.append(f"{path}: cannot be read: {problem.strerror}")
        return {}
    except (SkerryError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        problems.append(f"{path}: not a TOML file: {problem}")
        return {}
    keys = {row.key for row in TABLE}
    found = _flat(document, {key.rpartition(".")[0] for key in keys if "." in key})
    for key in found.keys() - keys:
        problems.append(f"{path}, key {key}: there is no such setting")
    return found


def _flat(document: Mapping[str, Any], tables: Set[str], prefix: str = "") -> dict[str, Any]:
    """Values by key, where a table of the table counts as a part of the key."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        key = prefix + name
        if key in tables and isinstance(value, dict):
            found |= _flat(value, tables, f"{key}.")
        else:
            found[key] = value
    return found


def _unknown_env(env: Mapping[str, str]) -> list[str]:
    known = _OWN_ENV | _SETUP_ENV | {row.env for row in TABLE}
    return [
        f"environment variable {name}: there is no such setting"
        for name in sorted(env)
        if name.startswith("SKERRY_") and name not in known and not name.startswith(_OTHERS_ENV_PREFIXES)
    ]


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """Values that are right alone and wrong together."""
    by_key = {row.key: values.get(row.key, row.default) for row in TABLE}
    problems: list[str] = []
    if not is_loopback(by_key["listen"]) and not by_key["allow_remote"]:
        problems.append(
            f"listen: {by_key['listen']} can be reached from other machines, and there is no TLS: "
            "listen on 127.0.0.1, or say --allow-remote if the network is trusted"
        )
    low, usual, high = (by_key[f"sandbox.{name}_memory_mib"] for name in ("min", "default", "max"))
    if high and low > high:
        problems.append(f"sandbox.min_memory_mib: {low} is more than sandbox.max_memory_mib, {high}")
    elif usual < low or (high and usual > high):
        problems.append(
            f"sandbox.default_memory_mib: {usual} is outside of what is accepted, {low} to {high}"
        )
    if by_key["isolation"] == "fake" and not by_key["test_drivers"]:
        problems.append("isolation: fake isolates nothing; it needs test_drivers = true")
    return problems


def _assemble(values: dict[str, Any], fallbacks: Mapping[str, Any]) -> Settings:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *tables, name = key.split(".")
        inner = nested
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[name] = value
    for table in ("images", "image_digests"):
        nested[table] = {**fallbacks.get(table, {}), **nested.get(table, {})}
    return msgspec.convert(nested, Settings)
