"""Tables opened through python-iptables in a network namespace: what they hold, as bytes, and how rules are put there.

Of the library's names with an underscore five are used: here ``_init``, ``_iptc`` and ``_handle`` of a table, in
``making`` the ``_final_check`` of a match or target, and in ``bench`` the ``_entry_type`` of a rule. So the plugin asks
for version 1.2 of it and no later one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from meshfw import BackendError, ConcurrentChangeError, Family, Hook
from meshfw.iptables import HeldNamespace, Meaning, RawRule, RawTable, TableKey, owned_iptables_chain
from meshfw.model import HOOKS, Table
from meshfw_iptc.bench import Bench, body_of, bytes_of, is_standard
from meshfw_iptc.libraries import NAME, Library

_NAMES: Final = {
    Family.IPV4: "/proc/thread-self/net/ip_tables_names",
    Family.IPV6: "/proc/thread-self/net/ip6_tables_names",
}
_MODULES: Final = {Family.IPV4: "ip_tables", Family.IPV6: "ip6_tables"}
_BUSY: Final = os.strerror(errno.EAGAIN)


class OpenTable:
    """One table as it was when it was opened; what is changed in it is written by ``commit``, all at once."""

    def __init__(self, library: Library, key: TableKey) -> None:
        iptc = library.iptc
        self.key = key
        self.bench = Bench(library, key[0])
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
            with self.bench.refusals():
                yield
        except BackendError as error:
            if _BUSY in error.reason:
                reason = f"{error.reason}: somebody who takes no lock wrote meanwhile"
                raise ConcurrentChangeError(reason, backend=NAME) from error
            raise

    def entries(self, chain: str) -> Iterator[Any]:
        """The rules of a chain as the kernel has them (struct ipt_entry), good until the table is closed."""
        entry = self.table.first_rule(chain)
        while entry:
            yield entry
            entry = self.table.next_rule(entry)

    def chains(self) -> list[str]:
        """The names of its chains."""
        return [chain.name for chain in self.table.chains]

    def delete_at(self, chain: str, index: int) -> None:
        """Take out a rule by its place: the library has the function, and no method for it."""
        table = self.table
        if table._iptc.iptc_delete_num_entry(chain.encode(), index, table._handle) != 1:  # noqa: SLF001 - see above
            raise self.bench.failure(f"can't delete rule {index + 1} of {chain}: {table.strerror()}")

    def raw(self, owner: str) -> RawTable:
        """The owner's chains as bytes, and the jumps from built-in chains."""
        builtin = {hook.upper(): hook for hook in Hook if hook in HOOKS[self.key[1]]}
        own: dict[str, tuple[RawRule, ...]] = {}
        jumps: dict[Hook, tuple[str, ...]] = {}
        for name in self.chains():
            if name in builtin:
                jumps[builtin[name]] = tuple(map(self._bare_jump, self.entries(name)))
            elif owned_iptables_chain(owner, name):
                own[name] = tuple(map(self.raw_rule, self.entries(name)))
        return RawTable(own, jumps)

    def standard(self, entry: Any) -> bytes | None:
        """The verdict or chain of a rule, empty for none; None where its target is an extension."""
        return (self.table.get_target(entry) or b"") if is_standard(entry) else None

    def raw_rule(self, entry: Any) -> RawRule:
        """A rule as bytes, with its counters and where it leads."""
        standard = self.standard(entry)
        jump = standard.decode() if standard and self.table.is_chain(standard.decode()) else ""
        body = body_of(bytes_of(entry), type(entry), standard)
        return RawRule(body, entry.counters.pcnt, entry.counters.bcnt, Meaning(jump))

    def _bare_jump(self, entry: Any) -> str:
        """The chain to which a rule leads that has no condition at all."""
        rule = self.raw_rule(entry)
        jump = rule.meaning.jump if rule.meaning is not None else ""
        return jump if rule.body == self.bench.bare(jump) else ""


def _own_table(kind: Any, name: str) -> Any:
    """A table of nobody else's: the library gives out one for each name, which any thread may commit half-done."""
    made = object.__new__(kind)
    made._init(name, False)
    return made


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
        raise BackendError(
            f"can't read {_NAMES[family]}: {error.strerror}", backend=NAME, remedy="run as root"
        ) from None
    return tuple(table for table in Table if table.value in names)


@contextmanager
def opened(
    library: Library, home: HeldNamespace, wanted: Collection[TableKey] = ()
) -> Iterator[Mapping[TableKey, OpenTable]]:
    """A block with the tables that exist, and those ``wanted``, which are made where they are missing."""
    with library.turn, ExitStack() as stack:
        tables: dict[TableKey, OpenTable] = {}
        with home.entered():
            found = {(family, table) for family in Family for table in existing(family)}
            for key in sorted(
                {*found, *wanted}, key=lambda key: (list(Family).index(key[0]), list(Table).index(key[1]))
            ):
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
