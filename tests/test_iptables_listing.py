"""What iptables prints of chains, and whose they are: read without a kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.backends.iptables_listing import (
    Reading,
    marked_name,
    matched,
    observed_lists,
    printed_rules,
)
from meshfw.backends.iptables_raw import RawRule, RawTable
from meshfw.backends.iptables_text import Standing, comment_text, marker_text
from meshfw.backends.layout import LEFT_OVER, iptables_chain
from meshfw.model import ChainKey, DispatcherKey, Family, Hook, Place, Policy, Rule, Table
from meshfw.snapshot import ListKey, ObservedList

FILTER = (Family.IPV4, Table.FILTER)
INPUT = DispatcherKey(*FILTER, Hook.INPUT, Place.FIRST)

# --- what is printed ---


def listed(chains: Mapping[str, Sequence[str]]) -> str:
    """What ``-S CHAIN`` lines print."""
    return "".join(
        f"-N {name}\n" + "".join(f"-A {name} {rule}".rstrip(" ") + "\n" for rule in rules)
        for name, rules in chains.items()
    )


def test_a_chain_is_not_taken_for_one_whose_name_begins_like_it() -> None:
    chains = {"meshfw-a": ["-j ACCEPT", ""], "meshfw-a-b": ["-j DROP"], "meshfw-": [], "meshfw-a.b": ["", ""]}
    assert printed_rules(listed(chains), [*chains]) == [*chains.values()]


def printed(comment: str) -> str:
    """A comment as iptables prints it (libxtables, xtables_save_string)."""
    escaped = re.sub(r"[\"'\\]", r"\\\g<0>", comment)
    return f'-m comment --comment "{escaped}"'


texts = st.lists(
    st.one_of(
        st.sampled_from(["", "-j ACCEPT", "-s 10.0.0.0/8 -j meshfw-b", "-m comment --comment x -j DROP"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).map(printed),
        st.sampled_from(["a\nb", "\n", "-N x\n-A x", '"\n-A meshfw-a -j ACCEPT', "\\\n", "a\n\nb"]).map(printed),
    ),
    max_size=5,
)


@given(st.dictionaries(st.sampled_from(["meshfw-a", "meshfw-b", "meshfw-a-b"]), texts))
def test_every_comment_is_read_back(chains: dict[str, list[str]]) -> None:
    assert printed_rules(listed(chains), [*chains]) == [*chains.values()]


@given(st.dictionaries(st.sampled_from(["meshfw-a", "meshfw-b"]), texts), st.data())
def test_what_is_cut_off_is_a_part_of_the_whole(chains: dict[str, list[str]], data: st.DataObject) -> None:
    output = listed(chains)
    cut = output[: data.draw(st.integers(0, len(output)))]
    found = printed_rules(cut, [*chains])
    for rules, whole in zip(found, chains.values(), strict=False):
        assert rules == whole[: len(rules)] or len(rules) < len(whole) or rules[:-1] == whole[: len(rules) - 1]
    if found and '"' not in output:
        assert all(rules == whole[: len(rules)] for rules, whole in zip(found, chains.values(), strict=False))


def test_what_nobody_asked_for_is_left_out() -> None:
    output = "# Warning: x\n-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n-N THEIRS\n-A THEIRS -j DROP\n-A meshfw-a -j ACCEPT\n"
    assert printed_rules(output, ["meshfw-a"]) == []
    assert printed_rules(f"{output}-N meshfw-a\n-A meshfw-a\n{output}", ["meshfw-a"]) == [[""]]
    assert printed_rules("-N b\n-A b -j DROP\n-N a\n-A a -j DROP\n", ["a", "b"]) == [["-j DROP"]]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8))
def test_a_text_is_given_only_to_the_rule_that_it_is_of(rules: list[tuple[bool, bool]]) -> None:
    """Each rule: whether iptables tells all of it, and, where it doesn't, whether it lists a part."""
    told = [sure for sure, _ in rules]
    printed = [str(number) for number, (sure, part) in enumerate(rules) if sure or part]
    found = matched(told, printed)
    assert found is not None
    assert all(
        text is None or (sure and text == str(at)) for at, (sure, text) in enumerate(zip(told, found, strict=True))
    )
    outside = (
        {*range(told.index(False)), *range(len(told) - told[::-1].index(False), len(told))} if False in told else ()
    )
    assert all(found[at] is not None for at in outside)
    assert None not in found or False in told
    assert matched(told, [*printed, *["more"] * (len(told) - len(printed) + 1)]) is None
    if len(printed) > told.count(False) or told == []:
        assert matched(told, ["x"] * (told.count(True) - 1)) is None or not told


# --- whose it is ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("-m comment --comment meshfw:meshfw:fw", "fw"),
        ('-m comment --comment "meshfw:meshfw:fw"', "fw"),
        ('-m comment --comment "meshfw:meshfw:input/first"', "input/first"),
        ('-m comment --comment "meshfw:meshfw:fw" -j ACCEPT', None),
        ('-s 10.0.0.1/32 -m comment --comment "meshfw:meshfw:fw"', None),
        ('-m comment --comment "meshfw:other:fw"', None),
        ('-m comment --comment "a meshfw:meshfw:fw"', None),
        ('-m comment --comment "meshfw:meshfw:fw', None),
        ("-m comment --comment", None),
        ("", None),
    ],
)
def test_a_marker_is_a_rule_with_our_comment_alone(text: str, name: str | None) -> None:
    assert marked_name(text, "meshfw") == name


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60))
def test_every_marker_tells_its_name(name: str) -> None:
    assert marked_name(marker_text("meshfw", ChainKey(*FILTER, name)), "meshfw") == name


