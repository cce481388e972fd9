"""Putting back what a commit of iptables-restore changed before it failed: the kernel takes each table by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshfw.backends.iptables_raw import Look, RawTable, Reader, same_owned
from meshfw.backends.iptables_steps import stands
from meshfw.backends.iptables_text import changes_of, tables_of, undo_text
from meshfw.backends.iptables_tool import Tool
from meshfw.backends.layout import TableKey, iptables_chain, iptables_marker
from meshfw.errors import BackendError, PartialCommitError
from meshfw.kernel.lock import XtablesLock
from meshfw.model import Family
from meshfw.plan import Plan


class Undoing:
    """What makes an owner's tables again what they were before a failed commit."""

    def __init__(self, reader: Reader, tool: Tool, *, owner: str) -> None:
        self._reader = reader
        self._tool = tool
        self._owner = owner

    def put_back(self, plan: Plan, before: Look, error: BaseException, lock: XtablesLock | None) -> None:
        """Make the tables that a failed commit has changed what they were; PartialCommitError where that fails."""
        try:
            self._undo_all(plan, before, error, lock)
        except PartialCommitError:
            raise
        except BaseException as second:  # noqa: BLE001 - whatever ends it, somebody has to be told what stands
            raise PartialCommitError(
                error, second, stands(tables_of(plan), plan), backend=self._tool.variant.name
            ) from error

    def _undo_all(self, plan: Plan, before: Look, error: BaseException, lock: XtablesLock | None) -> None:
        now = self._standing(plan, tables_of(plan))
        touched = self._changed_tables(now, before)
        for family in Family:
            text = "".join(self._undo(plan, key, now[key]) for key in touched if key[0] is family)
            if text:
                try:
                    self._tool.restore(family, text, lock=lock)
                except BackendError as second:
                    raise PartialCommitError(
                        error, second, stands(touched, plan), backend=self._tool.variant.name
                    ) from error
        now = self._standing(plan, touched)
        left = self._changed_tables(now, before)
        if left:
            raise PartialCommitError(error, None, stands(left, plan), backend=self._tool.variant.name) from error
        if isinstance(error, BackendError):
            done = ", ".join(f"{family} {table}" for family, table in touched)
            error.add_remedy(f"put back: {done}" if done else "nothing was changed")

    def _standing(self, plan: Plan, keys: Iterable[TableKey]) -> dict[TableKey, RawTable]:
        """What tables hold now, strangers' chains aside, from one reading."""
        look = self._reader.look()
        return {key: self._unstrange(plan, key, look) for key in keys}

    def _undo(self, plan: Plan, key: TableKey, now: RawTable) -> str:
        return undo_text(plan, key, chains=now.chains, jumps=now.jumps, owner=self._owner)

    def _unstrange(self, plan: Plan, key: TableKey, now: Look) -> RawTable:
        """A table without chains that somebody made meanwhile under names that the plan makes: they lack our marker."""
        table = now.table(key)
        made = [change.key for change in changes_of(plan, key) if change.old is None]
        names = {iptables_chain(self._owner, held): iptables_marker(self._owner, held).encode() for held in made}
        strange = [
            name
            for name, marker in names.items()
            if name in table.chains and not (table.chains[name] and marker in table.chains[name][0].body)
        ]
        return table.without(strange)

    def _changed_tables(self, now: Mapping[TableKey, RawTable], before: Look) -> tuple[TableKey, ...]:
        """The tables in which our chains, or how many jumps lead to them, aren't what they were.

        Others may have written meanwhile, and built-in chains that a tool has made stay: neither is anything of ours.
        """
        return tuple(key for key, table in now.items() if not same_owned(table, before.table(key), self._owner))
