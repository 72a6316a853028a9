"""Names that look like other names: a warning for who writes a rule, never a decision. Pure.

No table of all look-alikes is kept (Unicode's has 6,000 lines); what people are tricked with in practice are
scripts mixed in one label, and labels all of whose letters have a Latin twin.
"""

import unicodedata

_ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "GEORGIAN", "HEBREW", "ARABIC")
_TWINS = frozenset("\u04cfасеорхуіјѕһԁԛԝвгкмнтпѵαοινρτυχκհոսօց")  # noqa: RUF001 - that is what it is about
_DEVIATIONS = {"ß": "ss", "ς": "\u03c3"}


def warning_about(label: str) -> str | None:
    """What is odd about a label in Unicode form, lower case; None when nothing is."""
    letters = [one for one in label if not one.isascii() and one.isalpha()]
    scripts = {_script(one) for one in label if one.isalpha()} - {None}
    if len(scripts) > 1:
        return f"letters of several alphabets are mixed ({', '.join(sorted(map(str, scripts))).title()})"
    if letters and len(letters) == sum(map(str.isalpha, label)) and all(one in _TWINS for one in letters):
        return "all its letters look like Latin ones"
    for one, other in _DEVIATIONS.items():
        if one in label:
            return f"some clients turn {one} into {other} and then mean another name"
    return None


def _script(letter: str) -> str | None:
    first = unicodedata.name(letter, "").split(" ", 1)[0]
    return first if first in _ALPHABETS else None
