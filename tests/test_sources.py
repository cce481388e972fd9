"""Laws of the rule sources: tables and dumps become the ruleset they say, and each mistake is named where it stands."""

from __future__ import annotations

import errno
import os
import select
import socket
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import assume, given

from meshfw import (
    ConfigError,
    Declaration,
    Family,
    Hook,
    MeshfwError,
    ParseError,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
    builtin_extensions,
    format_rule,
    host_tables,
    merge,
    parse_rule,
    parse_ruleset,
)
from meshfw.extensions.language import Language
from meshfw.files import inotify
from meshfw.model import Jump, Place
from meshfw.source import Settings
from meshfw.sources.dump import DumpSource
from meshfw.sources.hosts import resolve_host
from meshfw.sources.rules import RulesSource
from meshfw.sources.script import ScriptSource
from meshfw.sources.typed import TypedRule
from meshfw.testing.strategies import rulesets

LANGUAGE = Language.of(builtin_extensions())
V4, V6 = Family.IPV4, Family.IPV6


def loaded(text: str) -> Ruleset:
    """The ruleset of a configuration's chain and set tables."""
    declaration = Declaration(options={}, language=LANGUAGE, file="f.toml", tables=tomllib.loads(text))
    return RulesSource(declaration).load()


def chain_of(rules: str, rest: str = "") -> Ruleset:
    return loaded(f'[[chain]]\nname = "a"\nrules = [{rules}]\n{rest}')


def texts(ruleset: Ruleset, family: Family, name: str = "a") -> list[str]:
    """The canonical text of each rule of a chain."""
    (chain,) = (chain for chain in ruleset.chains if (chain.family, chain.name) == (family, name))
    return [format_rule(rule, family=family, language=LANGUAGE) for rule in chain.rules]


# --- rules as text and as tables ---


@given(rulesets(LANGUAGE))
def test_a_ruleset_written_as_tables_is_read_back(ruleset: Ruleset) -> None:
    assume(ruleset and not {chain.name for chain in ruleset.chains} & set(LANGUAGE.targets))
    declaration = Declaration(options={}, language=LANGUAGE, tables=as_tables(ruleset))
    assert RulesSource(declaration).load() == ruleset


def test_a_text_of_tables_is_a_ruleset() -> None:
    text = '[[chain]]\nname = "a"\nrules = ["-j DROP"]\n[[set]]\nname = "s"\nelements = ["10.0.0.1"]'
    assert parse_ruleset(text, language=LANGUAGE) == loaded(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it declares nothing; expected [[chain]] tables"),
        ("[[chain]", "line 1"),
        ('owner = "a"', "owner: unknown key"),
        ('[[source]]\ntype = "iptables-save"\nipv4 = "x"', "source: unknown key"),
        ('[[chain]]\nname = "a"\nrules = ["-j"]', "chain[1].rules[1]"),
    ],
)
def test_a_text_that_is_more_or_less_than_tables_is_refused(text: str, told: str) -> None:
    with pytest.raises(MeshfwError) as caught:
        parse_ruleset(text, language=LANGUAGE, source="release 7")
    assert told in str(caught.value)
    assert "release 7" in str(caught.value)


def as_tables(ruleset: Ruleset) -> dict[str, list[dict[str, Any]]]:
    """The chain and set tables of a ruleset, one of each for each family."""

    def text(rule: Rule, family: Family) -> str | dict[str, str]:
        return format_rule(rule, family=family, language=LANGUAGE) or {"family": family.value}

    chains = [
        {
            "name": chain.name,
            "table": chain.table.value,
            "families": chain.family.value,
            "rules": [text(rule, chain.family) for rule in chain.rules],
            "attach": [
                {
                    "hook": item.hook.value,
                    "place": item.place.value,
                    "rank": item.rank,
                    "policy": item.policy.value,
                    "when": text(item.when, item.family),
                }
                for item in ruleset.attachments
                if (item.family, item.table, item.chain) == (chain.family, chain.table, chain.name)
            ],
        }
        for chain in ruleset.chains
    ]
    sets = [
        {
            "name": entry.name,
            "type": entry.type.value,
            "families": entry.family.value,
            "intervals": entry.intervals,
            "elements": [entry.text(low, high) for low, high in entry.elements],
        }
        for entry in ruleset.sets
    ]
    return {"chain": chains, "set": sets}


