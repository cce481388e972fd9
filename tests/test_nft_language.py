"""Laws of the nft language: the text is what nft lists, JSON is read by meaning, what can't be said is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshfw.backends.layout import names_in
from meshfw.errors import InexpressibleError
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import UnreadableError, read_rule, render_rule
from meshfw.model import (
    ACCEPT,
    COMMENT_BYTES,
    Comment,
    Family,
    Goto,
    Interface,
    Jump,
    Network,
    Not,
    OpaqueTarget,
    Rule,
    SetRef,
    Table,
    stored_comment,
)

LANGUAGE = Language.of(builtin_extensions())
NAMES = names_in(Table.FILTER)


def text(rule: Rule | str, family: Family = Family.IPV4) -> str:
    if isinstance(rule, str):
        rule = parse_rule(rule, family=family, language=LANGUAGE)
    return str(render_rule(rule, family=family, language=LANGUAGE, names=NAMES))


RENDERED = [
    ("-j ACCEPT", "counter accept"),
    ("", "counter"),
    ("-s 10.4.0.7 -d 10.0.0.0/8 -j DROP", "ip saddr 10.4.0.7 ip daddr 10.0.0.0/8 counter drop"),
    ("! -s 10.4.0.7 -j DROP", "ip saddr != 10.4.0.7 counter drop"),
    ("-s 10.0.1.0/255.0.255.0 -j DROP", "ip saddr & 255.0.255.0 == 10.0.1.0 counter drop"),
    ("! -s @peers -j DROP", "ip saddr != @set-peers counter drop"),
    ("-i eth+ ! -o wg0 -j RETURN", 'iifname "eth*" oifname != "wg0" counter return'),
    ("-p 47 -j ACCEPT", "meta l4proto 47 counter accept"),
    ("! -p tcp -j ACCEPT", "meta l4proto != 6 counter accept"),
    ("-p tcp -j ACCEPT", "meta l4proto 6 counter accept"),
    ("-p tcp -m tcp -j ACCEPT", "meta l4proto 6 counter accept"),
    ("-p tcp --dport 22 -j ACCEPT", "tcp dport 22 counter accept"),
    ("-p tcp --dport 22:80 ! --sport 1 -j a", "tcp sport != 1 tcp dport 22-80 counter jump filter-a"),
    ("-p tcp ! --dport 22 ! --sport 1 -j a", "tcp sport != 1-1 tcp dport != 22 counter jump filter-a"),
    ("-p udp ! --dport 2:3 ! --sport 1 -j a", "udp sport != 1 udp dport != 2-3 counter jump filter-a"),
    ("-p udp -m multiport ! --ports 53 -j a", "udp sport != 53-53 udp dport != 53 counter jump filter-a"),
    ("-f -g b~", "ip frag-off & 8191 != 0 counter goto filter-b.7e"),
    ('-m comment --comment "two words" -j DROP', 'counter drop comment "two words"'),
]


@pytest.mark.parametrize(("rule", "rendered"), RENDERED)
def test_a_rule_is_written_as_nft_lists_it(rule: str, rendered: str) -> None:
    assert text(rule) == rendered


def test_ipv6_names_its_own_header() -> None:
    assert text("-s fd00::1 -j ACCEPT", Family.IPV6) == "ip6 saddr fd00::1 counter accept"


def test_a_counter_goes_on_from_its_numbers() -> None:
    rule = parse_rule("-p tcp --dport 22 -j ACCEPT", family=Family.IPV4, language=LANGUAGE)
    half = render_rule(rule, family=Family.IPV4, language=LANGUAGE)
    assert half.counting_from(3, 180) == "tcp dport 22 counter packets 3 bytes 180 accept"


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("-m frob --x -j ACCEPT", "match frob"),
        ("-j FROBNICATE --hard", "target FROBNICATE"),
    ],
)
def test_what_nft_cannot_say_is_refused_by_name(rule: str, reason: str) -> None:
    with pytest.raises(InexpressibleError, match=reason):
        text(rule)


def test_opaque_targets_are_refused() -> None:
    with pytest.raises(InexpressibleError, match="FROB"):
        text(Rule(target=OpaqueTarget("FROB")))


def test_interfaces_with_signs_of_nft_are_refused() -> None:
    with pytest.raises(InexpressibleError, match="reads"):
        text(Rule(in_interface=Interface("a\\b"), target=ACCEPT))


def match(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
READ = [
    ([{"accept": None}], Rule(target=ACCEPT)),
    ([{"counter": {"packets": 1, "bytes": 2}}, {"accept": None}], Rule(target=ACCEPT)),
    ([match("ip", "saddr", "10.0.0.1")], Rule(source=Network.parse("10.0.0.1"))),
    ([match("ip", "saddr", {"prefix": {"addr": "10.0.0.0", "len": 8}})], Rule(source=Network.parse("10.0.0.0/8"))),
    ([match("ip", "daddr", "@set-a", "!=")], Rule(destination=Not(SetRef("a")))),
    (
        [{"match": {"op": "==", "left": {"&": [SADDR, "255.0.255.0"]}, "right": "10.0.1.0"}}],
        Rule(source=Network.parse("10.0.1.0/255.0.255.0")),
    ),
    (
        [{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "eth*"}}],
        Rule(in_interface=Not(Interface("eth+"))),
    ),
    ([{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "gre"}}], Rule(protocol=47)),
    ([{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": 115}}], Rule(protocol=115)),
    ([{"jump": {"target": "filter-a"}}], Rule(target=Jump("a"))),
    ([{"goto": {"target": "filter-b.7e"}}], Rule(target=Goto("b~"))),
]


@pytest.mark.parametrize(("statements", "rule"), READ)
def test_json_is_read_by_meaning(statements: list[dict[str, Any]], rule: Rule) -> None:
    assert read_rule(statements, family=Family.IPV4, language=LANGUAGE, names=NAMES) == rule


UNREADABLE: list[list[dict[str, Any]]] = [
    [{"xt": {"type": "match", "name": "comment"}}],
    [{"jump": {"target": "INPUT"}}],
    [{"jump": {"target": "nat-a"}}],
    [{"accept": None}, match("ip", "saddr", "10.0.0.1")],
    [match("ip", "saddr", "10.0.0.1"), match("ip", "saddr", "10.0.0.2")],
    [match("ip", "saddr", "@foreign")],
    [match("ip", "saddr", "10.0.0.1", "<")],
    [match("ip", "version", 4)],
    [match("ip6", "saddr", "fd00::1")],
    [{"counter": "named"}, {"accept": None}],
    [match("tcp", "dport", 22), match("udp", "dport", 53)],
    [{"match": {"op": "==", "left": {"numgen": {"mode": "inc", "mod": 2}}, "right": 0}}],
    [{"vmap": {}}],
]


@pytest.mark.parametrize("statements", UNREADABLE)
def test_what_we_never_write_is_not_taken_for_a_rule(statements: list[dict[str, Any]]) -> None:
    with pytest.raises(UnreadableError):
        read_rule(statements, family=Family.IPV4, language=LANGUAGE, names=NAMES)


@pytest.mark.parametrize("comment", ["x" * 128, "x" * 129, "ä" * 100, 'say "hi"', "back\\slash", "tab\there", "plain"])
def test_a_comment_keeps_its_identity_whatever_a_backend_can_hold(comment: str) -> None:
    stored = stored_comment(comment)
    assert len(stored.encode()) <= COMMENT_BYTES
    assert stored_comment(stored) == stored
    assert '"' not in stored
    assert Rule(matches=(Comment(comment),)) == Rule(matches=(Comment(stored),))


def test_comments_that_are_shortened_stay_different() -> None:
    assert stored_comment("x" * 200 + "a") != stored_comment("x" * 200 + "b")
