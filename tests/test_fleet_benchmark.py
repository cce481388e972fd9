"""The laws of a fleet, as the benchmark of it checks them, with few nodes: its times are figures, and no laws."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.fleet import main, rules

pytestmark = pytest.mark.kernel


def test_no_trouble_of_the_store_costs_a_node_its_rules_and_a_bad_release_stays_with_the_canary(
    requires: Callable[..., None], kernel_room: object, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("etcd", "nft")
    assert main(["--smoke"]) == 0
    out = capsys.readouterr().out
    for what in ("killed", "frozen", "cut off"):
        assert f"store {what}: nodes that keep their rules: 50 of 50" in out
    assert "a release that fails on the canary is seen by: 1 of 50" in out


def test_the_rules_that_are_pushed_have_their_size_and_differ() -> None:
    assert 20_000 <= len(rules(1)) < 20_200
    assert rules(1) != rules(2)
