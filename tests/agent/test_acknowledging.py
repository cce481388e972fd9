"""Laws of the word that sources get: each hears what became of the rules that it gave, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshfw.agent import keeper as keeper_module
from meshfw.agent.status import Phase
from meshfw.applying import apply_declared
from meshfw.backend import Outcome, Report
from meshfw.backends.memory import MemoryBackend
from meshfw.errors import BackendError, LockError, MeshfwError, PluginError, RolledBackError
from meshfw.safety.trial import Tried, guarded_apply
from meshfw.source import Acknowledging, Doubting
from meshfw.sources.rules import RulesSource
from meshfw.workshop import Workshop
from tests.agent.world import RULES, Asked, World

Told = list[Outcome | str]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the source ``rules`` hears, made one that wants to."""
    heard: Told = []

    class Listening(RulesSource):
        def applied(self, report: Report) -> None:
            heard.append(report.outcome)

        def refused(self, reason: str) -> None:
            heard.append(reason)

    monkeypatch.setattr("meshfw.sources.rules.RulesSource", Listening)
    return heard


class Doubter(RulesSource):
    def doubts(self) -> list[str]:
        return ["they are old"]


def shop(directory: Path, rules: str, more: str = "") -> Workshop:
    file = directory / "meshfw.toml"
    file.write_text(f'owner = "ack"\nbackend = "memory"\n{more}[[chain]]\nname = "a"\nrules = [{rules}]\n')
    return Workshop(Asked(str(file)))


# --- apply ---


def test_apply_tells_the_sources_that_the_kernel_holds_their_rules(tmp_path: Path, told: Told) -> None:
    apply_declared(shop(tmp_path, '"-j DROP"'), timeout=1)
    assert told == [Outcome.CHANGED]


def test_apply_tells_the_sources_why_their_rules_were_refused(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(self: MemoryBackend, *_: object, **__: object) -> None:
        raise BackendError("the kernel says no")

    monkeypatch.setattr(MemoryBackend, "commit", commit)
    with pytest.raises(BackendError):
        apply_declared(shop(tmp_path, '"-j DROP"'), timeout=1)
    assert told == ["the kernel says no"]


def test_a_source_is_told_that_it_could_not_be_loaded(tmp_path: Path, told: Told) -> None:
    with pytest.raises(MeshfwError):
        apply_declared(shop(tmp_path, '"-j"'), timeout=1)
    assert len(told) == 1
    assert "chain[1].rules[1]" in str(told[0])


def test_to_plan_tells_nobody(tmp_path: Path, told: Told) -> None:
    shop(tmp_path, '"-j DROP"').rules()
    with pytest.raises(MeshfwError):
        shop(tmp_path, '"-j"').rules()
    assert told == []


def test_a_source_that_was_not_asked_is_not_told(tmp_path: Path, told: Told) -> None:
    broken = shop(
        tmp_path, '"-j DROP"', '[[source]]\ntype = "iptables-save"\nipv4 = "absent"\n[[source]]\ntype="rules"\n'
    )
    with pytest.raises(MeshfwError):
        apply_declared(broken, timeout=1)
    assert told == []


def test_a_source_that_fails_at_hearing_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(RulesSource):
        def applied(self, report: Report) -> None:
            raise OSError("no room")

        refused = applied

    monkeypatch.setattr("meshfw.sources.rules.RulesSource", Failing)
    here = shop(tmp_path, '"-j DROP"')
    assert apply_declared(here, timeout=1).report.outcome is Outcome.CHANGED
    assert [text for text in here.warnings if "wasn't acknowledged" in text and "no room" in text]


def test_what_a_source_doubts_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfw.sources.rules.RulesSource", Doubter)
    here = shop(tmp_path, '"-j DROP"')
    here.rules()
    assert here.warnings == ["they are old"]


def test_most_sources_are_neither_told_nor_asked() -> None:
    assert not issubclass(RulesSource, Acknowledging)
    assert not issubclass(RulesSource, Doubting)


@pytest.mark.parametrize("told", ["one text", None, (1,)])
@pytest.mark.parametrize("member", ["warnings", "doubts"])
def test_words_of_a_source_that_are_none_are_its_plugin_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, told: object
) -> None:
    monkeypatch.setattr(RulesSource, member, told if member == "warnings" else lambda _: told, raising=False)
    with pytest.raises(PluginError, match=f"rules failed: TypeError: its {member} are"):
        shop(tmp_path, '"-j DROP"').rules()


# --- the agent ---


def test_an_agent_tells_after_each_look_that_finds_the_rules(world: Callable[..., World], told: Told) -> None:
    here = world()
    assert told == [Outcome.CHANGED]
    here.turn(30.0)
    assert len(told) == 2
    here.undo()
    here.turn(1.0)
    here.turn(1.0)
    assert told[-1] is Outcome.CHANGED
    assert here.stands()


def test_an_agent_tells_of_a_failure_and_of_the_success_that_follows(
    world: Callable[..., World], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world()
    commit = MemoryBackend.commit

    def failing(self: MemoryBackend, *_: object, **__: object) -> None:
        raise BackendError("the kernel says no")

    monkeypatch.setattr(MemoryBackend, "commit", failing)
    here.undo()
    here.turn(1.0)
    here.turn(1.0)
    assert told[-1] == "the kernel says no"
    monkeypatch.setattr(MemoryBackend, "commit", commit)
    here.turn(60.0)
    assert told[-1] is Outcome.CHANGED


def test_that_others_write_just_now_is_no_failure(
    world: Callable[..., World], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world()
    keeper = here.agent._keeper
    assert keeper is not None

    def locked(*_: object, **__: object) -> None:
        raise LockError("lock", waited=1.0)

    monkeypatch.setattr(keeper, "alone", locked)
    here.undo()
    here.turn(1.0)
    here.turn(1.0)
    assert here.phase() is Phase.FAILING
    assert told == [Outcome.CHANGED]


def test_an_agent_tells_that_it_keeps_older_rules_and_why(
    world: Callable[..., World], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(f"-s 10.0.{number}.0/24 -j DROP" for number in range(40))
    here = world(rules=many)
    here.declare(*RULES)
    here.agent.ears.say("reload")
    told.clear()
    for _ in range(5):
        here.turn(1.0)
    assert told
    assert all("more than 50% may not go at once" in str(item) for item in told)  # although the old rules stand


def test_what_was_undone_is_told_once_with_the_reason(
    world: Callable[..., World], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world()
    failures = [RolledBackError(["ping 10.0.0.1"])]

    def rolled_back(*arguments: Any, **named: Any) -> Tried:
        if failures:
            raise failures.pop()
        return guarded_apply(*arguments, **named)

    monkeypatch.setattr(keeper_module, "guarded_apply", rolled_back)
    here.declare("-s 10.0.0.9 -j DROP", *RULES)
    here.agent.ears.say("reload")
    told.clear()
    for _ in range(4):
        here.turn(1.0)
    assert len(told) == 1
    assert "ping 10.0.0.1" in str(told[0])


def test_what_a_source_doubts_is_the_status_problem(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfw.sources.rules.RulesSource", Doubter)
    here = world()
    assert (here.status.problem, here.phase()) == ("they are old", Phase.WATCHING)
