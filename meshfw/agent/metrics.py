"""The agent's metrics for Prometheus: counters that its loop moves, and gauges read from its status when asked.

Nothing here grows with what strangers do: their names become at most :data:`CULPRITS_MOST` label values, names of
chains at most :data:`CHAINS_MOST`, both together at most :data:`SERIES_MOST` series; the rest is ``other``. The
registry is one of its own, so that two agents in one process, or a program that has metrics already, share nothing.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.registry import Collector

from meshfw import errors
from meshfw.agent.status import Culprit, Phase, Status
from meshfw.backend import Costs, Event, Outcome, Report
from meshfw.model import ChainKey, DispatcherKey, SetKey
from meshfw.plan import Plan
from meshfw.printable import whole
from meshfw.reconcile import KEPT
from meshfw.snapshot import ListKey

CULPRITS_MOST: Final = 20
CHAINS_MOST: Final = 100
SERIES_MOST: Final = 300
OTHER: Final = "other"
_LONGEST: Final = 64  # characters of a label value
_COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOCK_SECONDS: Final = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECONCILE_SECONDS: Final = (0.00001, 0.0001, *_COMMIT_SECONDS)
SOURCES: Final = ("sources", "last good", "held")
"""Where the wanted rules may come from, as :class:`meshfw.agent.status.Status` has it."""


class Labels:
    """Label values out of names that anybody may choose: each made fit to be printed, and only so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def value(self, name: str) -> str:
        """The label value of a name; ``other`` once there are enough."""
        text = whole(name)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        if text not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(text)
        return text


class Metrics:
    """The metrics of one agent on a registry of their own; its methods may be called from any thread."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._culprits, self._chains = Labels(CULPRITS_MOST), Labels(CHAINS_MOST)
        self._series: set[tuple[str, ...]] = set()
        self._spent: Costs | None = None
        self._paid = _paid(Costs())
        self._standing = _Standing()
        self._make_counters()
        self._make_histograms()
        build = Info("meshfw_build", "The version of meshfw and of Python that run.", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})
        self.registry.register(self._standing)
        ProcessCollector(registry=self.registry)

    def _make_counters(self) -> None:
        self._reconciles = self._counter("meshfw_reconciles", "Reconciles, by how they ended.", "outcome")
        self._errors = self._counter("meshfw_errors", "Reconciles that failed, by the kind of error.", "error")
        self._hits = self._counter(
            "meshfw_cache_hits", "Reconciles that read no rules: a cache, or a kept proof, held."
        )
        self._misses = self._counter("meshfw_cache_misses", "Reconciles that had to read, by the reason.", "reason")
        self._repairs = self._counter("meshfw_drift_repairs", "Repairs of what others changed.")
        self._drift = self._counter(
            "meshfw_drift_lists",
            "Chains, dispatchers and sets that others changed, by the place and by who it was.",
            *("family", "table", "chain", "culprit"),
        )
        self._contentions = self._counter(
            "meshfw_contentions", "Times that a rival was found to keep undoing the rules."
        )
        self._defects = self._counter("meshfw_defects", "Full checks that found what the usual reading had missed.")
        self._processes = self._counter("meshfw_processes_spawned", "Processes that the backend started.")
        self._commits = self._counter("meshfw_commits", "Transactions that the backend committed.")
        self._reads = self._counter("meshfw_reads", "Readings of the rules, beyond asking whether anything changed.")
        self._events = self._counter(
            "meshfw_events",
            "Writes that were heard of: whose, and whether they can have touched ours.",
            "writer",
            "near",
        )
        for outcome in (*Outcome, "failed"):
            self._reconciles.labels(str(outcome))
        for writer, near in (("own", "yes"), ("foreign", "yes"), ("foreign", "no")):
            self._events.labels(writer, near)

    def _make_histograms(self) -> None:
        self._seconds = self._histogram(
            "meshfw_reconcile_seconds", "How long reconciles took.", _RECONCILE_SECONDS, "outcome"
        )
        self._commit_seconds = self._histogram("meshfw_commit_seconds", "How long commits took.", _COMMIT_SECONDS)
        self._lock_seconds = self._histogram(
            "meshfw_lock_wait_seconds", "How long a reconcile that wrote waited for locks.", _LOCK_SECONDS
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def reconciled(self, report: Report, seconds: float) -> None:
        """A reconcile ended well, after so long."""
        self._reconciles.labels(report.outcome.value).inc()
        self._seconds.labels(report.outcome.value).observe(seconds)
        if report.cache in _HITS:
            self._hits.inc()
        else:
            self._misses.labels(_REASONS.get(report.cache, OTHER)).inc()

    def idle(self) -> None:
        """A look found that nothing had changed."""
        self._reconciles.labels(Outcome.IDLE.value).inc()
        self._hits.inc()

    def failed(self, error: BaseException, seconds: float | None = None) -> None:
        """A reconcile failed, after so long where that is known."""
        self._reconciles.labels("failed").inc()
        self._errors.labels(error_kind(error)).inc()
        if seconds is not None:
            self._seconds.labels("failed").observe(seconds)

    def drifted(self, plan: Plan, culprits: Iterable[Culprit] = ()) -> None:
        """What others had changed was found, and the plan repairs it; with those who may have done it."""
        self._repairs.inc()
        names = {culprit.command or "unknown" for culprit in culprits} or {"unknown"}
        culprit = self._culprits.value(next(iter(names))) if len(names) == 1 else "several"
        for place in sorted({self._place(key) for key in plan.keys} | {(str(f), "all", "all") for f in plan.rebuilt}):
            labels = (*place, culprit)
            if labels not in self._series and len(self._series) >= SERIES_MOST:
                labels = (place[0], OTHER, OTHER, OTHER)
            self._series.add(labels)
            self._drift.labels(*labels).inc()

    def _place(self, key: ListKey | SetKey) -> tuple[str, str, str]:
        """Family, table and chain of a list; a dispatcher is its hook and place, a set its name behind an @."""
        if isinstance(key, ChainKey):
            return key.family.value, key.table.value, self._chains.value(key.name)
        if isinstance(key, DispatcherKey):
            return key.family.value, key.table.value, f"{key.hook}/{key.place}"
        return key[0].value, "", self._chains.value(f"@{key[1]}")

    def costs(self, costs: Costs) -> None:
        """What a backend has spent in all: what is more than the last time is counted, another backend's from zero."""
        if costs is not self._spent:
            self._spent, self._paid = costs, _paid(Costs())
        now, before = _paid(costs), self._paid
        self._paid = now
        more = {name: max(now[name] - before[name], 0) for name in now}
        self._processes.inc(more["processes"])
        self._commits.inc(more["commits"])
        self._reads.inc(more["reads"])
        commits = int(more["commits"])
        for _ in range(commits):  # their sum is known, not each one's: mostly there is one
            self._commit_seconds.observe(more["commit_seconds"] / commits)
        if commits or more["lock_seconds"]:
            self._lock_seconds.observe(more["lock_seconds"])

    def watched(self, event: Event) -> None:
        """A write was heard of."""
        self._events.labels("own" if event.own else "foreign", "yes" if event.near or event.own else "no").inc()

    def contended(self, name: str) -> None:
        """A rival keeps undoing the rules; an empty name: no more."""
        if name:
            self._contentions.inc()

    def defect(self) -> None:
        """Two readers of one kernel disagreed."""
        self._defects.inc()

    def status(self, status: Status) -> None:
        """The agent's status of now, which the gauges are read from until the next one."""
        self._standing.status = status


