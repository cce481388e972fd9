"""Laws of moving to another backend on a real kernel: all or nothing, whoever ends it, and others' rules untouched."""

from __future__ import annotations

import os
import signal
from argparse import Namespace
from collections.abc import Callable
from itertools import permutations
from typing import Final

import msgspec
import pytest

import meshfw.migration
from meshfw.agent.keeper import Keeper
from meshfw.backends.remembered import recall
from meshfw.cli.signals import Ended
from meshfw.errors import BackendError, MigrationError
from meshfw.hookspecs import hookimpl
from meshfw.plugins import BuiltIn
from meshfw.safety.moving import Journal
from meshfw.workshop import Workshop
from tests.kernel.inn import BACKENDS, Inn

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("legacy_seen")]

DIRECTIONS: Final = tuple(permutations(BACKENDS, 2))
RULES: Final = ("-s 10.0.0.0/8 -j DROP", "-p tcp -m tcp --dport 22 -m limit --limit 5/min -j LOG")
EXTRA: Final = """
[[chain]]
name = "masq"
table = "nat"
attach = { hook = "postrouting" }
rules = ["-s 10.0.0.0/8 -j MASQUERADE"]
families = "ipv4"
"""
FOREIGN: Final = (
    "iptables-legacy -t filter -A INPUT -s 192.0.2.1 -j ACCEPT",
    "iptables-nft -t filter -A INPUT -s 192.0.2.2 -j ACCEPT",
    "nft add table inet fw { chain in { type filter hook input priority 0; counter; }; }",
)


@pytest.fixture
def inn(auto_inn: Inn) -> Inn:
    """A host on which auto chooses."""
    auto_inn.declare(*RULES, extra=EXTRA)
    return auto_inn


def standing(inn: Inn) -> list[str]:
    """The backends of meshfw's own in which rules of ours stand."""
    listed = [item for item in inn("backends", "--json").data["backends"] if item["distribution"] == "meshfw"]
    return [item["name"] for item in listed if item["own"]]


def journals(inn: Inn) -> list[str]:
    return [path.name for path in (inn.directory / "state").glob("*.migration")]


def foreign(inn: Inn) -> str:
    """The rules of others, as the tools print them."""
    nft = inn.tool("nft -s list table inet fw")
    saved = [inn.tool(f"iptables-{way}-save -t filter") for way in ("legacy", "nft")]
    return nft + "".join(line for text in saved for line in text.splitlines(True) if "192.0.2." in line)


# --- it moves ---


@pytest.mark.parametrize(("old", "new"), DIRECTIONS)
def test_rules_stand_in_the_new_backend_alone_and_those_of_others_as_they_were(inn: Inn, old: str, new: str) -> None:
    for command in FOREIGN:
        inn.tool(command)
    before = foreign(inn)
    inn("apply", "--backend", old)
    with_old = inn.tool("nft -s list ruleset") + inn.tool("iptables-legacy-save -t filter")
    assert "10.0.0.0/8" in with_old
    moved = inn("migrate", "--to", new)
    assert standing(inn) == [new]
    assert foreign(inn) == before
    assert journals(inn) == []
    assert recall("inn", inn.name)[0] == new
    assert f"moving 4 rules from {old} to {new}" in moved.out
    assert "nothing to do" in inn("apply").out, "auto goes where the rules are"
    assert inn("check").out == f"in place ({new})\n"
    again = inn("migrate", "--to", new, "--json").data
    assert (again["from"], again["rules"]) == ([], 0)


def test_a_rollback_goes_to_the_new_backend_and_so_does_what_comes_back_after_a_reboot(inn: Inn) -> None:
    inn("apply", "--backend", "iptables-legacy")
    inn.declare("-s 172.16.0.0/12 -j DROP", extra=EXTRA)
    inn("apply", "--backend", "iptables-legacy")
    inn("rollback", "--backend", "iptables-legacy")
    inn("migrate", "--to", "nft")
    assert any("10.0.0.0/8" in rule for rule in inn.rules()), "what is held was moved, not what is declared"
    inn.reboot()
    inn("restore")
    assert standing(inn) == ["nft"]
    assert any("10.0.0.0/8" in rule for rule in inn.rules())
    inn("rollback")
    assert standing(inn) == ["nft"]
    assert any("172.16.0.0/12" in rule for rule in inn.rules())


