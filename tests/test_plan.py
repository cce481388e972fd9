"""Laws of the plan: carried out it gives what was wanted, it is as short as can be, and it reads well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshfw.alignment
from meshfw.alignment import align, longest_run
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.model import (
    ACCEPT,
    DROP,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    Dispatcher,
    ElementType,
    Family,
    Hook,
    Jump,
    Network,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
)
from meshfw.plan import ListChange, Plan, diff
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot
from meshfw.testing.edits import EDITS, edited, middle
from meshfw.testing.lab import Case, differences
from meshfw.testing.rulesets import commented, sample
from meshfw.testing.strategies import cases, rulesets

LANGUAGE = Language.of(builtin_extensions())
GOLDEN = Path(__file__).parent / "golden"
LETTERS = {letter: commented(letter) for letter in "abcd"}
WORDS = st.text("abcd", max_size=9)


def formatted(rule: Rule, family: Family) -> str:
    return format_rule(rule, family=family, language=LANGUAGE)


def spelled(word: str) -> list[Rule]:
    """A rule for each letter, equal for equal letters and never the same object."""
    return [msgspec.structs.replace(LETTERS[letter]) for letter in word]


def observed(ruleset: Ruleset, *, known: bool = False) -> Snapshot:
    """A snapshot that means a ruleset; its rules count their position."""
    lists: dict[ListKey, ObservedList] = {}
    wanted: list[Chain | Dispatcher] = [*ruleset.chains, *ruleset.dispatchers()]
    for new in wanted:
        rules = tuple(ObservedRule(rule, formatted(rule, new.key.family), at) for at, rule in enumerate(new.rules, 1))
        policies = frozenset({new.policy}) if isinstance(new, Dispatcher) else frozenset[Policy]()
        lists[new.key] = ObservedList(new.key, rules, policies, new if known else None)
    return Snapshot(lists, {(entry.family, entry.name): entry for entry in ruleset.sets})


def carried_out(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """What a kernel holds after a plan: the meaning of each of its parts, told without any backend."""
    lists = {key: held for key, held in snapshot.lists.items() if key.family not in plan.rebuilt}
    sets = {key: held for key, held in snapshot.sets.items() if key[0] not in plan.rebuilt}
    for change in plan.lists:
        if change.new is None:
            del lists[change.key]
            continue
        old = lists.get(change.key, ObservedList(change.key))
        stay = [held for at, held in enumerate(old.rules) if at not in change.dropped]
        rules = []
        for rule, kept in zip(change.rules, change.kept, strict=True):
            rules.append(stay.pop(0) if kept >= 0 else ObservedRule(rule))
        assert not stay, "a rule that is neither kept nor dropped"
        policies = old.policies
        if isinstance(change.new, Dispatcher) and (change.policy or change.key.family in plan.rebuilt):
            policies = frozenset({change.new.policy})
        lists[change.key] = ObservedList(change.key, tuple(rules), policies)
    for set_change in plan.sets:
        if set_change.new is None:
            del sets[set_change.key]
            continue
        before = sets[set_change.key].elements if set_change.old is not None else ()
        elements = (set(before) - set(set_change.removed)) | set(set_change.added)
        sets[set_change.key] = msgspec.structs.replace(set_change.new, elements=tuple(sorted(elements)))
    return Snapshot(lists, sets)


def longest(old: Sequence[Rule | None], new: Sequence[Rule]) -> int:
    """The length of a longest common subsequence, by the textbook."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, one in enumerate(old):
        for j, other in enumerate(new):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


# --- the rules that stay -----------------------------------------------------------------------------------


def assert_aligned(old: Sequence[Rule | None], new: Sequence[Rule], kept: Sequence[int]) -> None:
    assert len(kept) == len(new)
    chosen = [index for index in kept if index >= 0]
    assert chosen == sorted(set(chosen)), "kept rules stand in both orders"
    assert all(old[index] == rule for index, rule in zip(kept, new, strict=True) if index >= 0)


@given(WORDS, WORDS)
def test_as_many_rules_stay_as_can(before: str, after: str) -> None:
    old, new = spelled(before), spelled(after)
    kept = align(old, new)
    assert_aligned(old, new, kept)
    assert sum(index >= 0 for index in kept) == longest(old, new)


