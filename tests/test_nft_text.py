"""Laws of the nft transaction: a golden of a whole ruleset, and the least rewriting for an edit anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshfw.alignment import longest_run
from meshfw.backends.layout import names_in
from meshfw.backends.nft_text import restart_notes, transaction_text
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import NftText, render_rule
from meshfw.model import Attachment, Chain, ChainKey, Family, Hook, Policy, Rule, Ruleset, Set, Table
from meshfw.plan import diff
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot

LANGUAGE = Language.of(builtin_extensions())
GOLDEN = Path(__file__).parent / "golden"
KEY = ChainKey(Family.IPV4, Table.FILTER, "a")


def render(key: ListKey, rule: Rule) -> NftText:
    return render_rule(rule, family=key.family, language=LANGUAGE, names=names_in(key.table))


def rule(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def gateway() -> Ruleset:
    """A small dual-stack gateway: every kind of object once."""
    chains, attachments, sets = [], [], []
    peers = {Family.IPV4: ["10.4.0.1", "10.5.0.0/16"], Family.IPV6: ["fd00:4::1", "fd00:5::/32"]}
    for family in Family:
        texts = {
            (Table.FILTER, "mesh-in"): ["-i lo -j RETURN", "-p tcp --dport 22 -j ACCEPT", "-s @peers -g mesh-peer"],
            (Table.FILTER, "mesh-peer"): ["-p udp --dport 51820 -m comment --comment wireguard -j ACCEPT"],
            (Table.NAT, "mesh-nat"): ["-d @peers -j RETURN", "-o eth+ -j ACCEPT"],
        }
        for (table, name), lines in texts.items():
            rules = tuple(rule(line, family) for line in lines)
            chains.append(Chain(family=family, table=table, name=name, rules=rules))
        sets.append(Set.of(family, "peers", peers[family]))
        for table, hook, name, policy in (
            (Table.FILTER, Hook.INPUT, "mesh-in", Policy.DROP),
            (Table.NAT, Hook.POSTROUTING, "mesh-nat", Policy.RETURN),
        ):
            attachments.append(Attachment(family=family, table=table, hook=hook, chain=name, policy=policy))
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


def test_a_whole_ruleset_is_the_golden_transaction() -> None:
    text = transaction_text(diff(Snapshot(), gateway()), render, owner="meshfw", present=frozenset())
    assert text == (GOLDEN / "gateway.nft").read_text()


def test_the_same_ruleset_is_written_the_same_way_each_time() -> None:
    shuffled = gateway()
    again = Ruleset(chains=shuffled.chains[::-1], sets=shuffled.sets[::-1], attachments=shuffled.attachments[::-1])
    texts = {
        transaction_text(diff(Snapshot(), wanted), render, owner="meshfw", present=frozenset())
        for wanted in (gateway(), again)
    }
    assert len(texts) == 1


def edit(old: str, new: str, *, counted: bool = False) -> str:
    """The transaction that turns one chain into another; a letter stands for a rule, in brackets for its handle."""
    observed = tuple(
        ObservedRule(
            rule(f"-s 10.0.0.{ord(name)} -j ACCEPT"), packets=7 * counted, bytes=70 * counted, handle=ord(name)
        )
        for name in old
    )
    wanted = tuple(rule(f"-s 10.0.0.{ord(name)} -j ACCEPT") for name in new)
    ruleset = Ruleset(chains=(Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=wanted),))
    plan = diff(Snapshot({KEY: ObservedList(KEY, observed)}), ruleset)
    text = transaction_text(plan, render, owner="m", present=frozenset({Family.IPV4}))
    for name in {*old, *new}:
        text = text.replace(f"ip saddr 10.0.0.{ord(name)} counter", name).replace(
            f"handle {ord(name)}\n", f"[{name}]\n"
        )
    frame = {"table ip m {", "}", "chain filter-a {"}
    lines = [line.strip().replace(" ip m filter-a", "") for line in text.splitlines()]
    return "; ".join(line.removesuffix(" accept") for line in lines if line not in frame)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("abc", "abc", ""),
        ("abc", "abcd", "d"),
        ("abc", "zabc", "insert rule z"),
        ("abc", "yzabc", "insert rule z; insert rule y"),
        ("abc", "ac", "delete rule [b]"),
        ("abcd", "abxcd", "delete rule [c]; delete rule [d]; x; c; d"),
        ("abcdef", "axbcdef", "delete rule [a]; insert rule x; insert rule a"),
        ("abc", "cba", "delete rule [b]; delete rule [c]; insert rule b; insert rule c"),
        ("abc", "xyz", "flush chain; x; y; z"),
        ("abc", "", "flush chain"),
        ("aab", "ab", "delete rule [a]"),
    ],
)
def test_an_edit_leaves_the_longest_run_alone(old: str, new: str, lines: str) -> None:
    assert edit(old, new) == lines


def test_rewritten_rules_take_their_counters_along() -> None:
    assert edit("abcd", "abxcd", counted=True).endswith("x; c packets 7 bytes 70; d packets 7 bytes 70")


@pytest.mark.parametrize(
    ("kept", "run"),
    [
        ((), (0, 0)),
        ((-1, -1), (0, 0)),
        ((0, 1, 2), (0, 3)),
        ((0, -1, 1), (0, 1)),
        ((0, -1, 1, 2), (2, 4)),
        ((0, 1, -1, 2), (0, 2)),
    ],
)
def test_the_longest_run_is_found(kept: tuple[int, ...], run: tuple[int, int]) -> None:
    assert longest_run(kept, [False] * len(kept)) == run


def test_rules_that_remember_stay_rather_than_more_that_do_not() -> None:
    assert longest_run((0, -1, 1, 2, 3), [True, False, False, False, False]) == (0, 1)
    assert longest_run((0, -1, 1, 2, 3), [False] * 5) == (2, 5)


def test_a_note_says_which_limits_start_anew() -> None:
    limit = rule("-m limit --limit 1/hour -j ACCEPT")
    plain = rule("-s 10.0.0.1 -j DROP")
    other = rule("-m limit --limit 2/hour -j ACCEPT")
    observed = Snapshot({KEY: ObservedList(KEY, (ObservedRule(limit, handle=1), ObservedRule(other, handle=2)))})
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=(limit, plain, other))
    assert restart_notes(diff(observed, Ruleset(chains=(chain,)))) == (
        "ipv4 filter a: rule 3 is written again, and its limit starts anew",
    )
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=(limit, other, plain))
    assert restart_notes(diff(observed, Ruleset(chains=(chain,)))) == ()
