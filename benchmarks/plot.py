"""The plot: wall time by rules, a panel for each scenario, and the processes that each scenario takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.results import Cell, Work, walls
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.subjects import SUBJECTS

if TYPE_CHECKING:  # matplotlib is an extra, and slow to import
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart.
_OURS: Final = ("#0072B2", "#009E73", "#CC79A7", "#E69F00")
_PLAIN: Final = ("#555555", "#999999", "#775533", "#AAAA55")
_COLUMNS: Final = 3


def missing() -> str | None:
    """Why nothing can be drawn, or None."""
    try:
        import matplotlib as _matplotlib  # noqa: F401 - only whether it's there
    except ImportError:
        return "no plot: matplotlib is not installed (pip install 'meshfw[bench]')"
    return None


def draw(cells: Sequence[Cell], path: str) -> None:
    """Write the plot of a run to a file, whose ending says the format."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    shown = [scenario for scenario in SCENARIOS if any(cell.scenario == scenario.name for cell in cells)]
    count = -(-(len(shown) + 1) // _COLUMNS)
    figure, grid = pyplot.subplots(
        count, _COLUMNS, figsize=(10, 2.5 * count + 0.6), layout="constrained", squeeze=False
    )
    panels = list(grid.flat)
    ends = [
        end * 1e3 for cell in cells for work in (cell.meshfw, cell.plain) for end in (walls(work).low, walls(work).high)
    ]
    for panel, scenario in zip(panels, shown, strict=False):
        _draw_times(panel, [cell for cell in cells if cell.scenario == scenario.name], scenario.title)
        panel.set_ylim(min(ends) / 2, max(ends) * 2)
    _draw_processes(panels[len(shown)], cells, shown)
    for panel in panels[len(shown) + 1 :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _draw_times(panel: Axes, cells: Sequence[Cell], title: str) -> None:
    for index, subject in enumerate(dict.fromkeys(cell.subject for cell in cells)):
        held = sorted((cell for cell in cells if cell.subject == subject), key=lambda cell: cell.rules)
        rules = [cell.rules for cell in held]
        _line(panel, rules, [cell.meshfw for cell in held], _OURS[index % len(_OURS)], ours=f"meshfw, {subject}")
        _line(panel, rules, [cell.plain for cell in held], _PLAIN[index % len(_PLAIN)], plain=SUBJECTS[subject].plain)
    panel.set(xscale="log", yscale="log")
    panel.set_title(f"{title}: ms by rules", fontsize=9)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.tick_params(labelsize=8)
    panel.grid(visible=True, which="major", alpha=0.25)


def _line(
    panel: Axes, rules: Sequence[int], works: Sequence[Work], colour: str, *, ours: str = "", plain: str = ""
) -> None:
    """The medians of one contestant as a line, between their least and most as a band."""
    spreads = [walls(work) for work in works]
    label = ours or f"{plain} alone, the same text (idle: a listing)"
    medians = [held.median * 1e3 for held in spreads]
    panel.plot(rules, medians, "-" if ours else "--", marker="o", markersize=3, color=colour, label=label)
    low, high = [held.low * 1e3 for held in spreads], [held.high * 1e3 for held in spreads]
    panel.fill_between(rules, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_processes(panel: Axes, cells: Sequence[Cell], scenarios: Sequence[Scenario]) -> None:
    """Bars: for each scenario the most processes over all sizes."""
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    bars = [(name, False, _OURS[at % len(_OURS)]) for at, name in enumerate(subjects)]
    bars += [(name, True, _PLAIN[at % len(_PLAIN)]) for at, name in enumerate(subjects)]
    height = 0.8 / len(bars)
    most = 1
    for index, (subject, plain, colour) in enumerate(bars):
        counts = [_most(cells, subject, scenario.name, plain=plain) for scenario in scenarios]
        most = max(most, *counts)
        places = [row + (index - (len(bars) - 1) / 2) * height for row in range(len(scenarios))]
        drawn = panel.barh(places, counts, height, color=colour)
        panel.bar_label(drawn, fontsize=7, padding=2, color=colour)
    panel.set_yticks(range(len(scenarios)), [scenario.name for scenario in scenarios], fontsize=8)
    panel.invert_yaxis()
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(left=0, right=1.5 * most)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set_title("processes, at any size", fontsize=9)
    panel.tick_params(labelsize=8)


def _most(cells: Sequence[Cell], subject: str, scenario: str, *, plain: bool) -> int:
    held = [cell for cell in cells if (cell.subject, cell.scenario) == (subject, scenario)]
    return max(((cell.plain if plain else cell.meshfw).processes for cell in held), default=0)
