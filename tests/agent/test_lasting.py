"""Laws of an agent that runs for years: nothing grows, nothing spins, and no odd moment ends it or stays in its way."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.agent.demand import HELD, SOURCES, Demand
from meshfw.agent.past import AGENT, Past
from meshfw.agent.status import Phase
from meshfw.backend import Committed, Event
from meshfw.backends.instance import only_writer
from meshfw.errors import BackendError, KernelError
from meshfw.model import Family, Ruleset
from meshfw.safety.pending import register_of
from meshfw.states import State
from meshfw.workshop import Workshop
from tests.agent.world import RULES, Asked, World

DUMP = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.0.0.{} -j DROP\nCOMMIT\n"
SOURCE = '[[source]]\ntype = "rules"\n[[source]]\ntype = "iptables-save"\nipv4 = "{}"\n'


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("meshfw").propagate = True
    caplog.set_level("DEBUG", logger="meshfw")


def test_a_full_check_that_is_switched_off_by_a_reload_leaves_the_agent_asleep(world: Callable[..., World]) -> None:
    here = world(agent="full_check = 60")
    here.settings = "full_check = 0"
    here.declare(*RULES)
    here.agent.ears.say("reload")
    here.turn(0)
    here.turn(61)
    here.turn(1)
    assert here.agent._schedule.left(60.0) > 1


def test_a_full_check_that_is_switched_on_by_a_reload_is_made(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[object] = []
    monkeypatch.setattr("meshfw.agent.watchman.Watchman.check", lambda *given: checks.append(given))
    here = world(agent="full_check = 0")
    here.settings = "full_check = 60"
    here.declare(*RULES)
    here.agent.ears.say("reload")
    here.turn(0)
    here.turn(61)
    assert len(checks) == 1


def test_sources_that_were_closed_are_not_listened_to_while_the_backend_cannot_be_opened(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rules.v4").write_text(DUMP.format(1), encoding="utf-8")
    here = world(agent=SOURCE.format("rules.v4"))
    assert len(here.agent._demand.changes) == 1
    with monkeypatch.context() as patch:

        def gone(*_: object) -> None:
            raise BackendError("gone", backend="memory")

        patch.setattr("meshfw.backends.memory.MemoryBackend.__init__", gone)
        here.agent.ears.say("reload")
        here.turn(0.0)
        assert here.phase() is Phase.FAILING
        assert here.agent.ears.wait(0.01) == frozenset()
    here.turn(2.0)
    here.turn(0.0)
    assert here.phase() is Phase.WATCHING


def test_a_source_that_gives_no_word_of_its_changes_is_asked_every_resync(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "no inotify instance is left")

    monkeypatch.setattr("meshfw.sources.dump.FileChanges", none_left)
    (tmp_path / "rules.v4").write_text(DUMP.format(1), encoding="utf-8")
    here = world(agent="resync = 100\n" + SOURCE.format("rules.v4"))
    (tmp_path / "rules.v4").write_text(DUMP.format(77), encoding="utf-8")
    here.turn(90)
    assert "-s 10.0.0.77" not in here.kernel.text(Family.IPV4)
    here.turn(11)
    assert "-s 10.0.0.77" in here.kernel.text(Family.IPV4)


def test_who_has_neither_sources_nor_a_past_is_not_healthy_until_the_sources_are_there(
    world: Callable[..., World], tmp_path: Path
) -> None:
    here = world(agent=SOURCE.format("rules.v4"))
    assert (here.phase(), here.status.healthy) == (Phase.FAILING, False)
    (tmp_path / "rules.v4").write_text(DUMP.format(77), encoding="utf-8")
    here.turn(0)
    here.turn(1)
    assert "-s 10.0.0.77" in here.kernel.text(Family.IPV4)
    assert (here.phase(), here.status.healthy) == (Phase.WATCHING, True)


class Broken:
    """What listens, and can't say any more what it heard."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Always readable."""
        return self.descriptor

    def drain(self) -> bool:
        """A defect of a plugin's."""
        raise RuntimeError("lost")

    def events(self) -> tuple[Event, ...]:
        """What the kernel refuses."""
        raise KernelError("no room", errno=105, backend="memory")