# --- what is told of before ---


def test_a_dry_run_lists_what_doubles_and_writes_nothing(inn: Inn) -> None:
    inn.declare(*RULES, "-m mark ! --mark 0x0 -j ACCEPT", extra=EXTRA)
    inn("apply", "--backend", "iptables-legacy")
    before = inn.everything()
    said = inn("migrate", "--to", "nft", "--dry-run", code=2).out
    assert "would move 6 rules from iptables-legacy to nft" in said
    for family, number in (("ipv4", 2), ("ipv6", 1)):
        place = f"{family} filter input rule {number} (-p tcp -m tcp --dport 22 -m limit --limit 5/min -j LOG)"
        assert f"  doubles while both are live: {place}: each packet is logged twice" in said
        assert f"  doubles while both are live: {place}: each copy counts for itself" in said
    assert inn.everything() == before
    assert journals(inn) == []
    data = inn("migrate", "--to", "nft", "--dry-run", "--json", code=2).data
    assert [item["rule"] for item in data["doubles"]] == [2, 2, 1, 1]
    assert data["force"] is False


XOR: Final = """
[[chain]]
name = "turn"
table = "mangle"
attach = { hook = "prerouting" }
rules = ["-j MARK --xor-mark 0x1"]
"""


def test_what_alters_packets_takes_force(inn: Inn) -> None:
    inn.declare(*RULES, extra=XOR)
    inn("apply", "--backend", "iptables-legacy")
    refused = inn("migrate", "--to", "nft", code=1)
    assert "doubles while both are live (takes --force): ipv4 mangle turn rule 1" in refused.out
    assert "nothing was changed (--force goes on all the same)" in refused.err
    assert standing(inn) == ["iptables-legacy"]
    data = inn("migrate", "--to", "nft", "--json", code=1).data
    assert [item["alters"] for item in data["doubles"] if item["table"] == "mangle"]
    assert "nothing was changed" in data["error"]["message"]
    inn("migrate", "--to", "nft", "--force")
    assert standing(inn) == ["nft"]


