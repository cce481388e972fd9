"""What a backend is: a protocol of a few members over plain values, public and versioned.

A backend renders the model into one kernel interface. It never decides what to change: ``reconcile`` asks it what is
there, makes a plan of model terms, and gives the plan back to be compiled and committed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from meshfw.expansion import Expansion
from meshfw.extensions.language import Language
from meshfw.model import Family, Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.snapshot import ListKey, Snapshot

API_VERSION: Final = 1
"""The version of this protocol; a backend made for another one is refused."""


class Atomicity(StrEnum):
    """How much of a transaction takes effect together."""

    RULESET = "ruleset"
    """Both families and all tables at once."""
    TABLE = "table"
    """Each table of each family by itself; the backend puts back what it committed before an error."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can do; callers and laws ask this, never its name."""

    families: frozenset[Family] = frozenset(Family)
    atomicity: Atomicity = Atomicity.RULESET
    foreign_accept_wins: bool = True
    """An accept of anybody's on a hook ends that hook (iptables), rather than only its own chain (nft)."""
    opaque: bool = False
    """Matches and targets without a typed value can be stored."""
    native_sets: bool = True
    """A set is one object whose elements change one by one.

    False: there are no sets. Whatever the backend is asked to check, diff, compile and prove was expanded into rules
    first (:mod:`meshfw.expansion`), so it never meets a set or a reference to one.
    """
    counters: bool = True
    """Rules count packets and bytes, and keep their numbers over changes elsewhere."""
    counters_move: frozenset[Family] = frozenset(Family)
    """The families in which a rule that is written again takes its numbers along."""
    kernel: bool = True
    """It writes to a kernel, so packets meet its rules."""
    processes_per_family: int = 0
    """The most processes that a commit to one family may spawn."""


class Fingerprint(msgspec.Struct, frozen=True):
    """A cheap value that changes whenever the kernel state may have changed; compared, never read."""

    value: tuple[Any, ...]


class Unsupported(msgspec.Struct, frozen=True):
    """A finding of ``check``: the place in the ruleset, its rule in canonical text, and the reason.

    One that doesn't refuse is a warning.
    """

    where: str
    reason: str
    rule: str = ""
    refuses: bool = True

    def __str__(self) -> str:
        shown = f" ({self.rule})" if self.rule else ""
        return f"{self.where}{shown}: {self.reason}"


class Observed(msgspec.Struct, frozen=True):
    """A snapshot and the fingerprint it is true for; None where the backend can't tell."""

    snapshot: Snapshot
    fingerprint: Fingerprint | None = None


class Step(msgspec.Struct, frozen=True):
    """One thing a transaction does: the command line (or the in-process call named like one) and its input."""

    command: tuple[str, ...]
    input: str = ""


