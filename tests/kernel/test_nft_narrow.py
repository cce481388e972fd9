"""Laws of narrow reading on nft: what others changed is read, what stands is not, and no counter is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from meshfw.backend import Outcome
from meshfw.backends import nft_reading
from meshfw.model import Chain, Family, Ruleset, Set, Table
from meshfw.plan import diff
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.test_nft import rules, with_rules
from tests.kernel.test_nft_quiet import OWN_WRITES, Quiet

pytestmark = pytest.mark.kernel


@pytest.fixture
def quiet(netns: Netns, requires: Callable[..., None]) -> Iterator[Quiet]:
    requires("nft")
    made = Quiet(netns)
    yield made
    made.close()


def listed(quiet: Quiet) -> set[str]:
    """What was listed by the library, and forget it."""
    found = {call for call in quiet.calls if call.startswith("list ")}
    quiet.calls.clear()
    return found


def test_one_chain_that_somebody_changed_is_all_that_is_read(quiet: Quiet) -> None:
    quiet.nft("flush chain ip meshfw filter-fw")
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CHANGED
    assert listed(quiet) == {"list chain ip meshfw filter-fw"}
    quiet.nft("flush chain ip6 meshfw filter-peers")  # soon after our own commit, and of a chain that it left alone
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CHANGED
    assert "list chain ip6 meshfw filter-peers" in (found := listed(quiet))
    assert not any("table" in call for call in found)


@pytest.mark.parametrize("name", OWN_WRITES)
def test_whatever_was_done_a_backend_that_knows_nothing_finds_the_same_after_the_repair(
    quiet: Quiet, name: str
) -> None:
    quiet.nft(OWN_WRITES[name].format(handle=quiet.handle))
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CHANGED
    stranger = quiet.backend()
    assert not diff(stranger.observe().snapshot, quiet.ruleset)
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.IDLE


def test_equal_rules_under_new_handles_are_read_again(quiet: Quiet) -> None:
    before = quiet.handles(Family.IPV4, "filter-fw")
    text = quiet.listing("chain ip meshfw filter-fw")
    quiet.nft(f"flush chain ip meshfw filter-fw\n{text}")
    assert before
    assert quiet.handles(Family.IPV4, "filter-fw") != before
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CLEAN
    changed = with_rules(quiet.ruleset, "fw", lambda rules: rules[1:])
    assert apply(quiet.own, changed).outcome is Outcome.CHANGED
    assert not diff(quiet.backend().observe().snapshot, changed)


def test_a_rule_that_moves_takes_the_packets_along_that_came_since_it_was_read(quiet: Quiet) -> None:
    quiet.send(Family.IPV4, 1001, 3)
    quiet.nft("flush chain ip meshfw filter-peers")
    before = quiet.packets(quiet.backend(), Family.IPV4)
    assert sum(before) >= 3
    turned = with_rules(quiet.ruleset, "fw", lambda rules: (*rules[1:], rules[0]))
    assert apply(quiet.own, turned).outcome is Outcome.CHANGED
    assert sum(quiet.packets(quiet.backend(), Family.IPV4)) >= sum(before)


SPARE = ("-s 192.0.2.1 -j ACCEPT", "-s 192.0.2.2 -j ACCEPT")
"""The rules of a chain that nothing leads to."""


def with_spare(ruleset: Ruleset, count: int) -> Ruleset:
    """The ruleset with such a chain of so many rules."""
    spare = Chain(family=Family.IPV4, table=Table.FILTER, name="spare", rules=rules(Family.IPV4, *SPARE[:count]))
    return msgspec.structs.replace(ruleset, chains=(*ruleset.chains, spare))


@pytest.mark.parametrize(
    "text",
    [
        "rename chain ip meshfw filter-spare filter-other",
        "rename chain ip meshfw filter-peers filter-other",
        "delete chain ip meshfw filter-spare; add counter ip meshfw c",
        "delete chain ip meshfw filter-spare; add chain ip meshfw filter-other",
    ],
)
@pytest.mark.parametrize("rested", [True, False], ids=["rested", "just committed"])
def test_a_chain_that_went_is_missed_whatever_came_in_its_place(quiet: Quiet, text: str, rested: bool) -> None:
    apply(quiet.own, with_spare(quiet.ruleset, 1))
    for _ in range(3):
        apply(quiet.own, with_spare(quiet.ruleset, 1))
    ruleset = with_rules(with_spare(quiet.ruleset, 2), "peers", lambda held: held[1:])
    for _ in range(4 if rested else 1):
        apply(quiet.own, ruleset)
    quiet.nft(f"flush chain ip meshfw filter-spare; {text}" if "delete" in text else text)
    assert apply(quiet.own, ruleset).outcome is Outcome.CHANGED
    assert not diff(quiet.backend().observe().snapshot, ruleset)


def test_a_large_table_is_never_listed_whole(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds() -> set[str]:
        """What is listed of rules: behind a commit, and by one that knows nothing."""
        quiet.nft("flush ruleset")
        assert apply(quiet.own, quiet.ruleset).commits == 1
        quiet.own.cache.drop("nothing is known")
        assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CLEAN
        return {call.split()[1] for call in listed(quiet)} & {"table", "chain"}

    assert kinds() == {"table"}
    monkeypatch.setattr(nft_reading, "_CALL_SQUARE", 0)
    assert kinds() == {"chain"}


@pytest.mark.parametrize(
    "text",
    [
        "add counter ip meshfw c",
        "add map ip meshfw m { type inet_service : verdict; }",
        "add set ip meshfw theirs { type ipv4_addr; flags timeout; }",
        "add chain ip meshfw theirs",
        "add rule ip meshfw filter-fw tcp dport { 1, 2 } counter accept",
        "add rule ip meshfw filter-fw tcp dport vmap { 1 : accept, 2 : drop } counter",
        "delete set ip meshfw set-unused; add counter ip meshfw c",
        "add element ip meshfw set-web { 444 }",
    ],
)
def test_chain_by_chain_a_stranger_finds_what_stands_in_the_table(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    unused = Set.of(Family.IPV4, "unused", ["192.0.2.1"])
    ruleset = msgspec.structs.replace(quiet.ruleset, sets=(*quiet.ruleset.sets, unused))
    apply(quiet.own, ruleset)
    quiet.nft(text)
    seen = quiet.backend().observe().snapshot
    assert diff(seen, ruleset)
    monkeypatch.setattr(nft_reading, "_CALL_SQUARE", 0)
    assert quiet.backend().observe().snapshot == seen
    quiet.own.cache.drop("nothing is known")
    assert apply(quiet.own, ruleset).outcome is Outcome.CHANGED
    assert not diff(quiet.backend().observe().snapshot, ruleset)
