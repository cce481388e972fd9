"""Where rules of one family are made and looked at, apart from any table; and the bytes by which they're known."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

from meshfw import BackendError, Family
from meshfw_iptc.libraries import NAME, Library

_SIZE_BYTES: Final = 2  # linux/netfilter/x_tables.h, struct xt_entry_match: size, name, revision
_NAME_BYTES: Final = 29
_HEADER: Final = 32


class Bench:
    """Rules of python-iptables for one family, that belong to no table."""

    def __init__(self, library: Library, family: Family) -> None:
        iptc = library.iptc
        self.family = family
        self.turn = library.turn
        self.extensions = library.extensions
        self.failure: Any = iptc.IPTCError
        self._errors = (iptc.IPTCError, iptc.XTablesError, ValueError, AttributeError, TypeError, OSError)
        kind = iptc.Rule6 if family is Family.IPV6 else iptc.Rule
        # Without tables: the library would open all five, and so make them, to see whether a target is a chain.
        self._kind: Any = type(kind.__name__, (kind,), {"tables": ()})
        self.entry: Any = self._kind()._entry_type()  # noqa: SLF001 - the structure that the kernel defines

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """A block in which the library's errors become ours."""
        try:
            yield
        except self._errors as error:
            raise BackendError(f"{self.family}: {error}", backend=NAME) from error

    def rule(self) -> Any:
        """A new rule."""
        return self._kind()

    def view(self, entry: Any, standard: bytes | None) -> Any:
        """The library's view of bytes that stand somewhere; ``standard`` is their verdict or chain."""
        matches, target = names_of(entry)
        for name in matches:
            self.extensions.require(name, self.family, is_target=False)
        if target:
            self.extensions.require(target, self.family, is_target=True)
        return self._kind(entry, SimpleNamespace(table=SimpleNamespace(get_target=lambda _entry: standard)))

    def bare(self, jump: str) -> bytes:
        """What is known of a rule that only leads to a chain."""
        made = self.entry()
        made.target_offset = ctypes.sizeof(self.entry)
        made.next_offset = made.target_offset + _HEADER + 8  # struct xt_standard_target
        return bytes(made) + jump.encode()


def bytes_of(entry: Any) -> bytes:
    """All bytes of a rule, with its matches and its target."""
    return ctypes.string_at(ctypes.addressof(entry), entry.next_offset)


def is_standard(entry: Any) -> bool:
    """Whether a rule in the kernel's form has a verdict or a chain for its target: that one has no name."""
    return not bytes_of(entry)[entry.target_offset + _SIZE_BYTES]


def names_of(entry: Any) -> tuple[list[str], str]:
    """The names of a rule's matches, and of its target, empty for a verdict or chain."""
    raw, matches = bytes_of(entry), []
    at = ctypes.sizeof(entry)
    while at < entry.target_offset:
        matches.append(_name(raw, at).decode())
        at += _size(raw, at)
    return matches, _name(raw, entry.target_offset).decode()


def _name(raw: bytes | bytearray, at: int) -> bytes:
    start = at + _SIZE_BYTES
    return bytes(raw[start : start + _NAME_BYTES]).partition(b"\0")[0]


def _size(raw: bytes | bytearray, at: int) -> int:
    return int.from_bytes(raw[at : at + _SIZE_BYTES], sys.byteorder)


def in_kernels_form(raw: Any, kind: Any) -> Any:
    """The entry of bytes that the library made, with the target's name left out as the kernel has it."""
    entry = kind.from_buffer(raw)
    start = entry.target_offset + _SIZE_BYTES
    raw[start : start + _NAME_BYTES] = bytes(_NAME_BYTES)
    return entry


def body_of(raw: bytes, kind: Any, standard: bytes | None) -> bytes:
    """The bytes of a rule with its counters, kernel notes and the garbage behind names left out.

    ``standard`` is the verdict or chain of a rule whose target is no extension. It stands there by name: the kernel has
    the place in the table, which changes with whatever others write before it.
    """
    made = bytearray(raw)
    for field in (kind.counters, kind.nfcache, kind.comefrom):
        made[field.offset : field.offset + field.size] = bytes(field.size)
    at = ctypes.sizeof(kind)
    end = kind.from_buffer_copy(raw).target_offset
    while at < end:
        _clear_name(made, at)
        at += _size(made, at)
    if standard is None:
        _clear_name(made, end)
    else:
        made[end:] = standard
    return bytes(made)


def _clear_name(made: bytearray, at: int) -> None:
    start = at + _SIZE_BYTES
    made[start : start + _NAME_BYTES] = _name(made, at).ljust(_NAME_BYTES, b"\0")