class Transaction(msgspec.Struct, frozen=True, weakref=True):
    """What a backend will commit; its text is exactly what runs.

    ``texts`` has, for lists that the backend reads again to prove them, its own writing of each rule they will then
    hold. ``rewrites`` are the lists with rules that are written again and take along the counters that the plan knows,
    so that these must be fresh. ``notes`` say what else a person should know before it runs.
    """

    backend: str
    steps: tuple[Step, ...]
    plan: Plan
    texts: Mapping[ListKey, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()
    rewrites: tuple[ListKey, ...] = ()

    def __str__(self) -> str:
        return "".join(f"# {' '.join(step.command)}\n{step.input}" for step in self.steps)


class Committed(msgspec.Struct, frozen=True):
    """What a commit knows: the fingerprint after it, and whether nobody else wrote since the one it was based on."""

    fingerprint: Fingerprint | None
    exclusive: bool


class Event(msgspec.Struct, frozen=True):
    """Something was written: by which process, as far as the kernel tells (0 and empty where it doesn't).

    ``own`` is a commit of this very backend's. ``near`` is False only where it is sure that nothing of the owner's was
    touched, nor what leads to it. ``generation`` is nf_tables' number after it, 0 where there is none.
    """

    pid: int = 0
    command: str = ""
    own: bool = False
    near: bool = True
    generation: int = 0


@runtime_checkable
class Watch(Protocol):
    """Foreign writes as they happen: a file descriptor to poll, and the events behind it."""

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        ...

    def events(self) -> tuple[Event, ...]:
        """The events since the last call; never blocks."""
        ...


class Costs:
    """What a backend has spent since it was made: it counts itself, and others read the differences."""

    __slots__ = ("commit_seconds", "commits", "lock_seconds", "processes", "reads")

    def __init__(self) -> None:
        self.processes = 0
        self.commits = 0
        self.commit_seconds = 0.0
        self.lock_seconds = 0.0
        self.reads = 0
        """Readings of the owner's rules, beyond asking whether anything changed."""


class Cache:
    """What is known about a kernel until its fingerprint moves; one for each backend instance, filled by reconcile.

    ``ruleset`` is the declared one that the ``snapshot`` is known to mean. ``expansion`` is the last one that was made
    for a backend without sets; no kernel has a part in it, so it outlives the rest. ``costs`` is the
    backend's own count.
    """

    __slots__ = ("costs", "expansion", "fingerprint", "reason", "report", "ruleset", "snapshot")

    def __init__(self) -> None:
        self.fingerprint: Fingerprint | None = None
        self.snapshot: Snapshot | None = None
        self.ruleset: Ruleset | None = None
        self.report: Report | None = None
        self.expansion: Expansion | None = None
        self.costs = Costs()
        self.reason = "nothing read yet"

    def drop(self, reason: str) -> None:
        """Forget the kernel; ``reason`` goes into the next report."""
        self.fingerprint = self.snapshot = self.ruleset = self.report = None
        self.reason = reason


@runtime_checkable
class Backend(Protocol):
    """One way to keep a ruleset in a kernel."""

    @property
    def api_version(self) -> int:
        """The :data:`API_VERSION` it was written for."""
        ...

    @property
    def name(self) -> str:
        """Its name in configuration."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do here."""
        ...

    @property
    def cache(self) -> Cache:
        """A :class:`Cache` of its own, kept for ``reconcile``."""
        ...

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """What of the ruleset it can't express here, before any write; reads little and changes nothing."""
        ...

    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of now, cheaply; None where it can't tell."""
        ...

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """What the kernel holds of the owner's: everything, or at least the lists and sets named."""
        ...

    def compile(self, plan: Plan) -> Transaction:
        """The transaction that carries out a plan; nothing is written yet."""
        ...

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Carry it out.

        Raises:
            ConcurrentChangeError: somebody wrote since ``based_on``; nothing was written.
            BackendError: it failed, and what its atomicity promises holds.
        """
        ...

    def watch(self) -> Watch | None:
        """Foreign writes as events, where the kernel tells of them."""
        ...

    def close(self) -> None:
        """Give back sockets and memory; nothing in the kernel changes."""
        ...


@runtime_checkable
class Provable(Protocol):
    """What a backend may offer beside the protocol: a few bytes that say what the kernel holds, for later processes."""

    def digest(self) -> str | None:
        """The digest of everything that ``observe`` would tell but counters and handles, or more; None: can't tell.

        It is of one moment, starts no process, and is the same in any process while nothing of that changed, so nothing
        of it may come from ``hash()`` or a counter of the instance. What reads the kernel (the owner, the options, the
        namespace with its boot, tools and libraries with their versions) is part of it.
        """
        ...


@runtime_checkable
class Narrowing(Protocol):
    """What a backend may offer beside the protocol: which lists are others than they were, so that few are read."""

    def moved(self, since: Fingerprint) -> Collection[ListKey] | None:
        """The lists that may differ, but for counters, from what they were at an earlier fingerprint, or are gone.

        They are those of the fingerprint that was told last. None: more than lists may differ, or it can't tell.
        """
        ...


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom a backend works: what every factory gets.

    ``netns`` is the name or path of a network namespace, None for the caller's; ``options`` is the backend's own
    table of the configuration.
    """

    owner: str
    language: Language
    netns: str | None = None
    options: Mapping[str, Any] = {}


class Outcome(StrEnum):
    """How a reconcile ended."""

    IDLE = "idle"
    """The fingerprint was the one of our last commit, or a kept proof holds: no rule was read."""
    CLEAN = "clean"
    """The kernel was read and held what is wanted."""
    CHANGED = "changed"
    """Changes were committed and proven."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one reconcile did; ``cache`` is ``hit``, ``kept`` (a proof of an earlier process) or why it was dropped.

    ``commits`` is how many transactions it took; ``culprits`` are those who had changed what it put back, as far as an
    agent heard of them.
    """

    outcome: Outcome
    backend: str
    cache: str
    plan: Plan = Plan()
    commits: int = 0
    warnings: tuple[str, ...] = ()
    culprits: tuple[str, ...] = ()
