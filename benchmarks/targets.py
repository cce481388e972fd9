"""The targets: what a run must show, each with what it measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks.results import Cell, Spread, overheads, ratios, walls
from benchmarks.scenarios import BY_NAME, ONE_CHANGE


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


# --- processes ---


def _none(cells: Sequence[Cell]) -> Verdict | None:
    return _counted(cells, lambda count: count == 0, "0")


def _idle_none(cells: Sequence[Cell]) -> Verdict | None:
    return _none([cell for cell in cells if BY_NAME[cell.scenario].idle])


def _one(cells: Sequence[Cell]) -> Verdict | None:
    return _counted([cell for cell in cells if cell.scenario in ONE_CHANGE], lambda count: count == 1, "1")


def _counted(cells: Sequence[Cell], right: Callable[[int], bool], wanted: str) -> Verdict | None:
    """Whether all counts are right; one that isn't is shown with its place."""
    if not cells:
        return None
    wrong = [cell for cell in cells if not right(cell.meshfw.processes)]
    if wrong:
        worst = max(wrong, key=lambda cell: cell.meshfw.processes)
        return Verdict(f"{worst.meshfw.processes} ({place(worst)})", met=False)
    return Verdict(f"{wanted} in all {len(cells)} measured", met=True)


_PER_FAMILY_MOST: Final = 2


def _per_family(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if cell.scenario in {"first", "repair"}]
    if not held:
        return None
    worst = max(held, key=_processes_per_family)
    most = max((cell for cell in held), key=lambda cell: cell.meshfw.processes)
    measured = f"{_processes_per_family(worst):g} a family, at most {most.meshfw.processes} in all ({place(most)})"
    return Verdict(measured, _processes_per_family(worst) <= _PER_FAMILY_MOST)


def _processes_per_family(cell: Cell) -> float:
    return cell.meshfw.processes / BY_NAME[cell.scenario].writes


def _growth(cells: Sequence[Cell]) -> Verdict | None:
    """Whether no scenario takes more processes with the most rules than with the fewest."""
    sizes = sorted({cell.rules for cell in cells})
    if len(sizes) < 2:
        return None
    few, many = ({cell.scenario: cell for cell in cells if cell.rules == size} for size in (sizes[0], sizes[-1]))
    for scenario, cell in many.items():
        if scenario in few and cell.meshfw.processes > few[scenario].meshfw.processes:
            return Verdict(
                f"{cell.meshfw.processes} instead of {few[scenario].meshfw.processes} ({place(cell)})", False
            )
    return Verdict(f"the same with {sizes[0]:,} and with {sizes[-1]:,} rules", met=True)


# --- time ---

_COMMIT_MOST: Final = 1.15


def _commit(cells: Sequence[Cell]) -> Verdict | None:
    """The commit beside the plain tool on the same text; and on that text without the questions, for comparison."""
    held = [cell for cell in cells if all("commit" in sample.steps for sample in cell.meshfw.samples)]
    if not held:
        return None
    worst = max(held, key=lambda cell: ratios(cell, "commit", over=cell.same_text).median)
    ratio = ratios(worst, "commit", over=worst.same_text)
    over = sum(ratios(cell, "commit", over=cell.same_text).median > _COMMIT_MOST for cell in held)
    measured = f"at most {_spread(ratio)}; {place(worst)})"
    if over:
        measured += f", beyond it in {over} of {len(held)} cells"
    asking = [cell for cell in held if cell.verbatim is not None]
    if asking:
        most = max(asking, key=lambda cell: ratios(cell, "commit").median)
        measured += f"; without its questions at most {_spread(ratios(most, 'commit'))}; {place(most)})"
    return Verdict(measured, ratio.median <= _COMMIT_MOST)


def _spread(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}"


_FIRST_MOST: Final = 25e-6


def _first(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if cell.scenario == "first"]
    if not held:
        return None
    worst = max(held, key=lambda cell: overheads(cell).median)
    largest = max(held, key=lambda cell: cell.rules)
    measured = f"at most {_overhead(worst)}"
    if largest is not worst:
        measured += f", with {largest.rules:,} rules {_overhead(largest)}"
    return Verdict(measured, overheads(worst).median <= _FIRST_MOST)


def _overhead(cell: Cell) -> str:
    over = overheads(cell)
    ends = f"{over.low * 1e6:+.1f} to {over.high * 1e6:+.1f}; {cell.rules:,} rules"
    return f"{over.median * 1e6:+.1f} µs a rule ({ends})"