TYPED = [
    ('{ source = "10.0.0.0/8", target = "DROP" }', "-s 10.0.0.0/8 -j DROP"),
    ('{ source = "!10.0.0.0/8" }', "! -s 10.0.0.0/8"),
    ('{ destination = { not = "10.0.0.7" } }', "! -d 10.0.0.7"),
    ('{ in-interface = "eth+", out-interface = "! lo", goto = "b" }', "-i eth+ ! -o lo -g b"),
    ('{ protocol = "tcp", dport = 22, target = "ACCEPT" }', "-p tcp --dport 22 -j ACCEPT"),
    ('{ dport = "!1024:", target = "ACCEPT", protocol = 17 }', "-p udp ! --dport 1024: -j ACCEPT"),
    ('{ protocol = "tcp", tcp = { sport = 1, dport = 2 } }', "-p tcp -m tcp --sport 1 --dport 2"),
    ('{ protocol = "tcp", syn = true }', "-p tcp --syn"),
    ('{ protocol = "tcp", syn = { not = true } }', "-p tcp ! --syn"),
    ('{ protocol = "tcp", tcp-flags = ["SYN,ACK", "SYN"] }', "-p tcp --tcp-flags SYN,ACK SYN"),
    ('{ protocol = "tcp", tcp-flags = "! SYN,ACK SYN" }', "-p tcp ! --tcp-flags SYN,ACK SYN"),
    ('{ protocol = "tcp", dports = [80, "443", "1000:2000"] }', "-p tcp -m multiport --dports 80,443,1000:2000"),
    ('{ ctstate = ["NEW", "RELATED"] }', "-m conntrack --ctstate NEW,RELATED"),
    ('{ state = { not = "INVALID" } }', "-m state ! --state INVALID"),
    (
        '{ limit = "5/min", limit-burst = 9, comment = "no more" }',
        '-m comment --comment "no more" -m limit --limit 5/min --limit-burst 9',
    ),
    ('{ limit = "5/min", protocol = "tcp", dport = 22 }', "-p tcp -m tcp --dport 22 -m limit --limit 5/min"),
    (
        '{ quota = { quota = 9 }, limit = "5/min", mark = { mark = 1 }, ctstate = "NEW" }',
        "-m mark --mark 1 -m conntrack --ctstate NEW -m quota --quota 9 -m limit --limit 5/min",
    ),
    (
        '{ recent = { name = "a", set = true }, protocol = "udp", dport = 9 }',
        "-p udp --dport 9 -m recent --name a --set",
    ),
    (
        '{ statistic = { mode = "nth", every = 2, packet = 0 }, source = "10.0.0.1", tos = { tos = 8 } }',
        "-s 10.0.0.1 -m tos --tos 8 -m statistic --mode nth --every 2 --packet 0",
    ),
    ('{ connlimit-above = 3, protocol = "tcp", dport = 22 }', "-p tcp --dport 22 -m connlimit --connlimit-above 3"),
    (
        '{ hashlimit = { hashlimit-name = "h", hashlimit-above = "5/sec" }, protocol = "tcp", dport = 22 }',
        "-p tcp --dport 22 -m hashlimit --hashlimit-name h --hashlimit-above 5/sec",
    ),
    ('{ comment = "first", limit = "5/min" }', "-m comment --comment first -m limit --limit 5/min"),
    ('{ connmark = { mark = "0x1/0xff" } }', "-m connmark --mark 0x1/0xff"),
    ("{ mark = { mark = { not = 7 } } }", "-m mark ! --mark 7"),
    ("{ fragment = true }", "-f"),
    ("{ fragment = { not = true } }", "! -f"),
    ('{ protocol = "icmp", icmp-type = "echo-request" }', "-p icmp --icmp-type echo-request"),
    (
        '{ target = "LOG", log-prefix = "! no negation", log-level = 6 }',
        '-j LOG --log-prefix "! no negation" --log-level 6',
    ),
    ('{ comment = "-j DROP" }', '-m comment --comment "-j DROP"'),
    ('{ jump = "b", src = "@s" }', "-s @s -j b"),
]  # fmt: skip - a table reads better with one pair on each line
TARGETED = '[[chain]]\nname = "b"\n[[set]]\nname = "s"\n'


@pytest.mark.parametrize(("typed", "text"), TYPED)
def test_typed_keys_mean_what_iptables_options_mean(typed: str, text: str) -> None:
    (rule,) = next(chain for chain in chain_of(typed, TARGETED).chains if chain.name == "a").rules
    assert rule == parse_rule(text, family=V4, language=LANGUAGE)


