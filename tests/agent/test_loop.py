"""Laws of the agent's loop, on a kernel of text and a clock that the test turns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from meshfw.agent.status import Phase
from meshfw.backend import Report
from meshfw.errors import BackendError, KernelError
from meshfw.model import Family
from tests.agent.world import RULES, World


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("meshfw").propagate = True
    caplog.set_level("DEBUG", logger="meshfw")


def test_the_rules_are_put_in_place_before_the_first_wait(world: Callable[..., World]) -> None:
    here = world()
    assert here.stands()
    assert (here.status.phase, here.status.healthy, here.status.rules) == (Phase.WATCHING, True, 3)


def test_an_event_is_repaired_after_the_debounce_and_the_culprit_is_kept(world: Callable[..., World]) -> None:
    here = world(agent="debounce = 0.5")
    here.undo()
    here.turn(0.0)
    assert not here.stands()  # more may be coming
    here.turn(0.6)
    assert here.stands()
    drift = here.status.drifts[0]
    assert [(culprit.pid, culprit.command) for culprit in drift.culprits] == [(77, "rival")]


def test_what_nobody_told_of_is_found_by_the_clock(world: Callable[..., World]) -> None:
    here = world()
    here.undo(secretly=True)
    here.turn(5)
    assert not here.stands()
    here.turn(6)
    assert here.stands()
    assert here.status.drifts[0].culprits == ()


def test_a_machine_that_slept_looks_as_soon_as_it_wakes(world: Callable[..., World]) -> None:
    here = world(agent="resync = 86400")
    here.undo(secretly=True)
    here.turn(8 * 3600.0)
    assert here.stands()


def test_quiet_looks_cost_no_write_and_count_as_idle(world: Callable[..., World]) -> None:
    here = world()
    writes = here.kernel.writes
    for _ in range(50):
        here.turn(11)
    assert here.kernel.writes == writes
    assert here.status.outcomes["idle"] >= 50
    assert here.status.drifts == ()


def test_a_rival_is_told_once_and_waits_longer_each_time(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world(agent="debounce = 0.0\nrival_limit = 3\nback_off = 1")
    for _ in range(600):
        if here.stands():
            here.undo(command="dockerd")
        here.turn(0.1)
    told = [record for record in caplog.records if "contended with" in record.getMessage()]
    assert len(told) == 1
    assert "dockerd" in told[0].getMessage()
    assert 4 <= len(here.status.drifts) <= 10
    assert here.phase() is Phase.BACKING_OFF
    assert here.status.contended == "dockerd"
    here.agent.ears.say("look")  # a person asks
    here.turn(0.0)
    assert here.stands()


def test_a_rival_who_rests_is_forgotten(world: Callable[..., World]) -> None:
    here = world(agent="debounce = 0.0\nrival_limit = 2\nrival_window = 60")
    for _ in range(2):
        here.undo()
        here.turn(0.1)
        here.turn(0.1)
    assert here.status.contended == "rival"
    here.turn(30)
    assert here.status.contended == "rival"
    here.turn(200)
    assert here.status.contended == ""


def test_a_change_that_never_holds_is_given_up_until_something_else_is_wanted(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world(agent="patience = 3\nrival_limit = 1000")
    for _ in range(6):
        here.undo(secretly=True)
        here.turn(11)
    assert here.phase() is Phase.STUCK
    assert not here.status.healthy
    assert len(here.status.drifts) == 3
    assert len([record for record in caplog.records if "never held" in record.getMessage()]) == 1
    assert not here.stands()
    here.declare(*RULES, "-p udp -j DROP")
    here.agent.ears.say("reload")
    here.turn(0.0)
    here.turn(0.0)
    assert here.stands()
    assert here.phase() is Phase.WATCHING


def test_a_failure_is_told_once_and_tried_again_after_growing_pauses(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(agent="debounce = 0.0")
    tried: list[float] = []

    def refuse(*_: object, **__: object) -> None:
        tried.append(here.clock.now)
        raise KernelError("no room", errno=12, backend="memory")

    with monkeypatch.context() as patch:
        patch.setattr(here.backend, "commit", refuse)
        here.undo()
        for _ in range(1500):
            here.turn(0.1)
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert pauses[0] == pytest.approx(1.0, abs=0.2)
    assert all(later >= sooner - 0.2 for sooner, later in pairwise(pauses))
    assert max(pauses) <= 60.2
    assert len([record for record in caplog.records if "no room" in record.getMessage()]) == 1
    assert here.phase() is Phase.FAILING
    here.turn(61)
    assert here.stands()
    assert here.status.healthy


def test_a_backend_that_cannot_be_opened_again_is_tried_again(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world()
    with monkeypatch.context() as patch:

        def gone(*_: object) -> None:
            raise BackendError("gone", backend="memory")

        patch.setattr("meshfw.backends.memory.MemoryBackend.__init__", gone)
        here.agent.ears.say("reload")
        here.turn(0.0)
        assert here.phase() is Phase.FAILING
    here.turn(2.0)
    here.turn(0.0)
    assert here.phase() is Phase.WATCHING


def test_a_bad_configuration_keeps_the_old_one_and_says_so_to_whoever_asks(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world()
    here.file.write_text("owner = 7\n", encoding="utf-8")
    for _ in range(3):
        here.agent.ears.say("reload")
        here.turn(0.0)
    assert len([record for record in caplog.records if "the old one stays" in record.getMessage()]) == 3
    assert any("owner" in warning for warning in here.status.warnings)
    here.undo()
    here.turn(0)
    here.turn(1)
    assert here.stands()


def test_a_configuration_that_a_source_kept_from_being_taken_is_taken_once_the_source_is_back(
    world: Callable[..., World], tmp_path: Path
) -> None:
    dump = tmp_path / "rules.v4"
    text = "*filter\n-A INPUT -p tcp -m tcp --dport 1 -j DROP\nCOMMIT\n"
    dump.write_text(text, encoding="utf-8")
    more = f'[[source]]\ntype = "iptables-save"\nipv4 = "{dump}"\n'
    here = world()
    here.declare("-p tcp --dport 1 -j DROP", more=more)
    here.agent.ears.say("reload")
    here.turn(0.0)
    dump.unlink()
    here.declare("-p tcp --dport 2 -j DROP", more=more)
    here.agent.ears.say("reload")
    here.turn(0.0)
    here.turn(1.0)
    assert "rules.v4" in here.status.problem
    dump.write_text(text, encoding="utf-8")
    for _ in range(4):
        here.turn(1.0)
    assert here.status.problem == ""
    assert "--dport 2 " in here.kernel.text(Family.IPV4)


def test_a_stop_is_heard_at_once(world: Callable[..., World]) -> None:
    here = world()
    here.agent.ears.say("stop")
    here.agent.step()
    assert here.agent._stopped


def test_plugins_are_told_who_had_changed_what_a_repair_put_back(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(agent="debounce = 0.0")
    told: list[Report] = []
    keeper = here.agent._keeper
    assert keeper is not None

    def reconciled(report: Report) -> tuple[str, ...]:
        told.append(report)
        return ()

    monkeypatch.setattr(keeper.shop.plugins, "reconciled", reconciled)
    here.undo(command="rival")
    here.turn(0.1)
    here.turn(0.1)
    assert [report.culprits for report in told] == [("rival (process 77)",)]
