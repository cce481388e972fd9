"""Laws of the agent's loop, on a kernel of text and a clock that the test turns."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from meshfw.agent.loop import Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.outside import Outside
from meshfw.agent.past import Past
from meshfw.agent.status import Phase, Status
from meshfw.agent.voice import Voice
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.errors import BackendError, KernelError
from meshfw.model import Family
from meshfw.workshop import Workshop

RULES = ("-i lo -j ACCEPT", "-s 10.0.0.0/8 -j DROP")


class Asked(msgspec.Struct, frozen=True):
    """A command line's words."""

    config: str
    backend: str | None = None
    netns: str | None = None


class Clock:
    """A clock that stands still until it's turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """An agent in this thread, its clock, and the kernel of text that it keeps."""

    def __init__(self, directory: Path, *, agent: str = "", rules: tuple[str, ...] = RULES) -> None:
        self.file = directory / "meshfw.toml"
        self.settings = agent
        self.declare(*rules)
        asked = Asked(str(self.file))
        self.clock = Clock()
        shop = Workshop(asked)
        self.voice = Voice(Status(), notifier=Notifier(None))
        self.agent = Agent(
            shop,
            asked,
            voice=self.voice,
            past=Past(shop.history),
            outside=Outside(),
            clock=self.clock,
            chance=lambda: 0.0,
        )
        self.agent._begin()

    def declare(self, *rules: str) -> None:
        """Write the configuration."""
        chain = f'[[chain]]\nname = "input"\nattach = {{ hook = "input" }}\nrules = {json.dumps(rules)}\n'
        text = f'owner = "loop"\nbackend = "memory"\n[agent]\n{self.settings}\n{chain}'
        self.file.write_text(text, encoding="utf-8")

    @property
    def backend(self) -> MemoryBackend:
        keeper = self.agent._keeper
        assert keeper is not None
        assert isinstance(keeper.backend, MemoryBackend)
        return keeper.backend

    @property
    def kernel(self) -> MemoryKernel:
        return self.backend.kernel

    @property
    def status(self) -> Status:
        return self.agent.status

    def phase(self) -> Phase:
        return self.status.phase

    def turn(self, seconds: float) -> None:
        """Let time pass, and the agent do what is due."""
        self.clock.now += seconds
        self.agent.ears.say("")
        self.agent.step()

    def undo(self, *, command: str = "rival", secretly: bool = False) -> None:
        """Take our rules away, as somebody else."""
        if secretly:
            self.kernel._texts[Family.IPV4] = ""
            self.kernel.writes += 1
        else:
            self.kernel.write(Family.IPV4, "", pid=77, command=command)

    def stands(self) -> bool:
        return "-s 10.0.0.0/8" in self.kernel.text(Family.IPV4)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**named: object) -> World:
        made.append(World(tmp_path, **named))  # type: ignore[arg-type]  # a test's own words
        return made[-1]

    yield make
    for each in made:
        each.agent.close()


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


def test_a_bad_configuration_keeps_the_old_one_and_says_so_once(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world()
    here.file.write_text("owner = 7\n", encoding="utf-8")
    for _ in range(3):
        here.agent.ears.say("reload")
        here.turn(0.0)
    assert len([record for record in caplog.records if "the old one stays" in record.getMessage()]) == 1
    assert any("owner" in warning for warning in here.status.warnings)
    here.undo()
    here.turn(0)
    here.turn(1)
    assert here.stands()


def test_a_stop_is_heard_at_once(world: Callable[..., World]) -> None:
    here = world()
    here.agent.ears.say("stop")
    here.agent.step()
    assert here.agent._stopped