def test_a_source_that_cannot_tell_of_changes_any_more_is_opened_anew(
    world: Callable[..., World], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rules.v4").write_text(DUMP.format(1), encoding="utf-8")
    here = world(agent=SOURCE.format("rules.v4"))
    here.agent._demand.changes = (Broken(),)
    here.agent._listen()
    here.turn(0)
    assert any("can't tell of its changes" in record.getMessage() for record in caplog.records)
    here.turn(2)
    here.turn(0)
    assert here.phase() is Phase.WATCHING
    (tmp_path / "rules.v4").write_text(DUMP.format(77), encoding="utf-8")
    here.turn(0)
    here.turn(1)
    assert "-s 10.0.0.77" in here.kernel.text(Family.IPV4)


def test_a_watch_that_fails_is_made_anew(world: Callable[..., World]) -> None:
    here = world()
    assert here.agent._keeper is not None
    here.agent._keeper.watch = Broken()
    here.agent._listen()
    here.turn(0)
    assert here.phase() is Phase.FAILING
    here.turn(2)
    here.turn(0)
    assert here.phase() is Phase.WATCHING
    here.undo()
    here.turn(0)
    here.turn(1)
    assert here.stands()


def test_who_is_forgiven_is_no_rival_any_more_in_the_status_either(world: Callable[..., World]) -> None:
    here = world(agent="debounce = 0.0\nrival_limit = 1")
    for word in ("look", "reload"):
        here.undo()
        here.turn(0.1)
        here.turn(0.1)
        assert here.status.contended == "rival"
        here.agent.ears.say(word)
        here.turn(0.0)
        assert here.status.contended == ""


def test_a_commit_that_the_kernel_never_holds_is_given_up_and_told_once(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(agent="patience = 3\nrival_limit = 1000")
    commits: list[object] = []

    def deaf(transaction: object, **_: object) -> Committed:
        commits.append(transaction)
        here.kernel.writes += 1
        return Committed(here.backend.fingerprint(), exclusive=False)

    monkeypatch.setattr(here.backend, "commit", deaf)
    here.undo(secretly=True)
    for _ in range(60):
        here.turn(61)
    assert here.phase() is Phase.STUCK
    assert len([record for record in caplog.records if "never held" in record.getMessage()]) == 1
    made = len(commits)
    for _ in range(10):
        here.turn(61)
    assert len(commits) == made


def test_what_is_undone_unheard_once_in_a_while_is_repaired_for_ever(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world(agent="patience = 3")
    for _ in range(10):
        here.undo(secretly=True)
        here.turn(11)
        assert here.stands()
        here.kernel.writes += 1  # somebody else's business: all is read anew, and right
        here.turn(11)
        here.turn(3600)
    assert not [record for record in caplog.records if "never held" in record.getMessage()]


def test_a_wait_for_the_lock_is_no_reason_to_hear_less(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(agent="debounce = 0.0")
    monkeypatch.setattr("meshfw.agent.keeper.LOCK_TIMEOUT", 0.3)
    with only_writer(here.agent._shop.site, timeout=1):
        here.undo()
        here.turn(0)
        here.turn(0)
        assert here.phase() is Phase.FAILING
    here.turn(1.6)
    assert here.stands()
    here.turn(1)
    here.undo()
    here.turn(0)
    here.turn(0.1)
    assert here.stands()


def test_a_slow_reading_puts_off_no_quiet_look(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    here = world()
    ticks = iter(range(0, 100_000, 1))
    with monkeypatch.context() as patch:
        patch.setattr("meshfw.agent.watchman.perf_counter", lambda: float(next(ticks)), raising=False)
        patch.setattr("time.perf_counter", lambda: float(next(ticks)))
        here.kernel.writes += 1
        here.turn(11)
    here.undo(secretly=True)
    here.turn(11)
    assert here.stands()


def test_a_record_that_cannot_be_believed_is_told_of_once_and_nothing_grows(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    here = world()
    register = register_of(here.agent._shop.site)
    path = register._path("pending")
    try:
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("nonsense")
        for _ in range(20):
            here.turn(11)
        assert len(here.agent._shop.warnings) < 3
        assert len([record for record in caplog.records if path in record.getMessage()]) == 1
    finally:
        os.unlink(path)


def test_warnings_that_never_repeat_are_not_kept_for_ever(world: Callable[..., World]) -> None:
    here = world()
    for number in range(5000):
        here.agent._shop.warnings.append(f"rule {number} is odd")
        here.turn(11)
    assert len(here.agent._shop.warnings) < 3
    assert len(here.voice._said) < 2000


def test_what_was_rejected_may_be_tried_again_after_another_declaration(tmp_path: Path) -> None:
    source = tmp_path / "rules.v4"
    text = f'owner = "again"\n[[source]]\ntype = "iptables-save"\nipv4 = "{source}"\n'
    (tmp_path / "meshfw.toml").write_text(text, encoding="utf-8")
    shop = Workshop(Asked(str(tmp_path / "meshfw.toml"), backend="memory"))
    demand = Demand(shop, Past(shop.history), shop.config.agent)

    def origin(number: int) -> str:
        source.write_text(DUMP.format(number), encoding="utf-8")
        return demand.load().origin

    assert origin(1) == SOURCES
    assert origin(2) == SOURCES
    demand.reject("a probe failed")
    assert [origin(2), origin(2), origin(1), origin(2)] == [HELD, HELD, SOURCES, SOURCES]
    demand.close()


def test_another_agent_is_a_rival_and_a_person_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    (tmp_path / "meshfw.toml").write_text('owner = "two"\n[[chain]]\nname = "a"\nrules = ["-j DROP"]\n')
    shop = Workshop(Asked(str(tmp_path / "meshfw.toml"), backend="memory"))
    past, declared = Past(shop.history), shop.rules()

    def recorded(reason: str, ruleset: Ruleset) -> bool:
        shop.history.record(State(owner="two", backend="memory", netns=None, ruleset=ruleset, time=1.0, reason=reason))
        return past.moved()

    assert not past.moved()
    assert not recorded(AGENT, declared)
    assert recorded("apply", Ruleset())
    assert not past.moved()


SETS = """\
owner = "loop"
backend = "memory"
[[chain]]
name = "input"
attach = {{ hook = "input" }}
rules = [{rules}]
[[set]]
name = "admins"
elements = [{elements}]
"""


@pytest.mark.parametrize(
    ("rules", "elements", "said"),
    [(2, 60, "4 rules in place of 84"), (42, 3, "3 elements of sets in place of 60"), (30, 40, "")],
)
def test_neither_most_rules_nor_most_elements_may_go_at_once(
    tmp_path: Path, rules: int, elements: int, said: str
) -> None:
    file = tmp_path / "meshfw.toml"

    def shop(rules: int, elements: int) -> Workshop:
        lines = [f'"-s @admins -p tcp -m tcp --dport {port} -j ACCEPT"' for port in range(1, rules + 1)]
        addresses = [f'"10.0.0.{number}"' for number in range(1, elements + 1)]
        file.write_text(SETS.format(rules=", ".join(lines), elements=", ".join(addresses)), encoding="utf-8")
        return Workshop(Asked(str(file)))

    many = shop(42, 60)
    kept = many.rules()
    few = shop(rules, elements)
    demand = Demand(few, Past(few.history), few.config.agent, kept=kept)
    wanted = demand.load()
    demand.close()
    assert said in wanted.problem
    assert (wanted.ruleset == kept) is bool(said)


def test_what_the_sources_say_and_is_not_kept_is_told_in_the_status(world: Callable[..., World]) -> None:
    here = world()
    assert here.status.problem == ""
    here.agent._demand._load = lambda: (_ for _ in ()).throw(KernelError("away", errno=5))  # type: ignore[method-assign]  # a source that is away
    here.agent._schedule.soon("load")
    here.turn(0)
    assert here.status.healthy
    assert "away" in here.status.problem


def test_a_trial_that_began_since_the_look_is_looked_at_again_at_once(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(agent="debounce = 0.0")
    keeper = here.agent._keeper
    assert keeper is not None
    here.undo()
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "on_trial", lambda: False)
        patch.setattr(keeper, "settle", object)
        here.turn(0.1)
        here.turn(0.1)
    assert here.status.phase is Phase.WATCHING
    assert not here.stands()
    assert here.agent._schedule.left(60.0) <= 0
    here.turn(0)
    assert here.stands()
