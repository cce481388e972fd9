"""The vectors that nobody here wrote, and what meshfw makes of them: ``python -m tests.corpus`` prints the table.

They are no part of the project: they are read from a directory beside the checkout, or where MESHFW_CORPUS says. Each
was run against iptables 1.8.9 and nft 1.0.6 before; the answers stand in them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshfw.errors import ModelError
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.dump import hook_of
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import Attachment, Chain, Family, Goto, Jump, OpaqueMatch, OpaqueTarget, Rule, Ruleset, Table
from meshfw.sources.hosts import host_tables

CORPUS: Final = Path(os.environ.get("MESHFW_CORPUS") or Path(__file__).resolve().parents[3] / "shared" / "corpus")

needed: Final = pytest.mark.skipif(
    not CORPUS.exists(), reason=f"no corpus: {CORPUS.name}/ is not beside the checkout, nor where MESHFW_CORPUS says"
)
"""The mark of tests that read it."""

Vector = dict[str, Any]


@cache
def language() -> Language:
    """Every extension, and the names of this host, as the tools had them when the vectors were made."""
    return Language.of(builtin_extensions(), hosts=host_tables())


def vectors(name: str) -> Iterator[Vector]:
    """The vectors of one file; ``FileNotFoundError`` where there is no corpus."""
    with (CORPUS / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def typed(rule: Rule) -> bool:
    """Whether the typed language knows every match and the target."""
    return not isinstance(rule.target, OpaqueTarget) and not any(isinstance(m, OpaqueMatch) for m in rule.matches)


def parsed(argv: list[str], family: str) -> Rule:
    """The rule of a vector's words; ``ParseError`` where they make none."""
    return parse_rule(argv, family=Family(family), language=language())


def canonical(rule: Rule, family: str) -> str:
    """The rule as it is printed."""
    return format_rule(rule, family=Family(family), language=language())


def saved(vector: Vector, variant: str = "legacy") -> str:
    """What iptables saved of a vector, behind ``-A CHAIN``."""
    words = vector[f"{variant}_save"].split(" ", 2)
    return words[2] if len(words) > 2 else ""


def placed(vector: Vector) -> Rule:
    """The rule of a vector in its table and chain; ``MeshfwError`` where it can't stand there."""
    rule = parsed(vector["argv"], vector["family"])
    family, table, name = Family(vector["family"]), Table(vector["table"]), vector["chain"]
    others = [rule.target.chain] if isinstance(rule.target, Jump | Goto) else []
    if any(hook_of(other, table) for other in others):
        raise ModelError("a built-in chain can't be jumped to")
    hook = hook_of(name, table)
    attachments = [Attachment(family=family, table=table, hook=hook, chain=name)] if hook is not None else []
    chains = [Chain(family=family, table=table, name=name, rules=(rule,))]
    chains += [Chain(family=family, table=table, name=other) for other in others if other != name]
    Ruleset(chains=tuple(chains), attachments=tuple(attachments))
    return rule


class Figure(msgspec.Struct, frozen=True):
    """One line of the table: what was counted, how many of how many, what is wanted, and the rows that fail."""

    name: str
    good: int
    of: int
    wanted: float
    rest: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The good ones' share; 1 of nothing."""
        return self.good / self.of if self.of else 1.0

    def __str__(self) -> str:
        met = "met" if self.share >= self.wanted else "MISSED"
        return f"{self.name:<58} {self.good:>6} of {self.of:>6}  {self.share:8.3%}  wanted {self.wanted:7.2%}  {met}"


def counted(name: str, wanted: float, results: Iterator[tuple[bool, str]]) -> Figure:
    """A figure of results, each with a text that is kept where it is bad."""
    good, rest, of = 0, [], 0
    for is_good, text in results:
        of += 1
        if is_good:
            good += 1
        else:
            rest.append(text)
    return Figure(name, good, of, wanted, tuple(rest))