_CHANGE_MOST: Final = 1.2
_CHANGE_RULES: Final = 10_000


def _change(cells: Sequence[Cell]) -> Verdict | None:
    """The whole apply of one rule in a large ruleset beside the plain tool that is told the one line."""
    held = [cell for cell in cells if cell.scenario in {"end", "delete"} and cell.rules == _CHANGE_RULES]
    if not held:
        return None
    worst = max(held, key=lambda cell: ratios(cell).median)
    return Verdict(f"at most {_spread(ratios(worst))}; {place(worst)})", ratios(worst).median <= _CHANGE_MOST)


_IDLE_MOST: Final = 20e-6


def _idle(cells: Sequence[Cell]) -> Verdict | None:
    held = [cell for cell in cells if cell.scenario == "idle"]
    if not held:
        return None
    worst = max(held, key=lambda cell: walls(cell.meshfw).median)
    wall = walls(worst.meshfw)
    measured = (
        f"at most {wall.median * 1e6:.1f} µs ({wall.low * 1e6:.1f} to {wall.high * 1e6:.1f}; {worst.rules:,} rules)"
    )
    return Verdict(measured, wall.median <= _IDLE_MOST)


_BARE_MOST: Final = 1.6
_GENERATION_MOST: Final = 3.0


def _idle_bare(most: float) -> Callable[[Sequence[Cell]], Verdict | None]:
    return lambda cells: _beside_bare(cells, most)


def _beside_bare(cells: Sequence[Cell], most: float) -> Verdict | None:
    """An idle apply beside the bare question to the same kernel."""
    held = [(cell, ratios(cell, over=cell.bare)) for cell in cells if cell.bare is not None]
    if not held:
        return None
    worst, ratio = max(held, key=lambda pair: pair[1].median)
    largest, there = max(held, key=lambda pair: pair[0].rules)
    measured = f"at most {_spread(ratio)}; {worst.rules:,} rules)"
    if largest is not worst:
        measured += f", with {largest.rules:,} rules {_spread(there)})"
    return Verdict(measured, ratio.median <= most)


# --- the table ---


def _of_generation(subject: str) -> tuple[Target, ...]:
    """What an idle apply over nf_tables may take: alone, and beside the one question that it can't do without."""
    beside = f"an idle apply takes at most {_GENERATION_MOST:g} times a bare GETGEN, at any size"
    return (
        Target(subject, f"an idle apply takes at most {_IDLE_MOST * 1e6:.0f} µs, at any size", _idle),
        Target(subject, beside, _idle_bare(_GENERATION_MOST)),
    )


def _of_iptables(subject: str, tool: str, *idle: Target) -> tuple[Target, ...]:
    return (
        Target(subject, "no process when idle, at any size", _idle_none),
        Target(subject, "exactly one process for one change, at any size", _one),
        Target(subject, f"at most {_PER_FAMILY_MOST} processes a family for a first sync or a repair", _per_family),
        Target(subject, "no more processes with the most rules than with the fewest", _growth),
        *idle,
        Target(subject, f"a commit takes at most {_COMMIT_MOST} times {tool} of the same text", _commit),
        Target(subject, f"a first sync takes at most {tool} + {_FIRST_MOST * 1e6:.0f} µs a rule", _first),
        Target(
            subject,
            f"one rule more or less in {_CHANGE_RULES:,} takes at most {_CHANGE_MOST} times {tool} of that one line",
            _change,
        ),
    )


TARGETS: Final = (
    Target("nft", "no process in any scenario", _none),
    Target("nft", f"a commit takes at most {_COMMIT_MOST} times `nft -f -` of the same text", _commit),
    Target("nft", f"a first sync takes at most `nft -f -` + {_FIRST_MOST * 1e6:.0f} µs a rule", _first),
    *_of_generation("nft"),
    *_of_iptables("iptables-nft", "iptables-nft-restore", *_of_generation("iptables-nft")),
    *_of_iptables(
        "iptables-legacy",
        "iptables-legacy-restore",
        Target(
            "iptables-legacy",
            f"an idle apply takes at most {_BARE_MOST} times the bare reading of tables",
            _idle_bare(_BARE_MOST),
        ),
    ),
)
"""The targets, in the order in which they are shown. Where one speaks of ratios, they are pair by pair, and medians."""
