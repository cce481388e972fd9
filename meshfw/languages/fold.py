"""What a table holds after commands: each is done to it as iptables would, or refused as iptables would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from meshfw.errors import FailedCommandError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import OPAQUE_TARGETS, VERDICTS, Command, format_rule
from meshfw.languages.tables import Dump, DumpChain, DumpNote, DumpRule, DumpTable, hook_of
from meshfw.model import (
    HOOKS,
    Family,
    Goto,
    Hook,
    Jump,
    Policy,
    Rule,
    Table,
    hook_problem,
    interface_problem,
    table_problem,
)

_NAME_MAX: Final = 28  # x_tables.h, XT_EXTENSION_MAXNAMELEN without its final NUL
_POLICIES: Final = {"ACCEPT": Policy.ACCEPT, "DROP": Policy.DROP}


class FoldedChain:
    """A chain as it stands after the commands so far."""

    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy
        self.rules: list[DumpRule] = []


class FoldedTable:
    """A table as it stands after the commands so far.

    ``whole`` says that all of it is known: a rule that leads to a chain that isn't there is refused at once. Built-in
    chains that no command or declaration named aren't among ``chains``.
    """

    def __init__(self, table: Table, *, family: Family, language: Language, whole: bool) -> None:
        self.table = table
        self.chains: dict[str, FoldedChain] = {}
        self._family = family
        self._language = language
        self._whole = whole

    def done(self) -> DumpTable:
        """The table as a frozen value."""
        chains = (DumpChain(name, chain.policy, tuple(chain.rules)) for name, chain in self.chains.items())
        return DumpTable(self.table, tuple(chains))

    def apply(self, command: Command, line: int) -> None:
        """Do one command of a line.

        Raises:
            FailedCommandError: what iptables fails at, such as a chain that isn't there; nothing is done then.
        """
        getattr(self, f"_do_{command.name.replace('-', '_')}")(command, line)

    def chain(self, name: str) -> FoldedChain:
        """The chain of the name."""
        found = self.chains.get(name)
        if found is None:
            if hook_of(name, self.table) is None:
                expected = f"-N {name} before it" if self._whole else f":{name} - before it"
                raise self._failed(f"table {self.table} has no chain {name}", expected)
            found = self.chains[name] = FoldedChain(Policy.ACCEPT)
        return found

    def _failed(self, reason: str, expected: str = "") -> FailedCommandError:
        return FailedCommandError(reason, expected=expected)

    # --- rules ---

    def _do_append(self, command: Command, line: int) -> None:
        chain = self.chain(command.chain)
        self._check_place(command)
        packets, octets = command.counters or (0, 0)
        chain.rules.extend(DumpRule(rule, packets, octets, line) for rule in command.rules)

    def _do_insert(self, command: Command, line: int) -> None:
        """Put each rule at the number, so that several stand in reverse."""
        chain = self.chain(command.chain)
        self._check_place(command)
        if command.number > len(chain.rules) + 1:
            raise self._no_such_number(command, chain)
        for rule in command.rules:
            chain.rules.insert(command.number - 1, DumpRule(rule, *(command.counters or (0, 0)), line))

    def _do_replace(self, command: Command, line: int) -> None:
        chain = self.chain(command.chain)
        self._check_place(command)
        if len(command.rules) > 1:
            raise self._failed(f"rule {command.number} would be replaced by {len(command.rules)}", "one address")
        if command.number > len(chain.rules):
            raise self._no_such_number(command, chain)
        chain.rules[command.number - 1] = DumpRule(command.rules[0], *(command.counters or (0, 0)), line)

    def _do_delete(self, command: Command, _line: int) -> None:
        chain = self.chain(command.chain)
        if command.number:
            if command.number > len(chain.rules):
                raise self._no_such_number(command, chain)
            del chain.rules[command.number - 1]
            return
        left = list(chain.rules)
        for rule in command.rules:
            del left[self._place_of(rule, left, command.chain)]
        chain.rules = left

    def _do_check(self, command: Command, _line: int) -> None:
        chain = self.chain(command.chain)
        for rule in command.rules:
            self._place_of(rule, chain.rules, command.chain)

    def _place_of(self, rule: Rule, rules: Iterable[DumpRule], chain: str) -> int:
        """The index of the first rule that iptables takes for the same: one that it would print alike."""
        text = self._text(rule)
        for index, entry in enumerate(rules):
            if entry.rule.target == rule.target and self._text(entry.rule) == text:
                return index
        raise self._failed(
            f"chain {chain} has no rule {text or 'without conditions'}", "a rule that stands there by now"
        )

    def _text(self, rule: Rule) -> str:
        return format_rule(rule, family=self._family, language=self._language)

    def _no_such_number(self, command: Command, chain: FoldedChain) -> FailedCommandError:
        count = len(chain.rules)
        last = count + 1 if command.name == "insert" else count
        return self._failed(
            f"chain {command.chain} has {count or 'no'} rules, number {command.number} is none of its places",
            f"1 to {last}" if last else "a rule in it before",
        )

    def _check_place(self, command: Command) -> None:
        """Refuse what iptables refuses of a rule in this chain."""
        hook = hook_of(command.chain, self.table)
        for rule in command.rules:
            why = interface_problem(rule, hook) if hook is not None else None
            if self._whole:
                why = why or table_problem(rule, self.table) or (hook_problem(rule, [hook]) if hook else None)
            if why:
                raise self._failed(why)
            if self._whole and isinstance(rule.target, Jump | Goto):
                self._check_target(rule.target)

    def _check_target(self, target: Jump | Goto) -> None:
        if hook_of(target.chain, self.table) is not None:
            raise self._failed(f"{target.label}: a built-in chain can't be jumped to")
        if target.chain not in self.chains:
            raise self._failed(
                f"{target.label}: table {self.table} has no such chain, and iptables no such target",
                f"-N {target.chain} before it",
            )

    # --- chains ---

    def _do_new_chain(self, command: Command, _line: int) -> None:
        name = command.chain
        self._check_name(name)
        self.chains[name] = FoldedChain(None)

    def _check_name(self, name: str) -> None:
        if name in self.chains or hook_of(name, self.table) is not None:
            raise self._failed(f"table {self.table} has a chain {name} already")
        if name in self._language.targets or name in OPAQUE_TARGETS or name in VERDICTS:
            raise self._failed(f"{name} is a target of iptables", "another name")
        if not 1 <= len(name.encode()) <= _NAME_MAX or name[0] in "-!" or any(char.isspace() for char in name):
            raise self._failed(
                f"{name!r} can't be a chain's name", f"1 to {_NAME_MAX} bytes without a space, and no - or ! first"
            )

    def _do_delete_chain(self, command: Command, _line: int) -> None:
        if command.chain:
            self._check_deletion(command.chain)
            del self.chains[command.chain]
            return
        kept = dict(self.chains)
        for name in sorted(name for name, chain in kept.items() if chain.policy is None):
            try:
                self._check_deletion(name)
            except FailedCommandError:
                self.chains = kept
                raise
            self.chains = {other: chain for other, chain in self.chains.items() if other != name}

    def _check_deletion(self, name: str) -> None:
        chain = self.chain(name)
        if chain.policy is not None or hook_of(name, self.table) is not None:
            raise self._failed(f"{name} is a built-in chain, which can't be deleted")
        user = next(
            (other for other, held in self.chains.items() if any(_leads(e.rule, name) for e in held.rules)), None
        )
        if user is not None:
            raise self._failed(
                f"a rule of chain {user} leads to chain {name}", f"-D of that rule, or -F {user}, before it"
            )
        if chain.rules:
            raise self._failed(f"chain {name} isn't empty", f"-F {name} before it")

    def _do_rename_chain(self, command: Command, _line: int) -> None:
        old, new = command.chain, command.value
        chain = self.chains.get(old)
        self._check_name(new)
        if chain is None or chain.policy is not None:
            raise self._failed(f"table {self.table} has no chain {old} to rename")
        self.chains = {new if name == old else name: held for name, held in self.chains.items()}
        for held in self.chains.values():
            held.rules = [_renamed(entry, old, new) for entry in held.rules]

    def _do_flush(self, command: Command, _line: int) -> None:
        for chain in self._named(command):
            chain.rules = []

    def _named(self, command: Command) -> list[FoldedChain]:
        return [self.chain(command.chain)] if command.chain else list(self.chains.values())

    def _do_zero(self, command: Command, _line: int) -> None:
        if command.number:
            chain = self.chain(command.chain)
            if command.number > len(chain.rules):
                raise self._no_such_number(command, chain)
            entry = chain.rules[command.number - 1]
            chain.rules[command.number - 1] = DumpRule(entry.rule, line=entry.line)
            return
        for chain in self._named(command):
            chain.rules = [DumpRule(entry.rule, line=entry.line) for entry in chain.rules]

    def _do_policy(self, command: Command, _line: int) -> None:
        if hook_of(command.chain, self.table) is None:
            raise self._failed(f"{command.chain} is no built-in chain of table {self.table}: it has no policy")
        if command.value not in _POLICIES:
            raise self._failed(f"{command.value!r} is no policy", " or ".join(_POLICIES))
        if self.table is Table.NAT and command.value == "DROP":
            raise self._failed("table nat isn't for filtering: it takes no DROP", "DROP in table filter")
        self.chain(command.chain).policy = _POLICIES[command.value]

    def _do_list_rules(self, command: Command, line: int) -> None:
        self._do_list(command, line)

    def _do_list(self, command: Command, line: int) -> None:
        if command.chain:
            self.chain(command.chain)
        if command.zero:
            self._do_zero(command, line)


def _leads(rule: Rule, chain: str) -> bool:
    return isinstance(rule.target, Jump | Goto) and rule.target.chain == chain


def _renamed(entry: DumpRule, old: str, new: str) -> DumpRule:
    if not _leads(entry.rule, old):
        return entry
    target = Goto(new) if isinstance(entry.rule.target, Goto) else Jump(new)
    return msgspec.structs.replace(entry, rule=msgspec.structs.replace(entry.rule, target=target))


class FoldedFamily:
    """The tables of one family as they stand after the commands so far, all of them empty before the first."""

    def __init__(self, family: Family, language: Language) -> None:
        self.notes: list[DumpNote] = []
        self._family = family
        self._language = language
        self._tables: dict[Table, FoldedTable] = {}

    def apply(self, command: Command, line: int) -> None:
        """Do one command of a line to the table that it names; its errors are those of :meth:`FoldedTable.apply`."""
        if command.name.startswith("list"):
            self.notes.append(DumpNote(line, "a listing changes nothing"))
        self._table(command.table).apply(command, line)

    def _table(self, table: Table) -> FoldedTable:
        found = self._tables.get(table)
        if found is None:
            found = FoldedTable(table, family=self._family, language=self._language, whole=True)
            for hook in Hook:
                if hook in HOOKS[table]:
                    found.chain(hook.upper())
            self._tables[table] = found
        return found

    def done(self) -> Dump:
        """All tables as iptables-save prints them: built-in chains first, the others by name."""
        tables = []
        for name in Table:
            if name in self._tables:
                folded = self._tables[name]
                by_name = sorted(folded.chains.items(), key=lambda item: item[0] if item[1].policy is None else "")
                folded.chains = dict(by_name)
                tables.append(folded.done())
        return Dump(self._family, tuple(tables), tuple(self.notes))
