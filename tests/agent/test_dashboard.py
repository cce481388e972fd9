"""Laws of the dashboard: it can be imported, asks for metrics that there are, and shows each of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from meshfw.agent.dashboard import dashboard
from meshfw.agent.metrics import Metrics
from meshfw.agent.status import Status
from meshfw.backend import Costs, Event, Outcome, Report
from meshfw.cli import main
from meshfw.plan import Plan

BOARD: dict[str, Any] = json.loads(dashboard())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
WORD = re.compile(r"\b(?:meshfw|process)_\w+")


def samples() -> dict[str, set[str]]:
    """The labels of each sample that the registry can give, by its name."""
    metrics = Metrics(version="1")
    costs = Costs()
    costs.processes = costs.commits = costs.reads = 1
    metrics.status(Status())
    metrics.costs(costs)
    for cache in ("hit", "the kernel changed"):
        metrics.reconciled(Report(outcome=Outcome.CHANGED, backend="nft", cache=cache), 0.1)
    metrics.failed(OSError())
    metrics.drifted(Plan(rebuilt={}), [])
    metrics._drift.labels("ipv4", "filter", "web", "nft")
    metrics.contended("rival")
    metrics.watched(Event())
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def used() -> set[str]:
    """The samples that the dashboard asks for."""
    without_labels = [re.sub(r"\b(?:by|on) \([^)]*\)|\{[^}]*\}", "", text) for text in EXPRESSIONS]
    return {name for text in without_labels for name in WORD.findall(text)}


def test_every_metric_asked_for_is_there() -> None:
    assert len(used()) > 20
    assert used() - set(samples()) == set()


def test_every_metric_of_ours_is_shown() -> None:
    unshown = {"meshfw_generation", "meshfw_start_timestamp_seconds", "meshfw_last_success_timestamp_seconds"}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples() if name.startswith("meshfw_")}
    shown = {re.sub(r"_bucket$", "", name) for name in used()}
    assert {name for name in ours if not name.endswith("_created")} - shown == unshown


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_asked_for_is_there(expression: str) -> None:
    labels = samples()
    known = {"instance", "le"} | {label for name in WORD.findall(expression) for label in labels.get(name, ())}
    asked = {word for group in re.findall(r"by \(([^)]*)\)", expression) for word in group.split(", ")}
    asked |= set(re.findall(r"[{,]\s*(\w+)=~?\"", expression))
    assert asked - known == set()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_brackets_of_an_expression_match(expression: str) -> None:
    closing = {")": "(", "]": "[", "}": "{"}
    stack: list[str] = []
    for char in expression:
        if char in "([{":
            stack.append(char)
        elif char in closing:
            assert stack.pop() == closing[char]
    assert stack == []


def test_the_data_source_is_the_readers_choice() -> None:
    names = {variable["name"]: variable["type"] for variable in BOARD["templating"]["list"]}
    assert names == {"datasource": "datasource", "instance": "query"}
    sources = {target["datasource"]["uid"] for panel in PANELS for target in [panel, *panel["targets"]]}
    assert sources == {"${datasource}"}


def test_panels_have_numbers_of_their_own_and_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_status_prints_it_and_asks_no_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--dashboard"]) == 0
    assert json.loads(capsys.readouterr().out) == BOARD
