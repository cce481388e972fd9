"""The mesh's rules as clients without a model get them: tables, chains and argument lists, for each family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from benchmarks.plain import plain_steps
from benchmarks.subjects import Subject
from meshfw.backend import Site, Step
from meshfw.backends.iptables_listing import marked_name
from meshfw.extensions import Language
from meshfw.languages.lexer import split
from meshfw.model import Family, Ruleset
from meshfw.reconcile import plan
from meshfw.testing.netns import Netns

OWNER = "meshfw"


class PlainRule(msgspec.Struct, frozen=True):
    """A rule of a chain in the words of iptables(8); ``first``: it goes to the chain's head."""

    chain: str
    words: tuple[str, ...]
    text: str
    first: bool = False


class PlainTable(msgspec.Struct, frozen=True):
    """A table of one family: its chains, and its rules in their order."""

    family: Family
    table: str
    chains: tuple[str, ...]
    rules: tuple[PlainRule, ...]


def plain_tables(subject: Subject, ruleset: Ruleset, language: Language) -> tuple[PlainTable, ...]:
    """The tables that the subject's backend would write into an empty kernel, without the marks that are meshfw's own.

    The subject is one of iptables'.
    """
    with Netns("meshfw-bench") as room:
        backend = subject.backend(Site(owner=OWNER, language=language, netns=room.path))
        try:
            steps = plain_steps(subject.plainly(backend.compile(plan(backend, ruleset))), subject.tools)
        finally:
            backend.close()
    families = dict(zip(subject.tools, Family, strict=True))
    return tuple(table for step in steps for table in _tables(step, families[step.command[0]]))


def _tables(step: Step, family: Family) -> Iterator[PlainTable]:
    name = ""
    chains: list[str] = []
    rules: list[PlainRule] = []
    for line in step.input.splitlines():
        kind, chain, text = (*line.split(" ", 2), "", "")[:3]
        if line.startswith("*"):
            name, chains, rules = line[1:], [], []
        elif kind == "-N":
            chains.append(chain)
        elif kind in {"-A", "-I"} and marked_name(text, OWNER) is None:
            words = tuple(word.text for word in split(text))
            rules.append(PlainRule(chain, words, text, kind == "-I"))
        elif line == "COMMIT":
            yield PlainTable(family, name, tuple(chains), tuple(rules))


def restore_steps(tables: Iterable[PlainTable], tools: Sequence[str]) -> tuple[Step, ...]:
    """The steps by which the plain tools make tables in an empty kernel."""
    inputs: dict[Family, str] = {}
    for table in tables:
        lines = [f"*{table.table}", *(f":{chain} - [0:0]" for chain in table.chains)]
        lines += [f"-{'I' if rule.first else 'A'} {rule.chain} {rule.text}" for rule in table.rules]
        inputs[table.family] = inputs.get(table.family, "") + "".join(f"{line}\n" for line in (*lines, "COMMIT"))
    names = dict(zip(Family, tools, strict=True))
    return tuple(Step((names[family], "--noflush"), text) for family, text in inputs.items())
