"""The command line: ``python -m benchmarks`` measures, prints tables and verdicts, and writes JSON and pictures."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from benchmarks import plot
from benchmarks.cell import Request
from benchmarks.machine import machine
from benchmarks.peers import PEERS, PeerRequest
from benchmarks.peers import SHOWN as COMPARED
from benchmarks.results import Cell, PeerCell, Run
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import show
from benchmarks.targets import Judged, excess, judge
from meshfw.testing.mesh import LEAST_RULES
from meshfw.testing.netns import available

SIZES: Final = (10, 100, 1_000, 10_000)
SMOKE_SIZES: Final = (10, 100)
SMOKE_PEER_SIZES: Final = (10,)
SMOKE_PAIRS: Final = 1
_CELL_SECONDS: Final = 1800.0


def pairs(rules: int) -> int:
    """How often meshfw and the plain tool take turns with so many rules."""
    return 9 if rules <= 100 else 7 if rules <= 1_000 else 5


def peer_samples(rules: int) -> int:
    """How often a peer is measured with so many rules; one process for each makes a sample of seconds."""
    return 3 if rules <= 100 else 2


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a short run: does everything work, are the counts right")
    options.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options.add_argument("--backends", type=_names(SUBJECTS), default=list(SUBJECTS), metavar="NAME,...")
    options.add_argument(
        "--peers",
        type=lambda text: _names(PEERS)(text) if text else [],
        default=list(PEERS),
        metavar="NAME,...",
        help="other clients, for comparison; none with --peers=",
    )
    options.add_argument("--scenarios", type=_names(BY_NAME), default=list(BY_NAME), metavar="NAME,...")
    options.add_argument("--sizes", type=_sizes, metavar="RULES,...", help="10,100,1000,10000 unless told")
    options.add_argument("--pairs", type=_count, metavar="N", help="samples of each, by size unless told")
    options.add_argument(
        "--output", default="build/benchmarks", metavar="DIRECTORY", help="for results.json and the pictures"
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


def peer_requests(options: argparse.Namespace) -> tuple[list[PeerRequest], list[str]]:
    """The cells of peers that the options ask for, and what of them can't be measured here, or takes too long."""
    found, notes = [], []
    sizes = options.sizes or (SMOKE_PEER_SIZES if options.smoke else SIZES)
    for name in options.peers:
        peer = PEERS[name]
        if peer.subject not in options.backends:
            continue
        if peer.missing is not None:
            notes.append(f"{name}: {peer.missing}")
            continue
        too_many = [f"{size:,}" for size in sizes if size > peer.most]
        if too_many:
            notes.append(f"{name} with {', '.join(too_many)} rules, which takes minutes a sample")
        found += [
            PeerRequest(name, scenario, size, 1 if options.smoke else peer_samples(size))
            for scenario in options.scenarios
            for size in sizes
            if scenario in (COMPARED[:1] if options.smoke else COMPARED) and size <= peer.most
        ]
    return found, notes


class CellError(Exception):
    """A cell that couldn't be measured, and what its process said."""


def where(request: Request | PeerRequest) -> str:
    """Which cell it is, in words."""
    who = request.subject if isinstance(request, Request) else request.peer
    return f"{who}, {request.scenario}, {request.rules:,} rules"


def measure(request: Request | PeerRequest) -> Cell | PeerCell:
    """A cell, measured in a process of its own."""
    module = "benchmarks.cell" if isinstance(request, Request) else "benchmarks.peers"
    try:
        done = subprocess.run(
            (sys.executable, "-m", module),
            input=msgspec.json.encode(request),
            capture_output=True,
            timeout=_CELL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CellError(f"{where(request)}: no end after {_CELL_SECONDS:g} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CellError(f"{where(request)}: {said or f'exit code {done.returncode}'}")
    if isinstance(request, Request):
        return msgspec.json.decode(done.stdout, type=Cell)
    return msgspec.json.decode(done.stdout, type=PeerCell)


def measure_all(wanted: Sequence[Request | PeerRequest], *, at_once: int) -> tuple[list[Cell | PeerCell], list[str]]:
    """The cells, and the errors of those that couldn't be measured; says on standard error how far it is.

    More than one ``at_once`` disturb each other's times, but not each other's counts.
    """
    cells: list[Cell | PeerCell] = []
    errors = []
    with ThreadPoolExecutor(at_once) as workers:
        waiting = [workers.submit(measure, request) for request in wanted]
        for number, (request, future) in enumerate(zip(wanted, waiting, strict=True), 1):
            print(f"[{number}/{len(wanted)}] {where(request)}", file=sys.stderr, flush=True)
            try:
                cells.append(future.result())
            except CellError as error:
                errors.append(str(error))
    return cells, errors


def write(run: Run, judged: Sequence[Judged], directory: str) -> None:
    """Write the results and the pictures."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "results.json")
    with open(path, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode({"run": run, "targets": judged}), indent=1) + b"\n")
    print(f"\nwrote {path}")
    reason = plot.missing()
    if reason is None and run.cells:
        for picture in plot.draw(run, directory):
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
    facts = machine(tool for name in options.backends for tool in SUBJECTS[name].tools)
    peers, notes = peer_requests(options)
    found, errors = measure_all((*requests(options), *peers), at_once=(os.cpu_count() or 1) if options.smoke else 1)
    run = Run(
        machine=facts,
        command=("python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)),
        cells=tuple(cell for cell in found if isinstance(cell, Cell)),
        peers=tuple(cell for cell in found if isinstance(cell, PeerCell)),
        notes=tuple(notes),
        errors=tuple(errors),
    )
    judged = judge(run.cells)
    show(run, judged)
    write(run, judged, options.output)
    return exit_code(run, judged, smoke=options.smoke, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
