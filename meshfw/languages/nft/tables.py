"""Whole dumps in nft's language: each iptables table as an nft table of its name, on iptables' own hooks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec

from meshfw.errors import InexpressibleError
from meshfw.extensions.language import Language
from meshfw.languages.dump import Dump, DumpChain, DumpTable, hook_of
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft.names import FAMILIES, SPOKEN_NAMES, spoken_name
from meshfw.languages.nft.render import ONE_METER, NftText, render_on_hooks
from meshfw.model import Family, Goto, Hook, Jump, Policy, Rule, Table

PRIORITIES: Final[Mapping[Table, int]] = {
    Table.RAW: -300,
    Table.MANGLE: -150,
    Table.FILTER: 0,
    Table.SECURITY: 50,
}
"""Priorities of iptables' tables (linux/netfilter_ipv4.h, enum nf_ip_hook_priorities); nat has two."""
_NAT: Final[Mapping[Hook, int]] = {Hook.PREROUTING: -100, Hook.OUTPUT: -100, Hook.POSTROUTING: 100, Hook.INPUT: 100}


class NftHook(msgspec.Struct, frozen=True):
    """What makes an nft chain a base chain: type, hook and priority (nft(8), CHAINS)."""

    type: str
    hook: str
    priority: int

    def __str__(self) -> str:
        return f"type {self.type} hook {self.hook} priority {self.priority};"


def nft_hook(table: Table, hook: Hook, *, offset: int = 0) -> NftHook:
    """Where an iptables table's chain stands on a hook, or so much behind it."""
    kind = "filter"
    if table is Table.NAT:
        kind = "nat"
    elif table is Table.MANGLE and hook is Hook.OUTPUT:
        kind = "route"
    priority = _NAT[hook] if table is Table.NAT else PRIORITIES[table]
    return NftHook(kind, hook.value, priority + offset)


class Untold(msgspec.Struct, frozen=True):
    """A rule that nft can't say: chain, place, canonical text and reason; its line where that is known."""

    table: Table
    chain: str
    number: int
    rule: str
    reason: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line else ""
        return f"{place}{self.table} {self.chain} rule {self.number} ({self.rule}): {self.reason}"


class NftTables(msgspec.Struct, frozen=True):
    """A dump in nft's language: its text, what of it can't be said, and what a person should know."""

    text: str
    untold: tuple[Untold, ...] = ()
    warnings: tuple[str, ...] = ()


def render_tables(dump: Dump, *, language: Language, approximate: bool = False) -> NftTables:
    """The dump as one ``table`` block each, loadable by ``nft -f``; chains bear their names as nft can say them.

    With ``approximate`` what comes near takes the place of what can't be said, each with a warning.
    """
    writer = _Writer(dump.family, language, approximate=approximate)
    lines = [line for table in dump.tables for line in writer.table(table)]
    return NftTables("".join(f"{line}\n" for line in lines), tuple(writer.untold), tuple(writer.warnings))


def _reach(table: DumpTable) -> Mapping[str, Collection[Hook]]:
    """The hooks from which packets come to each chain of a table."""
    leads = {
        chain.name: {entry.rule.target.chain for entry in chain.rules if isinstance(entry.rule.target, Jump | Goto)}
        for chain in table.chains
    }
    reached: dict[str, set[Hook]] = {}
    for start in leads:
        hook = hook_of(start, table.table)
        todo = [start] if hook is not None else []
        while todo and hook is not None:
            hooks = reached.setdefault(name := todo.pop(), set())
            if hook not in hooks:
                hooks.add(hook)
                todo.extend(leads.get(name, ()))
    return reached


class _Writer:
    """The state of writing one dump."""

    def __init__(self, family: Family, language: Language, *, approximate: bool) -> None:
        self._family = family
        self._language = language
        self._approximate = approximate
        self._meters: set[str] = set()
        self._shared: set[str] = set()
        self.untold: list[Untold] = []
        self.warnings: list[str] = []

    def table(self, table: DumpTable) -> Iterator[str]:
        yield f"table {FAMILIES[self._family]} {table.table} {{"
        self._meters.clear()
        hooks = _reach(table)
        texts = [self._rules(chain, table.table, hooks.get(chain.name, ())) for chain in table.chains]
        objects = {(held.kind, held.name): held for rules in texts for text, _ in rules for held in text.objects}
        for held in objects.values():
            yield from (f"\t{held.kind} {held.name} {{", f"\t\t{held.body}", "\t}")
        for chain, rules in zip(table.chains, texts, strict=True):
            yield f"\tchain {self._name(chain.name)} {{"
            hook = hook_of(chain.name, table.table)
            if hook is not None:
                policy = "drop" if chain.policy is Policy.DROP else "accept"
                yield f"\t\t{nft_hook(table.table, hook)} policy {policy};"
            yield from (f"\t\t{line}" for _, line in rules)
            yield "\t}"
        yield "}"

    def _name(self, name: str) -> str:
        spoken = spoken_name(name)
        told = f"chain {name} is called {spoken}: nft's text can't say that name"
        if spoken != name and told not in self.warnings:
            self.warnings.append(told)
        return spoken

    def _rules(self, chain: DumpChain, table: Table, hooks: Collection[Hook]) -> list[tuple[NftText, str]]:
        found = []
        for number, entry in enumerate(chain.rules, 1):
            try:
                text = render_on_hooks(
                    entry.rule,
                    hooks=hooks,
                    family=self._family,
                    language=self._language,
                    names=SPOKEN_NAMES,
                    approximate=self._approximate,
                )
                text.claim_meters(self._meters)
                self._claim_shared(entry.rule)
            except InexpressibleError as error:
                shown = format_rule(entry.rule, family=self._family, language=self._language)
                self.untold.append(Untold(table, chain.name, number, shown, error.reason, entry.line))
                continue
            self.warnings += [told for told in text.warnings if told not in self.warnings]
            counted = entry.packets or entry.bytes
            found.append((text, text.counting_from(entry.packets, entry.bytes) if counted else str(text)))
        return found

    def _claim_shared(self, rule: Rule) -> None:
        """Refuse what counts together with a rule of another table: that goes across the tables of iptables alone."""
        names = {match.shared for match in rule.matches if match.shared}
        again = names & self._shared
        if again:
            raise InexpressibleError(f"{min(again)} counts together with a rule of another table: {ONE_METER}")
        self._shared |= names
