"""Landlock: a process gives up its right to write, to start programs and to use TCP, and to read but a few places.

Linux 5.13 or newer; no right is needed for it, and nothing takes it back. What a kernel's version of it cannot refuse
yet (TCP before 6.7) stays as it was.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, the same on all architectures."""
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which version on how many rights over files are known: the lowest bits."""
_TCP_SINCE, _SCOPES_SINCE = 4, 6
_TCP = 0b11
_SCOPES = 0b11
"""Abstract sockets of others, and signals to them."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none, or none that is switched on."""
    known: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, known)


def restrict(readable: Iterable[int]) -> None:
    """This thread, and those that it starts, may from now on read what these descriptors (folders, files) stand for,
    and what is below it; all other files, and every way to change one, are refused. Raises `OSError`."""
    known = version()
    files = (1 << max(bits for since, bits in _FILE_RIGHTS if known >= since)) - 1
    rights = struct.pack("=QQQ", files, _TCP if known >= _TCP_SINCE else 0, _SCOPES if known >= _SCOPES_SINCE else 0)
    rules = _call(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), ctypes.c_uint32(0))
    for place in readable:
        allowed = _READ_FILE | _READ_DIR if os.path.isdir(place) else _READ_FILE  # noqa: PTH112 - a descriptor
        beneath = struct.pack("=Qi", allowed, place)
        _call(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), beneath, ctypes.c_uint32(0))
    if _libc.prctl(_NO_NEW_PRIVILEGES, *(ctypes.c_ulong(word) for word in (1, 0, 0, 0))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
