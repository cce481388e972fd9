"""The physical layout is an upgrade contract: these names stand in kernels and must not change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshfw.backends import layout
from meshfw.model import ChainKey, DispatcherKey, Family, Hook, Place, Table, name_problem


def key(table: Table, hook: Hook, place: Place = Place.FIRST) -> DispatcherKey:
    return DispatcherKey(Family.IPV4, table, hook, place)


def test_names_are_the_published_ones() -> None:
    assert layout.nft_chain(Table.NAT, "POSTROUTING") == "nat-POSTROUTING"
    assert layout.nft_chain(Table.FILTER, "a~b") == "filter-a.7eb"
    assert layout.nft_set("peers") == "set-peers"
    assert layout.nft_dispatcher(key(Table.FILTER, Hook.INPUT)) == "filter.input.first"


def test_base_chains_stand_beside_those_of_iptables() -> None:
    assert str(layout.base_chain(key(Table.FILTER, Hook.INPUT))) == "type filter hook input priority -5;"
    assert str(layout.base_chain(key(Table.FILTER, Hook.INPUT, Place.LAST))) == "type filter hook input priority 5;"
    assert str(layout.base_chain(key(Table.NAT, Hook.PREROUTING))) == "type nat hook prerouting priority -105;"
    assert str(layout.base_chain(key(Table.NAT, Hook.POSTROUTING))) == "type nat hook postrouting priority 95;"
    assert str(layout.base_chain(key(Table.MANGLE, Hook.OUTPUT))) == "type route hook output priority -155;"
    assert str(layout.base_chain(key(Table.RAW, Hook.OUTPUT))) == "type filter hook output priority -305;"
    assert str(layout.base_chain(key(Table.SECURITY, Hook.FORWARD))) == "type filter hook forward priority 45;"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40), st.sampled_from(Table))
def test_every_name_is_read_back(name: str, table: Table) -> None:
    if name_problem(name) is None:
        assert layout.logical_chain(layout.nft_chain(table, name)) == (table, name)
        assert layout.logical_set(layout.nft_set(name)) == name
        assert layout.dispatcher_of(Family.IPV4, layout.nft_chain(table, name)) is None


def test_other_names_are_not_ours() -> None:
    assert layout.logical_chain("INPUT") is None
    assert layout.logical_chain("filter-a.zz") is None
    assert layout.logical_chain("nosuch-a") is None
    assert layout.logical_set("peers") is None
    assert layout.dispatcher_of(Family.IPV4, "filter.input.middle") is None


def test_every_dispatcher_is_read_back() -> None:
    for table in Table:
        for hook in Hook:
            for place in Place:
                wanted = key(table, hook, place)
                assert layout.dispatcher_of(Family.IPV4, layout.nft_dispatcher(wanted)) == wanted


# --- iptables ---

LONG = "a-name-of-more-than-28-characters"


def test_iptables_names_are_the_published_ones() -> None:
    assert layout.iptables_chain("meshfw", "a") == "meshfw-a"
    assert layout.iptables_chain("meshfw", ChainKey(Family.IPV4, Table.NAT, "a")) == "meshfw-a"
    assert layout.iptables_chain("meshfw", "x" * 21) == f"meshfw-{'x' * 21}"
    assert layout.iptables_chain("meshfw", LONG) == "meshfw-a-name-of-mo.f3a755bf"
    assert layout.iptables_chain("meshfw", key(Table.FILTER, Hook.INPUT)) == "meshfw.input.first"
    longest = key(Table.MANGLE, Hook.POSTROUTING, Place.FIRST)
    assert layout.iptables_chain("abcdefghij", longest) == "abcdefghij.postrouting.first"
    assert layout.iptables_marker("meshfw", ChainKey(Family.IPV4, Table.NAT, LONG)) == f"meshfw:meshfw:{LONG}"
    assert layout.iptables_marker("meshfw", key(Table.FILTER, Hook.INPUT)) == "meshfw:meshfw:input/first"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
def test_iptables_names_fit_and_are_the_owners(name: str) -> None:
    for owner in ("meshfw", "a", "abcdefghij"):
        chain = layout.iptables_chain(owner, name)
        assert len(chain) <= layout.CHAIN_MAX
        assert layout.owned_iptables_chain(owner, chain)
        assert layout.iptables_dispatcher(chain) is None
        assert not layout.owned_iptables_chain("other", chain)


@given(st.text("ab", min_size=20, max_size=60), st.text("ab", min_size=20, max_size=60))
def test_iptables_names_differ_where_their_beginnings_do_not(one: str, other: str) -> None:
    names = {layout.iptables_chain("meshfw", one), layout.iptables_chain("meshfw", other)}
    assert len(names) == len({one, other})


def test_every_iptables_dispatcher_is_read_back_whoever_owns_it() -> None:
    for owner in ("meshfw", "a1", "abcdefghij"):
        for hook in Hook:
            for place in Place:
                chain = layout.iptables_chain(owner, key(Table.MANGLE, hook, place))
                assert layout.iptables_dispatcher(chain) == (owner, hook, place)
                assert len(chain) <= layout.CHAIN_MAX
                assert layout.owned_iptables_chain(owner, chain)


def test_other_iptables_names_are_no_dispatchers() -> None:
    for name in (
        "INPUT",
        "meshfw-input",
        "meshfw.input",
        "meshfw.input.middle",
        "meshfw.nosuch.first",
        "A.input.first",
    ):
        assert layout.iptables_dispatcher(name) is None
    assert not layout.owned_iptables_chain("meshfw", "meshfw")
    assert not layout.owned_iptables_chain("meshfw", "meshfwx-a")
