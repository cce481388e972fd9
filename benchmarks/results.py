"""The results of a run, as values: samples, cells of the table, and how numbers are drawn from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """The middle and the ends of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Spread:
        """The spread of at least one number."""
        held = list(numbers)
        return cls(statistics.median(held), min(held), max(held))


class Sample(msgspec.Struct, frozen=True):
    """One measured apply, or the plain tool's same work, in seconds.

    ``cpu`` is user and system time of this process and of the children it waited for. ``steps`` is where the wall
    time went: check, observe, diff, compile, commit, proof; empty where it wasn't asked. Of an idle apply, which is the
    mean of many, it's what the first ones after the last commit did besides.
    """

    wall: float
    cpu: float
    steps: Mapping[str, float] = {}


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one contestant did in a cell: meshfw, or the plain tool.

    ``processes`` counts those it made and ``commands`` shows what they ran (the first few). ``memory`` is the peak in
    bytes: meshfw's resident memory over ``idle_memory``, the same process' right before the reconcile (interpreter,
    ruleset, open backend); the plain tool's whole resident memory, as it starts from nothing.
    """

    samples: tuple[Sample, ...]
    processes: int
    commands: tuple[str, ...] = ()
    memory: int = 0
    idle_memory: int = 0


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One backend in one scenario with one number of rules: meshfw and what it is measured against, turn by turn.

    ``plain`` is the plain tool making the same rules, or looking, where there is nothing to do. ``verbatim`` is the
    plain tool on the whole transaction, the questions that prove it included; None where it has none. ``bare`` is the
    least that an idle apply can cost, where there is nothing to do: one question for the generation of nf_tables, or
    the bare reading of the legacy tables.
    """

    subject: str
    scenario: str
    rules: int
    allowed: int
    """The most processes that the backend may spend here."""
    meshfw: Work
    plain: Work
    verbatim: Work | None = None
    bare: Work | None = None

    @property
    def same_text(self) -> Work:
        """The plain tool on the very text that meshfw commits."""
        return self.verbatim or self.plain


class PeerCell(msgspec.Struct, frozen=True, kw_only=True):
    """Another client in one scenario with one number of rules, which are those that a backend makes of the mesh.

    ``left_out`` counts the rules that it couldn't make, ``notes`` say why and what else isn't as wanted. ``start`` is
    what it spends once, when it starts.
    """

    peer: str
    scenario: str
    rules: int
    work: Work
    left_out: int = 0
    notes: tuple[str, ...] = ()
    start: Work | None = None


class Figure(msgspec.Struct, frozen=True):
    """One quantity of a trial: its unit, and all samples in the order in which they were taken."""

    unit: str
    samples: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """The middle and the ends of the samples."""
        return Spread.of(self.samples)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial with one backend: with how many rules, how long it went on, and every quantity that it gave."""

    trial: str
    subject: str
    rules: int
    amount: float
    figures: Mapping[str, Figure]
    notes: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: where and how it was measured, its cells, those of the peers, trials, and what went wrong."""

    machine: Mapping[str, Any]
    command: tuple[str, ...]
    cells: tuple[Cell, ...]
    peers: tuple[PeerCell, ...] = ()
    trials: tuple[Trial, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    errors: tuple[str, ...] = ()


def walls(work: Work) -> Spread:
    """The wall time of one contestant, in seconds."""
    return Spread.of(sample.wall for sample in work.samples)


def cpus(work: Work) -> Spread:
    """The CPU time of one contestant, in seconds."""
    return Spread.of(sample.cpu for sample in work.samples)


def ratios(cell: Cell, step: str | None = None, *, over: Work | None = None) -> Spread:
    """The wall time of meshfw, or of one of its steps, over the plain tool's (or what else ``over`` is of the cell).

    Pair by pair, as they were measured.
    """
    return Spread.of(
        (ours.wall if step is None else ours.steps[step]) / other.wall
        for ours, other in zip(cell.meshfw.samples, (over or cell.plain).samples, strict=True)
    )


def overheads(cell: Cell) -> Spread:
    """What meshfw's wall time is above the plain tool's, in seconds for each rule: pair by pair."""
    return Spread.of(
        (ours.wall - plain.wall) / cell.rules
        for ours, plain in zip(cell.meshfw.samples, cell.plain.samples, strict=True)
    )


def steps(cell: Cell) -> dict[str, float]:
    """The median of each step, in seconds."""
    found: dict[str, list[float]] = {}
    for sample in cell.meshfw.samples:
        for step, seconds in sample.steps.items():
            found.setdefault(step, []).append(seconds)
    return {step: statistics.median(seconds) for step, seconds in found.items()}
