"""The options of the command line, and what they ask to be measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Final

from benchmarks.cell import Request
from benchmarks.peers import PEERS, PeerRequest
from benchmarks.peers import SHOWN as COMPARED
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS
from benchmarks.trials import TRIALS, TrialRequest
from meshfw.testing.mesh import LEAST_RULES

SIZES: Final = (10, 100, 1_000, 10_000)
LARGE: Final = 100_000
SMOKE_SIZES: Final = (10, 100)
SMOKE_PEER_SIZES: Final = (10,)
SMOKE_PAIRS: Final = 1
CELL_SECONDS: Final = 1800.0


def pairs(rules: int) -> int:
    """How often meshfw and the plain tool take turns with so many rules."""
    return 9 if rules <= 100 else 7 if rules <= 1_000 else 5 if rules <= 10_000 else 3


def peer_samples(rules: int) -> int:
    """How often a peer is measured with so many rules; one process for each makes a sample of seconds."""
    return 3 if rules <= 100 else 2


def _installed() -> list[str]:
    """The subjects whose backends are here."""
    return [name for name, subject in SUBJECTS.items() if subject.missing is None]


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser("python -m benchmarks", description=_DESCRIPTION)
    options.add_argument("--smoke", action="store_true", help="a short run: does everything work, are the counts right")
    options.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options.add_argument("--backends", type=_names(SUBJECTS), default=_installed(), metavar="NAME,...")
    options.add_argument(
        "--peers",
        type=_names(PEERS, none=True),
        default=list(PEERS),
        metavar="NAME,...",
        help="other clients, for comparison; none with --peers=",
    )
    options.add_argument(
        "--scenarios",
        type=_names(BY_NAME, none=True),
        default=list(BY_NAME),
        metavar="NAME,...",
        help="none with --scenarios=, such as for trials alone",
    )
    options.add_argument("--sizes", type=_sizes, metavar="RULES,...", help="10,100,1000,10000 unless told")
    options.add_argument("--large", action="store_true", help=f"{LARGE:,} rules as well, which takes hours")
    options.add_argument("--pairs", type=_count, metavar="N", help="samples of each, by size unless told")
    options.add_argument(
        "--limit",
        type=float,
        default=CELL_SECONDS,
        metavar="SECONDS",
        help=f"what one cell may take, {CELL_SECONDS:g} unless told; of one beyond it is said that it wasn't measured",
    )
    options.add_argument(
        "--trials",
        type=_trials,
        metavar="NAME[=AMOUNT],...",
        help="endurance: all, or some of "
        + ", ".join(f"{trial.name} ({trial.amount:g} {trial.unit})" for trial in TRIALS.values())
        + "; none unless told, all in short with --smoke",
    )
    options.add_argument("--trial-rules", type=_count, metavar="RULES", help="for the trials, by trial unless told")
    options.add_argument(
        "--output", default="build/benchmarks", metavar="DIRECTORY", help="for results.json, report.md and the pictures"
    )
    options.add_argument(
        "--report",
        nargs="+",
        metavar="RESULTS.json",
        help="measure nothing: write the report of these results, the later ones' in place of the earlier ones'",
    )
    options.add_argument("--readme", metavar="FILE", help="have the tables in a Markdown file written anew, too")
    return options


_DESCRIPTION: Final = "Measure, print tables and verdicts, and write JSON, Markdown and pictures."


def _names(known: Collection[str], *, none: bool = False) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",") if text or not none else []
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _sizes(text: str) -> list[int]:
    sizes = [_count(word) for word in text.split(",")]
    if min(sizes) < LEAST_RULES:
        raise argparse.ArgumentTypeError(f"at least {LEAST_RULES} rules")
    return sizes


def _trials(text: str) -> dict[str, float | None]:
    """Trials by name, each with the amount that was told."""
    found: dict[str, float | None] = {}
    for word in text.split(",") if text else ():
        name, told, amount = word.partition("=")
        if name == "all":
            found |= dict.fromkeys(TRIALS)
        elif name not in TRIALS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of all, {', '.join(TRIALS)}")
        else:
            found[name] = _amount(amount) if told else None
    return found


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount")
    return amount


def requests(options: argparse.Namespace) -> list[Request]:
    """The cells that the options ask for."""
    return [
        Request(subject, scenario, rules, options.pairs or (SMOKE_PAIRS if options.smoke else pairs(rules)))
        for subject in options.backends
        for scenario in options.scenarios
        for rules in _asked_sizes(options, SMOKE_SIZES)
    ]


def _asked_sizes(options: argparse.Namespace, smoke: tuple[int, ...]) -> list[int]:
    sizes = options.sizes or (smoke if options.smoke else SIZES)
    return sorted({*sizes, *((LARGE,) if options.large else ())})


def peer_requests(options: argparse.Namespace) -> tuple[list[PeerRequest], list[str]]:
    """The cells of peers that the options ask for, and what of them can't be measured here, or takes too long."""
    found, notes = [], []
    sizes = _asked_sizes(options, SMOKE_PEER_SIZES)
    for name in options.peers:
        peer = PEERS[name]
        if peer.subject not in options.backends:
            continue
        if peer.missing is not None:
            notes.append(f"{name}: {peer.missing}")
            continue
        too_many = [f"{size:,}" for size in sizes if size > peer.most]
        if too_many and options.scenarios:
            notes.append(f"{name} with {', '.join(too_many)} rules, which takes minutes a sample")
        found += [
            PeerRequest(name, scenario, size, 1 if options.smoke else peer_samples(size))
            for scenario in options.scenarios
            for size in sizes
            if scenario in (COMPARED[:1] if options.smoke else COMPARED) and size <= peer.most
        ]
    return found, notes


def trial_requests(options: argparse.Namespace) -> list[TrialRequest]:
    """The trials that the options ask for."""
    asked = options.trials
    if asked is None:
        asked = dict.fromkeys(TRIALS) if options.smoke else {}
    found = []
    for name, amount in asked.items():
        trial = TRIALS[name]
        rules, usual = (trial.short_rules, trial.short_amount) if options.smoke else (trial.rules, trial.amount)
        found += [
            TrialRequest(name, subject, options.trial_rules or rules, amount or usual)
            for subject in trial.subjects
            if subject in options.backends or subject not in SUBJECTS
        ]
    return found
