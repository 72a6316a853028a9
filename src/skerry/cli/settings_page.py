"""Make ``docs/settings.md`` from the table: ``python -m skerry.cli.settings_page > docs/settings.md``."""

import sys
from typing import Any

import msgspec

from skerry.cli.settings import CONFIG_ENV
from skerry.cli.settings_table import TABLE, Row

_HEAD = f"""# Settings

<!-- Made from the table in src/skerry/cli/settings_table.py by `python -m skerry.cli.settings_page`. -->

`skerry up` takes each setting from the first of: its flag, its environment variable, the TOML file named
by `--config` (or `{CONFIG_ENV}`), its default. A key, or a variable that begins with `SKERRY_`, that is not
listed here is an error, and all errors are reported together. Dots separate tables: `pool.size` is `size` in
`[pool]`. A duration is a number of seconds or text such as `30s`, `5m`, `2h`; a size is a number of MiB or
text such as `768MiB`, `2GiB`.

| key | value | default | environment | flag | |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_line(row) for row in TABLE)


def _line(row: Row) -> str:
    env = f"`{row.env}`" if row.env else ""
    flag = f"`{row.flag}`" if row.flag else ""
    return f"| `{row.key}` | {row.form} | {_default(row)} | {env} | {flag} | {row.help} |\n"


def _default(row: Row) -> str:
    if row.key == "data_dir":
        return "`~/.local/share/skerry`; for root `/var/lib/skerry`"
    value: Any = row.default
    if value is msgspec.NODEFAULT or value in ("", {}, ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