def raw(**chains: Sequence[str]) -> dict[str, tuple[RawRule, ...]]:
    """Chains with underscores for hyphens; a rule's bytes are its text."""
    return {
        name.replace("__", ".").replace("_", "-"): tuple(RawRule(text.encode(), 1, 2) for text in rules)
        for name, rules in chains.items()
    }


def mark(name: str) -> str:
    return comment_text(f"meshfw:meshfw:{name}")


def read(
    chains: Mapping[str, tuple[RawRule, ...]],
    *,
    adopt: bool = False,
    jumps: Mapping[Hook, tuple[str, ...]] | None = None,
) -> tuple[dict[ListKey, ObservedList], dict[ListKey, str]]:
    """What the chains are taken for."""
    reading = Reading(
        owner="meshfw",
        adopt=adopt,
        text=lambda rule: rule.body.decode() if rule.body else None,
        jump=lambda rule: rule.body.decode().partition("-j ")[2],
        named=lambda _chain, _key: None,
        rules=lambda _key, texts: [Rule() if text is not None else None for text in texts],
    )
    return observed_lists(FILTER, RawTable(chains, jumps or {}), reading)


def names(found: Mapping[ListKey, object]) -> set[str]:
    return {key.name if isinstance(key, ChainKey) else f"{key.hook}/{key.place}" for key in found}


def test_marked_and_empty_chains_are_ours_and_others_are_strangers() -> None:
    lists, strangers = read(raw(meshfw_a=[mark("a"), "-j DROP"], meshfw_b=[], meshfw_c=["-j DROP"]))
    assert names(lists) == {"a", "b"}
    assert names(strangers) == {"c"}
    assert "ipv4 filter chain meshfw-c" in strangers.values()


def test_a_marker_counts_wherever_it_stands_in_its_chain() -> None:
    lists, strangers = read(raw(meshfw_a=["-j DROP", mark("a")]))
    assert (names(lists), strangers) == ({"a"}, {})
    (held,) = lists.values()
    assert "its marker is missing" in held.faults, "it isn't at its place"


def test_a_chain_tied_to_a_marked_one_is_ours_without_a_marker() -> None:
    chains = raw(
        meshfw_a=[mark("a"), "-j meshfw-b"], meshfw_b=["-j DROP"], meshfw_c=["-j meshfw-a"], meshfw_d=["-j INPUT"]
    )
    lists, strangers = read(chains)
    assert names(lists) == {"a", "b"}
    assert names(strangers) == {"c", "d"}, "whoever leads to ours is not ours for that"
    adopted, none = read(chains, adopt=True)
    assert names(adopted) == {"a", "b", "c", "d"}
    assert none == {}


def test_a_chain_under_a_name_that_it_should_not_have_is_left_over() -> None:
    long = "x" * 60
    lists, _ = read(raw(meshfw_a=[mark("b")]) | {iptables_chain("meshfw", long): (RawRule(mark(long).encode(), 0, 0),)})
    assert names(lists) == {f"meshfw-a{LEFT_OVER}", long}


def test_a_dispatcher_is_known_by_its_name_and_ends_in_its_policy() -> None:
    chains = raw(meshfw__input__first=[mark("input/first"), "-j meshfw-a", "-j DROP"], meshfw_a=[mark("a")])
    lists, _ = read(chains, jumps={Hook.INPUT: ("meshfw.input.first", "")})
    held = lists[INPUT]
    assert held.policies == frozenset({Policy.DROP})
    assert len(held.rules) == 1
    assert held.faults == ()
    standing: Standing = held.backing
    assert (standing.marker, standing.policy, standing.length, standing.placed) == (1, 3, 3, True)
    assert standing.lines[1] == "-c 1 2 -j meshfw-a"


@pytest.mark.parametrize(
    ("jumps", "fault"),
    [
        ({}, "no jump leads to it from INPUT"),
        ({Hook.INPUT: ("meshfw.input.first", "meshfw.input.first")}, "2 jumps lead to it from INPUT"),
        ({Hook.INPUT: ("", "meshfw.input.first")}, "its jump stands behind 1 other"),
        ({Hook.INPUT: ("meshfw.input.first",), Hook.OUTPUT: ("meshfw.input.first",)}, "a jump leads to it from OUTPUT"),
    ],
)
def test_what_is_wrong_with_the_jump_to_a_dispatcher_is_said(jumps: dict[Hook, tuple[str, ...]], fault: str) -> None:
    lists, _ = read(raw(meshfw__input__first=[mark("input/first")]), jumps=jumps)
    assert any(text.startswith(fault) for text in lists[INPUT].faults), lists[INPUT].faults


def test_another_owners_dispatcher_may_stand_before_ours() -> None:
    lists, _ = read(
        raw(meshfw__input__first=[mark("input/first")]),
        jumps={Hook.INPUT: ("peer.input.first", "meshfw.input.first", "")},
    )
    assert lists[INPUT].faults == ()
    lists, _ = read(
        raw(meshfw__input__first=[mark("input/first")]), jumps={Hook.INPUT: ("peer.input.last", "meshfw.input.first")}
    )
    assert lists[INPUT].faults


def test_a_rule_that_iptables_can_not_tell_is_no_rule_of_ours_and_has_no_line() -> None:
    chains = {"meshfw-a": (RawRule(mark("a").encode(), 0, 0), RawRule(b"", 0, 0), RawRule(b"-j DROP", 0, 0))}
    lists, _ = read(chains)
    (held,) = lists.values()
    assert [rule.rule is None for rule in held.rules] == [True, False]
    assert [rule.handle for rule in held.rules] == [2, 3]
    assert len(held.backing.lines) == 2
    assert held.backing.length == 3
