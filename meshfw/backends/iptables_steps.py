"""The steps of a transaction of the iptables backends, and the check of them before the first one runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from meshfw.backend import Step
from meshfw.backends.iptables_text import Renderer, family_text, tables_of
from meshfw.backends.iptables_tool import Tool, Variant
from meshfw.backends.layout import TableKey
from meshfw.errors import BackendError
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family
from meshfw.plan import Plan

TIDY: Final = ("nft", "-f", "-")
"""What a step is called that takes away tables: it's done in process, where nothing stands in them."""
_LINE: Final = re.compile(r"delete table (ip6?) ([a-z]+)\Z")


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
    emptied = "".join(f"delete table {FAMILIES[family]} {table}\n" for family, table in _emptied(plan)) if tidy else ""
    return (*steps, Step(TIDY, emptied)) if emptied else tuple(steps)


def _emptied(plan: Plan) -> Iterable[TableKey]:
    """The tables that the plan leaves without a list of ours."""
    wanted = {(chain.family, chain.table) for chain in plan.desired.chains}
    return (key for key in tables_of(plan) if key not in wanted)


def check_steps(steps: Sequence[Step], tool: Tool) -> None:
    """Refuse what nobody here can run, before anything runs: BackendError."""
    for step in steps:
        if step.command == TIDY:
            unused_tables(step)
        elif tool.family(step.command) is None:
            raise BackendError(f"{' '.join(step.command)} is no step of this backend")


def unused_tables(step: Step) -> list[tuple[str, str]]:
    """Family and name of the tables that a step takes away; BackendError for a line that says something else."""
    found = [_LINE.match(line) for line in step.input.splitlines()]
    if None in found:
        raise BackendError(f"{step.input!r} holds more than 'delete table FAMILY NAME' lines")
    return [(match[1], match[2]) for match in found if match is not None]


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
        lists = [str(change.key) for change in plan.lists if (change.key.family, change.key.table) == key]
        found.append(f"{key[0]} {key[1]}: changed and not put back ({', '.join(lists)})")
    return found
