"""The steps of a transaction of the iptables backends, and the check of them before the first one runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from meshfw.backend import Step
from meshfw.backends.iptables_text import Renderer, chain_of, changes_of, family_text, hidden_jumps, tables_of
from meshfw.backends.iptables_tool import Tool, Variant
from meshfw.backends.layout import TableKey
from meshfw.errors import BackendError
from meshfw.kernel.netlink import NfObject
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family
from meshfw.plan import Plan

TIDY: Final = ("nft", "-f", "-")
"""What a step is called that takes away what iptables can't or doesn't: it's done in process."""
_TABLE: Final = re.compile(r"delete table (ip6?) ([a-z]+)\Z")
_CHAIN: Final = re.compile(r"delete chain (ip6?) ([a-z]+) (\S+)\Z")
_RULE: Final = re.compile(r"delete rule (ip6?) ([a-z]+) ([A-Z]+) handle (\d+)\Z")


class Tidying(msgspec.Struct, frozen=True):
    """What a step takes away: rules and chains, all at once, and then tables in which nothing stands."""

    objects: tuple[NfObject, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()


def steps_of(plan: Plan, tool: Tool, *, render: Renderer, owner: str, tidy: bool) -> tuple[Step, ...]:
    """One input for iptables-restore and one for ip6tables-restore, with the questions that prove them behind.

    ``tidy`` takes away the tables in which nothing of ours is wanted any more: iptables-nft makes tables and base
    chains for whoever asks first, and never takes them away.
    """
    steps = []
    for family in Family:
        text = family_text(plan, family, render=render, owner=owner)
        if text:
            steps.append(Step(tool.command(family), text))
    lines = [*_hidden_lines(plan, owner), *_emptied_lines(plan)] if tidy else []
    return (*steps, Step(TIDY, "".join(f"{line}\n" for line in lines))) if lines else tuple(steps)


def _hidden_lines(plan: Plan, owner: str) -> Iterator[str]:
    """The jumps that iptables doesn't find, and the chains that can't go before them."""
    for change in plan.lists:
        place = f"{FAMILIES[change.key.family]} {change.key.table}"
        yield from (f"delete rule {place} {hook.upper()} handle {handle}" for hook, handle in hidden_jumps(change))
        if change.new is None and change.old is not None and change.old.backing.hidden:
            yield f"delete chain {place} {chain_of(owner, change)}"


def _emptied_lines(plan: Plan) -> Iterator[str]:
    """The tables that the plan leaves without a list of ours."""
    wanted = {(chain.family, chain.table) for chain in plan.desired.chains}
    return (
        f"delete table {FAMILIES[family]} {table}" for family, table in tables_of(plan) if (family, table) not in wanted
    )


def check_steps(steps: Sequence[Step], tool: Tool) -> None:
    """Refuse what nobody here can run, before anything runs: BackendError."""
    for step in steps:
        if step.command == TIDY:
            tidying(step)
        elif tool.family(step.command) is None:
            raise BackendError(f"{' '.join(step.command)} is no step of this backend")


def tidying(step: Step) -> Tidying:
    """What a step takes away; BackendError for a line that says something else."""
    objects: list[NfObject] = []
    tables: list[tuple[str, str]] = []
    for line in step.input.splitlines():
        if table := _TABLE.match(line):
            tables.append((table[1], table[2]))
        elif chain := _CHAIN.match(line):
            objects.append(NfObject(chain[1], chain[2], chain[3]))
        elif rule := _RULE.match(line):
            objects.append(NfObject(rule[1], rule[2], rule[3], int(rule[4])))
        else:
            raise BackendError(f"{line!r} takes away neither a rule by its handle nor a chain nor a table")
    return Tidying(tuple(objects), tuple(tables))


def restart_notes(plan: Plan, variant: Variant) -> Iterator[str]:
    """The lists in which a rule that moves starts to count anew, or its limit does."""
    for change in plan.lists:
        places = enumerate(zip(change.rules, change.kept, change.source, strict=True), 1)
        moved = [(index, rule) for index, (rule, kept, source) in places if kept < 0 <= source]
        limits = ", ".join(str(index) for index, rule in moved if rule.stateful)
        if limits:
            yield f"{change.key}: rule {limits} is written again, and its limit starts anew"
        if moved and change.key.family not in variant.counters_move:
            again = ", ".join(str(index) for index, _ in moved)
            program = variant.programs[change.key.family]
            yield f"{change.key}: rule {again} is written again and counts from zero: {program} can't set counters"


def stands(tables: Iterable[TableKey], plan: Plan) -> list[str]:
    """What to know of tables that are neither old nor put back, a line each."""
    found = []
    for key in tables:
        lists = [str(change.key) for change in changes_of(plan, key)]
        found.append(f"{key[0]} {key[1]}: changed and not put back ({', '.join(lists)})")
    return found
