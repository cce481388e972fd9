"""Laws of two owners in one room, on one backend and on two: neither sees the other, and nobody ever fights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.model import Ruleset
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.neighbours import MAKERS, Ours, Street, both_places, streets

pytestmark = pytest.mark.kernel

TICKS = 100
PAIRS = [
    ("iptables-nft", "nft"),
    ("nft", "iptables-nft"),
    ("iptables-legacy", "iptables-nft"),
    ("iptables-nft", "iptables-legacy"),
    ("iptables-legacy", "nft"),
]
SAME = [(name, name) for name in MAKERS]


@pytest.fixture
def street(kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path) -> Iterator[Street]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    with streets(kernel_room, tmp_path) as make:
        yield make("nft")


def both(street: Street, pair: tuple[str, str]) -> tuple[Ours, Ours]:
    one, other = (
        Ours(street, name, both_places(), owner=owner) for name, owner in zip(pair, ("meshfw", "edge"), strict=True)
    )
    return one, other


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_owners_on_two_backends_never_see_each_other(street: Street, pair: tuple[str, str]) -> None:
    one, other = both(street, pair)
    assert one.put_right()
    assert other.put_right()
    assert not one.edits()
    for ours in (one, other):
        assert {key.family for key in ours.backend.observe().snapshot.lists} == ours.ruleset.families
        assert not ours.backend.observe().snapshot.strangers


@pytest.mark.parametrize("pair", PAIRS + SAME, ids=" and ".join)
def test_two_owners_tick_without_a_write(street: Street, pair: tuple[str, str]) -> None:
    one, other = both(street, pair)
    one.put_right()
    other.put_right()
    generation, text = street.generation(), street.without()
    commits = sum(apply(ours.backend, ours.ruleset).commits for _ in range(TICKS) for ours in (one, other))
    assert commits == 0
    assert street.generation() == generation
    assert street.without() == text


@pytest.mark.parametrize("pair", PAIRS + SAME, ids=" and ".join)
def test_cleaning_one_owner_leaves_the_other_as_it_is(street: Street, pair: tuple[str, str]) -> None:
    one, other = both(street, pair)
    other.put_right()
    alone = street.without()
    assert "edge" in alone
    one.put_right()
    apply(one.fresh(), Ruleset())
    assert street.without() == alone
    assert other.edits() == []
    other.assert_settled()


@pytest.mark.parametrize("pair", SAME, ids=" and ".join)
def test_jumps_of_another_owner_at_our_ends_are_no_drift(street: Street, pair: tuple[str, str]) -> None:
    one, other = both(street, pair)
    one.put_right()
    other.put_right()
    assert one.edits() == []
    one.put_right()
    assert other.edits() == []
