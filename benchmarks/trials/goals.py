"""The targets of the trials: what each must show, with what it measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from benchmarks.results import Figure, Trial
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import extent
from benchmarks.targets import Judged, Verdict
from benchmarks.trials import BESIDE, MODEL, TRIALS
from benchmarks.trials.alone import RULES_A_FOREIGN_CHAIN

NFT_SECONDS: Final = 0.1
LEGACY_SECONDS: Final = 1.0
COMMITS: Final = 10
CPU_PERCENT: Final = 0.1
MEMORY_MB: Final = 80.0
FLAT_MB: Final = 1.0
"""Memory that is gained in a trial's time, up to which it counts as flat."""
DIFF_SECONDS: Final = 0.15
GROWTH: Final = 1.5
"""By how much a rule of ten times as many may cost more, and the growth still counts as linear."""
EDIT_SECONDS: Final = 0.005
FOREIGN_SHARE: Final = 1.2
"""By how much an edit may take longer beside foreign chains, and still counts as independent of them."""


class Goal(msgspec.Struct, frozen=True):
    """One line of the promise about a trial with a subject."""

    trial: str
    subject: str
    text: str
    judge: Callable[[Trial], Verdict]


def judge_trials(trials: Sequence[Trial]) -> tuple[Judged, ...]:
    """Every target of trials, judged by those of a run, the last one of each; nothing where there are none.

    One that went on for less long, or had fewer rules, than the target speaks of can miss it, but not meet it.
    """
    held = {(trial.trial, trial.subject): trial for trial in trials}
    judged = []
    for goal in GOALS if trials else ():
        trial = held.get((goal.trial, goal.subject))
        if trial is None:
            judged.append(Judged(goal.subject, goal.text, "not measured", None))
            continue
        verdict, kind = goal.judge(trial), TRIALS[trial.trial]
        measured, met = f"{verdict.measured}; {extent(trial)}", verdict.met
        if trial.amount < kind.amount or trial.rules < kind.rules:
            judged.append(Judged(goal.subject, goal.text, f"{measured}: a short run", None if met else False))
        else:
            judged.append(Judged(goal.subject, goal.text, measured, met))
    return tuple(judged)


def _number(trial: Trial, name: str) -> float:
    return trial.figures[name].spread.median


