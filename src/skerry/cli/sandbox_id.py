"""Sandbox IDs on a command line, with ``SANDBOX_ID`` of the environment as the default."""

import os

from skerry.cli.output import usage_error
from skerry.spec.ids import SandboxId, is_sandbox_id, parse_sandbox_id

ENV = "SANDBOX_ID"


def named_or_default(text: str) -> SandboxId:
    """The ID that was given, else (empty text) the default.

    Raises:
        InvalidRequest: Neither is there, or it is none.
    """
    chosen = text or os.environ.get(ENV)
    if not chosen:
        usage_error(f"which sandbox? Give its ID (`skerry list` shows them), or set {ENV}")
    return parse_sandbox_id(chosen)


def split_default(words: list[str]) -> tuple[SandboxId, list[str]]:
    """The sandbox and the other words: the first word when it is an ID, else the default and all words."""
    if words and is_sandbox_id(words[0]):
        return SandboxId(words[0]), words[1:]
    if os.environ.get(ENV):
        return named_or_default(""), words
    return named_or_default(words[0] if words else ""), words[1:]