@pytest.mark.parametrize("extension", builtin_extensions(), ids=lambda extension: extension.name)
def test_every_option_of_every_extension_has_a_key(extension: Any) -> None:
    for option in extension.options:
        for spelling in option.names:
            value: Any = "1" if option.words == 1 else ["1"] * option.words if option.words else True
            key = spelling.removeprefix("--")
            rule = {"target": extension.name, key: value} if extension.is_target else {extension.name: {key: value}}
            typed = TypedRule(Settings(rule), LANGUAGE)
            words = [word.text for word in typed.words]
            assert words[words.index(spelling) + 1 :][: option.words] == ["1"] * option.words


def test_a_rule_stands_in_each_family_that_it_fits() -> None:
    ruleset = chain_of(
        '"-j ACCEPT", "-s 10.0.0.0/8", "-d fd00::/8", "-p icmp", "-p ipv6-icmp", "! -p icmp", "-f", "-4 -j DROP",'
        ' { target = "REJECT", family = "ipv6" }, "-j REJECT --reject-with icmp-port-unreachable"'
    )
    unreachable = "-j REJECT --reject-with icmp{}-port-unreachable"
    assert texts(ruleset, V4) == [
        "-j ACCEPT",
        "-s 10.0.0.0/8",
        "-p icmp",
        "! -p icmp",
        "-f",
        "-j DROP",
        unreachable.format(""),
    ]  # fmt: skip - the rules beside each other
    assert texts(ruleset, V6) == ["-j ACCEPT", "-d fd00::/8", "-p ipv6-icmp", "! -p icmp", unreachable.format("6")]


def test_a_chain_of_one_family_leaves_nothing_in_the_other() -> None:
    ruleset = chain_of('"-j ACCEPT"', 'families = "ipv6"\nattach = { hook = "input", policy = "drop" }')
    assert ruleset.families == {V6}
    assert {item.family for item in ruleset.attachments} == {V6}


def test_an_attachment_says_hook_place_rank_policy_and_condition() -> None:
    ruleset = chain_of(
        "",
        'attach = [{ hook = "INPUT", place = "last", rank = 7, policy = "drop" },'
        ' { hook = "forward", when = { in-interface = "wg0" } }, { hook = "output", when = "-d 10.0.0.0/8" }]',
    )
    held = {(item.family, item.hook): item for item in ruleset.attachments}
    assert set(held) == {(V4, Hook.INPUT), (V6, Hook.INPUT), (V4, Hook.FORWARD), (V6, Hook.FORWARD), (V4, Hook.OUTPUT)}
    last = held[V6, Hook.INPUT]
    assert (last.place, last.rank, last.policy) == (Place.LAST, 7, Policy.DROP)
    assert str(getattr(held[V6, Hook.FORWARD].when.in_interface, "name", "")) == "wg0"


def test_a_list_of_addresses_goes_to_the_set_of_each_family() -> None:
    ruleset = loaded('[[set]]\nname = "s"\nelements = ["10.0.0.0/8", "2001:db8::1", "10.9.0.1-10.9.0.9"]')
    four, six = ruleset.sets
    assert four == Set.of(V4, "s", ["10.0.0.0/8", "10.9.0.1-10.9.0.9"])
    assert six.elements == Set.of(V6, "s", ["2001:db8::1"]).elements
    assert (four.intervals, six.intervals) == (True, True)  # one declaration, one kind


def test_a_set_is_there_in_every_family_whose_rules_name_it() -> None:
    rest = '[[set]]\nname = "s"\nelements = ["10.0.0.1"]\n[[set]]\nname = "p"\ntype = "port"\nelements = [80, "90-99"]'
    both = chain_of('"-s @s -j DROP", { protocol = "udp", sport = "@p" }', rest)
    assert [(entry.family, entry.name, len(entry.elements)) for entry in both.sets] == [
        (V4, "p", 2),
        (V4, "s", 1),
        (V6, "p", 2),
        (V6, "s", 0),
    ]  # fmt: skip - the sets beside each other
    one = chain_of('"-s @s -j DROP"', f'families = "ipv4"\n{rest}')
    assert [(entry.family, entry.name) for entry in one.sets] == [(V4, "s")]


# --- mistakes in tables ---


