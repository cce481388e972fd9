"""Laws of what doubles while two backends hold the same rules."""

from __future__ import annotations

from typing import Any, Final

import pytest

from meshfw.doubling import changes, doubled, goes_by
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import Attachment, Chain, Family, Hook, Packet, Rule, Ruleset, Table, Target

LANGUAGE: Final = Language.of(builtin_extensions())
ALL_BITS: Final = 0xFFFFFFFF


def rule(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def told(*chains: tuple[str, ...], table: Table = Table.MANGLE, family: Family = Family.IPV4) -> list[tuple[Any, ...]]:
    """Chain, number and effect of what doubles of chains ``a``, ``b`` and so on, each to be jumped to by the first."""
    made = tuple(
        Chain(family=family, table=table, name=name, rules=tuple(rule(text, family) for text in texts))
        for name, texts in zip("abc", chains, strict=False)
    )
    door = Attachment(family=family, table=table, hook=Hook.PREROUTING, chain="a")
    found = doubled(
        Ruleset(chains=made, attachments=(door,)),
        lambda one, which: format_rule(one, family=which, language=LANGUAGE),
    )
    return [(item.chain, item.rule, item.alters) for item in found]


SAME: Final = (
    "-s 10.0.0.0/8 -j DROP",
    "-p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
    "-j MARK --set-xmark 0x1/0xff",
    "-j MARK --set-mark 0x1/0xff",
    "-j MARK --or-mark 0x4",
    "-j MARK --and-mark 0x4",
    "-j CONNMARK --set-xmark 0x1/0xff",
    "-j CONNMARK --restore-mark",
    "-j CONNMARK --save-mark --nfmask 0x3f --ctmask 0xff --left-shift-mark 2",
    "-j TOS --set-tos 0x10/0x3f",
    "-j DSCP --set-dscp 0x2e",
    "-j TTL --ttl-set 64",
    "-m connlabel --label 3 --set",
    "-m set --match-set seen src ! --update-counters ! --update-subcounters",
    "-m rateest --rateest x --rateest-lt --rateest-bps 1000",
)
DOUBLES: Final = (
    "-j LOG",
    "-j NFLOG --nflog-group 2",
    "-j TEE --gateway 10.0.0.1",
    "-j NFQUEUE --queue-num 3",
    "-m limit --limit 5/min -j ACCEPT",
    "-m hashlimit --hashlimit-upto 5/min --hashlimit-mode srcip --hashlimit-name x -j ACCEPT",
    "-m quota --quota 1000 -j ACCEPT",
    "-m recent --name seen --set",
    "-m statistic --mode nth --every 2 --packet 0 -j ACCEPT",
    "-p tcp -m connlimit --connlimit-above 3 -j DROP",
    "-m set --match-set seen src",
    "-m nfacct --nfacct-name x",
    "-j RATEEST --rateest-name x --rateest-interval 1s --rateest-ewmalog 4s",
    "-m nosuch --that 1",
)
ALTERS: Final = (
    "-j MARK --xor-mark 0x1",
    "-j MARK --set-xmark 0x3/0x1",
    "-j CONNMARK --set-xmark 0x1/0x0",
    "-j CONNMARK --set-xmark 0x1/0xff --left-shift-mark 1",
    "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff --left-shift-mark 2",
    "-j CONNMARK --restore-mark --nfmask 0x0f --ctmask 0xff",
    "-j TOS --set-tos 0x10/0x0",
    "-j TTL --ttl-dec 1",
    "-j NOSUCH --that 1",
)


@pytest.mark.parametrize("text", SAME)
def test_what_does_the_same_twice_is_not_listed(text: str) -> None:
    assert told((text,)) == []


@pytest.mark.parametrize("text", DOUBLES)
def test_what_doubles_is_listed(text: str) -> None:
    assert told(("-j ACCEPT", text)) == [("a", 2, False)]


@pytest.mark.parametrize("text", ALTERS)
def test_what_makes_something_else_of_a_packet_is_listed_as_that(text: str) -> None:
    assert ("a", 1, True) in told((text,))


def test_conditions_of_an_attachment_are_listed_too() -> None:
    chain = Chain(family=Family.IPV6, table=Table.FILTER, name="in")
    when = rule("-m limit --limit 5/min", Family.IPV6)
    door = Attachment(family=Family.IPV6, table=Table.FILTER, hook=Hook.INPUT, chain="in", when=when)
    (found,) = doubled(Ruleset(chains=(chain,), attachments=(door,)), lambda *_: "text")
    assert str(found).startswith("ipv6 filter input/first to in rule 1 (text): each copy counts for itself")


# --- how rules play together ---


def test_a_rule_that_looks_at_what_a_later_one_changes_is_listed() -> None:
    assert told(("-m mark --mark 0x0 -j ACCEPT", "-j MARK --set-xmark 0x1/0xff")) == [("a", 1, False)]
    assert told(("-j MARK --set-xmark 0x1/0xff", "-m mark --mark 0x0 -j ACCEPT")) == [], (
        "the second copy finds the same"
    )
    assert told(("-m mark --mark 0x0 -j MARK --set-xmark 0x1/0xff",)) == []
    assert told(("-m mark --mark 0x0 -j b",), ("-j MARK --set-xmark 0x1/0xff",)) == [("a", 1, False)]


def test_of_a_target_that_copies_a_mark_the_source_counts() -> None:
    assert told(("-j CONNMARK --save-mark", "-j MARK --set-xmark 0x5/0xffffffff")) == [("a", 1, False)]
    assert told(("-j CONNMARK --restore-mark", "-j MARK --set-xmark 0x5/0xffffffff")) == []


def test_other_fields_count_each_for_itself() -> None:
    assert told(("-m ttl --ttl-lt 5 -j DROP", "-j TTL --ttl-set 64")) == [("a", 1, False)]
    assert told(("-m dscp --dscp 0x2e -j DROP", "-j DSCP --set-dscp 0x00")) == [("a", 1, False)]
    assert told(("-m dscp --dscp 0x2e -j DROP", "-j TTL --ttl-set 64", "-j MARK --set-xmark 0x1/0xff")) == []


def test_fields_are_told_by_asking_the_values_themselves() -> None:
    def target(text: str) -> Target:
        found = rule(text).target
        assert found is not None
        return found

    assert changes(target("-j MARK --set-xmark 0x1/0xff"), Family.IPV4) == {"mark"}
    assert changes(target("-j CONNMARK --save-mark"), Family.IPV4) == {"ct_mark"}
    assert goes_by(target("-j CONNMARK --save-mark"), Family.IPV4) == {"mark"}
    assert goes_by(rule("-m connmark --mark 0x1").matches[0], Family.IPV4) == {"ct_mark"}
    assert changes(target("-j ACCEPT"), Family.IPV4) == frozenset()


@pytest.mark.parametrize("text", [*SAME, *ALTERS])
def test_a_target_that_says_it_does_the_same_twice_does(text: str) -> None:
    target = rule(text).target
    if target is None or target.twice() is not None:
        pytest.skip("it says that it doesn't")
    for bits in (0, 0x5, ALL_BITS):
        packet = Packet(
            family=Family.IPV4, state="NEW", mark=bits, ct_mark=~bits & ALL_BITS, tos=bits & 0xFF, ttl=bits & 0xFF
        )
        once = target.applied(packet)
        assert target.applied(once) == once
