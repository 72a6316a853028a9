"""Finds the Debian mirror that this machine already uses, so that no address is written down here.

apt's sources come in two formats: one line each, and deb822 (sources.list(5)). The machine may be of another
Debian release than the one that is looked for, and may be Ubuntu; then there is no Debian mirror among its
sources, and mmdebstrap's own default serves.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_DEBIAN_SUITES = (
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
)
_PUBLIC_DOMAIN = "debian.org"


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: its address and one of its suites."""

    uri: str
    suite: str

    @property
    def is_public(self) -> bool:
        """Whether this is an address of the Debian project, as a stock Debian has, without credentials."""
        parts = urlsplit(self.uri)
        host = parts.hostname or ""
        return "@" not in parts.netloc and (host == _PUBLIC_DOMAIN or host.endswith(f".{_PUBLIC_DOMAIN}"))


def configured_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Every binary source that apt is configured with, in apt's order."""
    folder = etc_apt / "sources.list.d"
    found: list[Source] = []
    for path in [etc_apt / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.is_file():
            found += parse_one_line(path.read_text())
    for path in sorted(folder.glob("*.sources")):
        found += parse_deb822(path.read_text())
    return found


def parse_one_line(text: str) -> Iterator[Source]:
    """Read `deb [options] uri suite component…` lines."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)(?:\s|$)", line.strip())
        if match:
            yield Source(match.group(1).rstrip("/"), match.group(2))


def parse_deb822(text: str) -> Iterator[Source]:
    """Read stanzas with `Types`, `URIs`, `Suites`, `Enabled`; values may go on in indented lines."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        enabled = " ".join(fields.get("enabled", ["yes"])).lower() not in (
            "no",
            "false",
            "without",
            "off",
            "disable",
        )
        if enabled and "deb" in fields.get("types", []):
            for uri in fields.get("uris", []):
                for suite in fields.get("suites", []):
                    yield Source(uri.rstrip("/"), suite)


def _fields(stanza: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    words: list[str] = []
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            words += line.split()
        elif ":" in line:
            name, _, value = line.partition(":")
            words = fields.setdefault(name.strip().lower(), [])
            words += value.split()
    return fields


def sources_of_release(sources: Iterable[Source], release: str) -> list[Source]:
    """Where another release of Debian lies on the mirrors that this machine uses for its own.

    Returns:
        The release, its updates and its security updates, as far as the machine has them for its own release;
        the release itself first. Empty on a machine without a Debian mirror.
    """
    wanted: dict[str, Source] = {}
    for source in sources:
        name, _, pocket = source.suite.replace("/", "-").partition("-")
        if name in _DEBIAN_SUITES and pocket in ("", "updates", "security"):
            suite = f"{release}-{pocket}" if pocket else release
            wanted.setdefault(suite, Source(source.uri, suite))
    order = [release, f"{release}-updates", f"{release}-security"]
    return [wanted[suite] for suite in order if suite in wanted] if release in wanted else []