@given(WORDS, WORDS, st.sets(st.integers(0, 8)))
def test_a_rule_that_cannot_be_read_never_stays(before: str, after: str, unread: set[int]) -> None:
    old = [None if at in unread else rule for at, rule in enumerate(spelled(before))]
    new = spelled(after)
    kept = align(old, new)
    assert_aligned(old, new, kept)
    assert sum(index >= 0 for index in kept) == longest(old, new)


@given(st.text("ab", max_size=30), st.text("ab", max_size=30))
def test_many_equal_rules_are_matched_in_order_instead(before: str, after: str) -> None:
    old, new = spelled(before), spelled(after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshfw.alignment, "PAIRS_MAX", 0)
        kept = align(old, new)
    assert_aligned(old, new, kept)
    best = longest(old, new)
    assert sum(index >= 0 for index in kept) >= min(best, 1)
    assert before != after or kept == tuple(range(len(new)))


def test_thousands_of_equal_rules_are_aligned_at_once() -> None:
    old, new = spelled("a" * 3000 + "b"), spelled("b" + "a" * 3000)
    kept = align(old, new)
    assert_aligned(old, new, kept)
    assert sum(index >= 0 for index in kept) == 3000


# --- the plan as a whole -----------------------------------------------------------------------------------


@given(cases(rulesets(LANGUAGE)))
def test_a_plan_carried_out_gives_what_was_wanted(case: Case) -> None:
    before, after = case.one, case.other
    plan = diff(observed(before), after)
    reached = carried_out(observed(before), plan)
    assert list(differences(reached, after)) == []
    assert not diff(reached, after)
    assert plan.desired is after


@given(cases(rulesets(LANGUAGE)))
def test_a_plan_is_empty_exactly_where_nothing_differs(case: Case) -> None:
    before, after = case.one, case.other
    assert bool(diff(observed(before), after)) == bool(list(differences(observed(before), after)))


@given(cases(rulesets(LANGUAGE)))
def test_counters_go_with_equal_rules_each_once(case: Case) -> None:
    before, after = case.one, case.other
    for change in diff(observed(before), after).lists:
        old = change.old.rules if change.old is not None else ()
        used = [source for source in change.source if source >= 0]
        assert len(used) == len(set(used)), "two rules take the counters of one"
        for rule, kept, source in zip(change.rules, change.kept, change.source, strict=True):
            assert source < 0 or old[source].rule == rule
            assert kept < 0 or kept == source, "a rule that stays keeps its own"
        left = {held.rule for at, held in enumerate(old) if at not in used}
        fresh = {rule for rule, source in zip(change.rules, change.source, strict=True) if source < 0}
        assert not left & fresh, "a new rule begins at zero while an equal one goes with its counters"


@given(cases(rulesets(LANGUAGE)))
def test_every_object_changes_once(case: Case) -> None:
    before, after = case.one, case.other
    plan = diff(observed(before), after)
    assert len(plan.keys) == len(set(plan.keys))
    untouched = set(observed(before).lists) - set(plan.keys)
    wanted: set[ListKey] = {held.key for held in after.chains} | {held.key for held in after.dispatchers()}
    assert plan.rebuilt or untouched <= wanted


@given(st.lists(st.sampled_from((-1, 0)), max_size=8))
def test_the_longest_run_is_the_longest_block_that_stays(kept: list[int]) -> None:
    spans = [(start, end) for start in range(len(kept) + 1) for end in range(start, len(kept) + 1)]
    runs = [(start, end) for start, end in spans if -1 not in kept[start:end]]
    start, end = longest_run(kept, [False] * len(kept))
    assert (start, end) in runs
    assert end - start == max(end - start for start, end in runs)


def test_what_is_known_to_be_the_same_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    ruleset = sample(LANGUAGE)
    held = observed(ruleset)
    ours = held.adopted(ruleset)
    chains = msgspec.structs.replace(ruleset, attachments=())
    only = Snapshot({key: value for key, value in ours.lists.items() if isinstance(key, ChainKey)}, ours.sets)

    def refused(self: Rule, other: object = None) -> Any:
        raise AssertionError("a rule was compared")

    monkeypatch.setattr(Rule, "key", refused)
    monkeypatch.setattr(Rule, "__eq__", refused)
    assert not diff(only, chains)
    with pytest.raises(AssertionError, match="a rule was compared"):
        diff(held, msgspec.structs.replace(ruleset, chains=tuple(map(again, ruleset.chains))))


def again(chain: Chain) -> Chain:
    return msgspec.structs.replace(chain, rules=tuple(map(msgspec.structs.replace, chain.rules)))


