"""The pictures of the limits, and of the trials: latency, memory over time, and how the cost of a change grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.looks import CONTESTANTS, plain_number
from benchmarks.results import Cell, Trial, Work, walls
from benchmarks.results import Figure as Quantity
from benchmarks.tables import extent
from benchmarks.trials import BESIDE
from benchmarks.trials.goals import COMMITS, DIFF_SECONDS, EDIT_SECONDS, LEGACY_SECONDS, MEMORY_MB, NFT_SECONDS

if TYPE_CHECKING:  # matplotlib is an extra, and slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY: Final = "#555555"
_TARGET: Final = "#999999"


def _colour(subject: str) -> str:
    look = CONTESTANTS.get(f"meshfw, {subject}")
    return look.colour if look is not None else _GREY


# --- the limits -----------------------------------------------------------------------------------------------


def plot_limits(cells: Sequence[Cell]) -> Figure:
    """An idle apply beside the bare question to the kernel and the plain tool, a panel for each backend."""
    from matplotlib.figure import Figure

    held = [cell for cell in cells if cell.bare is not None]
    subjects = list(dict.fromkeys(cell.subject for cell in held))
    figure = Figure(figsize=(3.3 * max(2, len(subjects)), 3.3), layout="constrained")
    panels = list(figure.subplots(1, len(subjects), squeeze=False, sharey=True).flat)
    for panel, subject in zip(panels, subjects, strict=True):
        mine = sorted((cell for cell in held if cell.subject == subject), key=lambda cell: cell.rules)
        rules = [cell.rules for cell in mine]
        lines: Iterable[tuple[str, list[Work], str, str]] = (
            ("the plain tool, looking", [cell.plain for cell in mine], "--", _colour(subject)),
            ("meshfw, idle", [cell.meshfw for cell in mine], "-", _colour(subject)),
            ("the bare question", [cell.bare or cell.plain for cell in mine], ":", "black"),
        )
        for label, works, line, colour in lines:
            spreads = [walls(work) for work in works]
            medians = [spread.median * 1e6 for spread in spreads]
            panel.plot(rules, medians, line, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=label)
            low, high = [spread.low * 1e6 for spread in spreads], [spread.high * 1e6 for spread in spreads]
            panel.fill_between(rules, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set(xscale="log", yscale="log")
        panel.set_title(subject, fontsize=10)
        panel.set_xlabel("rules", fontsize=9)
        panel.xaxis.set_major_formatter("{x:,.0f}")
        _common(panel)
    panels[0].set_ylabel("microseconds", fontsize=9)
    panels[0].yaxis.set_major_formatter(plain_number)
    panels[0].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(0, 0.45))
    return figure


def _common(panel: Axes) -> None:
    panel.tick_params(labelsize=8)
    panel.grid(visible=True, which="major", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


# --- the trials -----------------------------------------------------------------------------------------------


def plot_trials(trials: Sequence[Trial]) -> Figure:
    """A panel for each kind of trial that has a course to show."""
    from matplotlib.figure import Figure

    drawn: Mapping[str, Callable[[Axes, Sequence[Trial]], None]] = {
        "latency": _draw_latency,
        "rest": _draw_memory_at_rest,
        "reconciles": _draw_memory_of_reconciles,
        "beside": _draw_cpu,
        "diff": _draw_growth,
        "rival": _draw_rival,
    }
    there = {name: [trial for trial in trials if trial.trial == name] for name in drawn}
    shown = {name: held for name, held in there.items() if held}
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(4.1 * columns, 3.3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, (name, held) in zip(panels, shown.items(), strict=False):
        drawn[name](panel, held)
        _common(panel)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    return figure


def _target(panel: Axes, value: float, text: str) -> None:
    panel.axhline(value, color=_TARGET, linewidth=1, linestyle=(0, (4, 3)))
    panel.annotate(
        text,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        fontsize=7.5,
        color=_GREY,
    )


def _draw_latency(panel: Axes, trials: Sequence[Trial]) -> None:
    """Each round as a dot, the median as a bar."""
    for place, trial in enumerate(trials):
        samples = [sample * 1e3 for sample in trial.figures["until repaired"].samples]
        middle = trial.figures["until repaired"].spread.median * 1e3
        spots = [place + (index % 7 - 3) * 0.05 for index in range(len(samples))]
        panel.plot(spots, samples, "o", color=_colour(trial.subject), markersize=3.5, alpha=0.6, linewidth=0)
        panel.hlines(middle, place - 0.3, place + 0.3, color=_colour(trial.subject), linewidth=2)
        panel.annotate(f"{middle:,.0f}", (place + 0.32, middle), va="center", fontsize=8)
    panel.set_xticks(range(len(trials)), [trial.subject for trial in trials], fontsize=8)
    panel.set_xlim(-0.6, len(trials) - 0.3)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(plain_number)
    _target(panel, NFT_SECONDS * 1e3, "target: nft, iptables-nft")
    _target(panel, LEGACY_SECONDS * 1e3, "target: iptables-legacy")
    panel.set_ylabel("milliseconds", fontsize=9)
    panel.set_title(f"flushed by somebody else, until repaired\n({extent(trials[0])})", fontsize=9)


def _draw_memory_at_rest(panel: Axes, trials: Sequence[Trial]) -> None:
    _draw_memory(panel, trials, "seconds")
    panel.set_title(f"memory of the agent at rest\n({extent(trials[0])})", fontsize=9)


def _draw_memory_of_reconciles(panel: Axes, trials: Sequence[Trial]) -> None:
    _draw_memory(panel, trials, "reconciles")
    panel.set_title(f"memory while reconciling\n({extent(trials[0])})", fontsize=9)


def _draw_memory(panel: Axes, trials: Sequence[Trial], unit: str) -> None:
    for trial in trials:
        samples = trial.figures["memory"].samples
        times = [index * trial.amount / max(1, len(samples) - 1) for index in range(len(samples))]
        panel.plot(times, samples, color=_colour(trial.subject), linewidth=1.6, label=trial.subject)
    _target(panel, MEMORY_MB, f"target: {MEMORY_MB:g} MB")
    panel.set_ylim(0, 1.15 * max(MEMORY_MB, *(trial.figures["memory"].spread.high for trial in trials)))
    panel.set_xlabel(unit, fontsize=9)
    panel.set_ylabel("resident MB", fontsize=9)
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_cpu(panel: Axes, trials: Sequence[Trial]) -> None:
    for place, trial in enumerate(trials):
        share = trial.figures["CPU"].spread.median
        bars = panel.barh(place, share, 0.6, color=_colour(trial.subject))
        started = trial.figures["processes"].spread.median
        panel.bar_label(bars, [f"{share:.2f} %, {started:,g} processes"], fontsize=8, padding=3)
    panel.set_yticks(range(len(trials)), [trial.subject for trial in trials], fontsize=8)
    panel.set_ylim(len(trials) - 0.4, -0.6)
    panel.set_xlim(0, 2.2 * max([0.01, *(trial.figures["CPU"].spread.median for trial in trials)]))
    panel.set_xlabel("% of a core", fontsize=9)
    panel.set_axisbelow(True)
    panel.set_title(f"the agent beside a writer at 10 commits/s\n({extent(trials[0])})", fontsize=9)


def _draw_rival(panel: Axes, trials: Sequence[Trial]) -> None:
    """Our commits against a rival, and how often they were told of."""
    for place, trial in enumerate(trials):
        commits = trial.figures["commits"].spread.median
        events = trial.figures["contention events"].spread.median
        bars = panel.barh(place, commits, 0.6, color=_colour(trial.subject))
        panel.bar_label(bars, [f"{commits:,g}; events told: {events:g}"], fontsize=8, padding=3)
    panel.axvline(COMMITS, color=_TARGET, linewidth=1, linestyle=(0, (4, 3)))
    panel.set_yticks(range(len(trials)), [trial.subject for trial in trials], fontsize=8)
    panel.set_ylim(len(trials) - 0.4, -0.6)
    panel.set_xlim(0, 1.8 * max([COMMITS, *(trial.figures["commits"].spread.median for trial in trials)]))
    panel.set_xlabel("commits of ours (dashed: target)", fontsize=9)
    panel.set_axisbelow(True)
    panel.set_title(f"against a rival who looks 10 times a second\n({extent(trials[0])})", fontsize=9)


def _draw_growth(panel: Axes, trials: Sequence[Trial]) -> None:
    trial = trials[-1]
    sizes = [int(name.split()[0].replace(",", "")) for name in trial.figures]
    spreads = [figure.spread for figure in trial.figures.values()]
    medians = [spread.median * 1e3 for spread in spreads]
    panel.plot(sizes, medians, "o-", color="#0072B2", markersize=4, label="measured")
    panel.fill_between(
        sizes, [s.low * 1e3 for s in spreads], [s.high * 1e3 for s in spreads], color="#0072B2", alpha=0.15, linewidth=0
    )
    middle = len(sizes) // 2
    straight = [medians[middle] * size / sizes[middle] for size in sizes]
    panel.plot(sizes, straight, ":", color="black", linewidth=1, label="in proportion")
    for size, median in zip(sizes, medians, strict=True):
        panel.annotate(
            f"{median:,.3g}", (size, median), xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=8
        )
    panel.set(xscale="log", yscale="log")
    panel.set_xlim(sizes[0] / 2.5, sizes[-1] * 1.6)
    panel.set_ylim(min(medians) / 2, 2.5 * max(*medians, DIFF_SECONDS * 1e3))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_major_formatter(plain_number)
    panel.plot([trial.rules], [DIFF_SECONDS * 1e3], "_", color=_GREY, markersize=16, label="target")
    panel.set_xlabel("rules, 1 % of them different", fontsize=9)
    panel.set_ylabel("milliseconds", fontsize=9)
    panel.legend(fontsize=8, frameon=False, loc="lower right")
    panel.set_title("comparing two rulesets", fontsize=9)


def plot_edits(trial: Trial) -> Figure:
    """The medians of one rule's edit at each place, alone and beside foreign chains, between their least and most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    panel = figure.subplots()
    figures = trial.figures
    places = [name for name in figures if BESIDE not in name]
    for offset, colour, label, samples in (
        (-0.18, "#0072B2", "alone", [figures[place] for place in places]),
        (0.18, "#E69F00", "beside foreign chains", [next(_beside(figures, place)) for place in places]),
    ):
        medians = [figure.spread.median * 1e3 for figure in samples]
        rows = [row + offset for row in range(len(places))]
        panel.barh(rows, medians, 0.34, color=colour, label=label)
        panel.hlines(
            rows,
            [figure.spread.low * 1e3 for figure in samples],
            [figure.spread.high * 1e3 for figure in samples],
            color="black",
            linewidth=0.8,
        )
    panel.axvline(EDIT_SECONDS * 1e3, color=_TARGET, linewidth=1, linestyle=(0, (4, 3)))
    shown = [place.replace(" at the ", ": ").replace(" of the ", " of ") for place in places]
    panel.set_yticks(range(len(places)), shown)
    panel.set_ylim(len(places) - 0.4, -0.6)
    panel.set_xlabel("milliseconds (dashed: target)", fontsize=9)
    panel.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    panel.set_title(f"one rule of {trial.rules:,}, nft", fontsize=10, loc="right")
    panel.set_axisbelow(True)
    _common(panel)
    return figure


def _beside(figures: Mapping[str, Quantity], place: str) -> Iterator[Quantity]:
    return (figure for name, figure in figures.items() if name.startswith(f"{place}{BESIDE}"))