A = '[[chain]]\nname = "a"\n'
B = '[[chain]]\nname = "b"\n'
WRONG: list[tuple[str, str, str]] = [
    (f'{A}rules = ["-s 10.0.0.0/33"]', "chain[1].rules[1], column 4", "prefix length 33 is more than 32"),
    (f'{A}rules = ["-j DROP", "-p tcp --dport 99999"]', "chain[1].rules[2], column 16", "expected a port"),
    (f'{A}rules = ["-A a -j DROP"]', "chain[1].rules[1], column 1", "expected the rule alone"),
    (f'{A}rules = ["-m comment --comment \\"a"]', "chain[1].rules[1], column 22", "never closed"),
    (f'{A}rules = [""]', "chain[1].rules[1]", "the rule is empty"),
    (f"{A}rules = [7]", "chain[1].rules[1]", "7 is a number; expected iptables text without -A"),
    (f'{A}rules = "-j DROP"', "chain[1].rules", "is a string; expected a list"),
    (f'{A}rules = [{{ source = "10.0.0.0/33" }}]', "chain[1].rules[1].source", "prefix length 33"),
    (f'{A}rules = [{{ sourc = "10.0.0.0/8" }}]', "chain[1].rules[1].sourc", "did you mean source?"),
    (f'{A}rules = [{{ protocol = "tcp", dport = [] }}]', "chain[1].rules[1].dport", "found an empty list"),
    (f'{A}rules = [{{ protocol = "tcp", dport = [80, 1979-05-27] }}]', "rules[1].dport[2]", "a date or time"),
    (f'{A}rules = [{{ protocol = "tcp", dport = {{ no = 1 }} }}]', "rules[1].dport", "expected a value, or { not ="),
    (f'{A}rules = [{{ protocol = "tcp", syn = "yes" }}]', "rules[1].syn", "expected true, or { not = true }"),
    (f'{A}rules = [{{ protocol = "tcp", tcp-flags = "SYN" }}]', "rules[1].tcp-flags", "is not 2 words"),
    (f"{A}rules = [{{ dport = 22 }}]", "rules[1].dport", 'protocol = "tcp"'),
    (f"{A}rules = [{{ mark = 1 }}]", "rules[1].mark", "expected mark = { mark = ... } or connmark = { mark = ... }"),
    (f"{A}rules = [{{ connmark = {{ mrk = 1 }} }}]", "rules[1].connmark.mrk", "did you mean mark?"),
    (f'{A}rules = [{{ connmark = {{ mark = "x" }} }}]', "rules[1].connmark.mark", "'x' is not a number"),
    (f'{A}rules = [{{ to-source = "10.0.0.1" }}]', "rules[1].to-source", 'expected target = "SNAT" beside it'),
    (f'{A}rules = [{{ target = "FROB", set-mss = 9 }}]', "rules[1].set-mss", "TCPMSS"),
    (f"{A}rules = [{{ target = 7 }}]", "rules[1].target", "7 is a number; expected a target's or chain's name"),
    (f'{A}rules = [{{ target = "DROP", goto = "a" }}]', "rules[1].goto", "a rule has one target"),
    (f'{A}rules = [{{ family = "ipv6" }}]\nfamilies = "ipv4"', "rules[1].family", "expected ipv4"),
    (f'{A}rules = ["-s 10.0.0.1 -d fd00::1"]', "chain[1].rules[1]", "fits no family of the chain"),
    (f'{A}rules = ["-p icmp"]\nfamilies = "ipv6"', "chain[1].rules[1]", "ipv6 carries no such protocol"),
    (f'{A}rules = ["-j ACCEPT", "-p tcp -j DNAT --to-destination :80"]', "chain[1].rules[2]", "in table nat only"),
    (f'{A}rules = ["-p icmp", "-j b"]', "chain[1].rules[2]", "jump to b: there is no such chain in ipv4 filter"),
    (f'{A}rules = ["-j ACCEPT", "-s @b"]', "chain[1].rules[2]", "there is no ipv4 set b"),
    (f'{A}rules = ["-j a"]', "f.toml", "chains jump in a loop: a -> a"),
    (f'{A}attach = {{ hook = "output" }}\nrules = ["-i lo"]', "chain[1].rules[1]", "has no input interface"),
    (f'{A}attach = {{ hook = "prerouting" }}', "chain[1].attach.hook", "it has input, forward, output"),
    (f'{A}attach = [{{ hook = "input" }}, {{ place = "last" }}]', "chain[1].attach[2]", "hook is missing"),
    (f'{A}attach = {{ hook = "inptu" }}', "chain[1].attach.hook", "did you mean input?"),
    (f'{A}attach = {{ hook = "input", rank = true }}', "chain[1].attach.rank", "expected a whole number"),
    (f'{A}attach = {{ hook = "input", when = "-j DROP" }}', "chain[1].attach", "can't have a target"),
    (f'{A}attach = {{ hook = "input", wen = "-i lo" }}', "chain[1].attach.wen", "did you mean when?"),
    (f'{A}attach = "input"', "chain[1].attach", "is a string; expected a table"),
    (f'{A}table = "natt"', "chain[1].table", "did you mean nat?"),
    (f'{A}familys = "ipv4"', "chain[1].familys", "did you mean families?"),
    ('[[chain]]\ntable = "nat"', "chain[1]", "name is missing"),
    ("[[chain]]\nname = 7", "chain[1].name", "7 is a number"),
    (f'[[chain]]\nname = "{"x" * 129}"', "chain[1].name", "has 129 characters; 1 to 128 are allowed"),
    ('[[chain]]\nname = "DROP"', "chain[1].name", "is a target of iptables"),
    ('[[chain]]\nname = "LOG"', "chain[1].name", "LOG is a target of iptables"),
    ('[[chain]]\nname = "NFQUEUE"', "chain[1].name", "NFQUEUE is a target of iptables"),
    (f"{A}{A}", "chain[2].name", "ipv4 filter a is declared in chain[1] already"),
    (
        f'{A}attach = {{ hook = "input", policy = "drop" }}\n{B}attach = {{ hook = "input", policy = "accept" }}',
        "f.toml",
        "different policies",
    ),
    ('[[set]]\nname = "s"\nelements = ["10.0.0.1", "10.0.0.0/x"]', "set[1].elements[2]", "neither a prefix length"),
    ('[[set]]\nname = "s"\nelements = ["host"]', "set[1].elements[1]", "is not an IPv4 or IPv6 address"),
    ('[[set]]\nname = "s"\nelements = [7]', "set[1].elements[1]", "7 is a number; expected an address"),
    ('[[set]]\nname = "s"\nelements = ["fd00::1"]\nfamilies = "ipv4"', "set[1].elements[1]", "is an ipv6 address"),
    ('[[set]]\nname = "s"\ntype = "port"\nelements = [80, 65536]', "set[1].elements[2]", "not a port"),
    ('[[set]]\nname = "s"\ntype = "prot"', "set[1].type", "did you mean port?"),
    (f'[[set]]\nname = "{"x" * 32}"\nelements = ["10.0.0.1"]', "set[1].name", "has 32 characters"),
    ('[[set]]\nname = "s"\nintervals = false\nelements = ["10.0.0.0/8"]', "set[1].intervals", "10.0.0.0/8 is a range"),
    ('[[set]]\nname = "s"\nelements = ["10.0.0.1"]\n' * 2, "set[2].name", "ipv4 set s is declared in set[1] already"),
]  # fmt: skip - a table reads better with one mistake on each line


