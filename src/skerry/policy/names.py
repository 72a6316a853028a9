"""Host names: one canonical form for all that arrives, and the patterns that rules are written in. Pure.

At run time (SNI, Host, CONNECT, DNS) only `canonical` is used: ASCII letters, digits and hyphens, lower case.
Nothing is decoded or mapped there, so that no two parts can map differently: a U-label, a full-width dot, an
escape or a number in the last label is simply refused. People who write rules get more help (`pattern`):
international names are turned into A-labels, and names that look like others are pointed out.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import idna

from skerry.policy.confusables import warning_about
from skerry.policy.suffixes import problem_of_wildcard
from skerry.spec.limits import MAX_HOST_NAME_BYTES

MAX_WILDCARD_LABEL = 40
"""Longest label that a wildcard stands for, and `MAX_WILDCARD_NAME` the longest name: labels reach the name
servers of whoever owns the zone, so they are a way out (R9); these bounds make it a narrow one.
"""

MAX_WILDCARD_NAME = 128

_NAME = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
_NUMBER_AT_THE_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_FOREIGN_DOTS = ("\u3002", "\uff0e", "\uff61")


class BadName(ValueError):
    """Not a host name in canonical form, nor one that becomes so by lower-casing."""


class BadPattern(ValueError):
    """What is wrong with what somebody wrote, in plain words.

    Args:
        message: Safe to show; holds at most the text itself.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def canonical(text: str) -> str:
    """The one form of a name that everything compares.

    Upper-case ASCII is lowered, since names have no case (and DNS clients mix it on purpose). A trailing dot,
    an underscore, an empty label, more than 253 characters, or a last label that some parser takes for part
    of an IPv4 address (``127.1``, ``0x7f.1``, ``2130706433``) are refused.

    Raises:
        BadName: Always with a fixed text, which does not repeat the name.
    """
    if not text.isascii():
        raise BadName("a host name at run time is ASCII")
    name = text.lower()
    if len(name) > MAX_HOST_NAME_BYTES or not _NAME.fullmatch(name):
        raise BadName("a host name has labels of letters, digits and hyphens")
    if _NUMBER_AT_THE_END.fullmatch(name):
        raise BadName("a host name does not end in a number")
    return name


def host(text: str) -> str | IPv4Address | IPv6Address:
    """The host of an authority (Host, CONNECT, absolute form): a name, ``a.b.c.d``, or ``[…]``.

    IPv4 only as four decimal numbers without leading zeros; IPv6 only in brackets and without a zone.

    Raises:
        BadName: It is none of these.
    """
    try:
        if text.startswith("[") and text.endswith("]") and "%" not in text:
            return IPv6Address(text[1:-1])
        if text[-1:].isdigit() and text.count(".") == 3:
            return IPv4Address(text)
    except ValueError:
        raise BadName("not an address") from None
    return canonical(text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name, or all names below one.

    Attributes:
        name: Canonical, without the ``*.``.
        wildcard: At least one label more, never the name itself.
        warnings: For who wrote it; empty in patterns that were stored.
    """

    name: str
    wildcard: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """It stands for one name only."""
        return not self.wildcard

    @property
    def text(self) -> str:
        """As it is stored."""
        return f"*.{self.name}" if self.wildcard else self.name

    def matches(self, name: str) -> bool:
        """Whether a canonical name is one of these."""
        if not self.wildcard:
            return name == self.name
        return name.endswith("." + self.name) and fits_wildcard(name, self.name)

    def covers(self, other: "Pattern") -> bool:
        """Whether every name of the other is one of these."""
        if not self.wildcard:
            return self == other or (other.exact and other.name == self.name)
        if other.name.endswith("." + self.name):
            return other.wildcard or self.matches(other.name)
        return other.wildcard and other.name == self.name


def fits_wildcard(name: str, base: str) -> bool:
    """Whether a name below a base is short enough for a wildcard to stand for it."""
    if len(name) > MAX_WILDCARD_NAME:
        return False
    front = name[: -len(base) - 1]
    return len(front) <= MAX_WILDCARD_LABEL or all(
        len(label) <= MAX_WILDCARD_LABEL for label in front.split(".")
    )


def stored_pattern(text: str) -> Pattern:
    """A pattern that `pattern` has checked before.

    Neither IDNA nor the public suffix list is needed, so a worker without files can do it.

    Raises:
        BadPattern: It is not in the stored form.
    """
    wildcard = text.startswith("*.")
    base = text[2:] if wildcard else text
    try:
        name = canonical(base)
    except BadName:
        name = ""
    if not name or name != base:
        raise BadPattern("not a host name in its stored form")
    return Pattern(name, wildcard)


def pattern(text: str, *, public_suffixes: bool = True) -> Pattern:
    """What somebody wrote in a rule.

    International names become A-labels (IDNA 2008). A trailing dot is dropped. A wildcard is only a whole
    label at the front.

    Args:
        public_suffixes: Refuse a wildcard below a suffix that anybody can get a name under, such as ``*.com``
            or ``*.github.io``. Off for denials and for the operator's internal networks.

    Raises:
        BadPattern: With what is wrong and what to write instead.
    """
    wildcard = text.startswith("*.")
    base = (text[2:] if wildcard else text).removesuffix(".")
    if "*" in base:
        raise BadPattern("a wildcard may only stand at the front, as a whole label: *.example.com")
    name, warnings = _a_labels(base)
    try:
        name = canonical(name)
    except BadName:
        raise BadPattern(_problem_of_name(name)) from None
    if wildcard and public_suffixes and (problem := problem_of_wildcard(name)) is not None:
        raise BadPattern(problem)
    return Pattern(name, wildcard, warnings)


def _problem_of_name(name: str) -> str:
    if "_" in name:
        return "a host name has no underscore: names of hosts are letters, digits, hyphens and dots"
    if name and name.isascii() and _NUMBER_AT_THE_END.fullmatch(name.lower()):
        return "not an IPv4 address: write four numbers from 0 to 255, without leading zeros"
    return "not a host name, such as example.com"


def _a_labels(text: str) -> tuple[str, tuple[str, ...]]:
    if any(dot in text for dot in _FOREIGN_DOTS):
        raise BadPattern("write plain dots between the labels of a host name")
    labels: list[str] = []
    warnings: list[str] = []
    for label in text.split("."):
        if label.isascii():
            labels.append(label)
            if label.lower().startswith("xn--"):
                warnings += _warnings_about(_u_label(label), label)
            continue
        try:
            encoded = idna.alabel(label.lower()).decode("ascii")
        except idna.IDNAError:
            raise BadPattern(
                "a label has characters that no host name may have (IDNA 2008); write its xn-- form"
            ) from None
        labels.append(encoded)
        warnings += _warnings_about(label.lower(), encoded)
    return ".".join(labels), tuple(warnings)


def _u_label(label: str) -> str | None:
    try:
        return idna.ulabel(label.lower())
    except idna.IDNAError:
        return None


def _warnings_about(u_label: str | None, a_label: str) -> list[str]:
    if u_label is None:
        return [f"{a_label.lower()} is no valid international name; it is compared letter by letter"]
    found = warning_about(u_label)
    return [] if found is None else [f"{a_label.lower()}: {found}"]
