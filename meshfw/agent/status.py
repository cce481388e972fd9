"""What the agent says of itself: one frozen value, made by its loop and read by everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """What the agent is doing."""

    STARTING = "starting"
    """Nothing was reconciled yet."""
    WATCHING = "watching"
    """The kernel held what is wanted when it was last looked at; the next event wakes it."""
    BACKING_OFF = "backing off"
    """A rival keeps undoing the rules: the next repair waits."""
    TRIAL = "on trial"
    """Somebody's change waits to be confirmed: until then nothing is repaired."""
    FAILING = "failing"
    """The last reconcile failed, and is tried again."""
    STUCK = "stuck"
    """The same change was made several times in a row and never held: repairing has stopped until something changes."""
    STOPPING = "stopping"
    """It was told to end."""


class Culprit(msgspec.Struct, frozen=True):
    """Who wrote: the process as the kernel named it; number 0 and an empty name where nobody can tell."""

    pid: int = 0
    command: str = ""

    def __str__(self) -> str:
        if not self.command and not self.pid:
            return "somebody unknown"
        return f"{self.command or 'a process'} (process {self.pid})" if self.pid else self.command


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A repair of what somebody else changed: when (seconds since the epoch), who, how many changes, and the first."""

    time: float
    culprits: tuple[Culprit, ...] = ()
    changes: int = 0
    lines: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The agent at one moment; times are seconds since the epoch, 0 where it hasn't happened yet.

    ``healthy`` is whether the kernel is known to hold what is wanted, ``reason`` why not; ``source`` is where the
    wanted rules come from now: ``sources``, ``last good`` while those are away, or ``held`` after a rollback.
    """

    phase: Phase = Phase.STARTING
    healthy: bool = False
    reason: str = ""
    pid: int = 0
    version: str = ""
    owner: str = ""
    backend: str = ""
    netns: str | None = None
    config: str = ""
    source: str = "sources"
    problem: str = ""
    """Why that isn't what the sources say now, or can't be known; empty where it is."""
    started: float = 0.0
    reconciled: float = 0.0
    """The last reconcile that ended well."""
    changed: float = 0.0
    """The last commit."""
    next_try: float = 0.0
    """When the next repair is due, where one waits."""
    generation: int = 0
    rules: int = 0
    chains: int = 0
    sets: int = 0
    outcomes: Mapping[str, int] = {}
    """How many reconciles ended in each way: idle, clean, changed, failed."""
    events: int = 0
    """Foreign writes that were heard of."""
    processes: int = 0
    contended: str = ""
    """The rival with which it contends; empty where there is none."""
    drifts: tuple[Drift, ...] = ()
    """The last repairs, the newest first."""
    warnings: tuple[str, ...] = ()