@pytest.mark.parametrize(("text", "place", "reason"), WRONG, ids=[f"{place}: {why}" for _, place, why in WRONG])
def test_a_mistake_is_named_with_file_key_path_and_what_was_expected(text: str, place: str, reason: str) -> None:
    with pytest.raises((ConfigError, ParseError)) as caught:
        loaded(text)
    message = str(caught.value)
    assert message.startswith("f.toml")
    assert place in message.splitlines()[0]
    assert reason in message


def test_a_mistake_in_a_rule_s_text_is_shown_with_a_caret() -> None:
    with pytest.raises(ParseError) as caught:
        chain_of('"-p tcp --dport nosuch"')
    assert str(caught.value).splitlines()[1:] == ["  -p tcp --dport nosuch", "                 ^"]


def test_the_source_rules_takes_no_keys_and_needs_tables() -> None:
    with pytest.raises(ConfigError, match=r"source\[1\]\.file: unknown key"):
        RulesSource(Declaration(options={"file": "x"}, language=LANGUAGE, path="source[1]", tables={"chain": []}))
    with pytest.raises(ConfigError, match=r"no \[\[chain\]\] tables"):
        RulesSource(Declaration(options={}, language=LANGUAGE))


# --- dumps ---

DUMP4 = """\
# Generated by iptables-save
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:mine - [0:0]
:DOCKER - [0:0]
-A INPUT -p 6 --dport ssh -j ACCEPT
-A INPUT -j mine
-A mine -s 10.0.0.0/8 -j DROP
-A DOCKER -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
COMMIT
"""
DUMP6 = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    (tmp_path / "rules.v4").write_text(DUMP4, encoding="utf-8")
    (tmp_path / "rules.v6").write_text(DUMP6, encoding="utf-8")
    return tmp_path


def dump_source(folder: Path, **options: Any) -> DumpSource:
    language = Language.of(builtin_extensions(), hosts=host_tables())
    file = str(folder / "meshfw.toml")
    return DumpSource(Declaration(options=options, language=language, file=file, path="source[1]"))


