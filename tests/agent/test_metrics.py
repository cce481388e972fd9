"""Laws of the metrics: what each event moves, that strangers can't make them grow, and that all are told of."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from meshfw import Chain, ChainKey, Family, Hook, Ruleset, Table
from meshfw.agent.metrics import CHAINS_MOST, CULPRITS_MOST, OTHER, SERIES_MOST, SOURCES, Metrics, described
from meshfw.agent.notify import Notifier
from meshfw.agent.status import Culprit, Phase, Status
from meshfw.agent.voice import Counters, Voice
from meshfw.backend import Cache, Costs, Event, Outcome, Report
from meshfw.errors import BackendError, KernelError, VerifyError
from meshfw.model import DispatcherKey, Place
from meshfw.plan import ListChange, Plan, SetChange, diff
from meshfw.reconcile import KEPT
from meshfw.snapshot import Snapshot

ROOT = Path(__file__).resolve().parents[2]
V4, V6 = Family.IPV4, Family.IPV6


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3")


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def drift(*names: str, family: Family = V4) -> Plan:
    return Plan(tuple(ListChange(ChainKey(family, Table.FILTER, name), None, None) for name in names))


def report(outcome: Outcome, cache: str = "hit") -> Report:
    return Report(outcome=outcome, backend="memory", cache=cache)


def series(metrics: Metrics, name: str) -> int:
    return sum(sample.name == name for family in metrics.registry.collect() for sample in family.samples)


def test_a_reconcile_counts_by_its_outcome_and_its_cache(metrics: Metrics) -> None:
    metrics.reconciled(report(Outcome.IDLE), 0.00002)
    metrics.reconciled(report(Outcome.CHANGED, "the kernel changed"), 0.2)
    metrics.reconciled(report(Outcome.IDLE, KEPT), 0.00002)
    metrics.reconciled(report(Outcome.CLEAN, "whatever a third party says"), 0.2)
    assert value(metrics, "meshfw_reconciles_total", outcome="idle") == 2
    assert value(metrics, "meshfw_reconciles_total", outcome="changed") == 1
    assert value(metrics, "meshfw_reconciles_total", outcome="failed") == 0
    assert value(metrics, "meshfw_cache_hits_total") == 2
    assert value(metrics, "meshfw_cache_misses_total", reason="the_kernel_changed") == 1
    assert value(metrics, "meshfw_cache_misses_total", reason=OTHER) == 1
    assert value(metrics, "meshfw_reconcile_seconds_bucket", outcome="idle", le="0.0001") == 2
    assert value(metrics, "meshfw_reconcile_seconds_bucket", outcome="changed", le="0.1") == 0


def test_each_reason_of_ours_to_read_has_a_label_of_its_own(metrics: Metrics) -> None:
    """Whatever the code says that it drops a cache for; the rest of the world is one label."""
    modules = [path for path in (ROOT / "meshfw").rglob("*.py") if "testing" not in path.parts]  # laws drop it too
    text = "".join(path.read_text("utf-8") for path in modules)
    spoken = "".join(re.findall(r"\bcache\.drop\((.*)\)", text))
    reasons = re.findall(r'"([^"]+)"', spoken)
    assert "the kernel changed" in reasons
    for reason in {*reasons, Cache().reason}:
        metrics.reconciled(report(Outcome.CLEAN, reason), 0.1)
        assert value(metrics, "meshfw_cache_misses_total", reason=reason.replace(" ", "_")) == 1


class StrangeError(BackendError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (VerifyError([]), "VerifyError"),
        (KernelError("x"), "KernelError"),
        (StrangeError("x"), "MeshfwError"),
        (FileNotFoundError(), "OSError"),
        (ZeroDivisionError(), "defect"),
    ],
)
def test_a_failure_counts_by_the_kind_of_its_error(metrics: Metrics, error: Exception, kind: str) -> None:
    metrics.failed(error, 0.1)
    assert value(metrics, "meshfw_errors_total", error=kind) == 1
    assert value(metrics, "meshfw_reconciles_total", outcome="failed") == 1
    assert value(metrics, "meshfw_reconcile_seconds_count", outcome="failed") == 1


def test_drift_counts_by_place_and_culprit(metrics: Metrics) -> None:
    key = DispatcherKey(V6, Table.NAT, Hook.INPUT, Place.FIRST)
    plan = Plan(
        (*drift("web").lists, ListChange(key, None, None)), (SetChange((V4, "peers"), None, None),), {V6: "off"}
    )
    metrics.drifted(plan, [Culprit(7, "nft"), Culprit(8, "nft")])
    for labels in (
        {"family": "ipv4", "table": "filter", "chain": "web"},
        {"family": "ipv6", "table": "nat", "chain": "input/first"},
        {"family": "ipv4", "table": "", "chain": "@peers"},
        {"family": "ipv6", "table": "all", "chain": "all"},
    ):
        assert value(metrics, "meshfw_drift_lists_total", culprit="nft", **labels) == 1
    assert value(metrics, "meshfw_drift_repairs_total") == 1


@pytest.mark.parametrize(
    ("culprits", "label"),
    [([], "unknown"), ([Culprit()], "unknown"), ([Culprit(1, "a"), Culprit(2, "b")], "several")],
)
def test_who_it_was_may_be_unknown_or_several(metrics: Metrics, culprits: Iterable[Culprit], label: str) -> None:
    metrics.drifted(drift("web"), culprits)
    assert value(metrics, "meshfw_drift_lists_total", family="ipv4", table="filter", chain="web", culprit=label) == 1


def test_a_real_plan_is_counted(metrics: Metrics) -> None:
    ruleset = Ruleset(chains=(Chain(family=V4, table=Table.FILTER, name="web"),))
    metrics.drifted(diff(Snapshot(), ruleset), [Culprit(1, "nft")])
    assert series(metrics, "meshfw_drift_lists_total") == 1


def test_names_of_strangers_make_only_so_many_series(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.drifted(drift(f"chain{number}"), [Culprit(number, f"rival{number}")])
    assert series(metrics, "meshfw_drift_lists_total") <= CHAINS_MOST + CULPRITS_MOST + 1
    for number in range(1000):
        for chain in range(0, CHAINS_MOST, 7):
            metrics.drifted(drift(f"chain{chain}", family=V6), [Culprit(number, f"rival{number}")])
    assert series(metrics, "meshfw_drift_lists_total") <= SERIES_MOST + len(Family)
    assert value(metrics, "meshfw_drift_repairs_total") == 1000 + 1000 * len(range(0, CHAINS_MOST, 7))


def test_a_hostile_name_is_one_printable_line(metrics: Metrics) -> None:
    metrics.drifted(drift("web"), [Culprit(1, 'a"\n} 1\x1b[2J\udcff\u202e' + "x" * 100)])
    text = generate_latest(metrics.registry).decode("utf-8")
    assert "\x1b" not in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = [s for s in families["meshfw_drift_lists"].samples if s.name.endswith("_total")]
    assert sample.labels["culprit"].startswith('a"\\n} 1\\x1b[2J\\udcff\\u202ex')
    assert len(sample.labels["culprit"]) == 64


def spent(costs: Costs, *, processes: int = 0, commits: int = 0, seconds: float = 0.0, lock: float = 0.0) -> None:
    costs.processes += processes
    costs.commits += commits
    costs.commit_seconds += seconds
    costs.lock_seconds += lock
    costs.reads += 1


def test_costs_count_by_what_they_grew(metrics: Metrics) -> None:
    costs = Costs()
    spent(costs, processes=2, commits=1, seconds=0.02, lock=0.003)
    metrics.costs(costs)
    metrics.costs(costs)
    spent(costs, processes=1, commits=2, seconds=0.4)
    metrics.costs(costs)
    assert value(metrics, "meshfw_processes_spawned_total") == 3
    assert value(metrics, "meshfw_commits_total") == 3
    assert value(metrics, "meshfw_reads_total") == 2
    assert value(metrics, "meshfw_commit_seconds_count") == 3
    assert value(metrics, "meshfw_commit_seconds_sum") == pytest.approx(0.42)
    assert value(metrics, "meshfw_lock_wait_seconds_sum") == pytest.approx(0.003)
    assert value(metrics, "meshfw_lock_wait_seconds_count") == 2


def test_another_backends_costs_begin_at_nothing(metrics: Metrics) -> None:
    for _ in range(2):
        costs = Costs()
        spent(costs, processes=5)
        metrics.costs(costs)
    assert value(metrics, "meshfw_processes_spawned_total") == 10


def test_events_count_by_whose_they_are(metrics: Metrics) -> None:
    for event in (Event(own=True), Event(near=True), Event(near=False), Event(near=False)):
        metrics.watched(event)
    assert value(metrics, "meshfw_events_total", writer="own", near="yes") == 1
    assert value(metrics, "meshfw_events_total", writer="foreign", near="yes") == 1
    assert value(metrics, "meshfw_events_total", writer="foreign", near="no") == 2


def test_contentions_count_when_they_begin(metrics: Metrics) -> None:
    for name in ("rival", "", "rival"):
        metrics.contended(name)
    metrics.defect()
    assert value(metrics, "meshfw_contentions_total") == 2
    assert value(metrics, "meshfw_defects_total") == 1


def test_the_loop_may_count_with_them(metrics: Metrics) -> None:
    counters: Counters = metrics
    voice = Voice(Status(), notifier=Notifier.from_environment(), counters=[counters])
    voice.note(rules=5)
    voice.contended("rival")
    voice.heard(Event())
    voice.idle()
    voice.failed(BackendError("x"), "x", retry=0.0)
    assert value(metrics, "meshfw_rules") == 5
    assert value(metrics, "meshfw_contended") == 1
    assert value(metrics, "meshfw_reconciles_total", outcome="idle") == 1
    assert value(metrics, "meshfw_cache_hits_total") == 1
    assert value(metrics, "meshfw_reconciles_total", outcome="failed") == 1


def test_gauges_are_the_last_status(metrics: Metrics) -> None:
    assert value(metrics, "meshfw_rules") is None
    now = time.time()
    status = Status(
        phase=Phase.BACKING_OFF,
        healthy=False,
        owner="mesh1",
        backend="nft",
        source="last good",
        started=now - 100,
        reconciled=now - 40,
        changed=now - 50,
        next_try=now + 60,
        generation=7,
        rules=10,
        chains=3,
        sets=2,
        contended="rival",
    )
    metrics.status(status)
    expected = {"rules": 10, "chains": 3, "sets": 2, "generation": 7, "healthy": 0, "contended": 1}
    assert {name: value(metrics, f"meshfw_{name}") for name in expected} == expected
    assert value(metrics, "meshfw_staleness_seconds") == pytest.approx(40, abs=20)
    assert value(metrics, "meshfw_back_off_seconds") == pytest.approx(60, abs=20)
    assert value(metrics, "meshfw_last_success_timestamp_seconds") == now - 40
    assert value(metrics, "meshfw_last_change_timestamp_seconds") == now - 50
    assert value(metrics, "meshfw_phase", meshfw_phase="backing off") == 1
    assert sum(value(metrics, "meshfw_phase", meshfw_phase=phase) or 0 for phase in Phase) == 1
    assert value(metrics, "meshfw_source", meshfw_source="last good") == 1
    assert sum(value(metrics, "meshfw_source", meshfw_source=source) or 0 for source in SOURCES) == 1
    assert value(metrics, "meshfw_agent_info", owner="mesh1", backend="nft", netns="") == 1


def test_staleness_grows_from_the_start_until_the_first_success(metrics: Metrics) -> None:
    metrics.status(Status(started=time.time() - 100))
    assert value(metrics, "meshfw_staleness_seconds") == pytest.approx(100, abs=20)


def test_the_process_and_the_version_are_told_of(metrics: Metrics) -> None:
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 1e6
    assert (value(metrics, "process_open_fds") or 0) > 2
    build = [family for family in metrics.registry.collect() if family.name == "meshfw_build"]
    assert build[0].samples[0].labels["version"] == "1.2.3"


def test_two_agents_share_nothing(metrics: Metrics) -> None:
    other = Metrics(version="1")
    metrics.drifted(drift("web"))
    assert value(other, "meshfw_drift_repairs_total") == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("meshfw")]


def test_names_keep_to_the_conventions(metrics: Metrics) -> None:
    metrics.status(Status())
    units = ("_seconds", "_timestamp_seconds", "_bytes")
    for name, (kind, text) in described(metrics).items():
        assert text.endswith("."), name
        if kind == "histogram":
            assert name.endswith("_seconds"), name
        assert not name.endswith(("_ms", "_count", "_sum", "_total")), name
        assert ("_time" in name) <= name.endswith(units), name
