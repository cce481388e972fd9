"""The command line: ``python -m benchmarks`` measures, prints tables and verdicts, and writes JSON and a plot."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from benchmarks import plot
from benchmarks.cell import Request
from benchmarks.machine import machine
from benchmarks.results import Cell, Run
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import show
from benchmarks.targets import Judged, excess, judge
from meshfw.testing.mesh import LEAST_RULES
from meshfw.testing.netns import available

SIZES: Final = (10, 100, 1_000, 10_000)
SMOKE_SIZES: Final = (10, 100)
SMOKE_PAIRS: Final = 2
_CELL_SECONDS: Final = 1800.0


def pairs(rules: int) -> int:
    """How often meshfw and the plain tool take turns with so many rules."""
    return 15 if rules <= 100 else 11 if rules <= 1_000 else 9


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a short run: does everything work, are the counts right")
    options.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options.add_argument("--backends", type=_names(SUBJECTS), default=list(SUBJECTS), metavar="NAME,...")
    options.add_argument("--scenarios", type=_names(BY_NAME), default=list(BY_NAME), metavar="NAME,...")
    options.add_argument("--sizes", type=_sizes, metavar="RULES,...", help="10,100,1000,10000 unless told")
    options.add_argument("--pairs", type=_count, metavar="N", help="samples of each, by size unless told")
    options.add_argument(
        "--output", default="build/benchmarks", metavar="DIRECTORY", help="for results.json and time.png"
    )
    return options


def _names(known: Any) -> Any:
    def read(text: str) -> list[str]:
        names = text.split(",")
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


def requests(options: argparse.Namespace) -> list[Request]:
    """The cells that the options ask for."""
    sizes = options.sizes or (SMOKE_SIZES if options.smoke else SIZES)
    return [
        Request(subject, scenario, rules, options.pairs or (SMOKE_PAIRS if options.smoke else pairs(rules)))
        for subject in options.backends
        for scenario in options.scenarios
        for rules in sizes
    ]


class CellError(Exception):
    """A cell that couldn't be measured, and what its process said."""


def measure(request: Request) -> Cell:
    """A cell, measured in a process of its own."""
    where = f"{request.subject}, {request.scenario}, {request.rules} rules"
    try:
        done = subprocess.run(
            (sys.executable, "-m", "benchmarks.cell"),
            input=msgspec.json.encode(request),
            capture_output=True,
            timeout=_CELL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CellError(f"{where}: no end after {_CELL_SECONDS:g} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CellError(f"{where}: {said or f'exit code {done.returncode}'}")
    return msgspec.json.decode(done.stdout, type=Cell)


def measure_all(wanted: Sequence[Request]) -> tuple[list[Cell], list[str]]:
    """The cells, and the errors of those that couldn't be measured; says on standard error how far it is."""
    cells, errors = [], []
    for number, request in enumerate(wanted, 1):
        line = f"[{number}/{len(wanted)}] {request.subject}, {request.scenario}, {request.rules:,} rules"
        print(line, file=sys.stderr, flush=True)
        try:
            cells.append(measure(request))
        except CellError as error:
            errors.append(str(error))
    return cells, errors


def write(run: Run, judged: Sequence[Judged], directory: str) -> None:
    """Write the results and the plot."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "results.json")
    with open(path, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode({"run": run, "targets": judged}), indent=1) + b"\n")
    print(f"\nwrote {path}")
    reason = plot.missing()
    if reason is None and run.cells:
        picture = os.path.join(directory, "time.png")
        plot.draw(run.cells, picture)
        print(f"wrote {picture}")
    elif reason is not None:
        print(reason)


def exit_code(run: Run, judged: Sequence[Judged], *, smoke: bool, check: bool) -> int:
    """1 for errors; for wrong process counts, if ``smoke`` or ``check``; and for missed targets, if ``check``."""
    counts_wrong = bool(excess(run.cells)) and (smoke or check)
    missed = check and any(line.met is False for line in judged)
    return int(bool(run.errors) or counts_wrong or missed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = parser().parse_args(arguments)
    reason = available()
    if reason is not None:
        print(f"nothing can be measured: {reason}; run as root, or inside `unshare -rn`", file=sys.stderr)
        return 1
    facts = machine(SUBJECTS[name].plain for name in options.backends)
    cells, errors = measure_all(requests(options))
    command = ("python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments))
    run = Run(machine=facts, command=command, cells=tuple(cells), errors=tuple(errors))
    judged = judge(run.cells)
    show(run, judged)
    write(run, judged, options.output)
    return exit_code(run, judged, smoke=options.smoke, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
