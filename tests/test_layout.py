"""The physical layout is an upgrade contract: these names stand in kernels and must not change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshfw.backends import layout
from meshfw.model import DispatcherKey, Family, Hook, Place, Table, name_problem


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