_HITS: Final = frozenset({"hit", KEPT})
_REASONS: Final[Mapping[str, str]] = {
    reason: re.sub(r"\W+", "_", reason)
    for reason in (
        "nothing read yet",
        "the kernel changed",
        "no fingerprint",
        "a commit did not finish",
        "the kernel differed after a commit",
        "a full check found differences",
    )
}
"""Why a cache was dropped (:meth:`meshfw.backend.Cache.drop`), as label values; a third party's are ``other``."""
_KINDS: Final = frozenset(name for name in vars(errors) if name.endswith("Error"))


def error_kind(error: BaseException) -> str:
    """The label of an error: its type's name where it's one of meshfw's own or the system's, else ``defect``."""
    name = type(error).__name__
    if name in _KINDS:
        return name
    if isinstance(error, errors.MeshfwError):
        return "MeshfwError"
    return "OSError" if isinstance(error, OSError) else "defect"


def _paid(costs: Costs) -> dict[str, float]:
    return {name: getattr(costs, name) for name in Costs.__slots__}


class _Standing(Collector):
    """The gauges, made of one status when they are asked for: so that ages are of that moment, and agree."""

    def __init__(self) -> None:
        self.status: Status | None = None

    def describe(self) -> Collection[Metric]:
        """None: names are checked by the tests, not at each start."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of the last status; none before the first one."""
        status = self.status
        if status is None:
            return
        now = time.time()
        for name, text, value in _gauges(status, now):
            yield GaugeMetricFamily(name, text, value=value)
        yield _states("meshfw_phase", "What the agent is doing.", tuple(Phase), status.phase)
        yield _states("meshfw_source", "Where the wanted rules come from.", SOURCES, status.source)
        info = GaugeMetricFamily(
            "meshfw_agent_info",
            "Whose rules are kept, by which backend and where.",
            labels=("owner", "backend", "netns"),
        )
        info.add_metric([status.owner, whole(status.backend), whole(status.netns or "")], 1)
        yield info


def _gauges(status: Status, now: float) -> Iterator[tuple[str, str, float]]:
    """Name, text and value of each gauge."""
    yield "meshfw_healthy", "1 while the kernel is known to hold what is wanted.", status.healthy
    yield "meshfw_rules", "Rules that are wanted.", status.rules
    yield "meshfw_chains", "Chains that are wanted.", status.chains
    yield "meshfw_sets", "Sets that are wanted.", status.sets
    yield (
        "meshfw_generation",
        "nf_tables' number of the last state looked at; 0 where there is none.",
        status.generation,
    )
    yield "meshfw_contended", "1 while a rival keeps undoing the rules.", bool(status.contended)
    # Before the first success it has been unknown for as long as the agent runs.
    known = status.reconciled or status.started or now
    yield "meshfw_staleness_seconds", "Time since the kernel was last known to be right.", max(now - known, 0.0)
    yield (
        "meshfw_back_off_seconds",
        "Time until the next repair may be made; 0: at once.",
        max(status.next_try - now, 0.0),
    )
    yield "meshfw_start_timestamp_seconds", "When the agent began.", status.started
    yield (
        "meshfw_last_success_timestamp_seconds",
        "When a reconcile last ended well; 0: never.",
        status.reconciled,
    )
    yield "meshfw_last_change_timestamp_seconds", "When the rules were last written; 0: never.", status.changed


def _states(name: str, text: str, known: Sequence[str], current: str) -> Metric:
    return StateSetMetricFamily(name, text, value={state: state == current for state in known})


def described(metrics: Metrics) -> dict[str, tuple[str, str]]:
    """Each of meshfw's own metrics by name, with its type and its text, as far as there is something to tell yet."""
    families: Iterable[Any] = metrics.registry.collect()
    return {
        family.name: (family.type, family.documentation) for family in families if family.name.startswith("meshfw_")
    }