@pytest.mark.parametrize("end", ["nft", "iptables-legacy"])
def test_what_was_agreed_to_needs_no_force_to_come_to_its_end(
    inn: Inn, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    inn.declare(*RULES, extra=XOR)
    inn("apply", "--backend", "iptables-legacy")
    kill_at(inn, monkeypatch, "the old one", "migrate", "--to", "nft", "--force")
    inn("migrate", "--to", "iptables-nft", code=1)
    assert "doubles while both are live: ipv4 mangle turn rule 1" in inn("migrate", "--to", end).out
    assert (standing(inn), journals(inn)) == ([end], [])


@pytest.mark.parametrize(("old", "new"), [("iptables-legacy", "nft"), ("nft", "iptables-nft")])
def test_an_accept_that_would_mean_more_or_less_beside_others_takes_force(inn: Inn, old: str, new: str) -> None:
    inn.declare(*RULES, "-s 192.0.2.7 -j ACCEPT")
    iptables = old if old != "nft" else new
    inn.tool(f"{iptables} -P INPUT DROP")
    inn("apply", "--backend", old)
    refused = inn("migrate", "--to", new, code=1)
    assert f"others have a DROP policy in ipv4 filter by {iptables}" in refused.out
    assert standing(inn) == [old]
    assert inn("migrate", "--to", new, "--dry-run", "--json", code=2).data["force"] is True


@pytest.mark.parametrize("old", ["iptables-nft", "iptables-legacy"])
def test_chains_that_hold_ours_alone_are_no_foreign_ones(inn: Inn, old: str) -> None:
    text = (inn.directory / "meshfw.toml").read_text().replace('policy = "return"', 'policy = "drop", place = "last"')
    (inn.directory / "meshfw.toml").write_text(text)
    inn("apply", "--backend", old)
    inn("migrate", "--to", "nft", "--dry-run", code=2)
    inn("migrate", "--to", "nft")
    assert standing(inn) == ["nft"]


def test_backends_that_share_a_place_have_nothing_to_move(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = tuple(BuiltIn().meshfw_backends())
    legacy = next(offer for offer in offers if offer.name == "iptables-legacy")
    twin = msgspec.structs.replace(legacy, name="twin", place="iptables-legacy", automatic=40)
    monkeypatch.setattr(BuiltIn, "meshfw_backends", hookimpl(lambda self: (*offers, twin)))
    inn("apply", "--backend", "iptables-legacy")
    assert inn("migrate", "--to", "twin").out == "nothing to move: the rules stand in twin\n"
    assert recall("inn", inn.name)[0] == "twin"
    assert "nothing to do" in inn("apply").out
    inn("migrate", "--to", "nft")
    assert standing(inn) == ["nft"]


# --- what is refused ---


def test_nothing_to_move_is_told(inn: Inn) -> None:
    assert "no rules of inn stand in any backend ('meshfw apply" in inn("migrate", "--to", "nft", code=1).err
    assert "there is no backend 'ntf' (did you mean nft?)" in inn("migrate", "--to", "ntf", code=1).err
    assert "--to" in inn("migrate", code=1).err
    assert "--to alone" in inn("migrate", "--to", "nft", "--backend", "nft", code=1).err


def test_who_may_not_look_is_told_so_and_not_that_nothing_stands(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = tuple(BuiltIn().meshfw_backends())
    denied = tuple(msgspec.structs.replace(offer, unavailable=lambda: "CAP_NET_ADMIN is missing") for offer in offers)
    monkeypatch.setattr(BuiltIn, "meshfw_backends", hookimpl(lambda self: denied))
    said = inn("migrate", "--to", "nft", code=1).err
    assert "CAP_NET_ADMIN is missing" in said
    assert "no rules" not in said


def test_a_configuration_that_leads_back_is_refused_with_the_line_to_change(inn: Inn) -> None:
    inn.backend = "iptables-legacy"
    inn.declare(*RULES)
    inn("apply")
    refused = inn("migrate", "--to", "nft", code=1).err
    assert 'meshfw.toml: backend: "iptables-legacy" is where the next apply would go' in refused
    assert 'expected "nft" or "auto"' in refused
    inn.backend = "nft"
    inn.declare(*RULES)
    divided = inn("apply", code=1).err
    assert f"'meshfw migrate --to nft --netns {inn.name}' moves them while packets flow" in divided
    inn("migrate", "--to", "nft")
    assert "nothing to do (nft)" in inn("apply").out
    inn.backend = "auto"
    inn.declare(*RULES)
    assert "auto never takes memory" in inn("migrate", "--to", "memory", code=1).err


def test_what_stands_has_to_be_what_is_declared(inn: Inn) -> None:
    inn("apply", "--backend", "iptables-legacy")
    inn.declare("-s 172.16.0.0/12 -j DROP")
    refused = inn("migrate", "--to", "nft", code=1).err
    assert "what stands in iptables-legacy is " in refused
    assert "'meshfw apply --backend iptables-legacy --netns" in refused
    assert standing(inn) == ["iptables-legacy"]


def test_a_rule_that_the_new_backend_cannot_say_is_refused_before_anything_is_written(inn: Inn) -> None:
    inn.declare("-m recent --name seen --set -j ACCEPT")
    inn("apply", "--backend", "iptables-legacy")
    before = inn.everything()
    inn("migrate", "--to", "nft", code=1)
    assert inn.everything() == before
    assert journals(inn) == []
    inn("migrate", "--to", "iptables-nft")
    assert standing(inn) == ["iptables-nft"]


def test_a_change_on_trial_and_a_running_agent_come_first(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    inn("apply", "--backend", "iptables-legacy")
    monkeypatch.setattr("meshfw.agent.control.running", lambda owner, netns: 4711)
    refused = inn("migrate", "--to", "nft", code=1).err
    assert (
        "an agent keeps the rules of inn here (process 4711) (it would keep them in the old backend: stop it" in refused
    )
    monkeypatch.undo()


# --- it fails ---


class Killed(BaseException):
    """The end of a process at this very moment, as far as it can be had in one."""


MOMENTS: Final = (
    "the journal",
    "the new one",
    "the proof",
    "the journal again",
    "the old one",
    "the record",
    "the end",
)


def end_at(monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException) -> None:
    """Have an error raised at a moment of the next move."""
    move, later = meshfw.migration._Move, iter((moment == "the journal", moment == "the journal again"))

    def before(owner: type, name: str, *, when: Callable[[], bool] = lambda: True) -> None:
        real = getattr(owner, name)

        def work(*given: object, **named: object) -> object:
            if when():
                raise error
            return real(*given, **named)

        monkeypatch.setattr(owner, name, work)

    if moment.startswith("the journal"):
        before(Journal, "keep", when=lambda: next(later, False))
    else:
        method = {
            "the new one": "_made",
            "the proof": "_require",
            "the old one": "_emptied",
            "the record": "_recorded",
            "the end": "_end",
        }[moment]
        before(move, method)
    if isinstance(error, Killed):
        monkeypatch.setattr(move, "_put_back", lambda *_: None)


def kill_at(inn: Inn, monkeypatch: pytest.MonkeyPatch, moment: str, *argv: str) -> None:
    with monkeypatch.context() as patch:
        end_at(patch, moment, Killed())
        with pytest.raises(Killed):
            inn(*argv)


@pytest.mark.parametrize("moment", MOMENTS[1:])
@pytest.mark.parametrize("way", ["on", "back"])
def test_a_killed_move_is_told_of_and_goes_on_or_back(
    inn: Inn, monkeypatch: pytest.MonkeyPatch, moment: str, way: str
) -> None:
    inn("apply", "--backend", "iptables-legacy")
    kill_at(inn, monkeypatch, moment, "migrate", "--to", "nft")
    assert standing(inn), "rules stand all the while"
    assert len(journals(inn)) == 1
    (inn.directory / "meshfw.toml").write_text('owner = "inn"\n[[chain]]\nname = "input"\nrules = ["-j ACCEPT"]\n')
    for verb in ("apply", "clean", "rollback"):
        told = inn(verb, code=1).err
        assert "the move of inn's rules from iptables-legacy to nft, begun at " in told
        assert f"'meshfw migrate --to nft --netns {inn.name}' goes on" in told
        assert f"'meshfw migrate --to iptables-legacy --netns {inn.name}' goes back" in told
    assert "apply would refuse: the move of inn's rules" in inn("check", code=2).err
    end = {"on": "nft", "back": "iptables-legacy"}[way]
    said = inn("migrate", "--to", end)
    assert "brings a move that is half done to its end" in said.out
    assert standing(inn) == [end]
    assert any("10.0.0.0/8" in rule for rule in inn.rules()), "what was moved, whatever is declared by now"
    assert journals(inn) == []
    inn("apply")
    assert standing(inn) == [end]


def test_an_agent_that_met_a_move_half_done_keeps_the_rules_where_they_went(
    inn: Inn, monkeypatch: pytest.MonkeyPatch
) -> None:
    inn("apply", "--backend", "iptables-legacy")
    shop = Workshop(Namespace(config=None, backend=None, netns=inn.name))
    kill_at(inn, monkeypatch, "the record", "migrate", "--to", "nft")
    shop.sightings  # noqa: B018 - looked at in the middle of it, and kept
    with pytest.raises(MigrationError, match="is half done"):
        Keeper(shop)
    inn("migrate", "--to", "nft")
    keeper = Keeper(shop)
    assert keeper.backend.name == "nft"
    keeper.close()


def test_a_killed_move_can_be_cleaned_away(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    inn("apply", "--backend", "iptables-legacy")
    kill_at(inn, monkeypatch, "the old one", "migrate", "--to", "nft")
    inn("clean", "--all-backends")
    assert (standing(inn), journals(inn)) == ([], [])


def test_the_journal_of_another_namespace_or_boot_is_void(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    inn("apply", "--backend", "iptables-legacy")
    kill_at(inn, monkeypatch, "the old one", "migrate", "--to", "nft")
    for backend in BACKENDS:  # whatever ends the rules and not the namespace, as a new one of its number
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "moving", lambda _: None)
            inn("clean", "--backend", backend)
    assert "no rules of inn stand" in inn("migrate", "--to", "nft", code=1).err
    inn("apply", "--backend", "nft")


@pytest.mark.parametrize("moment", MOMENTS[1:5])
@pytest.mark.parametrize("error", [BackendError("the disk is on fire"), KeyboardInterrupt(), Ended(signal.SIGTERM)])
def test_what_fails_or_is_interrupted_is_put_back(
    inn: Inn, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    inn("apply", "--backend", "iptables-legacy")
    before = inn.tool("iptables-legacy-save -t filter")
    rules = [line for line in before.splitlines() if line.startswith("-A")]
    with monkeypatch.context() as patch:
        if moment == "the proof":
            patch.setattr(meshfw.migration._Move, "_require", _once(error))
        elif moment == "the old one":
            patch.setattr(meshfw.migration._Move, "_emptied", _once_emptied(error))
        else:
            end_at(patch, moment, error)
        code = 1 if isinstance(error, BackendError) else 130 if type(error) is KeyboardInterrupt else 143
        inn("migrate", "--to", "nft", code=code)
    assert standing(inn) == ["iptables-legacy"]
    assert [line for line in inn.tool("iptables-legacy-save -t filter").splitlines() if line[:2] == "-A"] == rules
    assert journals(inn) == []
    assert "nothing to do" in inn("apply").out


def _once(error: BaseException) -> Callable[..., None]:
    """A proof that fails the first time."""
    errors = [error]

    def require(*_: object) -> None:
        if errors:
            raise errors.pop()

    return require


def _once_emptied(error: BaseException) -> Callable[..., object]:
    """A cleaning that is done and fails the first time."""
    real, errors = meshfw.migration._Move._emptied, [error]

    def emptied(*given: object) -> object:
        report = real(*given)  # type: ignore[arg-type]  # what the method itself was given
        if errors:
            raise errors.pop()
        return report

    return emptied


def test_what_cannot_be_put_back_is_half_done(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    inn("apply", "--backend", "iptables-legacy")
    with monkeypatch.context() as patch:
        end_at(patch, "the old one", BackendError("the disk is on fire"))
        failed = inn("migrate", "--to", "nft", code=3).err
    assert "that couldn't be put back" in failed
    assert sorted(standing(inn)) == ["iptables-legacy", "nft"]
    inn("migrate", "--to", "iptables-legacy")
    assert standing(inn) == ["iptables-legacy"]


def test_a_state_directory_that_cannot_be_used_is_said_before_anything_is(
    inn: Inn, monkeypatch: pytest.MonkeyPatch
) -> None:
    inn("apply", "--backend", "iptables-legacy")
    (inn.directory / "file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(inn.directory / "file"))
    assert "it can't be written" in inn("migrate", "--to", "nft", code=1).err
    assert standing(inn) == ["iptables-legacy"]


@pytest.mark.parametrize("at", ["both", "alone"])
def test_a_probe_that_fails_on_the_way_has_it_put_back(inn: Inn, at: str) -> None:
    answer = inn.directory / "answer.sh"
    new, old = (
        "nft list ruleset | grep -q 'table ip inn' && exit 1",
        "iptables-legacy-save | grep -q 10.0.0.0 || exit 1",
    )
    answer.write_text(f"#!/bin/sh\n{new if at == 'both' else old}\nexit 0\n")
    os.chmod(answer, 0o700)
    probes = f'[safety]\nprobe = [["{answer}"]]\nattempts = 1\n'
    inn("apply", "--backend", "iptables-legacy")
    inn.declare(*RULES, extra=probes + EXTRA)
    failed = inn("migrate", "--to", "nft", code=1).err
    assert f"with {'both backends' if at == 'both' else 'nft alone'} a probe fails that worked before" in failed
    assert standing(inn) == ["iptables-legacy"]
