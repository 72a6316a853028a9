"""System calls that a worker may make, with their numbers, and which forms of some.

Source: arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h.
"""

DEADLY = frozenset({"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev"})
"""Only code that was not ours calls these: the process is killed. All that is not listed fails with EPERM."""

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # x86_64, aarch64; the most frequent first
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "read": (0, 63),
    "write": (1, 64),
    "recvmsg": (47, 212),
    "sendmsg": (46, 211),
    "epoll_ctl": (233, 21),
    "clock_gettime": (228, 113),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "accept4": (288, 242),
    "accept": (43, 202),
    "connect": (42, 203),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "shutdown": (48, 210),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "membarrier": (324, 283),
    "rseq": (334, 293),
    "set_robust_list": (273, 99),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "epoll_create1": (291, 20),
    "eventfd2": (290, 19),
    "pipe2": (293, 59),
    "dup": (32, 23),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
}

FILE_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "openat": (257, 56),
    "memfd_create": (319, 279),
}
"""Where certificates cannot be had without files."""

WRITING_FLAGS = 0x243
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC."""

AF_UNIX = 1
FAMILIES = (2, 10)
"""AF_INET, AF_INET6."""

SOCK_STREAM = 1
SOCKET_TYPES = (1, 2)
"""SOCK_STREAM, SOCK_DGRAM."""

SOCKET_TYPE_MASK = 0xF
"""The rest are flags."""

PROTOCOLS = (0, 6, 17)
"""Default, TCP, UDP."""

SOCKET_OPTIONS: dict[int, tuple[int, ...]] = {
    1: (2, 7, 8, 9, 13, 18),  # SOL_SOCKET: reuse of addresses, buffers, keep-alive, linger, low-water mark
    6: (1, 4, 5, 6, 12, 18),  # TCP: no delay, keep-alive times, quick acknowledgement, user timeout
}

FCNTL_COMMANDS = (1, 2, 3, 4, 1030)
"""Descriptor and status flags; a duplicate with FD_CLOEXEC."""

IOCTL_REQUESTS = (0x5421, 0x541B, 0x5450, 0x5451)
"""FIONBIO, FIONREAD, FIONCLEX, FIOCLEX."""

PROT_EXEC = 4
AT_EMPTY_PATH = 0x1000