def test_dumps_are_taken_as_they_are_beside_the_configuration(dumps: Path) -> None:
    source = dump_source(dumps, ipv4="rules.v4", ipv6="rules.v6")
    assert source.name == f"{dumps}/rules.v4, {dumps}/rules.v6"
    ruleset = source.load()
    assert texts(ruleset, V4, "INPUT") == ["-p tcp -m tcp --dport 22 -j ACCEPT", "-j mine"]
    held = {(item.family, item.hook): item.policy for item in ruleset.attachments}
    assert held == {
        (V4, Hook.INPUT): Policy.DROP,
        (V4, Hook.POSTROUTING): Policy.RETURN,
        (V6, Hook.FORWARD): Policy.DROP,
    }


def test_a_family_without_a_dump_gets_nothing(dumps: Path) -> None:
    assert dump_source(dumps, ipv6="rules.v6").load().families == {V6}


def test_place_and_rank_are_those_of_every_attachment(dumps: Path) -> None:
    ruleset = dump_source(dumps, ipv4="rules.v4", place="last", rank=9).load()
    assert {(item.place, item.rank) for item in ruleset.attachments} == {(Place.LAST, 9)}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {"INPUT", "mine", "DOCKER", "POSTROUTING"}),
        ({"exclude": "DOCKER*"}, {"INPUT", "mine", "POSTROUTING"}),
        ({"exclude": ["nat:*", "filter:DOCKER"]}, {"INPUT", "mine"}),
        ({"include": ["INPUT", "m?ne"]}, {"INPUT", "mine"}),
        ({"include": ["filter:*"], "exclude": ["INPUT"]}, {"mine", "DOCKER"}),
    ],
)
def test_chains_are_included_and_excluded_by_pattern(dumps: Path, options: dict[str, Any], kept: set[str]) -> None:
    ruleset = dump_source(dumps, ipv4="rules.v4", **options).load()
    assert {chain.name for chain in ruleset.chains} == kept


def test_a_jump_into_an_excluded_chain_goes_with_it(dumps: Path) -> None:
    whole = dump_source(dumps, ipv4="rules.v4").load()
    less = dump_source(dumps, ipv4="rules.v4", exclude=["mine"]).load()
    jumps = [rule for chain in whole.chains for rule in chain.rules if rule.target == Jump("mine")]
    kept = [rule for chain in whole.chains if chain.name != "mine" for rule in chain.rules]
    assert jumps
    assert [rule for chain in less.chains for rule in chain.rules] == [rule for rule in kept if rule not in jumps]


