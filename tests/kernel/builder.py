"""Rulesets in few lines, in the words of iptables, for one family and for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshfw.languages.iptables import parse_rule
from meshfw.model import Attachment, Chain, ElementType, Family, Hook, Rule, Ruleset, Set, Table
from tests.kernel.worlds import LANGUAGE, WORDS


class Builder:
    """A ruleset in the making: objects of one family, from the words of iptables."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.words = WORDS[family]
        self.v4 = family is Family.IPV4
        self._chains: list[Chain] = []
        self._attachments: list[Attachment] = []
        self._sets: list[Set] = []

    def rule(self, text: str) -> Rule:
        return parse_rule(text.format(**self.words), family=self.family, language=LANGUAGE)

    def chain(self, name: str, *texts: str, table: Table = Table.FILTER) -> None:
        rules = tuple(self.rule(text) for text in texts)
        self._chains.append(Chain(family=self.family, table=table, name=name, rules=rules))

    def attach(self, name: str, hook: Hook, *, table: Table = Table.FILTER, when: str = "", **fields: Any) -> None:
        held = Attachment(
            family=self.family, table=table, hook=hook, chain=name, when=self.rule(when) if when else Rule(), **fields
        )
        self._attachments.append(held)

    def addresses(self, name: str, v4: Sequence[str], v6: Sequence[str]) -> None:
        self._sets.append(Set.of(self.family, name, v4 if self.v4 else v6))

    def ports(self, name: str, *elements: str) -> None:
        self._sets.append(Set.of(self.family, name, elements, type=ElementType.PORT))

    def replace_ports(self, name: str, *elements: str) -> None:
        self._sets = [held for held in self._sets if held.name != name]
        self.ports(name, *elements)

    def ruleset(self) -> Ruleset:
        return Ruleset(chains=tuple(self._chains), sets=tuple(self._sets), attachments=tuple(self._attachments))


def both(build: Callable[[Builder], None]) -> Ruleset:
    """What is built for each family, in one ruleset."""
    parts = []
    for family in Family:
        builder = Builder(family)
        build(builder)
        parts.append(builder.ruleset())
    return Ruleset(
        chains=tuple(chain for part in parts for chain in part.chains),
        sets=tuple(held for part in parts for held in part.sets),
        attachments=tuple(item for part in parts for item in part.attachments),
    )
