"""The nft backend beside busy neighbours: others' commits and packets move nothing, whatever is done to ours does."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from meshfw.backend import Outcome
from meshfw.backends import nft_raw
from meshfw.errors import ConcurrentChangeError
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfdigest import ChainHead, chain_heads, rules_digest, sets_digest
from meshfw.model import Family
from meshfw.plan import diff
from meshfw.reconcile import apply
from meshfw.snapshot import Snapshot
from meshfw.testing.loopback import delivers
from meshfw.testing.netns import Netns
from tests.kernel.test_nft import FOREIGN, Room, wanted, with_rules

pytestmark = pytest.mark.kernel

FOREIGN_WRITES: Final = {
    "a table comes": "add table ip theirs",
    "a chain comes": "add chain ip theirs c { type filter hook input priority 0; policy accept; }",
    "a rule comes": "add rule ip theirs c ip saddr 192.0.2.1 counter drop",
    "a rule comes to a chain named as ours": "add table inet meshfw; add chain inet meshfw filter-fw; "
    "add rule inet meshfw filter-fw counter drop",
    "a set comes": "add set ip theirs s { type ipv4_addr; flags timeout; }; "
    "add element ip theirs s { 192.0.2.9 timeout 1h }",
    "a policy changes": "add chain ip theirs c { policy drop; }",
    "a table of another owner comes": 'add table ip other { comment "meshfw"; }; add chain ip other filter-fw',
    "a table goes": "delete table ip theirs",
}

OWN_WRITES: Final = {
    "a rule goes": "delete rule ip meshfw filter-fw handle {handle}",
    "a rule comes": "add rule ip meshfw filter-fw counter accept",
    "a rule comes first": "insert rule ip6 meshfw filter-peers counter accept",
    "a rule is replaced by one as long": "replace rule ip meshfw filter-fw handle {handle} "
    'iifname "lo" udp dport 1009 counter accept',
    "a rule moves": "delete rule ip meshfw filter-fw handle {handle}; "
    'add rule ip meshfw filter-fw iifname "lo" udp dport 1001 counter accept',
    "a rule gets a comment": "replace rule ip meshfw filter-fw handle {handle} "
    'iifname "lo" udp dport 1001 counter accept comment "x"',
    "a rule counts no more": 'replace rule ip meshfw filter-fw handle {handle} iifname "lo" udp dport 1001 accept',
    "a chain gets another name": "rename chain ip meshfw filter-peers filter-peer",
    "a chain is emptied": "flush chain ip meshfw filter-peers",
    "a chain comes": "add chain ip6 meshfw filter-more",
    "a policy changes": "add chain ip meshfw filter.input.first {{ policy accept; }}",
    "an element comes": "add element ip meshfw set-peers {{ 198.51.100.1 }}",
    "an element goes": "delete element ip6 meshfw set-web {{ 443 }}",
    "elements are swapped": "delete element ip meshfw set-web {{ 443 }}; add element ip meshfw set-web {{ 444 }}",
    "a set comes": "add set ip meshfw set-more {{ type ipv4_addr; }}",
    "a map comes": "add map ip meshfw m {{ type inet_service : verdict; }}",
    "a counter comes": "add counter ip meshfw c",
    "the table is switched off": "add table ip meshfw {{ flags dormant; }}",
    "the table goes": "delete table ip6 meshfw",
    "all goes": "flush ruleset",
}


class Quiet(Room):
    """A room whose backend has applied, and knows the digests of all that it holds."""

    def __init__(self, netns: Netns) -> None:
        super().__init__(netns)
        self.ruleset = wanted()
        self.own = self.backend()
        self.calls: list[str] = []
        run = self.own._nft.run

        def noted(text: str, **options: Any) -> str:
            self.calls.append(text)
            return run(text, **options)

        self.own._nft.run = noted  # type: ignore[method-assign]  # a spy on the library
        self.settle()

    def settle(self) -> None:
        """Put everything right, and rest."""
        self.nft("flush ruleset")
        apply(self.own, self.ruleset)
        for _ in range(3):
            assert apply(self.own, self.ruleset).outcome is Outcome.IDLE
        self.calls.clear()

    @property
    def handle(self) -> int:
        """That of the rule about port 1001."""
        listed = self._nft.run("list chain ip meshfw filter-fw")
        return next(int(line.rsplit(" ", 1)[1]) for line in listed.splitlines() if "dport 1001" in line)


@pytest.fixture
def quiet(netns: Netns, requires: Callable[..., None]) -> Iterator[Quiet]:
    requires("nft")
    made = Quiet(netns)
    yield made
    made.close()


def test_what_others_write_elsewhere_moves_no_fingerprint_and_reads_nothing(quiet: Quiet) -> None:
    before = quiet.own.fingerprint()
    for name, text in FOREIGN_WRITES.items():
        generation = quiet.generation()
        quiet.nft(text)
        assert quiet.generation() > generation, name
        assert quiet.own.fingerprint() == before, name
        assert apply(quiet.own, quiet.ruleset).outcome is Outcome.IDLE, name
    assert quiet.calls == []
    assert quiet.own.cache.costs.reads == 2  # before the one commit and behind it


@pytest.mark.parametrize("name", OWN_WRITES)
def test_whatever_others_do_to_ours_moves_the_fingerprint_once(quiet: Quiet, name: str) -> None:
    before = quiet.own.fingerprint()
    quiet.nft(OWN_WRITES[name].format(handle=quiet.handle))
    after = quiet.own.fingerprint()
    assert after != before
    quiet.nft("add table ip theirs")
    assert quiet.own.fingerprint() == after
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CHANGED
    assert not diff(quiet.own.observe().snapshot, quiet.ruleset)


def test_packets_move_nothing(quiet: Quiet) -> None:
    before = quiet.own.fingerprint()
    listed = quiet.bytes("ip meshfw", "ip6 meshfw")
    for family in Family:
        delivers(quiet.netns.path, family)
    assert quiet.bytes("ip meshfw", "ip6 meshfw") != listed, "no counter moved: the law can't see"
    quiet.nft("add table ip theirs")
    assert quiet.own.fingerprint() == before
    assert quiet.calls == []


def test_the_digests_leave_out_the_very_counters_and_nothing_else(netns: Netns, requires: Callable[..., None]) -> None:
    requires("nft")
    with Nfnetlink(netns.path) as netlink, Libnftables(netns.path) as nft:
        nft.run("add table ip t; add chain ip t c; add rule ip t c counter packets 5 bytes 500 accept")

        def digests() -> tuple[object, ...]:
            heads = chain_heads(netlink, "ip", "t")
            return heads, rules_digest(netlink, "ip", "t", chain="c"), sets_digest(netlink, "ip", "t")

        first = digests()
        (rule,) = netlink.rules("ip", "t", "c")
        # A rule that is replaced keeps its handle.
        nft.run(f"replace rule ip t c handle {rule.handle} counter packets 7 bytes 700 accept; add table ip other")
        assert [held.handle for held in netlink.rules("ip", "t", "c")] == [rule.handle]
        assert digests() == first
        for text in ("counter drop", "accept", "counter counter accept", 'counter accept comment "counter"'):
            nft.run(f"replace rule ip t c handle {rule.handle} {text}")
            seen, first = first, digests()
            assert seen != first, text


def test_a_change_of_ours_is_no_reason_to_read_digests_until_it_rests(quiet: Quiet) -> None:
    asked: list[str] = []
    dump = quiet.own._netlink.datagrams

    def noted(*arguments: Any, **options: Any) -> bool:
        asked.append(options["family"])
        return dump(*arguments, **options)

    quiet.own._netlink.datagrams = noted  # type: ignore[method-assign]  # a spy on the socket
    variants = [
        with_rules(quiet.ruleset, "peers", lambda held: held[1:]),
        with_rules(quiet.ruleset, "peers", lambda held: held[:2]),
    ]
    for ruleset in variants * 3:
        assert apply(quiet.own, ruleset).outcome is Outcome.CHANGED
    assert asked == []
    quiet.own.fingerprint()
    assert asked == []
    before = quiet.own.fingerprint()
    assert asked, "the digests weren't taken when the generation stood for the second time"
    asked.clear()
    quiet.own.fingerprint()
    assert asked == []
    quiet.nft("add table ip theirs")
    assert quiet.own.fingerprint() == before


def test_others_who_write_before_a_change_of_ours_has_rested_cost_one_reading(quiet: Quiet) -> None:
    smaller = with_rules(quiet.ruleset, "peers", lambda held: held[1:])
    apply(quiet.own, smaller)
    reads = quiet.own.cache.costs.reads
    for table in ("one", "two", "three"):
        quiet.nft(f"add table ip {table}")
        assert apply(quiet.own, smaller).outcome is not Outcome.CHANGED
    assert quiet.own.cache.costs.reads == reads + 1


def test_a_commit_is_refused_for_what_others_did_to_ours_alone(quiet: Quiet) -> None:
    other = with_rules(quiet.ruleset, "peers", lambda held: held[1:])
    seen = quiet.own.observe()
    todo = quiet.own.compile(diff(seen.snapshot, other))
    quiet.nft("flush chain ip6 meshfw filter-fw")
    with pytest.raises(ConcurrentChangeError):
        quiet.own.commit(todo, based_on=seen.fingerprint)
    quiet.settle()
    seen = quiet.own.observe()
    todo = quiet.own.compile(diff(seen.snapshot, other))
    quiet.nft("add table ip theirs")
    committed = quiet.own.commit(todo, based_on=seen.fingerprint)
    assert committed.exclusive
    assert committed.fingerprint == quiet.own.fingerprint() != seen.fingerprint


@pytest.fixture
def busy(quiet: Quiet) -> Iterator[Callable[[], int]]:
    """Somebody who commits without a pause; gives the number of commits so far."""
    ended, commits = threading.Event(), [0]

    def write() -> None:
        with Libnftables(quiet.netns.path) as nft:
            nft.run(FOREIGN)
            while not ended.is_set():
                nft.run("add rule inet foreign input counter accept; flush chain inet foreign input")
                commits[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    yield lambda: commits[0]
    ended.set()
    thread.join()


def test_one_who_never_pauses_moves_no_fingerprint(quiet: Quiet, busy: Callable[[], int]) -> None:
    before = quiet.own.fingerprint()
    seen = moves = 0
    while seen < 200:
        moves += quiet.own.fingerprint() != before
        seen = busy()
    assert moves == 0
    with Libnftables(quiet.netns.path) as vandal:
        vandal.run("flush chain ip meshfw filter-peers")
    assert quiet.own.fingerprint() != before


def test_parts_of_two_moments_are_no_moment_of_ours(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, ours = quiet.handle, 'iifname "lo" udp dport 1001 counter accept'
    replace = f"replace rule ip meshfw filter-fw handle {handle}"
    quiet.nft(f"{replace} {ours.replace('accept', 'drop')}")
    heads: Callable[..., dict[str, ChainHead]] = chain_heads

    def disturbed(netlink: Nfnetlink, family: str, table: str) -> dict[str, ChainHead]:
        found = heads(netlink, family, table)
        if family == "ip":
            monkeypatch.undo()
            quiet.nft(f"{replace} {ours}; add chain ip meshfw filter.input.first {{ policy accept; }}")
        return found

    monkeypatch.setattr(nft_raw, "chain_heads", disturbed)
    assert apply(quiet.own, quiet.ruleset).outcome is Outcome.CHANGED
    assert not diff(quiet.backend().observe().snapshot, quiet.ruleset)


@pytest.mark.parametrize("ours", [False, True], ids=["elsewhere", "to ours"])
def test_a_reading_beside_one_who_never_pauses_is_whole_unless_he_writes_to_ours(quiet: Quiet, ours: bool) -> None:
    backend = quiet.backend()
    handle, read, bump = quiet.handle, backend._reading.read, itertools.count(2000)

    def disturbed(*given: Any, **options: Any) -> Snapshot:
        found = read(*given, **options)
        if ours:
            rule = f'iifname "lo" udp dport {next(bump)} counter accept'
            quiet.nft(f"replace rule ip meshfw filter-fw handle {handle} {rule}")
        else:
            quiet.nft("add table ip theirs; delete table ip theirs")
        return found

    backend._reading.read = disturbed  # type: ignore[method-assign]  # somebody writes during every reading
    observed = backend.observe()
    assert (observed.fingerprint is None) == ours
    assert ours or observed.fingerprint == backend.fingerprint()
