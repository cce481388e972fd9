"""A client that keeps rules through python-iptables: legacy tables, in process, one commit for each table.

It's a program of its own because the library keeps one handle for a table and process, takes no lock, and may take
the interpreter along when it ends badly. A task comes as JSON on standard input, what became of it goes to standard
output. Its rules are made by the library's own classes, which refuse what they can't make; ``iptc.easy`` would leave
it out of the rule.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from benchmarks.results import Sample
from benchmarks.rules import PlainRule, PlainTable
from benchmarks.timing import timed
from meshfw.model import Family
from meshfw.testing.counting import ProcessCounter

_OWN_OPTIONS = {"-s": "src", "-d": "dst", "-i": "in_interface", "-o": "out_interface", "-p": "protocol"}


class Task(msgspec.Struct, frozen=True):
    """A scenario: the tables as they stand, and as they are wanted; ``count``: its processes are counted."""

    scenario: str
    held: tuple[PlainTable, ...]
    wanted: tuple[PlainTable, ...]
    count: bool = False


class Refused(msgspec.Struct, frozen=True):
    """A rule that the library couldn't make, and why."""

    family: Family
    table: str
    rule: PlainRule
    reason: str


class Done(msgspec.Struct, frozen=True):
    """The costs of importing the library and of the work, and the rules that it couldn't make."""

    start: Sample
    work: Sample
    start_processes: int = 0
    processes: int = 0
    refused: tuple[Refused, ...] = ()


class Client:
    """The library at work on the tables of a task."""

    def __init__(self, iptc: Any, task: Task) -> None:
        self._iptc = iptc
        self._task = task
        self.refused: list[Refused] = []

    def prepare(self) -> Callable[[], None]:
        """The scenario's work; what a running client would know already is found out before."""
        if self._task.scenario == "first":
            return self._write_all
        if self._task.scenario == "end":
            return self._append
        known = [(table, self._dump(table)) for table in self._task.wanted]
        return lambda: self._look(known) if self._task.scenario == "idle" else self._repair()

    def _table(self, told: PlainTable) -> Any:
        kind = self._iptc.Table6 if told.family is Family.IPV6 else self._iptc.Table
        table = kind(told.table)
        table.refresh()
        return table

    def _dump(self, told: PlainTable) -> Any:
        self._table(told)
        return self._iptc.easy.dump_table(told.table, ipv6=told.family is Family.IPV6)

    def _look(self, known: Iterable[tuple[PlainTable, Any]]) -> None:
        for told, before in known:
            if self._dump(told) != before:
                raise RuntimeError("something has changed")

    def _write_all(self) -> None:
        for told in self._task.wanted:
            table = self._table(told)
            table.autocommit = False
            for chain in told.chains:
                table.create_chain(chain)
            for rule in told.rules:
                self._write(table, told, rule)
            self._commit(table)

    def _append(self) -> None:
        for told, rule, position in self._missing():
            table = self._table(told)
            table.autocommit = False
            self._write(table, told, rule, position=position)
            self._commit(table)

    def _repair(self) -> None:
        """Read everything, and put in what is missing."""
        for told in self._task.wanted:
            self._dump(told)
        self._append()

    def _missing(self) -> Iterator[tuple[PlainTable, PlainRule, int]]:
        """The rules that are wanted and don't stand, each with its place in its chain."""
        for old, new in zip(self._task.held, self._task.wanted, strict=True):
            stands = {(rule.chain, rule.text) for rule in old.rules}
            for rule in new.rules:
                if (rule.chain, rule.text) not in stands:
                    chain = [one for one in new.rules if one.chain == rule.chain]
                    yield new, rule, chain.index(rule)

    def _write(self, table: Any, told: PlainTable, rule: PlainRule, *, position: int | None = None) -> None:
        chain = self._iptc.Chain(table, rule.chain)
        try:
            made = rule_of(self._iptc, rule.words, ipv6=told.family is Family.IPV6)
            if rule.first:
                chain.insert_rule(made)
            elif position is None:
                chain.append_rule(made)
            else:
                chain.insert_rule(made, position)
        except (self._iptc.XTablesError, self._iptc.IPTCError, ValueError) as error:
            self.refused.append(Refused(told.family, told.table, rule, str(error)))

    @staticmethod
    def _commit(table: Any) -> None:
        table.commit()
        table.autocommit = True


def rule_of(iptc: Any, words: Sequence[str], *, ipv6: bool) -> Any:
    """A rule of the library from the words of iptables(8), as its save prints them."""
    rule = iptc.Rule6() if ipv6 else iptc.Rule()
    part = rule
    for sign, option, values in _options(words):
        if option in _OWN_OPTIONS:
            setattr(rule, _OWN_OPTIONS[option], sign + values[0])
        elif option == "-m":
            part = rule.create_match(values[0])
        elif option == "-j":
            part = rule.create_target(values[0])
        else:
            part.set_parameter(option.lstrip("-"), [*sign, *values])
    return rule


def _options(words: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each option with its sign, ``!`` or nothing, and its values."""
    index = 0
    while index < len(words):
        sign = "!" if words[index] == "!" else ""
        start = index + len(sign)
        index = start + 1
        while index < len(words) and words[index] != "!" and not words[index].startswith("-"):
            index += 1
        yield sign, words[start], list(words[start + 1 : index])


def main(task: Task) -> Done:
    """Import the library, do the work, and say what it cost."""
    loaded: list[Any] = []
    with ProcessCounter() if task.count else nullcontext() as starting:
        start = timed(lambda: loaded.append(importlib.import_module("iptc")))
    client = Client(loaded[0], task)
    work = client.prepare()
    with ProcessCounter() if task.count else nullcontext() as counter:
        sample = timed(work)
    return Done(
        start,
        sample,
        starting.count.forks if starting is not None else 0,
        counter.count.forks if counter is not None else 0,
        tuple(client.refused),
    )


if __name__ == "__main__":
    answer = main(msgspec.json.decode(sys.stdin.buffer.read(), type=Task))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
