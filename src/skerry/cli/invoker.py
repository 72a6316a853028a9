"""The person who started Skerry: whose data directory and token file these are."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Invoker:
    """A user account."""

    uid: int
    gid: int
    home: Path


def invoker() -> Invoker:
    """Who typed the command: the user behind sudo(8), else the user of this process."""
    uid = os.geteuid()
    if uid == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        uid = int(os.environ["SUDO_UID"])
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Invoker(uid, os.getegid(), Path("/"))
    return Invoker(uid, account.pw_gid, Path(account.pw_dir))


def default_data_dir(who: Invoker) -> Path:
    """``/var/lib/skerry`` for root itself, else a directory in the home."""
    return Path("/var/lib/skerry") if who.uid == 0 else who.home / ".local" / "share" / "skerry"
