"""Packet filter rules, loaded by nft(8) into the network namespace of the calling thread.

Source: nft(8); of the notifications, <linux/netfilter/nf_tables.h>.
"""

import errno
import json
import re
import shutil
import socket
import struct
import subprocess  # noqa: TID251 - hostd starts programs of the system

from skerry.errors import HostUnusable
from skerry.hostd.sys.netlink import NETFILTER, attributes, messages

LOAD_S = 20.0

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SHOWN_BYTES = 2000
_READ_BYTES = 1 << 16
_GROUP = 7
_TABLE_REMOVED = 10 << 8 | 2
_NAME = 1
_FAMILY_BYTES = struct.calcsize("=BBH")
_TABLE_NAME = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


def load(rules: str) -> None:
    """Carry out a script: all of it at once, or nothing. Blocks, some 20 ms.

    Raises:
        HostUnusable: nft is missing, or the kernel does not take the rules.
    """
    _run(["-f", "-"], rules)


def tables() -> list[str]:
    """Names of the tables of family inet.

    Raises:
        HostUnusable: nft is missing or fails.
    """
    found = json.loads(_run(["-j", "list", "tables", "inet"], ""))
    names = [entry["table"]["name"] for entry in found["nftables"] if "table" in entry]
    return [name for name in names if _TABLE_NAME.fullmatch(name)]


class Removals:
    """Tells of tables that anybody removes from the network namespace in which it was made.

    Raises:
        OSError: The kernel refused.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETFILTER)
        self._socket.bind((0, 1 << _GROUP - 1))

    def fileno(self) -> int:
        """Readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def take(self, table: str) -> bool:
        """Read all that is there: whether a table of that name may have been removed since the last call."""
        removed = False
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return removed
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost
                    raise
                removed = True
                continue
            removed = removed or any(
                kind == _TABLE_REMOVED
                and attributes(body[_FAMILY_BYTES:]).get(_NAME) == table.encode() + b"\0"
                for kind, _, body in messages(data)
            )


def _run(arguments: list[str], rules: str) -> str:
    nft = shutil.which("nft", path=_PATH)
    if nft is None:
        raise HostUnusable("nft is not installed: `apt install nftables`")
    try:
        done = subprocess.run(
            [nft, *arguments],
            input=rules.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LOAD_S,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostUnusable("nft cannot be run", detail=str(error)) from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise HostUnusable(
            "the kernel does not take the rules for the network: it needs nftables with NFT_FIB_INET, "
            "NFT_CONNLIMIT, NFT_LIMIT, NFT_NAT, NFT_REDIR and NFT_REJECT_INET (modules or built in)",
            detail=output[-_SHOWN_BYTES:],
        )
    return output
