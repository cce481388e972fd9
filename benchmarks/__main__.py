"""The command line: ``python -m benchmarks`` measures, prints tables and verdicts, and writes JSON and pictures."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

import msgspec

from benchmarks import plot
from benchmarks.machine import machine
from benchmarks.measuring import AnyRequest, measure_all
from benchmarks.options import parser, peer_requests, requests, trial_requests
from benchmarks.report import fill, joined, report
from benchmarks.results import Cell, PeerCell, Run, Trial
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import show
from benchmarks.targets import Judged, excess, judge
from benchmarks.trials.goals import judge_trials
from meshfw.testing.netns import available


def write(run: Run, judged: Sequence[Judged], directory: str) -> None:
    """Write the results, the report and the pictures."""
    os.makedirs(directory, exist_ok=True)
    _write(
        os.path.join(directory, "results.json"),
        msgspec.json.format(msgspec.json.encode({"run": run, "targets": judged}), indent=1) + b"\n",
    )
    reason = plot.missing()
    pictures = [] if reason is not None else list(plot.draw(run, directory))
    for picture in pictures:
        print(f"wrote {picture}")
    if reason is not None:
        print(reason)
    text = report(run, judged, pictures=[os.path.basename(picture) for picture in pictures])
    _write(os.path.join(directory, "report.md"), text.encode())


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
    print(f"wrote {path}")


def rewrite(path: str, run: Run, judged: Sequence[Judged]) -> None:
    """Have the tables in a Markdown file written anew, and say which ones the run doesn't have."""
    with open(path, encoding="utf-8") as file:
        text, missing = fill(file.read(), run, judged)
    _write(path, text.encode())
    for name in missing:
        print(f"{path}: {name} was not measured, and stays as it was")


def read(paths: Sequence[str]) -> Run:
    """The run that results.json files hold, the later ones in place of the earlier ones; ValueError for no such file.

    Raises:
        OSError: a file can't be read.
    """
    runs = []
    for path in paths:
        with open(path, "rb") as file:
            try:
                runs.append(msgspec.json.decode(file.read(), type=_Document).run)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}: {error}") from None
    return joined(runs)


class _Document(msgspec.Struct, frozen=True):
    """results.json; its verdicts are found again from the run."""

    run: Run


def exit_code(run: Run, judged: Sequence[Judged], *, smoke: bool, check: bool) -> int:
    """1 for errors; for wrong process counts, if ``smoke`` or ``check``; and for missed targets, if ``check``."""
    counts_wrong = bool(excess(run.cells)) and (smoke or check)
    missed = check and any(line.met is False for line in judged)
    return int(bool(run.errors) or counts_wrong or missed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured; print, write; the exit code."""
    options = parser().parse_args(arguments)
    if options.report:
        try:
            run = read(options.report)
        except (OSError, ValueError) as error:
            print(f"no report: {error}", file=sys.stderr)
            return 1
    else:
        reason = available()
        if reason is not None:
            print(f"nothing can be measured: {reason}; run as root, or inside `unshare -rn`", file=sys.stderr)
            return 1
        run = measured(options, sys.argv[1:] if arguments is None else arguments)
    judged = (*(judge(run.cells) if run.cells else ()), *judge_trials(run.trials))
    show(run, judged)
    write(run, judged, options.output)
    if options.readme:
        rewrite(options.readme, run, judged)
    return exit_code(run, judged, smoke=options.smoke, check=options.check)


def measured(options: Namespace, words: Sequence[str]) -> Run:
    """The run that the options ask for."""
    facts = machine(tool for name in options.backends for tool in SUBJECTS[name].tools)
    peers, notes = peer_requests(options)
    asked: tuple[AnyRequest, ...] = (*requests(options), *peers, *trial_requests(options))
    at_once = (os.cpu_count() or 1) if options.smoke else 1
    found, late, errors = measure_all(asked, at_once=at_once, limit=options.limit)
    return Run(
        machine=facts,
        command=("python", "-m", "benchmarks", *words),
        cells=tuple(cell for cell in found if isinstance(cell, Cell)),
        peers=tuple(cell for cell in found if isinstance(cell, PeerCell)),
        trials=tuple(trial for trial in found if isinstance(trial, Trial)),
        notes=(*notes, *late),
        errors=tuple(errors),
    )


if __name__ == "__main__":
    sys.exit(main())