def _ends(figure: Figure, scale: float, digits: int) -> str:
    spread = figure.spread
    numbers = (f"{value * scale:,.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return "{} ({} to {})".format(*numbers)


def _latency(most: float) -> Callable[[Trial], Verdict]:
    def judge(trial: Trial) -> Verdict:
        figure = trial.figures["until repaired"]
        return Verdict(f"{_ends(figure, 1e3, 0)} ms", figure.spread.median < most)

    return judge


def _beside(trial: Trial) -> Verdict:
    started = _number(trial, "processes")
    measured = (
        f"{started:,g} processes; {_number(trial, 'CPU'):.2f} % of a core, {_number(trial, 'CPU a write'):.2f} ms a "
        f"write, at {_number(trial, 'writes'):.1f} a second"
    )
    return Verdict(measured, started == 0)


def _rival(trial: Trial) -> Verdict:
    commits, events = _number(trial, "commits"), _number(trial, "contention events")
    changed = _number(trial, "foreign lines changed")
    measured = f"{commits:g} commits, {events:g} contention events, {changed:g} foreign lines changed"
    return Verdict(measured, commits <= COMMITS and events == 1 and changed == 0)


def _rest(trial: Trial) -> Verdict:
    started, cpu, gained = (_number(trial, name) for name in ("processes", "CPU", "memory gained"))
    peak = trial.figures["memory"].spread.high
    measured = f"{started:g} processes, {cpu:.3f} % of a core, {peak:.1f} MB at most, {gained:+.2f} MB gained"
    return Verdict(measured, started == 0 and cpu < CPU_PERCENT and peak <= MEMORY_MB and gained <= FLAT_MB)


def _reconciles(trial: Trial) -> Verdict:
    gained, started = _number(trial, "memory gained"), _number(trial, "processes when idle")
    counted = _number(trial, "idle reconciles counted")
    measured = (
        f"{gained:+.2f} MB gained, {_ends(trial.figures['memory'], 1, 1)} MB in all; "
        f"{started:g} processes in {counted:,g} idle ones"
    )
    return Verdict(measured, gained <= FLAT_MB and started == 0)


def _diff(trial: Trial) -> Verdict:
    _, own, _ = trial.figures.values()
    return Verdict(f"{_ends(own, 1e3, 1)} ms", own.spread.median <= DIFF_SECONDS)


def _growth(trial: Trial) -> Verdict:
    _, own, large = trial.figures.values()
    growth = large.spread.median / own.spread.median / 10
    return Verdict(f"{growth:.2f} times; with ten times as many {_ends(large, 1e3, 0)} ms", growth <= GROWTH)


def _edit(trial: Trial) -> Verdict:
    place, figure = max(trial.figures.items(), key=lambda item: item[1].spread.median)
    return Verdict(f"at most {_ends(figure, 1e3, 2)} ms ({place})", figure.spread.median <= EDIT_SECONDS)


def foreign_shares(trial: Trial) -> dict[str, float]:
    """By place, how much longer an edit took beside foreign chains than without: the medians' ratio."""
    return {
        place: trial.figures[beside].spread.median / figure.spread.median
        for place, figure in trial.figures.items()
        for beside in [next((name for name in trial.figures if name.startswith(f"{place}{BESIDE}")), "")]
        if beside
    }


def _foreign(trial: Trial) -> Verdict:
    place, share = max(foreign_shares(trial).items(), key=lambda item: item[1])
    return Verdict(f"at most {share:.2f} times ({place})", share <= FOREIGN_SHARE)


def _goals() -> Iterator[Goal]:
    kinds = TRIALS
    for subject in SUBJECTS:
        most = LEGACY_SECONDS if subject == "iptables-legacy" else NFT_SECONDS
        text = (
            f"{kinds['latency'].rules:,} rules that somebody flushed are repaired within {most * 1e3:,.0f} ms (median)"
        )
        yield Goal("latency", subject, text, _latency(most))
    for subject in SUBJECTS:
        yield Goal("beside", subject, "no process beside a writer of rules of his own, 10 commits a second", _beside)
    for subject in SUBJECTS:
        text = (
            f"a rival at 10 Hz for {kinds['rival'].amount:g} s meets at most {COMMITS} commits, one contention event "
            "is told, and nothing outside our chains is touched"
        )
        yield Goal("rival", subject, text, _rival)
    for subject in SUBJECTS:
        minutes = kinds["rest"].amount / 60
        text = (
            f"the agent at rest for {minutes:g} minutes: no process, less than {CPU_PERCENT} % of a core, at most "
            f"{MEMORY_MB:g} MB, and at most {FLAT_MB:g} MB gained"
        )
        yield Goal("rest", subject, text, _rest)
    for subject in SUBJECTS:
        text = (
            f"{kinds['reconciles'].amount:,.0f} reconciles gain at most {FLAT_MB:g} MB, and idle ones start no process"
        )
        yield Goal("reconciles", subject, text, _reconciles)
    size = kinds["diff"].rules
    yield Goal("diff", MODEL, f"two rulesets of {size:,}, 1 % different: compared in {DIFF_SECONDS * 1e3:g} ms", _diff)
    yield Goal("diff", MODEL, f"a rule of {10 * size:,} takes at most {GROWTH} times one of {size:,}", _growth)
    size = kinds["edit"].rules
    text = f"one rule inserted or replaced anywhere in {size:,} takes at most {EDIT_SECONDS * 1e3:g} ms"
    yield Goal("edit", "nft", text, _edit)
    text = f"... and at most {FOREIGN_SHARE} times as long beside {size // RULES_A_FOREIGN_CHAIN:,} foreign chains"
    yield Goal("edit", "nft", text, _foreign)


GOALS: Final = tuple(_goals())
"""The targets of trials, in the order in which they are shown."""
