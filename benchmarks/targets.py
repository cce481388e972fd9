"""The targets: what a run must show, each with what it measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks.results import Cell, overheads, ratios, walls
from benchmarks.scenarios import BY_NAME


class Verdict(msgspec.Struct, frozen=True):
    """A target's measured value in words, and whether it is met."""

    measured: str
    met: bool


class Target(msgspec.Struct, frozen=True):
    """One line of the promise; ``judge`` gets the cells of ``subject``, None from it means: not measured."""

    subject: str
    text: str
    judge: Callable[[Sequence[Cell]], Verdict | None]


class Judged(msgspec.Struct, frozen=True):
    """A target and what became of it; ``met`` is None where it wasn't measured."""

    subject: str
    text: str
    measured: str
    met: bool | None


def judge(cells: Sequence[Cell]) -> tuple[Judged, ...]:
    """Every target, judged by the cells of a run."""
    judged = []
    for target in TARGETS:
        verdict = target.judge([cell for cell in cells if cell.subject == target.subject])
        if verdict is None:
            judged.append(Judged(target.subject, target.text, "not measured", None))
        else:
            judged.append(Judged(target.subject, target.text, verdict.measured, verdict.met))
    return tuple(judged)


def excess(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The cells in which a backend took more processes than it may, a line each."""
    return tuple(
        f"{cell.subject}, {place(cell)}: {cell.meshfw.processes} processes, {cell.allowed} allowed "
        f"({'; '.join(cell.meshfw.commands)})"
        for cell in cells
        if cell.meshfw.processes > cell.allowed
    )


def place(cell: Cell) -> str:
    """Scenario and size, in words."""
    return f"{BY_NAME[cell.scenario].title}, {cell.rules:,} rules"


def _processes(cells: Sequence[Cell]) -> Verdict | None:
    if not cells:
        return None
    worst = max(cells, key=lambda cell: cell.meshfw.processes)
    count = worst.meshfw.processes
    where = f" ({place(worst)})" if count else f" in all {len(cells)} measured"
    return Verdict(f"{count}{where}", count == 0)


_COMMIT_MOST: Final = 1.15


def _commit(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if all("commit" in sample.steps for sample in cell.meshfw.samples)]
    if not held:
        return None
    worst = max(held, key=lambda cell: ratios(cell, "commit").median)
    ratio = ratios(worst, "commit")
    measured = f"at most {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}; {place(worst)})"
    return Verdict(measured, ratio.median <= _COMMIT_MOST)


_FIRST_MOST: Final = 25e-6


def _first(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if cell.scenario == "first"]
    if not held:
        return None
    worst = max(held, key=lambda cell: overheads(cell).median)
    over = overheads(worst)
    ends = f"{over.low * 1e6:+.1f} to {over.high * 1e6:+.1f}; {worst.rules:,} rules"
    return Verdict(f"at most {over.median * 1e6:+.1f} µs a rule ({ends})", over.median <= _FIRST_MOST)


_IDLE_MOST: Final = 20e-6


def _idle(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if cell.scenario == "idle"]
    if not held:
        return None
    largest = max(held, key=lambda cell: (cell.rules, walls(cell.meshfw).median))
    wall = walls(largest.meshfw)
    measured = f"{wall.median * 1e6:.1f} µs ({wall.low * 1e6:.1f} to {wall.high * 1e6:.1f}; {largest.rules:,} rules)"
    return Verdict(measured, wall.median <= _IDLE_MOST)


TARGETS: Final = (
    Target("nft", "no process in any scenario", _processes),
    Target("nft", f"a commit takes at most {_COMMIT_MOST} times `nft -f -` of the same text", _commit),
    Target("nft", f"a first sync takes at most `nft -f -` + {_FIRST_MOST * 1e6:.0f} µs a rule", _first),
    Target("nft", f"an idle apply takes at most {_IDLE_MOST * 1e6:.0f} µs with 10,000 rules", _idle),
)
"""The targets, in the order in which they are shown. Where one speaks of ratios, they are pair by pair, and medians."""
