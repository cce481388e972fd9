"""Whole dumps in the iptables-save format (iptables-save(8), iptables-restore(8)): parsed, printed, made a ruleset."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from meshfw.errors import ModelError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.fold import FoldedChain, FoldedTable
from meshfw.languages.iptables import format_rule, parse_command
from meshfw.languages.lexer import Word, split
from meshfw.languages.tables import Dump, DumpChain, DumpNote, DumpRule, DumpTable, hook_of
from meshfw.model import Attachment, Chain, Family, Goto, Jump, Place, Policy, Ruleset, Table

__all__ = [
    "Dump",
    "DumpChain",
    "DumpNote",
    "DumpRule",
    "DumpTable",
    "format_dump",
    "hook_of",
    "parse_dump",
    "ruleset_of_dump",
]


_COUNTERS: Final = re.compile(r"\[(\d+):(\d+)\]\Z")
_POLICIES: Final = {"ACCEPT": Policy.ACCEPT, "DROP": Policy.DROP, "-": None}


class _DumpParser:
    """The state of reading a dump line by line."""

    def __init__(self, *, family: Family, language: Language, source: str) -> None:
        self._family = family
        self._language = language
        self._source = source
        self._tables: list[DumpTable] = []
        self._notes: list[DumpNote] = []
        self._folded: FoldedTable | None = None
        self._opened = 0

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
        if self._folded is not None:
            raise ParseError(
                f"table {self._folded.table} of line {self._opened} has no COMMIT: the dump is cut off",
                source=self._source,
                line=number,
                expected="COMMIT",
            )
        return Dump(self._family, tuple(self._tables), tuple(self._notes))

    def _line(self, line: str, number: int) -> None:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            return
        if stripped.startswith("*"):
            self._open(stripped[1:], number)
        elif (folded := self._folded) is None:
            raise ParseError(f"{stripped.split()[0]!r} outside a table", column=1, expected="*TABLE before it")
        elif stripped == "COMMIT":
            self._tables.append(folded.done())
            self._folded = None
        elif stripped.startswith(":"):
            self._chain(split(line), folded)
        else:
            self._command(line, number, folded)

    def _open(self, name: str, number: int) -> None:
        if self._folded is not None:
            raise ParseError(
                f"table {self._folded.table} is still open", column=1, expected="COMMIT before the next table"
            )
        if name not in set(Table):
            raise ParseError(f"unknown table {name!r}", column=2, expected=", ".join(sorted(Table)))
        if any(name == table.table for table in self._tables):
            raise ParseError(f"table {name} stands here twice", column=1)
        self._folded = FoldedTable(Table(name), family=self._family, language=self._language, whole=False)
        self._opened = number

    def _chain(self, words: list[Word], folded: FoldedTable) -> None:
        name = words[0].text[1:]
        if len(words) < 2 or words[1].text not in _POLICIES:
            raise ParseError(
                f"chain {name} has no policy", column=1, expected=":CHAIN ACCEPT, DROP or -, [PACKETS:BYTES]"
            )
        policy = _POLICIES[words[1].text]
        builtin = hook_of(name, folded.table) is not None
        if policy is not None and not builtin:
            expected = "-: only built-in chains have a policy"
            raise ParseError(f"chain {name} has policy {words[1].text}", column=words[1].column, expected=expected)
        if len(words) > 2 and not _COUNTERS.match(words[2].text):
            raise ParseError(f"{words[2].text!r} are no counters", column=words[2].column, expected="[PACKETS:BYTES]")
        if name in folded.chains:
            raise ParseError(f"chain {name} is declared twice", column=1)
        # iptables-restore leaves the policy of a built-in chain with - as it is, which is what ACCEPT means here.
        folded.chains[name] = FoldedChain(policy or Policy.ACCEPT if builtin else None)

    def _command(self, line: str, number: int, folded: FoldedTable) -> None:
        words = split(line)
        counters = _COUNTERS.match(words[0].text)
        if counters:
            words = words[1:]
        if not words or not words[0].text.startswith("-"):
            found = words[0] if words else Word("nothing", 1)
            raise ParseError(
                f"{found.text!r} is no line of a dump", column=found.column, expected=":CHAIN, -A CHAIN RULE or COMMIT"
            )
        command = parse_command(words, family=self._family, language=self._language, table=folded.table)
        if not command.name:
            self._notes.append(DumpNote(number, f"a line for the other family than {self._family} is passed over"))
            return
        if counters and command.counters is None:
            command = msgspec.structs.replace(command, counters=(int(counters[1]), int(counters[2])))
        folded.apply(command, number)


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
