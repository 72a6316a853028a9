"""What system calls a worker may still make: those of an event loop over its sockets, and connecting.

An attacker who took the process over could read this sandbox's secrets and dial; not open a file, start or
trace a process, listen, or reach another process.

Source: seccomp(2); linux/bpf_common.h; BPF_STMT and BPF_JUMP.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skerry.egress.worker import syscalls
from skerry.egress.worker.hardening import close_to_others, filter_system_calls

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_ALLOW = 0x7FFF0000
_KILL = 0x80000000  # the process
_ERRNO = 0x00050000
_EPERM = 1
_EAFNOSUPPORT = 97

_NUMBER_AT = 0
_ARCHITECTURE_AT = 4
_ARGUMENTS_AT = 16

_X32_BIT = 0x40000000

Instruction = bytes


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs between processors.

    Attributes:
        audit: AUDIT_ARCH_…, linux/audit.h.
        column: Of the table in `syscalls`.
    """

    audit: int
    column: int


_ARCHITECTURES = {"x86_64": Architecture(0xC000003E, 0), "aarch64": Architecture(0xC00000B7, 1)}


def install(*, opens_files: bool = False) -> None:
    """Filter this process's system calls from now on, for ever, and close it to others of its user.

    Only while it has one thread.

    Args:
        opens_files: Files may be read, and made in memory, all the same.
    Raises:
        OSError: The kernel does not take the filter; the process must not serve then.
    """
    close_to_others()
    program = build(platform.machine(), os.getpid(), opens_files=opens_files)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    filter_system_calls(ctypes.addressof(header))


def build(machine: str, pid: int, *, opens_files: bool = False) -> bytes:
    """The filter's program.

    Args:
        machine: As `platform.machine` says.
        pid: The only process that may be signalled.
        opens_files: See `install`.
    Raises:
        OSError: Not a processor that is known here.
    """
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        raise OSError(f"no system call filter for {machine}")
    checks = _checks(pid)
    program = [
        _statement(_LOAD, _ARCHITECTURE_AT),
        _jump(_EQUAL, architecture.audit, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [_jump(_AT_LEAST, _X32_BIT, 0, 1), _statement(_RETURN, _KILL)]
    known = syscalls.NUMBERS | (syscalls.FILE_NUMBERS if opens_files else {})
    for name, numbers in known.items():
        number = numbers[architecture.column]
        if number is None:
            continue
        block = checks[name]() if name in checks else [_statement(_RETURN, _verdict(name))]
        program += [_jump(_EQUAL, number, 0, len(block)), *block]
    program.append(_statement(_RETURN, _ERRNO | _EPERM))
    return b"".join(program)


def _verdict(name: str) -> int:
    return _KILL if name in syscalls.DEADLY else _ALLOW


def _checks(pid: int) -> dict[str, Callable[[], list[Instruction]]]:
    """Calls of which only some forms are allowed."""
    only_own = [_one_of(0, (pid,))]
    no_code = [_without_bits(2, syscalls.PROT_EXEC)]
    options = [[_one_of(1, (level,)), _one_of(2, names)] for level, names in syscalls.SOCKET_OPTIONS.items()]
    return {
        "socket": lambda: _when_all(
            [
                _one_of(0, syscalls.FAMILIES),
                _one_of(1, syscalls.SOCKET_TYPES, mask=syscalls.SOCKET_TYPE_MASK),
                _one_of(2, syscalls.PROTOCOLS),
            ],
            otherwise=_EAFNOSUPPORT,
        ),
        "socketpair": lambda: _when_all(
            [
                _one_of(0, (syscalls.AF_UNIX,)),
                _one_of(1, (syscalls.SOCK_STREAM,), mask=syscalls.SOCKET_TYPE_MASK),
            ]
        ),
        "setsockopt": lambda: _when_any(options),
        "kill": lambda: _when_all(only_own),
        "tgkill": lambda: _when_all(only_own),
        "mmap": lambda: _when_all(no_code),
        "mprotect": lambda: _when_all(no_code),
        "fcntl": lambda: _when_all([_one_of(1, syscalls.FCNTL_COMMANDS)]),
        "ioctl": lambda: _when_all([_one_of(1, syscalls.IOCTL_REQUESTS)]),
        "openat": lambda: _when_all([_without_bits(2, syscalls.WRITING_FLAGS)]),
        "newfstatat": lambda: _when_all([_with_bits(3, syscalls.AT_EMPTY_PATH)]),
    }


# A condition is a list of instructions that goes on behind itself when it holds, and else jumps as far as a
# number says that is filled in later. Only the low half of an argument counts: all of these are ints.


@dataclass(frozen=True, slots=True)
class _Condition:
    load: list[Instruction]
    values: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.load) + len(self.values)

    def code(self, to_failure: int) -> list[Instruction]:
        """The instructions.

        Args:
            to_failure: How many lie between this condition's end and where it jumps when it fails.
        """
        code = list(self.load)
        last = len(self.values) - 1
        for index, value in enumerate(self.values):
            code.append(_jump(_EQUAL, value, last - index, to_failure if index == last else 0))
        return code


def _argument(index: int) -> Instruction:
    return _statement(_LOAD, _ARGUMENTS_AT + 8 * index)


def _one_of(index: int, values: Sequence[int], *, mask: int | None = None) -> _Condition:
    masked = [] if mask is None else [_statement(_AND, mask)]
    return _Condition([_argument(index), *masked], values)


def _with_bits(index: int, bits: int) -> _Condition:
    return _Condition([_argument(index), _statement(_AND, bits)], (bits,))


def _without_bits(index: int, bits: int) -> _Condition:
    return _Condition([_argument(index), _statement(_AND, bits)], (0,))


def _when_all(conditions: Sequence[_Condition], *, otherwise: int = _EPERM) -> list[Instruction]:
    return [*_all_or_skip(conditions), _statement(_RETURN, _ERRNO | otherwise)]


def _when_any(groups: Sequence[Sequence[_Condition]]) -> list[Instruction]:
    code: list[Instruction] = []
    for conditions in groups:
        code += _all_or_skip(conditions)
    return [*code, _statement(_RETURN, _ERRNO | _EPERM)]


def _all_or_skip(conditions: Sequence[_Condition]) -> list[Instruction]:
    """Allow when all hold; else go on behind."""
    code: list[Instruction] = []
    for index, condition in enumerate(conditions):
        behind = sum(later.length for later in conditions[index + 1 :])
        code += condition.code(behind + 1)
    return [*code, _statement(_RETURN, _ALLOW)]


def _statement(code: int, value: int) -> Instruction:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> Instruction:
    return struct.pack("=HBBI", code, if_true, if_false, value)
