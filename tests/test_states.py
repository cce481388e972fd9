"""Laws of states: what was written is read again, equal rulesets have one digest, and what isn't right is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import StateError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.extension import HostTables
from meshfw.extensions.language import Language
from meshfw.extensions.tcp import Tcp
from meshfw.model import (
    ACCEPT,
    Attachment,
    Chain,
    Comment,
    ElementType,
    Family,
    Hook,
    Jump,
    OpaqueMatch,
    OpaqueTarget,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
)
from meshfw.plan import diff
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot
from meshfw.states import State, digest, format_state, parse_state, parse_summary, snapshot_digest
from meshfw.testing.edits import EDITS, edited, middle
from meshfw.testing.rulesets import sample
from meshfw.testing.strategies import COMMENTS, edits, rulesets

LANGUAGE = Language.of(builtin_extensions())
DRAWN = rulesets(LANGUAGE)
SAMPLE = sample(LANGUAGE)
WORDS = st.lists(st.sampled_from(("--opt", "-x", "!", "a b", 'q"q', "\\", "", "value", "--dport", "-j")), max_size=4)


def state(ruleset: Ruleset, **named: Any) -> State:
    made = State(owner="meshfw", backend="memory", ruleset=ruleset, time=1.5, reason="apply")
    return msgspec.structs.replace(made, **named)


def again(ruleset: Ruleset) -> Ruleset:
    return parse_state(format_state(state(ruleset), LANGUAGE), LANGUAGE).ruleset


def of_rules(*rules: Rule, names: tuple[str, ...] = ()) -> Ruleset:
    chains = [Chain(family=Family.IPV4, table=Table.FILTER, name=name) for name in names]
    return Ruleset(chains=(Chain(family=Family.IPV4, table=Table.FILTER, name="main", rules=rules), *chains))


@given(DRAWN, st.one_of(st.none(), st.text(st.characters(codec="utf-8"))), COMMENTS, st.floats(0, 1e11))
def test_a_state_is_read_as_it_was_written(ruleset: Ruleset, netns: str | None, reason: str, time: float) -> None:
    kept = state(ruleset, netns=netns, reason=reason, time=time)
    document = format_state(kept, LANGUAGE)
    read = parse_state(document, LANGUAGE, owner="meshfw")
    assert read == kept
    assert digest(read.ruleset) == digest(ruleset)
    assert parse_summary(document).digest == digest(ruleset)
    assert [[repr(item) for item in held] for held in (read.ruleset.sets, read.ruleset.attachments)] == [
        [repr(item) for item in held] for held in (ruleset.sets, ruleset.attachments)
    ]


@given(st.lists(st.tuples(st.sampled_from(("nosuch", "other")), WORDS), max_size=3), WORDS)
def test_words_that_nobody_knows_are_kept_as_they_are(matches: list[tuple[str, list[str]]], words: list[str]) -> None:
    opaque = [OpaqueMatch(name, tuple(held)) for name, held in matches]
    for target in (ACCEPT, OpaqueTarget("NOSUCH", tuple(words)), Jump("other"), Jump("LOG"), Jump("NFLOG"), None):
        rule = Rule(matches=(*opaque[:1], Comment("between"), *opaque[1:]), target=target)
        read = again(of_rules(rule, names=("other", "LOG", "NFLOG"))).chains[2].rules[0]
        assert read.target == target
        assert read.matches == rule.matches


@given(st.data())
def test_digests_are_equal_where_rulesets_are(data: st.DataObject) -> None:
    one = data.draw(DRAWN)
    other = data.draw(st.one_of(edits(one), st.just(one)))
    assert (digest(one) == digest(other)) == (one == other)


def test_every_edit_changes_the_digest() -> None:
    ruleset = SAMPLE
    changed = [after for name in EDITS if (after := edited(ruleset, name, middle)) is not None and after != ruleset]
    assert len(changed) > 5
    assert digest(ruleset) not in {digest(after) for after in changed}


def test_two_spellings_of_one_rule_have_one_digest() -> None:
    one = Rule(protocol=6, matches=(Comment("a"), Comment("b"), Tcp()))
    other = Rule(protocol=6, matches=(Comment("a b"),))
    assert digest(of_rules(one)) == digest(of_rules(other))


def test_a_digest_is_the_same_in_any_process() -> None:
    code = (
        "from meshfw.states import digest; from meshfw.testing.rulesets import sample\n"
        "from meshfw.extensions import builtin_extensions; from meshfw.extensions.language import Language\n"
        "LANGUAGE = Language.of(builtin_extensions()); print(digest(sample(LANGUAGE)))"
    )
    found = set()
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run((sys.executable, "-c", code), env=env, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert found == {digest(SAMPLE)}


def test_names_that_the_host_has_for_numbers_are_not_written() -> None:
    here = Language.of(builtin_extensions(), hosts=HostTables(protocols={"carp": 199}))
    ruleset = of_rules(Rule(protocol=199, target=ACCEPT))
    document = format_state(state(ruleset), here)
    assert b"carp" not in document
    assert parse_state(document, LANGUAGE).ruleset == ruleset


# --- what is refused ---


def test_a_document_cut_off_anywhere_is_refused() -> None:
    document = format_state(state(SAMPLE), LANGUAGE)
    for length in range(0, len(document) - 2, 97):
        with pytest.raises(StateError, match="cut off"):
            parse_state(document[:length], LANGUAGE)


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    document = bytearray(format_state(state(DOOR), LANGUAGE))
    at = data.draw(st.integers(0, len(document) - 1))
    document[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = parse_state(bytes(document), LANGUAGE)
    except StateError:
        return
    assert read == state(DOOR)  # a blank outside the content


DOOR = of_rules(Rule(protocol=6, target=ACCEPT))


def replaced(change: Callable[[Any], None]) -> bytes:
    document = json.loads(format_state(state(DOOR), LANGUAGE))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "it is cut off"),
        (b"\xff", "it is no state of meshfw"),
        (b"[]", "it is no state of meshfw"),
        (replaced(lambda d: d.update(version=2)), "version 2, and this meshfw reads version 1"),
        (replaced(lambda d: d.update(meshfw="plan")), "'plan' of meshfw, not a state"),
        (replaced(lambda d: d.update(checksum="sha256:0")), "its checksum doesn't fit"),
        (replaced(lambda d: d["content"].update(owner="other")), "its checksum doesn't fit"),
    ],
)
def test_what_is_wrong_with_a_document_is_said(document: bytes, said: str) -> None:
    with pytest.raises(StateError) as caught:
        parse_state(document, LANGUAGE)
    assert said in str(caught.value)


def test_a_state_of_another_owner_is_refused() -> None:
    document = format_state(state(DOOR), LANGUAGE)
    with pytest.raises(StateError, match="owner 'meshfw', not of 'other'"):
        parse_state(document, LANGUAGE, owner="other")


def test_a_rule_without_words_is_refused() -> None:
    bare = Language.of(())
    with pytest.raises(StateError, match="no extension has words for"):
        format_state(state(SAMPLE), bare)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(StateError, match="not Unicode text"):
        format_state(state(DOOR, netns="\udcff"), LANGUAGE)


# --- the ruleset of a snapshot ---


def seen(ruleset: Ruleset) -> Snapshot:
    lists: dict[ListKey, ObservedList] = {}
    for chain in ruleset.chains:
        lists[chain.key] = ObservedList(chain.key, tuple(map(ObservedRule, chain.rules)))
    for held in ruleset.dispatchers():
        lists[held.key] = ObservedList(held.key, tuple(map(ObservedRule, held.rules)), frozenset({held.policy}))
    return Snapshot(lists, {(entry.family, entry.name): entry for entry in ruleset.sets})


@given(DRAWN)
def test_a_snapshot_means_the_ruleset_to_which_nothing_leads(ruleset: Ruleset) -> None:
    snapshot = seen(ruleset)
    meaning = snapshot.meaning()
    assert meaning.notes == ()
    assert not diff(snapshot, meaning.ruleset)
    assert not diff(seen(meaning.ruleset), ruleset)
    assert again(meaning.ruleset) == meaning.ruleset


@given(st.data())
def test_snapshots_with_one_digest_have_one_plan(data: st.DataObject) -> None:
    one = data.draw(DRAWN)
    other = data.draw(st.one_of(edits(one), st.just(one)))
    same = snapshot_digest(seen(one)) == snapshot_digest(seen(other))
    assert same == (not diff(seen(one), other))


@given(st.data())
def test_a_plan_knows_what_it_leads_from(data: st.DataObject) -> None:
    one = data.draw(DRAWN)
    other = data.draw(st.one_of(edits(one), DRAWN, st.just(Ruleset())))
    plan = diff(seen(one), other)
    if not plan.rebuilt:
        assert not diff(plan.before, one)
        assert plan.before.meaning().notes == ()


def test_what_no_ruleset_can_say_is_told() -> None:
    key = DOOR.chains[0].key
    attached = Attachment(family=key.family, table=key.table, hook=Hook.INPUT, chain="main", policy=Policy.DROP)
    good = seen(Ruleset(chains=DOOR.chains, attachments=(attached,)))
    door = attached.dispatcher
    odd = (
        ObservedRule(None, "counter weird"),
        ObservedRule(Rule(target=Jump("gone"))),
        ObservedRule(Rule(source=SetRef("gone"))),
        ObservedRule(Rule(matches=(Comment("stays"),))),
    )
    lists: dict[ListKey, ObservedList] = {
        key: msgspec.structs.replace(good.lists[key], rules=odd, faults=("a jump too many",)),
        door: msgspec.structs.replace(good.lists[door], rules=(ObservedRule(Rule(target=ACCEPT)),)),
    }
    meaning = Snapshot(lists, broken={Family.IPV6: "dormant"}).meaning()
    assert [rule.comment for rule in meaning.ruleset.chains[0].rules] == ["stays"]
    assert meaning.notes == (
        "the ipv6 tables are broken: dormant",
        "ipv4 filter main, rule 1 is left out: it is no rule of meshfw: counter weird",
        "ipv4 filter main, rule 2 is left out: jump to gone: there is no such chain of ours",
        "ipv4 filter main, rule 3 is left out: there is no set gone",
        "ipv4 filter input/first, rule 1 is left out: it leads into no chain",
        "ipv4 filter input/first: nothing that leads into a chain for every packet states its policy drop",
        "ipv4 filter main: a jump too many",
    )


def test_a_loop_that_only_a_kernel_holds_makes_no_ruleset() -> None:
    key = DOOR.chains[0].key
    meaning = Snapshot({key: ObservedList(key, (ObservedRule(Rule(target=Jump("main"))),))}).meaning()
    assert meaning.ruleset == Ruleset()
    assert "chains jump in a loop" in meaning.notes[0]


def test_a_state_has_the_shape_of_a_configuration(tmp_path: Path) -> None:
    from meshfw.source import Declaration
    from meshfw.sources.rules import RulesSource

    chain = Chain(family=Family.IPV6, table=Table.FILTER, name="web", rules=(Rule(source=SetRef("v"), target=ACCEPT),))
    held = Set.of(Family.IPV6, "v", ["2001:db8::/32"], type=ElementType.ADDRESS)
    attached = Attachment(
        family=chain.family, table=chain.table, hook=Hook.INPUT, place=Place.LAST, chain="web", rank=3
    )
    ruleset = Ruleset(chains=(chain,), sets=(held,), attachments=(attached,))
    content = json.loads(format_state(state(ruleset), LANGUAGE))["content"]
    tables = {"chain": content["chain"], "set": content["set"]}
    declaration = Declaration(options={}, language=LANGUAGE, file="", path="", tables=tables)
    assert RulesSource(declaration).load() == ruleset