def test_an_adopted_snapshot_holds_the_declared_values_and_the_observed_counters() -> None:
    ruleset = sample(LANGUAGE)
    adopted = observed(ruleset).adopted(ruleset)
    for chain in ruleset.chains:
        held = adopted.lists[chain.key]
        assert held.declared is chain
        assert all(one.rule is rule for one, rule in zip(held.rules, chain.rules, strict=True))
        assert [one.packets for one in held.rules] == list(range(1, len(chain.rules) + 1))
    assert all(adopted.sets[entry.family, entry.name] is entry for entry in ruleset.sets)
    assert adopted.rules == sum(len(chain.rules) for chain in ruleset.chains)


# --- policies, moves, families that are built anew ---------------------------------------------------------

CHAIN = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=tuple(spelled("abc")))


def hooked(policy: Policy, *rules: Rule) -> Ruleset:
    attachment = Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.INPUT, chain="a", policy=policy)
    return Ruleset(chains=(msgspec.structs.replace(CHAIN, rules=rules),), attachments=(attachment,))


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("held", [{Policy.DROP}, {Policy.ACCEPT, Policy.RETURN}, set()])
def test_a_policy_changes_where_it_can_be_told_apart(held: set[Policy], policy: Policy) -> None:
    before = observed(hooked(Policy.RETURN))
    (key,) = (key for key in before.lists if not isinstance(key, ChainKey))
    taken = Snapshot({**before.lists, key: msgspec.structs.replace(before.lists[key], policies=frozenset(held))})
    changes = diff(taken, hooked(policy)).lists
    assert [change.policy for change in changes] == ([] if policy in held else [policy])


def change_of(before: str, after: str) -> ListChange | None:
    old = observed(Ruleset(chains=(msgspec.structs.replace(CHAIN, rules=tuple(spelled(before))),)))
    new = Ruleset(chains=(msgspec.structs.replace(CHAIN, rules=tuple(spelled(after))),))
    return next(iter(diff(old, new).lists), None)


@pytest.mark.parametrize(
    ("before", "after", "moves", "in_place"),
    [
        ("abc", "abcd", False, False),  # a rule at the end: nothing behind it
        ("abc", "ab", False, False),  # only deletions
        ("abc", "dabc", False, False),  # a rule in front, which nothing else has to make room for
        ("abc", "adc", True, False),  # a rule in the midst: what stays behind it may be written again
        ("abc", "bca", True, True),  # a rule that moves takes its counters along
        ("abc", "dd", False, False),  # nothing stays
    ],
)
def test_counters_must_be_fresh_where_a_kept_rule_may_be_written_again(
    before: str, after: str, moves: bool, in_place: bool
) -> None:
    change = change_of(before, after)
    assert change is not None
    for edits_in_place, wanted in ((False, moves), (True, in_place)):
        assert change.moves(in_place=edits_in_place) is wanted
        assert bool(Plan((change,)).moves(in_place=edits_in_place)) is wanted


@given(st.text("abcd", max_size=9), st.text("abcd", max_size=9), st.integers(0, 300))
def test_what_a_change_drops_and_writes_is_the_rest_of_what_stays(before: str, after: str, around: int) -> None:
    change = change_of("a" * around + before + "b" * around, "a" * around + after + "b" * around)
    assert (change is None) == (before == after)
    if change is not None and change.old is not None:
        old, new = len(change.old.rules), len(change.rules)
        assert change.dropped == tuple(index for index in range(old) if index not in change.kept)
        assert change.written == tuple(index for index in range(new) if change.kept[index] < 0)
        assert change.ends[0] >= around
        assert sum(change.ends) >= min(old, new, 2 * around)


def test_a_chain_that_is_new_moves_nothing() -> None:
    plan = diff(Snapshot(), Ruleset(chains=(CHAIN,)))
    assert plan.moves(in_place=False) == plan.moves(in_place=True) == ()
    assert plan.keys == (CHAIN.key,)


