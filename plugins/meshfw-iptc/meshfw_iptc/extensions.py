"""The extensions of libxtables, loaded for both families in one process, which its own tools never do.

An extension's file registers what is in it for the family that is set at that moment, when it's loaded, and it's loaded
once. So what is there for each family by itself, all of NAT first, isn't found in the second one: libxtables takes down
that there is no such target, and python-iptables asks the file to register itself again, at which libxtables ends the
process, since a part of it is in its lists. Here a copy of the file is loaded for the second family.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from itertools import count
from typing import Final

from meshfw import BackendError, Family

NFPROTO: Final = {Family.IPV4: 2, Family.IPV6: 10}  # linux/netfilter.h
_ANY: Final = 0
_PREFIXES: Final = {Family.IPV4: ("libxt_", "libipt_"), Family.IPV6: ("libxt_", "libip6t_")}
_LISTS: Final = {
    False: ("xtables_matches", "xtables_pending_matches"),
    True: ("xtables_targets", "xtables_pending_targets"),
}


class _Registered(ctypes.Structure):
    """The head of struct xtables_match, and of struct xtables_target (xtables.h, version 12)."""

    _fields_ = (
        ("version", ctypes.c_char_p),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("real_name", ctypes.c_char_p),
        ("revision", ctypes.c_uint8),
        ("ext_flags", ctypes.c_uint8),
        ("family", ctypes.c_uint16),
    )


class Extensions:
    """What libxtables has loaded; ``directory`` is where the files of its extensions are."""

    def __init__(self, libxtables: ctypes.CDLL, directory: str) -> None:
        self._xtables = libxtables
        self._directory = directory
        self._files: set[str] = set()
        self._copies = count(1)
        self._ready: set[tuple[str, bool, Family]] = set()

    def require(self, name: str, family: Family, *, is_target: bool) -> None:
        """Have a match or target at hand in a family.

        Raises:
            BackendError: this host's iptables doesn't have it.
        """
        key = (name, is_target, family)
        if key in self._ready:
            return
        self._xtables.xtables_set_nfproto(NFPROTO[family])
        if not self._has(name, family, is_target=is_target):
            self._register(name, family)
        if not self._has(name, family, is_target=is_target):
            raise BackendError(f"this host's iptables has no {name} for {family}")
        self._ready.add(key)

    def _register(self, name: str, family: Family) -> None:
        """Load its files, each a second time as a copy: the constructor registers what there is for the family."""
        paths = (os.path.join(self._directory, f"{prefix}{name}.so") for prefix in _PREFIXES[family])
        for path in map(os.path.realpath, filter(os.path.exists, paths)):
            if path in self._files:
                _load_copy(path, next(self._copies))
            else:
                ctypes.CDLL(path)
                self._files.add(path)

    def _has(self, name: str, family: Family, *, is_target: bool) -> bool:
        wanted = (_ANY, NFPROTO[family])
        return any(held.name == name.encode() and held.family in wanted for held in self._registered(is_target))

    def _registered(self, is_target: bool) -> Iterator[_Registered]:
        for name in _LISTS[is_target]:
            address = ctypes.c_void_p.in_dll(self._xtables, name).value
            while address is not None:
                entry = _Registered.from_address(address)
                yield entry
                address = entry.next


def _load_copy(path: str, number: int) -> None:
    """Load a copy of a file; ``number`` makes its name one of its own, by which the run-time linker knows it."""
    with open(path, "rb") as file:
        content = file.read()
    descriptor = os.memfd_create(os.path.basename(path))
    try:
        os.write(descriptor, content)
        ctypes.CDLL(f"/proc/self/fd/{'./' * number}{descriptor}")
    finally:
        os.close(descriptor)
