"""The iptables backends beside somebody who writes to our chains, or makes chains of our names, at the worst moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshfw.backend import Committed, Fingerprint, Outcome, Site, Transaction
from meshfw.backends.iptables import IptablesBackend, iptables_legacy, iptables_nft
from meshfw.backends.iptables_tool import Tool
from meshfw.backends.iptables_undo import Undoing
from meshfw.errors import CommandError, ConcurrentChangeError, PartialCommitError, UnsupportedError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
MAKERS = {"nft": iptables_nft, "legacy": iptables_legacy}


def ruleset(hosts: list[int], *, more: str = "") -> Ruleset:
    """Chain ``a`` on INPUT that accepts some hosts, chain ``b`` beside it."""
    rules = "".join(f"-A a -s 10.0.0.{host} -j ACCEPT\n" for host in hosts)
    text = f"*filter\n:a - [0:0]\n:b - [0:0]\n{more}-A b -s 10.1.0.1 -j DROP\n{rules}COMMIT\n"
    text = text.replace("-A b", ":INPUT ACCEPT [0:0]\n-A INPUT -j a\n-A INPUT -j b\n-A b", 1)
    return ruleset_of_dump(parse_dump(text, family=Family.IPV4, language=LANGUAGE))


class Room:
    """A namespace with one variant, and a vandal who takes a lock of his own, so none at all."""

    def __init__(self, variant: str, netns: Netns, directory: Path) -> None:
        self.variant = variant
        self._netns = netns
        self._lock = {"XTABLES_LOCKFILE": str(directory / "vandal.lock")}
        self._opened: list[IptablesBackend] = []

    def backend(self) -> IptablesBackend:
        self._opened.append(MAKERS[self.variant](Site(owner="meshfw", language=LANGUAGE, netns=self._netns.path)))
        return self._opened[-1]

    def close(self) -> None:
        for held in self._opened:
            held.close()

    def iptables(self, command: str) -> str:
        with self._netns.entered():
            return run((f"iptables-{self.variant}", "-w", *command.split()), timeout=20, env=self._lock).stdout

    def nft(self, command: str) -> None:
        with self._netns.entered():
            run(("nft", command), timeout=20)


@pytest.fixture(params=MAKERS)
def room(
    request: pytest.FixtureRequest, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Room]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    request.getfixturevalue("requires")("iptables-nft-restore", "iptables-legacy-restore", "nft")
    made = Room(request.param, netns, tmp_path)
    yield made
    made.close()


def once(patch: pytest.MonkeyPatch, owner: type, name: str, before: Callable[[], object]) -> None:
    """Have something done once, right before a method's first call."""
    original = getattr(owner, name)
    left = [before]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return original(*arguments, **options)

    patch.setattr(owner, name, wrapped)


def test_a_strangers_chain_is_remembered_over_changes_elsewhere(room: Room) -> None:
    room.iptables("-N meshfw-x")
    room.iptables("-A meshfw-x -s 192.0.2.1 -j ACCEPT")
    before = room.iptables("-S meshfw-x")
    backend = room.backend()
    apply(backend, ruleset([1]))
    apply(backend, ruleset([1, 2]))
    with pytest.raises(UnsupportedError, match="chain meshfw-x is somebody else's"):
        apply(backend, ruleset([1, 2], more=":x - [0:0]\n"))
    assert room.iptables("-S meshfw-x") == before


