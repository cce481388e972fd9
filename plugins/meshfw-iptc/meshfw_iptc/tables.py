"""Tables opened through python-iptables in a network namespace: what they hold, as bytes, and how rules are put there.

Four names of the library's that begin with an underscore are used, all here and in ``making``: ``_init`` and
``_handle`` of a table, its ``_iptc``, and ``_final_check`` of a match or target.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from meshfw import BackendError, ConcurrentChangeError, Family, Hook
from meshfw.iptables import HeldNamespace, RawRule, RawTable, TableKey, owned_iptables_chain
from meshfw.model import HOOKS, Table

from meshfw_iptc.libraries import NAME, Library

_NAMES: Final = {
    Family.IPV4: "/proc/thread-self/net/ip_tables_names",
    Family.IPV6: "/proc/thread-self/net/ip6_tables_names",
}
_MODULES: Final = {Family.IPV4: "ip_tables", Family.IPV6: "ip6_tables"}
_SIZE_BYTES: Final = 2  # linux/netfilter/x_tables.h, struct xt_entry_match: size, name, revision
_NAME_BYTES: Final = 29
_BUSY: Final = os.strerror(errno.EAGAIN)
_VERDICT_BYTES: Final = 4


class OpenTable:
    """One table as it was when it was opened; what is changed in it is written by ``commit``, all at once."""

    def __init__(self, library: Library, key: TableKey) -> None:
        iptc = library.iptc
        self.key = key
        self.iptc = iptc
        self.table: Any = _own_table(iptc.Table6 if key[0] is Family.IPV6 else iptc.Table, key[1].value)

    def close(self) -> None:
        """Forget it, with what wasn't committed."""
        self.table.close()

    def commit(self) -> None:
        """Write what was changed.

        Raises:
            ConcurrentChangeError: rules were added or removed since it was opened; nothing was written.
            BackendError: the kernel refused it; nothing was written.
        """
        with self.refusals():
            self.table.commit()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """A block in which the library's errors become ours."""
        try:
            yield
        except (self.iptc.IPTCError, self.iptc.XTablesError, ValueError) as error:
            where = f"{self.key[0]} {self.key[1]}: {error}"
            if _BUSY in str(error):
                raise ConcurrentChangeError(
                    f"{where} (somebody who takes no lock wrote meanwhile)", backend=NAME
                ) from error
            raise BackendError(where, backend=NAME) from error

    def rule(self) -> Any:
        """A new rule that belongs to no table: the library would open all five to ask whether its target is a chain."""
        return _rule_class(self.iptc, self.key[0])()

    def read_rule(self, entry: Any, chain: str) -> Any:
        """The library's view of a rule that stands in a chain."""
        return _rule_class(self.iptc, self.key[0])(entry, self.iptc.Chain(self.table, chain))

    def entries(self, chain: str) -> Iterator[Any]:
        """The rules of a chain as the kernel has them (struct ipt_entry), good until the table is closed."""
        entry = self.table.first_rule(chain)
        while entry:
            yield entry
            entry = self.table.next_rule(entry)

    def chains(self) -> list[str]:
        """The names of its chains."""
        return [chain.name for chain in self.table.chains]

    def raw(self, owner: str) -> RawTable:
        """The owner's chains as bytes, and the jumps from built-in chains."""
        builtin = {hook.upper(): hook for hook in Hook if hook in HOOKS[self.key[1]]}
        own: dict[str, tuple[RawRule, ...]] = {}
        jumps: dict[Hook, tuple[str, ...]] = {}
        for name in self.chains():
            if name in builtin:
                jumps[builtin[name]] = tuple(map(self._bare_jump, self.entries(name)))
            elif owned_iptables_chain(owner, name):
                own[name] = tuple(map(self._raw_rule, self.entries(name)))
        return RawTable(own, jumps)

    def jump(self, entry: Any) -> str:
        """The chain to which a rule leads; empty where it leads to none."""
        name = self.table.get_target(entry)
        return name.decode() if name and self.table.is_chain(name.decode()) else ""

    def _raw_rule(self, entry: Any) -> RawRule:
        return RawRule(self.body(entry), entry.counters.pcnt, entry.counters.bcnt)

    def _bare_jump(self, entry: Any) -> str:
        """The chain to which a rule leads that has no condition at all."""
        jump = self.jump(entry)
        return jump if jump and not any(self.body(entry)[: entry.target_offset]) else ""

    def body(self, entry: Any) -> bytes:
        """What a rule says, without counters and without what changes with its place."""
        raw = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
        standard = None if raw[entry.target_offset + _SIZE_BYTES] else self.table.get_target(entry) or b""
        return body_of(raw, type(entry), standard)


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
        at += int.from_bytes(made[at : at + _SIZE_BYTES], "little" if _LITTLE else "big")
    if standard is None:
        _clear_name(made, end)
    else:
        made[end:] = standard
    return bytes(made)


_LITTLE: Final = ctypes.c_uint16(1).value == ctypes.c_uint8.from_buffer(ctypes.c_uint16(1)).value


def _clear_name(made: bytearray, at: int) -> None:
    start = at + _SIZE_BYTES
    name = bytes(made[start : start + _NAME_BYTES]).partition(b"\0")[0]
    made[start : start + _NAME_BYTES] = name.ljust(_NAME_BYTES, b"\0")


def _own_table(kind: Any, name: str) -> Any:
    """A table of nobody else's: the library gives out one for each name, which any thread may commit half-done."""
    made = object.__new__(kind)
    made._init(name, False)  # noqa: FBT003, SLF001 - its constructor looks into that cache; False: no autocommit
    return made


def _rule_class(iptc: Any, family: Family) -> Any:
    kind = iptc.Rule6 if family is Family.IPV6 else iptc.Rule
    return type(kind.__name__, (kind,), {"tables": ()})


# --- all of them -------------------------------------------------------------------------------------------


def existing(family: Family) -> tuple[Table, ...]:
    """The tables that the calling thread's namespace has; opening another would make it.

    Raises:
        BackendError: the list is root's alone (``unshare -rn`` by an ordinary user).
    """
    try:
        with open(_NAMES[family], encoding="ascii") as file:
            names = set(file.read().split())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BackendError(f"can't read {_NAMES[family]}: {error.strerror}", backend=NAME, remedy="run as root") from None
    return tuple(table for table in Table if table.value in names)


@contextmanager
def opened(library: Library, home: HeldNamespace, wanted: Collection[TableKey] = ()) -> Iterator[Mapping[TableKey, OpenTable]]:
    """A block with the tables that exist, and those ``wanted``, which are made where they are missing."""
    with library.turn, ExitStack() as stack:
        tables: dict[TableKey, OpenTable] = {}
        with home.entered():
            found = {(family, table) for family in Family for table in existing(family)}
            for key in sorted({*found, *wanted}, key=lambda key: (list(Family).index(key[0]), list(Table).index(key[1]))):
                tables[key] = stack.enter_context(_opened(library, key))
        yield tables


@contextmanager
def _opened(library: Library, key: TableKey) -> Iterator[OpenTable]:
    try:
        table = OpenTable(library, key)
    except library.iptc.IPTCError as error:
        remedy = f"modprobe {_MODULES[key[0]]}, or run as root"
        raise BackendError(f"{key[0]} {key[1]}: {error}", backend=NAME, remedy=remedy) from error
    try:
        yield table
    finally:
        table.close()
