"""Laws of the iptables rule language: canonical text, refusals with their place, opaque extensions, meaning."""

from __future__ import annotations

import pytest

from meshfw.errors import FamilyParseError, ModelError, ParseError
from meshfw.extensions import HostTables, Language, builtin_extensions
from meshfw.languages.iptables import format_rule, parse_rule, parse_rules
from meshfw.languages.nft import render_rule
from meshfw.model import Family, Goto, Jump, OpaqueMatch, OpaqueTarget, Rule

HOSTS = HostTables(services={("ssh", "tcp"): 22, ("domain", "udp"): 53}, protocols={"l2tp": 115})
LANGUAGE = Language.of(builtin_extensions(), hosts=HOSTS)


def parse(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def canonical(text: str, family: Family = Family.IPV4) -> str:
    return format_rule(parse(text, family), family=family, language=LANGUAGE)


CANONICAL = [
    ("-j ACCEPT", "-j ACCEPT"),
    ("", ""),
    ("-p tcp -s 10.4.0.7 --dport ssh -j ACCEPT", "-s 10.4.0.7/32 -p tcp -m tcp --dport 22 -j ACCEPT"),
    ("-p 6 -j DROP", "-p tcp -j DROP"),
    ("-p 115 -j DROP", "-p l2tp -j DROP"),
    ("-p 116 -j DROP", "-p 116 -j DROP"),
    ("-p TCP -j DROP", "-p tcp -j DROP"),
    ("-p all -j DROP", "-j DROP"),
    ("-s 0.0.0.0/0 -i + -j DROP", "-j DROP"),
    ("! -s 0/0 ! -i + ! -o + -j DROP", "! -s 0.0.0.0/0 ! -i + ! -o + -j DROP"),
    ("-s 10.1 -d 10/8 -j DROP", "-s 10.1.0.0/32 -d 10.0.0.0/8 -j DROP"),
    ("-s any/0 -c 1,2 --in-i lo -j DROP", "-i lo -j DROP"),
    ('"!" -s 10.0.0.1 "-j" DROP', "! -s 10.0.0.1/32 -j DROP"),
    ("-p mh -j DROP", "-p mobility-header -j DROP"),
    ("-s 10.11.12.13/255.255.0.0 -j DROP", "-s 10.11.0.0/16 -j DROP"),
    ("-s 10.0.1.0/255.0.255.0 -j DROP", "-s 10.0.1.0/255.0.255.0 -j DROP"),
    ("--source 10.0.0.1 --jump DROP --in-interface eth+", "-s 10.0.0.1/32 -i eth+ -j DROP"),
    ("! -s 10.0.0.1 ! -i lo ! -p udp -j DROP", "! -s 10.0.0.1/32 ! -i lo ! -p udp -j DROP"),
    ("-f -j DROP", "-f -j DROP"),
    ("! -f -j DROP", "! -f -j DROP"),
    ("-ptcp -jACCEPT", "-p tcp -j ACCEPT"),
    ("--protocol=tcp --jump=ACCEPT", "-p tcp -j ACCEPT"),
    ("-s @peers -j ACCEPT", "-s @peers -j ACCEPT"),
    ("-p udp --dport domain -g elsewhere", "-p udp -m udp --dport 53 -g elsewhere"),
    ("-j chain -m comment --comment x", "-m comment --comment x -j chain"),
    ("-m comment --comment x -j chain", "-m comment --comment x -j chain"),
    ("-m comment --comment ! -j DROP", "-m comment --comment ! -j DROP"),
    ("-p tcp --syn -j DROP", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"),
]


@pytest.mark.parametrize(("text", "printed"), CANONICAL)
def test_a_rule_is_printed_as_the_kernel_tools_print_it(text: str, printed: str) -> None:
    assert canonical(text).replace('"', "") == printed
    assert canonical(canonical(text)) == canonical(text)


def test_ipv6_text_is_the_shortest() -> None:
    assert canonical("-s 2001:db8:0:0::3 -j DROP", Family.IPV6) == "-s 2001:db8::3/128 -j DROP"
    assert canonical("-p icmpv6 -j DROP", Family.IPV6) == "-p ipv6-icmp -j DROP"


REFUSED = [
    ("-s 10.0.0.300", 4, "not an IPv4 or IPv6 address"),
    ("-s 10.0.0.0/33", 4, "more than 32"),
    ("-s 10.0.0.0/x", 4, "neither a prefix length nor a mask"),
    ("-s example.org", 4, "host names are not looked up: 'example.org'"),
    ("-s 10.0.0.1,", 4, "not an IPv4 or IPv6 address"),
    ("-s 10.0.0.1,10.0.0.2", 0, "the addresses make 2 rules of one"),
    ("! -s 10.0.0.1,10.0.0.2", 6, "would be several rules"),
    ("! -s 10.0.0.1 -d 10.0.0.2,10.0.0.3", 0, "! 10.0.0.1/32 beside several addresses"),
    ("-s 10.0.0.0/08", 4, "neither a prefix length nor a mask"),
    ("-c 1 -j ACCEPT", 4, "no counters"),
    ("-s", 1, "has no value"),
    ("-s 10.0.0.1 -s 10.0.0.2", 13, "given twice"),
    ("-s ! 10.0.0.1", 4, "negation stands behind"),
    ("! ! -s 10.0.0.1", 3, "two negations"),
    ("-j ACCEPT !", 11, "negation of nothing"),
    ("! -j ACCEPT", 1, "can't be negated"),
    ("-j ACCEPT -j DROP", 11, "one target"),
    ("--dport 22 -j ACCEPT", 1, "unknown option --dport"),
    ("-p tcp --dport 70000", 16, "not between 0 and 65535"),
    ("-p tcp --dport nosuch", 16, "nor a known service"),
    ("-p nosuch", 4, "not a protocol"),
    ("-i averyveryverylongname", 4, "1 to 15 bytes"),
    ('-i ""', 4, "1 to 15 bytes"),
    ("! -p all", 6, "matches nothing"),
    ("stray -j ACCEPT", 1, "not an option"),
    ('-m comment --comment "x', 22, "never closed"),
    ("-m tcp --dport 22 -j ACCEPT", 0, "needs the rule to state its protocol"),
]


@pytest.mark.parametrize(("text", "column", "reason"), REFUSED)
def test_a_refusal_says_where_and_why(text: str, column: int, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_rule(text, family=Family.IPV4, language=LANGUAGE, source="rules", line=7)
    assert reason in str(caught.value)
    assert (caught.value.source, caught.value.line, caught.value.column) == ("rules", 7, column)


@pytest.mark.parametrize(
    ("text", "family"),
    [("-s fe80::1", Family.IPV4), ("-s 10.0.0.1", Family.IPV6), ("-f", Family.IPV6), ("-6 -j DROP", Family.IPV4)],
)
def test_a_word_of_the_other_family_is_told_apart(text: str, family: Family) -> None:
    error = FamilyParseError if text != "-f" else ParseError
    with pytest.raises(error):
        parse(text, family)


def test_unknown_extensions_keep_their_words() -> None:
    rule = parse('-m frob --depth 3 ! --name "a b" -j FROBNICATE --hard')
    assert rule.matches == (OpaqueMatch("frob", ("--depth", "3", "!", "--name", "a b")),)
    assert rule.target == OpaqueTarget("FROBNICATE", ("--hard",))
    assert canonical('-m frob --depth 3 ! --name "a b" -j FROBNICATE --hard') == (
        '-m frob --depth 3 ! --name "a b" -j FROBNICATE --hard'
    )


def test_a_target_of_the_manual_is_never_taken_for_a_chain() -> None:
    assert parse("-j TARPIT").target == OpaqueTarget("TARPIT")
    assert parse("-j trace").target == Jump("trace")
    assert parse("-g trace").target == Goto("trace")


def test_a_list_of_addresses_is_a_rule_for_each_pair() -> None:
    rules = parse_rules("-d 10.1,10/8 -s 1.1.1.1,2.2.2.2 -j DROP", family=Family.IPV4, language=LANGUAGE)
    assert [format_rule(rule, family=Family.IPV4, language=LANGUAGE) for rule in rules] == [
        "-s 1.1.1.1/32 -d 10.1.0.0/32 -j DROP",
        "-s 1.1.1.1/32 -d 10.0.0.0/8 -j DROP",
        "-s 2.2.2.2/32 -d 10.1.0.0/32 -j DROP",
        "-s 2.2.2.2/32 -d 10.0.0.0/8 -j DROP",
    ]


def test_host_names_are_resolved_by_what_the_language_is_given() -> None:
    def resolve(name: str, family: Family) -> tuple[int, ...]:
        if name == "gone":
            raise ModelError("gone can't be looked up: no answer")
        return {("peer", Family.IPV4): (0x0A000001, 0x0A000002)}.get((name, family), ())

    language = Language.of(builtin_extensions(), hosts=HostTables(resolve=resolve))
    found = parse_rules("-s peer/24,10.2.0.0", family=Family.IPV4, language=language)
    assert [str(rule.source) for rule in found] == ["10.0.0.0/24", "10.0.0.0/24", "10.2.0.0/32"]
    for text, family, reason in (
        ("-s peer", Family.IPV6, "host peer has no ipv6 address"),
        ("! -s peer", Family.IPV4, "would be several rules"),
        ("-s gone", Family.IPV4, "no answer"),
    ):
        with pytest.raises(ParseError, match=reason):
            parse_rules(text, family=family, language=language)


@pytest.mark.parametrize("text", ["! -s 0/0 -j DROP", "! -i + -j DROP", "! -o + -j DROP"])
@pytest.mark.parametrize("family", Family)
def test_a_rule_that_no_packet_meets_is_kept_and_says_who_loses_it(text: str, family: Family) -> None:
    rule = parse(text, family)
    assert rule != parse("-j DROP", family)
    assert parse(canonical(text, family), family) == rule
    assert [sorted(loss.variants) for loss in rule.losses()] == [["nft"] if "-s" in text else ["legacy"]]
    assert "saddr != " in str(render_rule(rule, family=family, language=LANGUAGE)) or "INVAL/D" in str(
        render_rule(rule, family=family, language=LANGUAGE)
    )


EQUAL = [
    ("-p 6 -j ACCEPT", "-p tcp -j ACCEPT"),
    ("-p tcp -j ACCEPT", "-p tcp -m tcp -j ACCEPT"),
    ("-s 10.4.0.7 -j ACCEPT", "-s 10.4.0.7/32 -j ACCEPT"),
    ("-s 0.0.0.0/0 -j ACCEPT", "-j ACCEPT"),
    ("-m comment --comment a -p tcp --dport 1 -j DROP", "-p tcp --dport 1 -m comment --comment a -j DROP"),
]
DIFFERENT = [
    ("-p tcp -j ACCEPT", "-p udp -j ACCEPT"),
    ("-s 10.4.0.7 -j ACCEPT", "-d 10.4.0.7 -j ACCEPT"),
    ("-s 10.4.0.7 -j ACCEPT", "! -s 10.4.0.7 -j ACCEPT"),
    ("-j chain", "-g chain"),
    ("-p tcp --dport 1 -j DROP", "-p tcp --sport 1 -j DROP"),
    ("-j DROP", "-m comment --comment a -j DROP"),
    ("-f -j DROP", "! -f -j DROP"),
    ("-m frob -p tcp --dport 1 -j DROP", "-p tcp --dport 1 -m frob -j DROP"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_rules_of_one_meaning_are_equal(one: str, other: str) -> None:
    assert parse(one) == parse(other)
    assert hash(parse(one)) == hash(parse(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_rules_of_two_meanings_differ(one: str, other: str) -> None:
    assert parse(one) != parse(other)
