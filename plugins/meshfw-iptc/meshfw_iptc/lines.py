"""The lines of a step, in the words of iptables-restore: parsed first, all of them, and then carried out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from meshfw import BackendError, Family, Language, ParseError, Rule, Step, parse_rule
from meshfw.iptables import TableKey
from meshfw.model import Table
from meshfw_iptc.libraries import NAME
from meshfw_iptc.making import buffer, made
from meshfw_iptc.tables import OpenTable

_CHAIN: Final = re.compile(r":(?P<chain>\S+) - \[0:0\]\Z")
_EDIT: Final = re.compile(
    r"-(?P<edit>[AIRDNFX]) (?P<chain>\S+)(?: (?P<at>[1-9]\d*)(?= |\Z))?(?: (?P<rest>.+))?\Z", re.DOTALL
)
_COUNTERS: Final = re.compile(r"-c (\d+) (\d+)(?: |\Z)")
_FORMS: Final[Mapping[str, Callable[[int, str], bool]]] = {
    "A": lambda at, _rest: not at,
    "D": lambda at, rest: bool(at) != bool(rest),
    "I": lambda _at, _rest: True,
    "R": lambda at, _rest: bool(at),
    **dict.fromkeys("FNX", lambda at, rest: not at and not rest),
}
"""Whether an edit takes such a position and such a rule."""


class Line(msgspec.Struct, frozen=True):
    """One edit of a table: its letter, or ``:`` for a chain that is made or emptied; ``at`` counts from 1."""

    edit: str
    chain: str
    at: int = 0
    rule: Rule = Rule()
    counters: tuple[int, int] = (0, 0)


def command(key: TableKey) -> tuple[str, ...]:
    """What a step on a table is called."""
    return (NAME, key[0].value, key[1].value)


_TABLES: Final[Mapping[tuple[str, ...], TableKey]] = {
    command((family, table)): (family, table) for family in Family for table in Table
}


def parsed_step(step: Step, language: Language) -> tuple[TableKey, tuple[Line, ...]]:
    """The table of a step and its lines.

    Raises:
        BackendError: there is no such step, or a line in it can't be understood.
    """
    key = _TABLES.get(step.command)
    if key is None:
        raise BackendError(f"{' '.join(step.command)} is no step of this backend", backend=NAME)
    return key, tuple(parsed_line(line, key[0], language) for line in step.input.split("\n") if line)


def parsed_line(text: str, family: Family, language: Language) -> Line:
    """One line; BackendError where it's none."""
    chain = _CHAIN.match(text)
    if chain is not None:
        return Line(":", chain["chain"])
    found = _EDIT.match(text)
    if found is None:
        raise BackendError(f"{text!r} is no edit of a chain", backend=NAME)
    edit, rest, at = found["edit"], found["rest"] or "", int(found["at"] or 0)
    if not _FORMS[edit](at, rest):
        raise BackendError(f"{text!r} is no edit of a chain", backend=NAME)
    counted = _COUNTERS.match(rest)
    counters = (int(counted[1]), int(counted[2])) if counted is not None else (0, 0)
    try:
        rule = parse_rule(rest[counted.end() :] if counted is not None else rest, family=family, language=language)
    except ParseError as error:
        raise BackendError(f"{text!r}: {error.reason}", backend=NAME) from error
    return Line(edit, found["chain"], at, rule, counters)


def carry_out(table: OpenTable, lines: Iterable[Line], language: Language) -> None:
    """Make the edits in an open table; nothing is written before its commit.

    Raises:
        BackendError: one of them can't be made.
    """
    for line in lines:
        with table.refusals():
            _EDITS[line.edit](table, line, language)


def _rule(table: OpenTable, line: Line, language: Language) -> Any:
    return buffer(made(table.bench, line.rule, language, counters=line.counters))


def _append(table: OpenTable, line: Line, language: Language) -> None:
    table.table.append_entry(line.chain, _rule(table, line, language))


def _insert(table: OpenTable, line: Line, language: Language) -> None:
    table.table.insert_entry(line.chain, _rule(table, line, language), max(line.at - 1, 0))


def _replace(table: OpenTable, line: Line, language: Language) -> None:
    table.table.replace_entry(line.chain, _rule(table, line, language), line.at - 1)


def _delete(table: OpenTable, line: Line, language: Language) -> None:
    if line.at:
        table.delete_at(line.chain, line.at - 1)
    else:
        rule = made(table.bench, line.rule, language)
        table.table.delete_entry(line.chain, buffer(rule), rule.mask)


def _make(table: OpenTable, line: Line, _language: Language) -> None:
    table.table.create_chain(line.chain)


def _make_or_empty(table: OpenTable, line: Line, _language: Language) -> None:
    if table.table.is_chain(line.chain):
        table.table.flush_entries(line.chain)
    else:
        table.table.create_chain(line.chain)


def _flush(table: OpenTable, line: Line, _language: Language) -> None:
    table.table.flush_entries(line.chain)


def _remove(table: OpenTable, line: Line, _language: Language) -> None:
    table.table.delete_chain(line.chain)


_EDITS: Final[dict[str, Callable[[OpenTable, Line, Language], None]]] = {
    ":": _make_or_empty,
    "A": _append,
    "D": _delete,
    "F": _flush,
    "I": _insert,
    "N": _make,
    "R": _replace,
    "X": _remove,
}
