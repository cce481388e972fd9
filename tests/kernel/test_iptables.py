"""The iptables backends where they meet what isn't theirs, what is left over, and options nobody can mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfw.backend import Outcome, Site
from meshfw.backends.iptables import IptablesBackend, iptables_legacy, iptables_nft
from meshfw.backends.iptables_tool import Tool
from meshfw.errors import ConfigError, UnsupportedError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.model import Chain, Family, Jump, Place, Rule, Ruleset, Table
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import attached, commented, small

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
MAKERS = {"nft": iptables_nft, "legacy": iptables_legacy}
LONG = "a-name-that-is-longer-than-any-chain-of-iptables"


class Room:
    """A namespace with one variant of iptables: backends, and a shell for somebody else."""

    def __init__(self, variant: str, netns: Netns) -> None:
        self.variant = variant
        self._netns = netns
        self.opened: list[IptablesBackend] = []

    def backend(self, **options: Any) -> IptablesBackend:
        site = Site(owner="meshfw", language=LANGUAGE, netns=self._netns.path, options=options)
        self.opened.append(MAKERS[self.variant](site))
        return self.opened[-1]

    def shell(self, program: str, *words: str, text: str = "") -> str:
        with self._netns.entered():
            return run(
                (program.replace("tables", f"tables-{self.variant}"), *words), timeout=20, input=text.encode()
            ).stdout


@pytest.fixture(params=MAKERS)
def room(
    request: pytest.FixtureRequest, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Room]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    request.getfixturevalue("requires")("iptables-nft-restore", "iptables-legacy-restore")
    made = Room(request.param, netns)
    yield made
    for held in made.opened:
        held.close()


def test_a_chain_of_our_prefix_that_somebody_else_made_is_refused_by_name(room: Room) -> None:
    room.shell("iptables", "-N", "meshfw-first")
    room.shell("iptables", "-A", "meshfw-first", "-s", "192.0.2.1", "-j", "ACCEPT")
    before = room.shell("iptables", "-S")
    for call in (apply, plan):
        with pytest.raises(UnsupportedError, match="ipv4 filter chain meshfw-first is somebody else's"):
            call(room.backend(), small())
    assert room.shell("iptables", "-S") == before
    assert not plan(room.backend(), Ruleset()), "a clean would touch it"


def test_a_chain_that_nobody_wants_of_us_is_left_alone(room: Room) -> None:
    room.shell("iptables", "-N", "meshfw-theirs")
    room.shell("iptables", "-A", "meshfw-theirs", "-s", "192.0.2.1", "-j", "ACCEPT")
    before = room.shell("iptables", "-S", "meshfw-theirs")
    backend = room.backend()
    apply(backend, small())
    assert room.shell("iptables", "-S", "meshfw-theirs") == before
    apply(backend, Ruleset())
    assert room.shell("iptables", "-S", "meshfw-theirs") == before


def test_adopt_takes_it_over(room: Room) -> None:
    room.shell("iptables", "-N", "meshfw-first")
    room.shell("iptables", "-A", "meshfw-first", "-s", "192.0.2.1", "-j", "ACCEPT")
    assert apply(room.backend(adopt=True), small()).outcome is Outcome.CHANGED
    assert not plan(room.backend(), small())


@pytest.mark.parametrize("rules", [(), ("-j", "meshfw-second")])
def test_an_unmarked_chain_that_is_empty_or_tied_to_ours_is_ours(room: Room, rules: tuple[str, ...]) -> None:
    backend = room.backend()
    apply(backend, small())
    room.shell("iptables", "-F", "meshfw-first")
    if rules:
        room.shell("iptables", "-A", "meshfw-first", *rules)
    assert apply(backend, small()).outcome is Outcome.CHANGED
    assert not plan(room.backend(), small())


def test_a_name_that_is_too_long_is_shortened_and_known_again(room: Room) -> None:
    wanted = attached(
        Chain(family=family, table=Table.FILTER, name=name, rules=rules)
        for family in Family
        for name, rules in (("first", (Rule(target=Jump(LONG)),)), (LONG, (commented("here"),)))
    )
    apply(room.backend(), wanted)
    assert f"-N meshfw-{LONG[:12]}." in room.shell("iptables", "-S")
    fresh = room.backend()
    assert apply(fresh, wanted).outcome is Outcome.CLEAN
    assert any(getattr(key, "name", "") == LONG for key in fresh.observe().snapshot.lists)
    apply(fresh, Ruleset())
    assert "meshfw" not in room.shell("iptables", "-S")


def test_a_chain_of_ours_under_another_name_is_taken_away(room: Room) -> None:
    room.shell(
        "iptables-restore",
        "--noflush",
        text='*filter\n:meshfw-older - [0:0]\n-A meshfw-older -m comment --comment "meshfw:meshfw:first"\n'
        "-A INPUT -j meshfw-older\nCOMMIT\n",
    )
    backend = room.backend()
    found = plan(backend, small())
    assert any("meshfw-older (left over)" in str(edit) for edit in found.edits(lambda rule, family: ""))
    apply(backend, small())
    assert "meshfw-older" not in room.shell("iptables", "-S")
    assert not plan(room.backend(), small())


def test_another_owners_chains_are_none_of_ours(room: Room) -> None:
    site = Site(owner="meshfw2", language=LANGUAGE, netns=room.backend()._home.path)
    other = MAKERS[room.variant](site)
    room.opened.append(other)
    apply(other, small())
    assert not room.backend().observe().snapshot
    apply(room.backend(), Ruleset())
    assert not plan(other, small())


def test_jumps_at_the_tail_stay_behind_what_others_append(room: Room) -> None:
    last = msgspec.structs.replace(
        small(), attachments=tuple(msgspec.structs.replace(item, place=Place.LAST) for item in small().attachments)
    )
    backend = room.backend()
    apply(backend, last)
    room.shell("iptables", "-A", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
    report = apply(backend, last)
    assert report.outcome is Outcome.CHANGED
    rules = [line for line in room.shell("iptables", "-S", "INPUT").splitlines() if line.startswith("-A")]
    assert rules == ["-A INPUT -s 192.0.2.1/32 -j ACCEPT", "-A INPUT -j meshfw.input.last"]


def test_a_program_that_takes_no_lock_file_is_never_kept_waiting(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tool, "takes_lock_file", False)
    backend = room.backend(wait=1)
    assert apply(backend, small()).outcome is Outcome.CHANGED
    assert apply(backend, small()).outcome is not Outcome.CHANGED
    assert not plan(room.backend(), small())
    apply(backend, Ruleset())
    assert "meshfw" not in room.shell("iptables", "-S")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapt": True}, "unknown option 'adapt'; expected adopt or wait"),
        ({"adopt": 1}, "1 is not true or false"),
        ({"wait": 0}, "0 is no time to wait; expected whole seconds from 1 to 600"),
        ({"wait": "long"}, "'long' is no time to wait"),
        ({"wait": True}, "True is no time to wait"),
    ],
)
def test_an_option_that_can_not_be_meant_is_named(room: Room, options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        room.backend(**options)
    assert said in str(refused.value)
    assert f"backend.iptables-{room.variant}" in str(refused.value)


def test_a_policy_of_nft_that_overrules_our_accept_is_told(room: Room) -> None:
    if room.variant == "legacy":
        pytest.skip("legacy tables are looked at without nf_tables")
    with room._netns.entered():
        run(
            ("nft", "add table inet x; add chain inet x in { type filter hook input priority 9; policy drop; }"),
            timeout=20,
        )
    report = apply(room.backend(), small())
    assert [warning for warning in report.warnings if "inet x in is drop" in warning]
    assert not apply(room.backend(), Ruleset()).warnings


DARK = ("ct state new accept", "meta cpu 1 accept", "ip length 5 accept", "ip saddr { 192.0.2.1, 192.0.2.7 } accept")
"""Rules of nft's that iptables-nft can't read, and stops at, or reads as something else."""


@pytest.mark.parametrize("rule", DARK)
@pytest.mark.parametrize("place", list(Place))
def test_a_jump_behind_a_rule_that_iptables_can_not_read_is_moved_and_taken_away(
    room: Room, rule: str, place: Place
) -> None:
    if room.variant == "legacy":
        pytest.skip("nothing unreadable can stand in a legacy table")
    placed = tuple(msgspec.structs.replace(item, place=place) for item in small().attachments)
    wanted = msgspec.structs.replace(small(), attachments=placed)
    backend = room.backend()
    apply(backend, wanted)
    word = "insert" if place is Place.FIRST else "add"
    with room._netns.entered():
        run(("nft", f"{word} rule ip filter INPUT {rule}"), timeout=20)
    report = apply(backend, wanted)
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert not plan(room.backend(), wanted)
    apply(backend, Ruleset())
    assert not room.backend().observe().snapshot
    with room._netns.entered():
        left = run(("nft", "list chain ip filter INPUT"), timeout=20).stdout
    assert rule in left
    assert "meshfw" not in run_in(room, "nft", "list", "chains")


def run_in(room: Room, *argv: str) -> str:
    with room._netns.entered():
        return run(argv, timeout=20).stdout