def test_a_broken_family_is_built_anew_with_its_counters() -> None:
    ruleset = sample(LANGUAGE)
    held = observed(ruleset)
    stranger = ChainKey(Family.IPV6, Table.FILTER, "stranger")
    lists = {**held.lists, stranger: ObservedList(stranger)}
    plan = diff(Snapshot(lists, held.sets, {Family.IPV6: "it was made dormant"}), ruleset)
    assert plan.rebuilt == {Family.IPV6: "it was made dormant"}
    assert {change.key.family for change in plan.lists} == {Family.IPV6}
    assert {change.key for change in plan.lists} == set(held.lists) - {k for k in held.lists if k.family is Family.IPV4}
    for change in plan.lists:
        assert set(change.kept) <= {-1}
        assert change.source == tuple(range(len(change.rules)))
    assert {change.key for change in plan.sets} == {key for key in held.sets if key[0] is Family.IPV6}
    assert all(change.old is None for change in plan.sets)
    lines = plan.text(formatted).splitlines()
    assert lines[0] == "~ ipv6 tables: built anew: it was made dormant"
    assert all(line.startswith("+ ipv6 set ") for line in lines[1:]), "rules that come back in their place are no edits"


def test_a_broken_family_that_nothing_is_wanted_of_is_a_plan_too() -> None:
    plan = diff(Snapshot(broken={Family.IPV4: "an empty table"}), Ruleset())
    assert plan
    assert plan.text(formatted) == "~ ipv4 tables: built anew: an empty table\n"


@pytest.mark.parametrize("changes", [{"intervals": True}, {"type": ElementType.PORT}])
def test_a_set_of_another_kind_builds_its_family_anew(changes: dict[str, Any]) -> None:
    before = Ruleset(chains=(CHAIN,), sets=(Set(family=Family.IPV4, name="s", elements=((5, 5),)),))
    after = msgspec.structs.replace(before, sets=(msgspec.structs.replace(before.sets[0], **changes),))
    plan = diff(observed(before, known=True), after)
    assert plan.rebuilt == {Family.IPV4: "set s becomes one of another kind"}
    assert [change.key for change in plan.lists] == [CHAIN.key], "the chain is the very same, and written again"
    assert [(change.old, change.added) for change in plan.sets] == [(None, ((5, 5),))]


# --- what a person and a program read ----------------------------------------------------------------------


def shown() -> Plan:
    """A plan with a line of each kind."""
    four, six = Family.IPV4, Family.IPV6
    ssh, web, log = (
        commented(text, target=target) for text, target in (("ssh", ACCEPT), ("web", ACCEPT), ("log", None))
    )
    net = Rule(source=Network.parse("10.4.0.0/16"), target=ACCEPT)

    def ruleset(rules: tuple[Rule, ...], name: str, policy: Policy, *sets: Set) -> Ruleset:
        return Ruleset(
            chains=(
                Chain(family=four, table=Table.FILTER, name="fw", rules=rules),
                Chain(family=six, table=Table.NAT, name=name, rules=(log,)),
            ),
            sets=sets,
            attachments=(Attachment(family=four, table=Table.FILTER, hook=Hook.INPUT, chain="fw", policy=policy),),
        )

    before, after = (Set.of(four, "hosts", hosts) for hosts in (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.3")))
    gone = Set(family=six, name="gone")
    old = ruleset((ssh, web, net, log, Rule(target=DROP)), "old", Policy.RETURN, before, gone)
    new = ruleset((log, ssh, Rule(matches=(Comment("new"),)), net), "new", Policy.DROP, after)
    held = observed(old)
    (key,) = (key for key in held.lists if isinstance(key, ChainKey) and key.name == "fw")
    unread = ObservedRule(None, "tcp dport vmap { 22 : accept }")
    lists = {**held.lists, key: msgspec.structs.replace(held.lists[key], rules=(*held.lists[key].rules, unread))}
    return diff(Snapshot(lists, held.sets), new)


def test_text_for_people_is_as_it_always_was() -> None:
    assert shown().text(formatted) == (GOLDEN / "plan.txt").read_text(encoding="utf-8")


def test_data_for_programs_is_as_it_always_was() -> None:
    assert shown().data(formatted) == json.loads((GOLDEN / "plan.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_one_line_or_few(name: str) -> None:
    before = sample(LANGUAGE)
    after = edited(before, name, middle)
    assert after is not None
    plan = diff(observed(before), after)
    lines = plan.text(formatted).splitlines()
    assert len(lines) >= 1
    assert len(lines) == 1 or "rule" not in name
    assert len(plan.data(formatted)) == len(lines)


def test_every_jump_of_a_plan_can_be_shown() -> None:
    jumping = msgspec.structs.replace(CHAIN, name="b", rules=(Rule(target=Jump("a")),))
    plan = diff(Snapshot(), Ruleset(chains=(CHAIN, jumping)))
    assert "+ ipv4 filter b 1: -j a\n" in plan.text(formatted)