def test_a_chain_that_somebody_makes_meanwhile_is_not_emptied(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = room.backend()
    apply(backend, ruleset([1]))

    def make() -> None:
        room.iptables("-N meshfw-x")
        room.iptables("-A meshfw-x -s 192.0.2.1 -j ACCEPT")

    once(monkeypatch, Tool, "restore", make)
    with pytest.raises(CommandError, match="-N meshfw-x"):
        apply(backend, ruleset([1], more=":x - [0:0]\n"))
    assert "-s 192.0.2.1/32 -j ACCEPT" in room.iptables("-S meshfw-x")
    assert not plan(room.backend(), ruleset([1]))


def test_a_text_of_another_moment_is_not_learned(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(room.backend(), ruleset([1]))
    room.iptables("-R meshfw-a 2 -s 192.0.2.66 -j ACCEPT")
    backend = room.backend()
    once(monkeypatch, Tool, "printed", lambda: room.iptables("-R meshfw-a 2 -s 10.0.0.1 -j ACCEPT"))
    apply(backend, ruleset([1]))
    room.iptables("-R meshfw-a 2 -s 192.0.2.66 -j ACCEPT")
    assert apply(backend, ruleset([1])).outcome is Outcome.CHANGED
    assert "192.0.2.66" not in room.iptables("-S meshfw-a")


def test_an_edit_of_another_chain_during_a_commit_is_seen(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = room.backend()
    apply(backend, ruleset([1]))
    once(monkeypatch, Tool, "restore", lambda: room.iptables("-R meshfw-b 2 -s 192.0.2.66 -j ACCEPT"))
    apply(backend, ruleset([2]))
    assert "192.0.2.66" not in room.iptables("-S meshfw-b")
    assert not plan(room.backend(), ruleset([2]))


def test_positions_of_another_state_are_never_edited(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = room.backend()
    apply(backend, ruleset([1, 2, 3, 4, 5]))
    original = IptablesBackend.commit
    inserted = iter(range(1, 100))

    def commit(self: IptablesBackend, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        room.iptables(f"-I meshfw-a 2 -s 192.0.2.{next(inserted)} -j ACCEPT")
        return original(self, transaction, based_on=based_on)

    monkeypatch.setattr(IptablesBackend, "commit", commit)
    with pytest.raises(ConcurrentChangeError, match="nothing was changed"):
        apply(backend, ruleset([1, 2, 9, 4, 5]))
    held = [line for line in room.iptables("-S meshfw-a").splitlines() if " 10.0.0." in line]
    assert held == [f"-A meshfw-a -s 10.0.0.{host}/32 -j ACCEPT" for host in (1, 2, 3, 4, 5)]
    monkeypatch.setattr(IptablesBackend, "commit", original)
    apply(backend, ruleset([1, 2, 9, 4, 5]))
    assert not plan(room.backend(), ruleset([1, 2, 9, 4, 5]))


def test_a_put_back_that_can_not_look_says_what_may_stand(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = room.backend()
    apply(backend, ruleset([1]))

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise CommandError(("iptables-restore",), returncode=1, stderr="injected")

    def blind(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tool, "restore", fail)
        patch.setattr(Undoing, "_undo_all", blind)
        with pytest.raises(PartialCommitError, match="ipv4 filter: changed and not put back"):
            apply(backend, ruleset([2]))
    apply(backend, ruleset([2]))
    assert not plan(room.backend(), ruleset([2]))


def test_an_administrators_chain_that_leads_to_ours_is_his(room: Room) -> None:
    backend = room.backend()
    apply(backend, ruleset([1]))
    room.iptables("-N meshfw-hook")
    room.iptables("-A meshfw-hook -s 192.0.2.1 -j DROP")
    room.iptables("-A meshfw-hook -j meshfw-a")
    room.iptables("-A FORWARD -j meshfw-hook")
    before = room.iptables("-S meshfw-hook") + room.iptables("-S FORWARD")
    apply(backend, ruleset([1, 2]))
    assert room.iptables("-S meshfw-hook") + room.iptables("-S FORWARD") == before


def test_an_administrators_jump_to_a_chain_of_ours_is_not_deleted_with_it(room: Room) -> None:
    backend = room.backend()
    apply(backend, ruleset([1]))
    room.iptables("-A FORWARD -j meshfw-a")
    with pytest.raises(CommandError, match="a rule of somebody else leads to chain meshfw-a"):
        apply(backend, Ruleset())
    assert "-A FORWARD -j meshfw-a" in room.iptables("-S FORWARD")
    assert not plan(room.backend(), ruleset([1])), "everything was put back"
    room.iptables("-D FORWARD -j meshfw-a")
    apply(backend, Ruleset())


def test_a_table_that_somebody_made_dormant_is_refused_by_name(room: Room) -> None:
    backend, wanted = room.backend(), ruleset([1])
    apply(backend, wanted)
    if room.variant == "legacy":
        assert apply(backend, wanted).outcome is Outcome.IDLE  # there is no such thing as a dormant legacy table
        return
    room.nft("add table ip filter { flags dormant; }")
    for held in (backend, room.backend()):
        with pytest.raises(UnsupportedError, match="table ip filter: somebody made it dormant"):
            apply(held, wanted)
    room.nft("add table ip filter { }")
    assert apply(backend, wanted).outcome is not Outcome.CHANGED


def test_a_base_chain_of_our_name_is_a_strangers(room: Room) -> None:
    if room.variant == "legacy":
        assert not plan(room.backend(), Ruleset())  # only nft makes such chains
        return
    backend = room.backend()
    apply(backend, ruleset([1]))
    room.nft("add chain ip filter meshfw-x { type filter hook input priority 7; policy accept; }")
    assert apply(backend, ruleset([1, 2])).outcome is Outcome.CHANGED
    with pytest.raises(UnsupportedError, match="chain meshfw-x is somebody else's"):
        apply(backend, ruleset([1], more=":x - [0:0]\n"))
    apply(backend, Ruleset())


@pytest.mark.parametrize("chain", ["meshfw-a", "meshfw.input.first"])
def test_a_chain_that_bears_another_ones_marker_gets_its_own_back(room: Room, chain: str) -> None:
    backend, wanted = room.backend(), ruleset([1])
    apply(backend, wanted)
    room.iptables(f"-R {chain} 1 -m comment --comment meshfw:meshfw:b")
    assert apply(backend, wanted).outcome is Outcome.CHANGED
    assert not plan(room.backend(), wanted)
