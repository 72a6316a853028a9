"""Identifiers: their alphabet, shapes and the kernel names derived from them."""

import re
from collections.abc import Callable
from typing import NewType

from skerry.errors import InvalidRequest

SandboxId = NewType("SandboxId", str)
InstanceId = NewType("InstanceId", str)
TokenId = NewType("TokenId", str)
OwnerId = NewType("OwnerId", str)

ALPHABET = "0123456789abcdefghjkmnpqrstuvwxyz"
"""Digits and lower-case letters without i, l and o; the official JavaScript SDK enforces it for sandboxes."""

_SANDBOX = re.compile(rf"sbx_[a-z]{{3}}_[{ALPHABET}]{{20}}", re.ASCII)
_INSTANCE = re.compile(rf"[{ALPHABET}]{{6}}", re.ASCII)


def new_sandbox_id(region: str, randbelow: Callable[[int], int]) -> SandboxId:
    """Mint an ID (about 100 random bits) from a source of randomness such as `secrets.randbelow`."""
    return SandboxId(f"sbx_{region}_" + "".join(ALPHABET[randbelow(len(ALPHABET))] for _ in range(20)))


def new_instance_id(randbelow: Callable[[int], int]) -> InstanceId:
    """Mint the six characters that prefix every kernel name of one data directory."""
    return InstanceId("".join(ALPHABET[randbelow(len(ALPHABET))] for _ in range(6)))


def parse_sandbox_id(text: str) -> SandboxId:
    """Check an ID from outside.

    Raises:
        InvalidRequest: It is not of the form ``sbx_<region>_<20 characters>``.
    """
    if not _SANDBOX.fullmatch(text):
        raise InvalidRequest(
            "not a sandbox ID: expected sbx_<three letters>_<20 characters of [0-9a-hjkmnp-z]>"
        )
    return SandboxId(text)


def is_sandbox_id(text: str) -> bool:
    """Whether the text has the form of a sandbox ID."""
    return _SANDBOX.fullmatch(text) is not None


def parse_instance_id(text: str) -> InstanceId:
    """Check an instance ID read from a file or a message.

    Raises:
        InvalidRequest: It is not six characters of the alphabet.
    """
    if not _INSTANCE.fullmatch(text):
        raise InvalidRequest("not an instance ID: expected six characters of [0-9a-hjkmnp-z]")
    return InstanceId(text)


def container_name(instance: InstanceId, sandbox: SandboxId) -> str:
    """The name of the sandbox's container, cgroup and netns. Fixed length, so no name is a prefix of
    another."""
    return f"skerry-{instance}-{sandbox.removeprefix('sbx_').replace('_', '-')}"


def sandbox_of_container(instance: InstanceId, name: str) -> SandboxId | None:
    """The inverse of `container_name`; None for a name that is not this instance's."""
    prefix = f"skerry-{instance}-"
    if not name.startswith(prefix):
        return None
    candidate = "sbx_" + name.removeprefix(prefix).replace("-", "_")
    return SandboxId(candidate) if is_sandbox_id(candidate) else None


_FIRST_EGRESS_GROUP = 0x40000000


def egress_group(instance: InstanceId) -> int:
    """The primary group of an instance's gateway processes: a number without a name, by which the host's
    packet filter and hostd tell them from those of other instances.
    """
    return _FIRST_EGRESS_GROUP + int(instance, 36)
