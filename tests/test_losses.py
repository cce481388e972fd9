"""Laws of what a variant of iptables would lose: refused before anything is written, with the reason."""

from __future__ import annotations

import pytest

from meshfw.backends.iptables_losses import Losses
from meshfw.languages.iptables import parse_rule
from meshfw.model import Chain, Family, Ruleset, Table
from tests.extensions.case import LANGUAGE

TWICE = [
    ("-p tcp -m tcp --dport 22 -m tcp --dport 22:23", "two tcp matches state the dport"),
    ("-p tcp -m tcp --syn -m tcp --dport 1 -m tcp --tcp-flags ACK ACK", "two tcp matches state the flags"),
    ("-p udp -m udp --sport 22 -m udp --sport 22:23", "two udp matches state the sport"),
]
ONCE = [
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
