"""iptables-nft beside busy neighbours: their commits move nothing, and behind them what is done to ours still does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.backend import Outcome
from meshfw.backends import iptables_raw
from meshfw.backends.iptables import IptablesBackend
from meshfw.backends.iptables_digest import tables_digest
from meshfw.backends.iptables_raw import NftReader
from meshfw.kernel.command import run
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.model import Family
from meshfw.reconcile import apply
from meshfw.testing.loopback import delivers
from meshfw.testing.netns import Netns
from tests.kernel.damage import ONE, House, house
from tests.kernel.test_conformance_iptables import TAMPERINGS, UNDONE

pytestmark = pytest.mark.kernel


@pytest.fixture
def home(requires: Callable[..., None], kernel_room: Callable[[], Netns], tmp_path: Path) -> Iterator[House]:
    requires("iptables-nft-restore", "ip6tables-nft-restore", "nft")
    with house("nft", kernel_room, tmp_path) as made:
        yield made


@pytest.fixture
def backend(home: House) -> Iterator[IptablesBackend]:
    with home.backend() as made:
        apply(made, ONE)
        yield made


@pytest.fixture
def bump(home: House) -> Iterator[Callable[[], object]]:
    """A commit of somebody else's: to a chain of his own in one of iptables' tables."""
    with Libnftables(home.room.path) as nft:
        yield lambda: nft.run("insert rule ip filter THEIRS counter drop")


def test_what_others_write_reads_our_rules_once(
    backend: IptablesBackend, bump: Callable[[], object], home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, looks = backend.fingerprint(), []
    look = NftReader.look

    def noted(reader: NftReader, part: object = None) -> object:
        looks.append(part)
        return look(reader, part)  # type: ignore[arg-type]  # whatever it's given

    monkeypatch.setattr(NftReader, "look", noted)
    for _ in range(20):
        bump()
        for family in Family:
            delivers(home.room.path, family)
        assert backend.fingerprint() == before
        assert apply(backend, ONE).outcome is Outcome.IDLE
    assert len(looks) == 1


@pytest.mark.parametrize("name", [name for name in TAMPERINGS if "meshfw-peers" not in name])
def test_what_is_done_to_ours_is_seen_behind_it(
    backend: IptablesBackend, bump: Callable[[], object], home: House, name: str
) -> None:
    tool, table, command = TAMPERINGS[name]
    chains = {"meshfw-peers": "meshfw-going", "meshfw-rest": "meshfw-going"}
    words = [chains.get(word, word) for word in command.split()]
    before = backend.fingerprint()
    for _ in range(3):
        bump()
        assert backend.fingerprint() == before
    if name == "a built-in chain flushed":
        words = ["-F", "INPUT"]
    with home.room.entered():
        run((f"{tool}-nft", "-w", "-t", table, *words), timeout=60)
    bump()
    after = backend.fingerprint()
    assert after != before
    bump()
    assert backend.fingerprint() == after
    assert apply(backend, ONE).outcome is Outcome.CHANGED
    if name in UNDONE:
        tool, table, command = UNDONE[name]
        with home.room.entered():
            run((f"{tool}-nft", "-w", "-t", table, *command.split()), timeout=60)
    home.assert_held(ONE)


def test_a_digest_that_others_wrote_under_is_taken_again(
    backend: IptablesBackend, bump: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = backend.fingerprint()
    for _ in range(2):
        bump()
        assert backend.fingerprint() == before
    known, taken = backend._known, []

    def disturbed(netlink: Nfnetlink, owner: str) -> bytes:
        taken.append(tables_digest(netlink, owner))
        if len(taken) == 1:
            bump()
        return taken[-1]

    monkeypatch.setattr(iptables_raw, "tables_digest", disturbed)
    bump()
    assert known is not None
    later = backend._reader.later(known)
    assert later is not None
    assert backend._reader.still(later)
    assert len(taken) == 2
