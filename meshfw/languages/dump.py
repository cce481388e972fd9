"""Whole dumps in the iptables-save format (iptables-save(8), iptables-restore(8)): parsed, printed, made a ruleset."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from meshfw.errors import ModelError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.lexer import Word, split
from meshfw.model import (
    HOOKS,
    Attachment,
    Chain,
    Family,
    Goto,
    Hook,
    Jump,
    Place,
    Policy,
    Rule,
    Ruleset,
    Table,
)


class DumpRule(msgspec.Struct, frozen=True, gc=False):
    """One ``-A`` line: the rule, its counters (packets, bytes), and the line it stood on (0: none)."""

    rule: Rule
    packets: int = 0
    bytes: int = 0
    line: int = 0


class DumpChain(msgspec.Struct, frozen=True, gc=False):
    """One chain of a dump; built-in chains have a policy, others None."""

    name: str
    policy: Policy | None = None
    rules: tuple[DumpRule, ...] = ()


class DumpTable(msgspec.Struct, frozen=True, gc=False):
    """One ``*table ... COMMIT`` block."""

    table: Table
    chains: tuple[DumpChain, ...] = ()


class Dump(msgspec.Struct, frozen=True, gc=False):
    """What one iptables-save or ip6tables-save printed."""

    family: Family
    tables: tuple[DumpTable, ...] = ()


_COUNTERS: Final = re.compile(r"\[(\d+):(\d+)\]\Z")
_POLICIES: Final = {"ACCEPT": Policy.ACCEPT, "DROP": Policy.DROP, "-": None}


class _DumpParser:
    """The state of reading a dump line by line."""

    def __init__(self, *, family: Family, language: Language, source: str) -> None:
        self._family = family
        self._language = language
        self._source = source
        self._tables: list[DumpTable] = []
        self._table: Table | None = None
        self._opened = 0
        self._chains: dict[str, tuple[Policy | None, list[DumpRule]]] = {}

    def parse(self, text: str) -> Dump:
        number = 0
        lines = text.removesuffix("\n").split("\n")  # a comment may hold what str.splitlines takes for a line's end
        for number, line in enumerate(lines, 1):
            try:
                self._line(line.rstrip("\r"), number)
            except ParseError as error:
                raise type(error)(
                    error.reason,
                    text=line,
                    source=self._source,
                    line=number,
                    column=error.column,
                    expected=error.expected,
                ) from None
        if self._table is not None:
            raise ParseError(
                f"table {self._table} of line {self._opened} has no COMMIT: the dump is cut off",
                source=self._source,
                line=number,
                expected="COMMIT",
            )
        return Dump(self._family, tuple(self._tables))

    def _line(self, line: str, number: int) -> None:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            return
        if stripped.startswith("*"):
            self._open(stripped[1:], number)
        elif (table := self._table) is None:
            raise ParseError(f"{stripped.split()[0]!r} outside a table", column=1, expected="*TABLE before it")
        elif stripped == "COMMIT":
            self._commit(table)
        elif stripped.startswith(":"):
            self._chain(split(line), table)
        else:
            self._rule(split(line), number)

    def _open(self, name: str, number: int) -> None:
        if self._table is not None:
            raise ParseError(f"table {self._table} is still open", column=1, expected="COMMIT before the next table")
        if name not in set(Table):
            raise ParseError(f"unknown table {name!r}", column=2, expected=", ".join(sorted(Table)))
        if any(name == table.table for table in self._tables):
            raise ParseError(f"table {name} stands here twice", column=1)
        self._table, self._opened, self._chains = Table(name), number, {}

    def _commit(self, table: Table) -> None:
        chains = tuple(DumpChain(name, policy, tuple(rules)) for name, (policy, rules) in self._chains.items())
        self._tables.append(DumpTable(table, chains))
        self._table = None

    def _chain(self, words: list[Word], table: Table) -> None:
        name = words[0].text[1:]
        if len(words) < 2 or words[1].text not in _POLICIES:
            raise ParseError(
                f"chain {name} has no policy", column=1, expected=":CHAIN ACCEPT, DROP or -, [PACKETS:BYTES]"
            )
        policy = _POLICIES[words[1].text]
        builtin = hook_of(name, table) is not None
        if builtin != (policy is not None):
            wanted = "ACCEPT or DROP: it is a built-in chain" if builtin else "-: only built-in chains have a policy"
            raise ParseError(f"chain {name} has policy {words[1].text}", column=words[1].column, expected=wanted)
        if len(words) > 2 and not _COUNTERS.match(words[2].text):
            raise ParseError(f"{words[2].text!r} are no counters", column=words[2].column, expected="[PACKETS:BYTES]")
        if name in self._chains:
            raise ParseError(f"chain {name} is declared twice", column=1)
        self._chains[name] = (policy, [])

    def _rule(self, words: list[Word], number: int) -> None:
        packets = octets = 0
        counters = _COUNTERS.match(words[0].text)
        if counters:
            packets, octets = int(counters[1]), int(counters[2])
            words = words[1:]
        if len(words) < 2 or words[0].text not in ("-A", "--append"):
            column = words[0].column if words else 1
            found = words[0].text if words else "nothing"
            raise ParseError(
                f"{found!r} is no line of a dump", column=column, expected=":CHAIN, -A CHAIN RULE or COMMIT"
            )
        name = words[1].text
        if name not in self._chains:
            raise ParseError(f"chain {name} is not declared", column=words[1].column, expected=f":{name} before it")
        rule = parse_rule(words[2:], family=self._family, language=self._language)
        self._chains[name][1].append(DumpRule(rule, packets, octets, number))


def hook_of(chain: str, table: Table) -> Hook | None:
    """The hook of a built-in chain's name in the table; None for any other chain."""
    lower = chain.lower()
    hook = Hook(lower) if chain.isupper() and lower in set(Hook) else None
    return hook if hook in HOOKS[table] else None