def test_an_include_that_meets_no_chain_is_an_error(dumps: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\[1\]\.include: 'nada' meets no chain of .*rules.v4"):
        dump_source(dumps, ipv4="rules.v4", include=["nada"]).load()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"source\[1\]\.ipv4: .*bad holds no table"),
        (b"# nothing\n", "holds no table"),
        (b"\xff\n", "byte 0 is not UTF-8"),
        (DUMP4.removesuffix("COMMIT\n").encode(), "the dump is cut off"),
        (b"*filter\n:INPUT ACCEPT\n-A INPUT -s 1.2.3.4/99\nCOMMIT\n", "bad, line 3, column 13: .*prefix length 99"),
        (b"*filter\n:a -\n-A a -p tcp -j DNAT --to-destination :1\nCOMMIT\n", "bad, line 3 .*in table nat only"),
    ],
)
def test_a_bad_dump_is_refused_whole(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(MeshfwError, match=reason):
        dump_source(tmp_path, ipv4="bad").load()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, r"source\[1\]: no dump is named"),
        ({"ipv4": 4}, r"source\[1\]\.ipv4: 4 is a number; expected the path of a dump"),
        ({"ipv4": "nope"}, r"source\[1\]\.ipv4: .*nope: No such file or directory; expected a dump"),
        ({"ipv4": "."}, "Is a directory"),
        ({"ipv4": "x", "ipv44": "y"}, r"did you mean ipv4\?"),
        ({"ipv4": "x", "include": [7]}, r"source\[1\]\.include\[1\]: 7 is a number"),
        ({"ipv4": "x", "place": "middle"}, "expected first or last"),
    ],
)
def test_a_wrong_dump_declaration_is_named_with_its_key(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        dump_source(tmp_path, **options).load()


# --- scripts ---

SCRIPT = """\
iptables -P INPUT DROP
iptables -N mine && iptables -A INPUT -j mine
iptables -A mine -s 10.0.0.1,10.0.0.2 -j ACCEPT
ip6tables -t nat -A POSTROUTING -o wan -j MASQUERADE
"""


def script_source(folder: Path, **options: Any) -> ScriptSource:
    return ScriptSource(
        Declaration(options=options, language=LANGUAGE, file=str(folder / "meshfw.toml"), path="source[1]")
    )


def test_a_script_is_taken_as_what_it_leaves(tmp_path: Path) -> None:
    (tmp_path / "fw.sh").write_text(SCRIPT, encoding="utf-8")
    source = script_source(tmp_path, file="fw.sh", rank=3)
    assert source.name == f"{tmp_path}/fw.sh"
    ruleset = source.load()
    assert texts(ruleset, V4, "mine") == ["-s 10.0.0.1/32 -j ACCEPT", "-s 10.0.0.2/32 -j ACCEPT"]
    held = {(item.family, item.hook): (item.policy, item.rank) for item in ruleset.attachments}
    assert held == {(V4, Hook.INPUT): (Policy.DROP, 3), (V6, Hook.POSTROUTING): (Policy.RETURN, 3)}
    less = script_source(tmp_path, file="fw.sh", include=["mine", "INPUT"]).load()
    assert {chain.name for chain in less.chains} == {"mine", "INPUT"}


def test_a_change_of_a_script_is_told(tmp_path: Path) -> None:
    (tmp_path / "fw.sh").write_text(SCRIPT, encoding="utf-8")
    source = script_source(tmp_path, file="fw.sh")
    changes = source.changes()
    assert changes is not None
    (tmp_path / "fw.sh").write_text("iptables -A INPUT -j DROP\n", encoding="utf-8")
    assert select.select([changes], [], [], 10)[0]
    source.close()


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        ("# nothing\n", {}, r"source\[1\]\.file: .*fw.sh holds no command"),
        ("iptables -A INPUT -s $X\n", {}, r"fw.sh, line 1, column 22: \$ is a variable"),
        ("true\niptables -D INPUT -j DROP\n", {}, r"fw.sh, line 2: .*has no rule"),
        ("iptables -A INPUT -j DROP\n", {"include": "x"}, r"include: 'x' meets no chain"),
        ("iptables -A INPUT -j DROP\n", {"file": "nope"}, r"source\[1\]\.file: .*nope: No such file"),
        ("iptables -A INPUT -j DROP\n", {"file": ""}, "file is missing or empty"),
        ("iptables -A INPUT -j DROP\n", {"ipv4": "x"}, "unknown key"),
        ("iptables -A INPUT -s peer.invalid\n", {}, "host names are not looked up: 'peer.invalid'"),
    ],
)
def test_a_bad_script_is_refused_whole(tmp_path: Path, content: str, options: dict[str, Any], reason: str) -> None:
    (tmp_path / "fw.sh").write_text(content, encoding="utf-8")
    with pytest.raises(MeshfwError, match=reason):
        script_source(tmp_path, **{"file": "fw.sh", **options}).load()


def test_a_source_may_look_up_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks").write_text("lan 10.4.0.0\n", encoding="utf-8")
    monkeypatch.setattr("meshfw.sources.hosts.NETWORKS", str(tmp_path / "networks"))
    (tmp_path / "fw.sh").write_text("iptables -A INPUT -s localhost,lan/16 -j DROP\n", encoding="utf-8")
    ruleset = script_source(tmp_path, file="fw.sh", resolve=True).load()
    assert texts(ruleset, V4, "INPUT") == ["-s 127.0.0.1/32 -j DROP", "-s 10.4.0.0/16 -j DROP"]


def test_a_name_without_an_address_is_told_from_one_that_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(code: int) -> None:
        def asked(*_: object) -> NoReturn:
            raise socket.gaierror(code, "told so")

        monkeypatch.setattr(socket, "getaddrinfo", asked)

    fails(socket.EAI_NONAME)
    assert resolve_host("gone.invalid", V4) == ()
    fails(socket.EAI_AGAIN)
    with pytest.raises(MeshfwError, match=r"gone.invalid can't be looked up: told so"):
        resolve_host("gone.invalid", V6)


def test_a_list_of_addresses_makes_rules_in_tables_too() -> None:
    text = ["-s 10.0.0.1/32 -j DROP", "-s 10.0.0.2/32 -j DROP"]
    assert texts(chain_of('"-s 10.0.0.1,10.0.0.2 -j DROP"'), V4) == text
    assert texts(chain_of('{ source = ["10.0.0.1", "10.0.0.2"], jump = "DROP" }'), V4) == text
    with pytest.raises(ConfigError, match=r"when: several addresses"):
        chain_of("", '[[chain.attach]]\nhook = "input"\nwhen = "-s 10.0.0.1,10.0.0.2"\n')


