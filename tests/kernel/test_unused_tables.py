"""Which tables of iptables are taken away as unused: those in which nothing of anybody's stands, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

EMPTY = """
table ip filter {
	chain INPUT { type filter hook input priority filter; policy accept; }
	chain FORWARD { type filter hook forward priority filter; policy accept; }
}
"""
USED = {
    "a rule": "add rule ip filter INPUT accept",
    "a chain of somebody's": "add chain ip filter THEIRS",
    "a rule in it": "add chain ip filter THEIRS; add rule ip filter THEIRS drop",
    "a policy": "chain ip filter INPUT { policy drop; }",
    "a set": "add set ip filter s { type ipv4_addr; }",
    "a map": "add map ip filter m { type ipv4_addr : verdict; }",
    "a counter": "add counter ip filter c",
    "a base chain of another name": "add chain ip filter mine { type filter hook output priority 5; }",
    "a base chain whose name is in small letters": "add chain ip filter output { type filter hook output priority 0; }",
    "a table that is switched off": "add table ip filter { flags dormant; }",
}


@pytest.fixture
def nft(netns: Netns, requires: Callable[..., None]) -> Iterator[Libnftables]:
    requires("nft")
    with netns.entered():
        made = Libnftables()
    yield made
    made.close()


@pytest.fixture
def netlink(netns: Netns) -> Iterator[Nfnetlink]:
    with Nfnetlink(netns.path) as made:
        yield made


def test_a_table_without_rules_goes_as_one_commit(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EMPTY)
    nft.run("add table ip6 filter")
    before = netlink.generation()
    assert netlink.remove_unused("ip", "filter")
    assert netlink.generation() == before + 1
    assert [(table.family, table.name) for table in netlink.tables()] == [("ip6", "filter")]


def test_a_table_that_is_not_there_is_no_error_and_no_commit(netlink: Nfnetlink) -> None:
    before = netlink.generation()
    assert not netlink.remove_unused("ip", "filter")
    assert netlink.generation() == before


@pytest.mark.parametrize("what", USED)
def test_a_table_in_which_something_stands_stays(netlink: Nfnetlink, nft: Libnftables, what: str) -> None:
    nft.run(EMPTY)
    nft.run(USED[what])
    before = nft.run("list ruleset")
    generation = netlink.generation()
    assert not netlink.remove_unused("ip", "filter")
    assert nft.run("list ruleset") == before
    assert netlink.generation() == generation


@pytest.mark.parametrize(
    "text",
    [
        'add table ip filter { comment "somebody\'s"; }',
        'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; comment "x"; }',
    ],
)
def test_a_table_that_somebody_wrote_on_stays(netlink: Nfnetlink, nft: Libnftables, text: str) -> None:
    nft.run(text)
    assert not netlink.remove_unused("ip", "filter")
    assert netlink.tables()


def test_who_writes_between_the_look_and_the_end_keeps_his_table(
    netlink: Nfnetlink, nft: Libnftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft.run(EMPTY)
    looked = netlink._is_unused

    def is_unused(family: str, name: str) -> bool:
        unused = looked(family, name)
        if unused:
            nft.run("add rule ip filter INPUT accept")
        return unused

    monkeypatch.setattr(netlink, "_is_unused", is_unused)
    assert not netlink.remove_unused("ip", "filter")
    assert "accept" in nft.run("list chain ip filter INPUT")


def test_a_busy_neighbour_is_no_hindrance(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EMPTY)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            nft.run("add table ip other; delete table ip other")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        gone = [netlink.remove_unused("ip", "filter") for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert gone.count(True) <= 1
    assert any(gone) or netlink.remove_unused("ip", "filter")
