"""What a placeholder may begin with. Pure."""

import re

MAX_LENGTH = 32

_PREFIX = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def problem_of(prefix: str) -> str | None:
    """What is wrong with a prefix, in words; None when it is good.

    Only characters that look the same in a URL, in JSON and in a header, such as in ``sk-proj-`` or ``ghp_``.
    """
    if len(prefix) > MAX_LENGTH or _PREFIX.fullmatch(prefix) is None:
        return f"a prefix has at most {MAX_LENGTH} letters, digits, _ and -"
    return None