def parse_dump(text: str, *, family: Family, language: Language, source: str = "") -> Dump:
    """The dump of one family.

    Raises:
        ParseError: with source, line, column and what was expected; also for a dump that is cut off.
    """
    return _DumpParser(family=family, language=language, source=source).parse(text)


def format_dump(dump: Dump, *, language: Language) -> str:
    """The dump as iptables-save prints it, without its comment lines; counters are printed where there are any."""
    lines: list[str] = []
    for table in dump.tables:
        lines.append(f"*{table.table}")
        lines.extend(f":{chain.name} {chain.policy.upper() if chain.policy else '-'} [0:0]" for chain in table.chains)
        for chain in table.chains:
            for entry in chain.rules:
                counted = f"[{entry.packets}:{entry.bytes}] " if entry.packets or entry.bytes else ""
                text = format_rule(entry.rule, family=dump.family, language=language)
                lines.append(f"{counted}-A {chain.name} {text}".rstrip())
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def ruleset_of_dump(
    dump: Dump,
    *,
    place: Place = Place.FIRST,
    rank: int = 0,
    keep: Callable[[Table, str], bool] = lambda table, chain: True,
    source: str = "",
) -> Ruleset:
    """The ruleset that a dump declares: each built-in chain with rules or a DROP policy is attached to its hook.

    ``keep`` leaves chains out, and with them the rules that lead into them.
    """
    chains: list[Chain] = []
    attachments: list[Attachment] = []
    for table in dump.tables:
        left_out = {chain.name for chain in table.chains if not keep(table.table, chain.name)}
        for whole in table.chains:
            hook = hook_of(whole.name, table.table)
            if whole.name in left_out:
                continue
            chain = _without(whole, left_out)
            if hook is not None and not chain.rules and chain.policy is not Policy.DROP:
                continue
            _refuse_builtin_jumps(chain, table.table, source)
            rules = tuple(entry.rule for entry in chain.rules)
            try:
                chains.append(Chain(family=dump.family, table=table.table, name=chain.name, rules=rules))
            except ModelError as error:
                raise _located(error, chain.rules, source) from None
            if hook is not None:
                attachments.append(
                    Attachment(
                        family=dump.family,
                        table=table.table,
                        hook=hook,
                        chain=chain.name,
                        place=place,
                        rank=rank,
                        policy=Policy.DROP if chain.policy is Policy.DROP else Policy.RETURN,
                    )
                )
    return Ruleset(chains=tuple(chains), attachments=tuple(attachments))


def _without(chain: DumpChain, left_out: Collection[str]) -> DumpChain:
    """The chain without the rules that lead into chains left out."""
    rules = tuple(
        entry
        for entry in chain.rules
        if not (isinstance(entry.rule.target, Jump | Goto) and entry.rule.target.chain in left_out)
    )
    return chain if len(rules) == len(chain.rules) else DumpChain(chain.name, chain.policy, rules)


def _refuse_builtin_jumps(chain: DumpChain, table: Table, source: str) -> None:
    for entry in chain.rules:
        target = entry.rule.target
        if isinstance(target, Jump | Goto) and hook_of(target.chain, table) is not None:
            raise ParseError(f"{target.label}: a built-in chain can't be jumped to", source=source, line=entry.line)


def _located(error: ModelError, rules: Sequence[DumpRule], source: str) -> ModelError:
    """The model's refusal with the file's line beside the rule's number."""
    if error.rule is None or not source:
        return error
    line = rules[error.rule - 1].line
    return type(error)(error.reason, where=f"{source}, line {line} ({error.where})", rule=error.rule)
