"""Laws of what a running agent says: the same story in its answer, its metrics, its health and its log."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshfw.testing.netns import Netns
from tests.kernel.agents import PATIENCE, RULES, RunningAgent, config, running

pytestmark = pytest.mark.kernel


class Page:
    """The agent over HTTP."""

    def __init__(self, agent: RunningAgent) -> None:
        found = re.search(r"http://[\d.]+:\d+", agent.wait_for("metrics are at")["message"])
        assert found is not None
        self._place = found[0]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self._place}{path}", timeout=PATIENCE) as answer:  # noqa: S310 - the agent's own http
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have these labels; None where there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def until(self, there: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < end, self.get("/metrics")[1]
            time.sleep(0.05)


@pytest.mark.usefixtures("loopback")
def test_one_drift_is_told_alike_everywhere(requires: Callable[..., None], netns: Netns, tmp_path: Path) -> None:
    requires("nft")
    with running(netns, tmp_path, text=config(agent='listen = "127.0.0.1:0"')) as agent:
        page = Page(agent)
        agent.wait_for("keeping the rules")
        page.until(lambda: page.get("/readyz") == (200, "ok\n"))
        assert page.get("/healthz") == (200, "ok\n")
        assert page.value("meshfw_drift_repairs_total") == 0
        agent.flush()
        agent.wait_for("drift: ")
        page.until(lambda: page.value("meshfw_drift_repairs_total") == 1)
        assert page.value("meshfw_drift_lists_total", table="filter", chain="input", culprit="nft") == 1
        assert page.value("meshfw_commits_total") == page.value("meshfw_commit_seconds_count")
        assert page.value("meshfw_processes_spawned_total") == 0
        assert page.value("meshfw_reconciles_total", outcome="changed") == 2
        assert (page.value("meshfw_events_total", writer="foreign") or 0) >= 1
        page.until(lambda: (page.value("meshfw_reconciles_total", outcome="idle") or 0) > 0)
        assert (page.value("meshfw_staleness_seconds") or 0) < PATIENCE
        assert page.value("meshfw_rules") == 2 * len(RULES) - 1  # one is IPv4's alone
        said = agent.meshfw("status")
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith("edge: watching, the rules stand\n")
        assert re.search(r"^  repaired    \d changes? by nft \(process \d+\), \d+ s ago$", said.stdout, re.MULTILINE)
        data = json.loads(agent.meshfw("status", "--json").stdout)
        assert (data["healthy"], data["backend"], data["pid"]) == (True, "nft", agent.process.pid)
        assert agent.end() == 0
    assert agent.meshfw("status").returncode == 1
    assert not list((tmp_path / "run").glob("*.agent"))