# --- merging ---


def test_dumps_that_change_are_told_of(dumps: Path) -> None:
    source = dump_source(dumps, ipv4="rules.v4", ipv6="rules.v6")
    changes = source.changes()
    assert changes is not None
    assert source.changes() is changes
    poller = select.poll()
    poller.register(changes.fileno(), select.POLLIN)
    source.load()
    assert not poller.poll(0), "reading them is no change"
    for name in ("rules.v4", "rules.v6"):
        (dumps / "aside").write_text((dumps / name).read_text())
        (dumps / "aside").rename(dumps / name)
        assert poller.poll(5000)
        changes.drain()
        assert not poller.poll(0)
    source.close()
    assert changes.fileno() == -1


def test_dumps_are_read_where_nothing_can_be_watched(dumps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(inotify, "Inotify", none_left)
    source = dump_source(dumps, ipv4="rules.v4")
    assert source.changes() is None
    assert source.load().chains


def test_one_chain_in_two_sources_is_an_error_that_names_both() -> None:
    one, two = chain_of('"-j DROP"'), chain_of('"-j ACCEPT"')
    with pytest.raises(ConfigError, match="chain ipv4 filter a is declared in one and in two"):
        merge([("one", one), ("two", two)])
    sets = loaded('[[set]]\nname = "s"\nelements = ["fd00::1"]')
    with pytest.raises(ConfigError, match="set ipv6 s is declared in one and in two"):
        merge([("one", sets), ("two", sets)])


def test_two_policies_for_one_place_are_an_error_that_names_both_sources() -> None:
    parts = [
        (policy, loaded(f'[[chain]]\nname = "{policy}"\nattach = {{ hook = "input", policy = "{policy}" }}'))
        for policy in ("drop", "accept")
    ]
    with pytest.raises(ConfigError, match="drop has policy drop for ipv4 filter input/first, accept has accept"):
        merge(parts)


def test_sources_are_merged_in_the_order_of_rank() -> None:
    low = loaded('[[chain]]\nname = "z"\nattach = { hook = "input", rank = 1 }')
    high = loaded('[[chain]]\nname = "a"\nattach = { hook = "input", rank = 2 }')
    merged = merge([("high", high), ("low", low)])
    assert [item.chain for item in merged.attachments if item.family is V4] == ["z", "a"]
    assert merge([("low", low)]) is low


# --- names of the host ---


def test_host_names_come_from_the_host_s_files_alone(tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text("ssh 22/tcp secure # shell\nssh 2222/tcp\nodd\nweb 80/tcp\nweb 81/udp\n", encoding="utf-8")
    protocols = tmp_path / "protocols"
    protocols.write_text("# comment\nhopopt 0 HOPOPT\nvines 83 VINES\n", encoding="utf-8")
    hosts = host_tables(services=str(services), protocols=str(protocols))
    assert hosts.services == {("ssh", "tcp"): 22, ("secure", "tcp"): 22, ("web", "tcp"): 80, ("web", "udp"): 81}
    assert hosts.protocols == {"hopopt": 0, "vines": 83}
    language = Language.of(builtin_extensions(), hosts=hosts)
    rule = parse_rule("-p udp --dport web", family=V4, language=language)
    assert rule == parse_rule("-p udp --dport 81", family=V4, language=language)
    assert parse_rule("-p vines", family=V4, language=language).protocol == 83


def test_a_host_without_the_files_has_no_names(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    hosts = host_tables(services=none, protocols=none, users=none, groups=none)
    assert (hosts.services, hosts.protocols, dict(hosts.users), dict(hosts.groups)) == ({}, {}, {}, {})


def test_users_and_groups_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    hosts = host_tables(users=str(passwd), groups=str(group))
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\nodd\nalice:x:1000:7::/:/bin/sh\nalice:x:5:5::/:\n+::::::\n")
    group.write_text("root:x:0:\nstaff:x:50:alice\n", encoding="utf-8")
    assert dict(hosts.users) == {"root": 0, "alice": 1000}
    language = Language.of(builtin_extensions(), hosts=hosts)
    rule = parse_rule("-m owner --uid-owner alice --gid-owner staff", family=V4, language=language)
    assert rule == parse_rule("-m owner --uid-owner 1000 --gid-owner 50", family=V4, language=language)


def test_table_names_default_to_filter() -> None:
    (first, _) = chain_of("").chains
    assert first.table is Table.FILTER
