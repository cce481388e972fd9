"""Laws of what a kernel tool would lose: the backend that would lose it refuses the rule by its place."""

from __future__ import annotations

import pytest

from meshfw.backends.iptables_losses import Losses
from meshfw.backends.nft_rendering import Renderings
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.model import ACCEPT, Chain, Family, Rule, Ruleset, Table

LANGUAGE = Language.of(builtin_extensions())

LOST = [
    ("-p udp ! --dport 0:65535 -j DROP", {"legacy", "nft"}, "no packet meets it"),
    ("-p tcp --tcp-flags NONE SYN -j DROP", {"legacy", "nft"}, "--tcp-flags"),
    ("-p tcp --tcp-flags SYN SYN,ACK -j DROP", set(), ""),
    ("-p tcp ! --tcp-flags NONE SYN -j DROP", set(), ""),
    ("-p tcp -m tcp --dport 22 -m tcp --dport 23 -j DROP", {"nft"}, "the last one only"),
    ("-p sctp --chunk-types any I_DATA:I", {"legacy", "nft", "native"}, "I_DATA"),
    ("-m hashlimit --hashlimit 1024mb/s --hashlimit-burst 5000mb --hashlimit-name a", {"legacy", "nft", "native"}, ""),
    ("-m hashlimit --hashlimit 1024mb/s --hashlimit-burst 3000mb --hashlimit-name a", {"native"}, "16 bytes"),
    ("-j NFLOG --nflog-range 80", {"nft", "native"}, "--nflog-size"),
    ("-j AUDIT --type drop", {"native"}, "--type"),
    ("-j TEE --gateway 192.0.2.1 --oif lo", {"native"}, "--oif"),
    ("-p tcp -m tcp --dport 22 -m tcp --sport 23 -j DROP", set(), ""),
    ("-p udp --dport 4:3 -j DROP", set(), ""),
]


@pytest.mark.parametrize(("text", "variants", "reason"), LOST)
def test_who_would_lose_a_meaning_refuses_the_rule(text: str, variants: set[str], reason: str) -> None:
    rule = parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=(Rule(target=ACCEPT), rule))
    found = {
        variant: list(Losses(variant, LANGUAGE).findings(Ruleset(chains=(chain,)))) for variant in ("legacy", "nft")
    }
    found["native"] = list(Renderings(LANGUAGE).findings(chain))
    assert {variant for variant, findings in found.items() if findings} == variants
    for finding in (finding for findings in found.values() for finding in findings):
        assert finding.where.endswith("rule 2")
    assert all(any(reason in finding.reason for finding in found[variant]) for variant in variants & {"nft", "native"})


TWICE = [
    ("-p tcp -m tcp --dport 22 -m limit -m tcp --dport 22", "stands between two tcp matches"),
    ("-p udp -m udp --sport 22 -m quota --quota 5 -m udp --dport 22", "stands between two udp matches"),
    ("-p tcp -m tcp --dport 22 -m tcp --dport 22:23", "two tcp matches state the dport"),
    ("-p tcp -m tcp --syn -m tcp --dport 1 -m tcp --tcp-flags ACK ACK", "two tcp matches state the flags"),
    ("-p udp -m udp --sport 22 -m udp --sport 22:23", "two udp matches state the sport"),
]
HALF = "-m statistic --mode random --probability 0.5"
BETWEEN = f"{HALF} -m policy --dir in --pol ipsec {HALF}"


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_an_option_that_iptables_would_take_for_another_match_is_refused(variant: str) -> None:
    (told,) = found(BETWEEN, variant)
    assert "an option of the second statistic match for one of policy" in told
    assert found("-m mark --mark 1 -m connmark --mark 2 -m mark --mark 3", variant) == []


ONCE = [
    "-p tcp -m tcp --dport 1 --tcp-option 3 -m limit -m tcp --dport 2",
    "-p tcp -m tcp -m limit -m tcp --dport 1",
    "-p tcp -m tcp --dport 22 -m tcp --dport 22 --sport 1",
    "-p tcp -m tcp --dport 22 -m tcp --sport 22:23",
    "-p sctp -m sctp --dport 1 -m sctp --dport 1:2",
    "-m mark --mark 1 -m mark --mark 0x1/0x1",
]


def found(text: str, variant: str) -> list[str]:
    rule = parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="first", rules=(rule,))
    return [finding.reason for finding in Losses(variant, LANGUAGE).findings(Ruleset(chains=(chain,)))]


@pytest.mark.parametrize(("text", "reason"), TWICE)
def test_what_iptables_nft_would_print_once_of_twice_is_refused(text: str, reason: str) -> None:
    (told,) = found(text, "nft")
    assert reason in told
    assert found(text, "legacy") == []


@pytest.mark.parametrize("text", ONCE)
def test_two_matches_that_stay_two_are_taken(text: str) -> None:
    assert found(text, "nft") == []
