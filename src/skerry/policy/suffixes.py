"""Suffixes below which anybody can get a name: wildcards there would allow everybody. Pure in its answers.

The list is data of the package `publicsuffixlist`, as IDNA's tables are of `idna`; that package reads it from
its own file, once, at the first question (some 50 ms; `load` does it ahead of time). Only who checks what
people write asks: a worker compiles rules that were checked before, and needs no file.
"""

from functools import cache

from publicsuffixlist import PublicSuffixList

_NOBODY_SELLS = frozenset(
    (
        "alt",
        "corp",
        "example",
        "home",
        "internal",
        "intranet",
        "invalid",
        "lan",
        "local",
        "localhost",
        "mail",
        "private",
        "test",
    )
)
"""Top-level names that will not be delegated (RFC 6761, RFC 6762 appendix G, RFC 9476, ICANN's resolutions on
``internal``, ``corp``, ``home`` and ``mail``): wildcards below them are the operator's own names.
"""


@cache
def load() -> PublicSuffixList:
    """The list with its PRIVATE section (``github.io``, ``vercel.app``…)."""
    return PublicSuffixList()


def problem_of_wildcard(base: str) -> str | None:
    """Why ``*.base`` must not be allowed; None when it may be."""
    if base in _NOBODY_SELLS:
        return None
    if load().is_public(base):
        return (
            f"anybody can get a name below {base}, so *.{base} would allow everybody: name the hosts, or a"
            " domain below it"
        )
    return None


def is_multi_tenant(base: str) -> bool:
    """Whether different customers of one provider have names below this registered domain's suffix.

    True for ``acme.github.io``: its suffix is in the PRIVATE section.
    """
    suffix = load().publicsuffix(base)
    return suffix is not None and suffix != _icann().publicsuffix(base)


@cache
def _icann() -> PublicSuffixList:
    return PublicSuffixList(only_icann=True)
