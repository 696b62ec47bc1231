"""Confine a process to some folders and close its network, without privileges on Linux.

Landlock restricts files, a seccomp filter sockets. Both work in containers, where namespaces are
usually refused. They apply to the calling thread, and to all threads and processes that it starts
later: call `confine` before a toolkit starts its own.
"""

import ctypes
import os
import platform
import stat
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from kedge_runtime.frozen import dataclass

# https://docs.kernel.org/userspace-api/landlock.html: the same numbers on every processor
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READING = _EXECUTE | _READ | _LIST
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE  # the others are rights to a folder
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by the interface's version
_SIGNALS, _SINCE = 1 << 1, 6  # to processes outside, and the version that can refuse them
# https://man7.org/linux/man-pages/man2/prctl.2.html, linux/audit.h, linux/filter.h
_NO_NEW_PRIVILEGES, _GET_SECCOMP, _SET_SECCOMP, _FILTER = 38, 21, 22, 2
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # (kernel's name, socket(2))
_IO_URING = 425  # opens sockets, too
_OTHER_CALLS = 0x40000000  # of x86-64's 32-bit pointers, from here on
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # the latter as EPERM

FILES, NETWORK = "files", "network"


@dataclass(frozen=True)
class Rights:
    """Files or folders that a process may read and run, and those that it may also write."""

    reads: tuple[Path, ...]
    writes: tuple[Path, ...]


def confine(rights: Rights) -> dict[str, str]:
    """Restrict this thread to `rights`, without network, permanently.

    Return the parts that can't be restricted here, FILES or NETWORK, with the reason; {} for none.
    """
    missing = unsupported()
    steps: dict[str, Callable[[], None]] = {
        FILES: partial(_confine_files, rights),
        NETWORK: _close_network,
    }
    for what in steps.keys() - missing.keys():
        try:
            steps[what]()
        except OSError as error:
            missing[what] = str(error)
    return missing


def unsupported() -> dict[str, str]:
    """Return the parts that can't be restricted on this machine, each with the reason."""
    if sys.platform != "linux":
        return dict.fromkeys((FILES, NETWORK), f"it needs Linux, and this is {platform.system()}")
    missing = {}
    if _landlock() < 1:
        missing[FILES] = f"no Landlock ({os.strerror(ctypes.get_errno())})"
    if platform.machine() not in _SOCKET:
        missing[NETWORK] = f"no filter for {platform.machine()}"
    elif _libc().prctl(_GET_SECCOMP, 0, 0, 0, 0) < 0:
        missing[NETWORK] = f"no seccomp ({os.strerror(ctypes.get_errno())})"
    return missing


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("ports", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what _pack_ implies, and Python 3.14 warns when it isn't said
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction)))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _called(name: str, *arguments: object) -> int:
    """Call a function of the C library and return its result. Raises OSError."""
    result: int = getattr(_libc(), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _landlock() -> int:
    """Return the version of Landlock's interface, -1 where there is none."""
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    return version


def _confine_files(rights: Rights) -> None:
    version = _landlock()
    handled = _HANDLED[min(version, max(_HANDLED))]
    ruleset = _Ruleset(handled, 0, _SIGNALS if version >= _SINCE else 0)
    # Older kernels know the first number alone.
    size = ctypes.sizeof(ruleset) if ruleset.scoped else ctypes.sizeof(ctypes.c_uint64)
    rules = _called("syscall", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        _allow(rules, rights.reads, _READING)
        _allow(rules, rights.writes, handled)
        _called("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _called("syscall", _RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # a missing file needs no right
            continue
        try:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            beneath = _Beneath(rights if is_folder else rights & _OF_FILES, descriptor)
            _called("syscall", _ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
        finally:
            os.close(descriptor)


def _close_network() -> None:
    """Refuse new sockets of every kind, local ones included.

    Pairs of connected sockets are allowed: Python's own processes use them.
    """
    architecture, socket = _SOCKET[platform.machine()]
    code = [
        (_LOAD, 0, 0, 4),  # the processor
        (_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, 0),  # the call's number
        (_AT_LEAST, 3, 0, _OTHER_CALLS),
        (_EQUAL, 2, 0, socket),
        (_EQUAL, 1, 0, _IO_URING),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    program = (_Instruction * len(code))(*(_Instruction(*each) for each in code))
    _called("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _called("prctl", _SET_SECCOMP, _FILTER, ctypes.byref(_Filter(len(code), program)), 0, 0)
