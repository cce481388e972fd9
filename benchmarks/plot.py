"""The pictures: wall time by number of rules, a panel for each scenario; and the processes that each scenario takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.looks import CONTESTANTS, named, plain_number
from benchmarks.plot_endurance import plot_edits, plot_limits, plot_trials
from benchmarks.results import Run, Work, walls
from benchmarks.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:  # matplotlib is an extra, and slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_COLUMNS: Final = 3
_PROCESS_RULES: Final = 1_000  # the most rules that all contestants are measured with
_MOST_PANELS: Final = 5
_DPI: Final = 100


def missing() -> str | None:
    """Why nothing can be drawn, or None."""
    try:
        import matplotlib as _matplotlib  # noqa: F401 - only whether it's there
    except ImportError:
        return "no pictures: matplotlib is not installed (pip install 'meshfw[bench]')"
    return None


def draw(run: Run, directory: str) -> Iterator[str]:
    """Write the pictures of a run into a directory; the paths."""
    import matplotlib as mpl

    mpl.use("agg")
    figures = []
    if run.cells:
        figures += [("time.png", _times(run)), ("processes.png", _processes(run))]
    if any(cell.bare is not None for cell in run.cells):
        figures.append(("limits.png", plot_limits(run.cells)))
    if run.trials:
        figures.append(("endurance.png", plot_trials(run.trials)))
    figures += [("edits.png", plot_edits(trial)) for trial in run.trials if trial.trial == "edit"]
    for name, figure in figures:
        path = os.path.join(directory, name)
        figure.savefig(path, dpi=_DPI)
        yield path


def _works(run: Run) -> dict[tuple[str, str, int], Work]:
    """What everybody did, by contestant, scenario and number of rules."""
    found = {(f"meshfw, {cell.subject}", cell.scenario, cell.rules): cell.meshfw for cell in run.cells}
    found |= {(f"plain, {cell.subject}", cell.scenario, cell.rules): cell.plain for cell in run.cells}
    return found | {(cell.peer, cell.scenario, cell.rules): cell.work for cell in run.peers}


def _order(works: Mapping[tuple[str, str, int], Work]) -> list[str]:
    """The contestants of a run, in the order of the legend."""
    there = dict.fromkeys(name for name, _, _ in works)
    return [*(name for name in CONTESTANTS if name in there), *(name for name in there if name not in CONTESTANTS)]


# --- time ----------------------------------------------------------------------------------------------------


def _times(run: Run) -> Figure:
    from matplotlib.figure import Figure

    works = _works(run)
    shown = [scenario for scenario in SCENARIOS if any(cell.scenario == scenario.name for cell in run.cells)]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * max(columns, 2), 2.7 * rows + 1.3), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row").flat)
    handles: dict[str, Line2D] = {}
    for panel, scenario in zip(panels, shown, strict=False):
        handles |= _draw_times(panel, works, scenario)
    for index, panel in enumerate(panels):
        if index >= len(shown):
            panel.set_axis_off()
        if index % columns == 0:
            panel.set_ylabel("milliseconds", fontsize=9)
        if index + columns >= len(shown):
            panel.set_xlabel("rules", fontsize=9)
            panel.tick_params(labelbottom=True)
    labels = [name for name in _order(works) if name in handles]
    figure.legend(
        [handles[name] for name in labels],
        [named(name).label for name in labels],
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return figure


def _draw_times(panel: Axes, works: Mapping[tuple[str, str, int], Work], scenario: Scenario) -> dict[str, Line2D]:
    """The medians of each contestant as a line, between their least and most as a band; the lines by contestant."""
    lines: dict[str, Line2D] = {}
    for name in _order(works):
        held = sorted(
            (rules, work) for (who, what, rules), work in works.items() if (who, what) == (name, scenario.name)
        )
        if not held:
            continue
        look = named(name)
        rules = [size for size, _ in held]
        spreads = [walls(work) for _, work in held]
        (lines[name],) = panel.plot(
            rules,
            [spread.median * 1e3 for spread in spreads],
            look.line,
            marker=look.marker or None,
            markersize=3.5,
            linewidth=1.4,
            color=look.colour,
        )
        low, high = [spread.low * 1e3 for spread in spreads], [spread.high * 1e3 for spread in spreads]
        panel.fill_between(rules, low, high, color=look.colour, alpha=0.12, linewidth=0)
    panel.set(xscale="log", yscale="log")
    panel.set_title(scenario.title, fontsize=10)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_major_formatter(plain_number)
    panel.tick_params(labelsize=8)
    panel.grid(visible=True, which="major", alpha=0.25)
    return lines


# --- processes -----------------------------------------------------------------------------------------------


def _processes(run: Run) -> Figure:
    """Bars, a panel for each scenario, on an axis that begins at 0 and is logarithmic from 1 on."""
    from matplotlib.figure import Figure

    works = _works(run)
    sizes = sorted({cell.rules for cell in run.cells})
    rules = max((size for size in sizes if size <= _PROCESS_RULES), default=sizes[0])
    held = {(name, scenario): work for (name, scenario, size), work in works.items() if size == rules}
    shown = _compared(run, rules)
    names = [name for name in _order(works) if any((name, scenario.name) in held for scenario in shown)]
    figure = Figure(figsize=(2.1 * len(shown) + 3.2, 0.34 * len(names) + 1.4), layout="constrained")
    figure.suptitle(f"Processes with {rules:,} rules", fontsize=11)
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True).flat
    most = max(work.processes for work in held.values())
    for panel, scenario in zip(panels, shown, strict=True):
        counts = {name: held[name, scenario.name].processes for name in names if (name, scenario.name) in held}
        starts = {cell.peer: cell.start.processes for cell in run.peers if cell.start is not None}
        _draw_bars(panel, names, counts, starts=starts, most=most)
        panel.set_title(scenario.title.replace("behind", "\nbehind"), fontsize=9)
    return figure


def _compared(run: Run, rules: int) -> Sequence[Scenario]:
    """The scenarios in which everybody was measured; the first ones, where there are none such."""
    mine = [scenario for scenario in SCENARIOS if any(cell.scenario == scenario.name for cell in run.cells)]
    common = {cell.scenario for cell in run.peers if cell.rules == rules}
    return [scenario for scenario in mine if scenario.name in common] or mine[:_MOST_PANELS]


def _draw_bars(
    panel: Axes, names: Sequence[str], counts: Mapping[str, int], *, starts: Mapping[str, int], most: int
) -> None:
    for row, name in enumerate(names):
        if name not in counts:
            continue
        look = named(name)
        drawn = panel.barh(
            row, counts[name], 0.68, color=f"{look.colour}55" if look.hatch else look.colour, hatch=look.hatch or None
        )
        for bar in drawn:
            bar.set_edgecolor(look.colour)
        panel.bar_label(drawn, labels=[_count(counts[name], starts.get(name, 0))], fontsize=8.5, padding=3)
    panel.set_yticks(range(len(names)), [named(name).label for name in names], fontsize=8.5)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(0, 20 * most)
    panel.set_xticks([0, *(10**power for power in range(len(str(most))))])
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.minorticks_off()
    panel.tick_params(axis="x", labelsize=8)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=True, axis="x", alpha=0.25)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _count(processes: int, start: int) -> str:
    return f"{processes:,}, and {start:,} once to start" if start else f"{processes:,}"
