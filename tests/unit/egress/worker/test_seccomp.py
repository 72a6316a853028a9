"""What a worker can still do once its system calls are filtered. Each case is a process of its own."""

import ctypes
import mmap
import os
import platform
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Callable

import pytest

from skerry.egress.worker import seccomp
from skerry.egress.worker.syscalls import NUMBERS

ALLOWED, REFUSED, OTHER = 0, 1, 2


def outcome(act: Callable[[], object], *, opens_files: bool = False) -> int:
    """Do something behind the filter: an exit status, or minus the signal that ended it."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = OTHER
        try:
            seccomp.install(opens_files=opens_files)
            act()
            status = ALLOWED
        except (OSError, RuntimeError):
            status = REFUSED
        finally:
            os._exit(status)
    assert os.getpid() == parent
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pair(kind: int) -> None:
    socket.socketpair(socket.AF_UNIX, kind)


def hold_mapping(protection: int) -> None:
    mmap.mmap(-1, 4096, prot=protection)


REFUSALS: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "write a file": lambda: os.open("/tmp/skerry-seccomp", os.O_WRONLY | os.O_CREAT),
    "list a directory": lambda: os.listdir("/"),
    "look at a file": lambda: os.stat("/etc/passwd"),
    "unlink": lambda: os.unlink("/tmp/skerry-seccomp"),
    "fork": os.fork,
    "thread": lambda: threading.Thread(target=print).start(),
    "listen": lambda: socket.socket().listen(),
    "bind": lambda: socket.socket().bind(("127.0.0.1", 0)),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
    "pair of packets": lambda: pair(socket.SOCK_DGRAM),
    "signal to another": lambda: os.kill(os.getppid(), 0),
    "signal to all": lambda: os.kill(-1, 0),
    "code in memory": lambda: hold_mapping(mmap.PROT_READ | mmap.PROT_EXEC),
    "other socket option": lambda: socket.socket().setsockopt(socket.SOL_IP, 19, 1),
    "memfd": lambda: os.memfd_create("x"),
    "another user": lambda: os.setresuid(1, 1, 1),
    "change directory": lambda: os.chdir("/"),
    "pidfd": lambda: os.pidfd_open(1),
}

ALLOWANCES: dict[str, Callable[[], object]] = {
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK),
    "udp over ipv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "pair": lambda: pair(socket.SOCK_STREAM),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "memory": lambda: hold_mapping(mmap.PROT_READ | mmap.PROT_WRITE),
    "random": lambda: os.urandom(16),
    "tls context": lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    "much memory": lambda: bytearray(64 << 20),
}

DEADLY: dict[str, Callable[[], object]] = {
    "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
    "read another process": lambda: seccomp_call("process_vm_readv"),
    "trace": lambda: seccomp_call("ptrace"),
}


def seccomp_call(name: str) -> None:
    column = 0 if platform.machine() == "x86_64" else 1
    ctypes.CDLL(None).syscall(NUMBERS[name][column], 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("what", REFUSALS)
def test_refused(what: str) -> None:
    assert outcome(REFUSALS[what]) == REFUSED


@pytest.mark.parametrize("what", ALLOWANCES)
def test_allowed(what: str) -> None:
    assert outcome(ALLOWANCES[what]) == ALLOWED


@pytest.mark.parametrize("what", DEADLY)
def test_deadly(what: str) -> None:
    assert outcome(DEADLY[what]) == -signal.SIGSYS


def test_files_are_only_read_where_they_must_be() -> None:
    assert outcome(REFUSALS["read a file"], opens_files=True) == ALLOWED
    assert outcome(REFUSALS["memfd"], opens_files=True) == ALLOWED
    assert outcome(REFUSALS["write a file"], opens_files=True) == REFUSED
    assert outcome(lambda: os.open("/etc/hostname", os.O_RDWR), opens_files=True) == REFUSED


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_programs_are_well_formed(machine: str) -> None:
    program = seccomp.build(machine, 1234)
    count = len(program) // 8
    assert 0 < count < 4096
    for index in range(count):
        code, if_true, if_false, _ = struct.unpack("=HBBI", program[8 * index : 8 * index + 8])
        if code & 7 == 5:
            assert index + 1 + max(if_true, if_false) < count
        else:
            assert (if_true, if_false) == (0, 0)


def test_unknown_processors_are_refused() -> None:
    with pytest.raises(OSError, match="riscv64"):
        seccomp.build("riscv64", 1)


def test_numbers_are_unique() -> None:
    for column in (0, 1):
        numbers = [both[column] for both in NUMBERS.values() if both[column] is not None]
        assert len(numbers) == len(set(numbers))
