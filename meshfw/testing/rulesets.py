"""What the laws are tried on: a catalogue of rules, fixed rulesets made of them, and edits of any ruleset.

Rules are written in the language of iptables and parsed by the language under test, so an extension that it lacks
narrows the catalogue, and :func:`left_out` says by what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from meshfw.errors import FamilyParseError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import parse_rule
from meshfw.model import (
    ACCEPT,
    DROP,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    ElementType,
    Family,
    Goto,
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
    set_references,
)

__all__ = [
    "CATALOGUE",
    "at_first",
    "attached",
    "commented",
    "compact",
    "compact_changed",
    "copied",
    "parsed",
    "sample",
    "small",
]

WORDS: Final[Mapping[Family, Mapping[str, str]]] = {
    Family.IPV4: {
        "host": "10.4.0.7",
        "net": "10.4.0.0/16",
        "other": "192.168.0.0/24",
        "range": "10.4.0.10-10.4.0.20",
        "end": "10.4.0.7:8080",
        "ping": "-p icmp -m icmp --icmp-type 8",
    },
    Family.IPV6: {
        "host": "fd00:4::7",
        "net": "fd00:4::/32",
        "other": "2001:db8::/64",
        "range": "fd00:4::10-fd00:4::20",
        "end": "[fd00:4::7]:8080",
        "ping": "-p ipv6-icmp -m icmp6 --icmpv6-type 128",
    },
}
"""What stands in the catalogue's braces, for each family."""

CATALOGUE: Final[tuple[str, ...]] = (
    "",
    "-j ACCEPT",
    "-j DROP",
    "-j RETURN",
    "-s {net} -j ACCEPT",
    "! -s {net} -d {host} -j DROP",
    "-s {host} ! -d {other} -j RETURN",
    "-d 10.0.7.0/255.0.255.0 -j DROP",
    "-i lo -j ACCEPT",
    "-i eth+ -o wg0 -j ACCEPT",
    "! -i wg0 -j RETURN",
    "-o wg0 -j DROP",
    "-f -j DROP",
    "-p 47 -j ACCEPT",
    "! -p udp -j RETURN",
    "{ping} -j ACCEPT",
    "-p tcp -m tcp --dport 22 -j ACCEPT",
    "-p tcp -m tcp --sport 1024:65535 ! --dport 80 -j ACCEPT",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
    "-p udp -m udp --dport 51820 -j ACCEPT",
    "-p udp -m multiport --dports 53,123,4000:4010 -j ACCEPT",
    "-p sctp -m sctp --dport 36412 -j ACCEPT",
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m conntrack --ctstate INVALID -j DROP",
    "-m state --state NEW -j ACCEPT",
    "-m mark --mark 0x1/0xff -j RETURN",
    "-m connmark --mark 0x2 -j ACCEPT",
    '-m limit --limit 5/sec --limit-burst 10 -j LOG --log-prefix "meshfw: "',
    "-m addrtype --dst-type LOCAL -j RETURN",
    "-m iprange --src-range {range} -j ACCEPT",
    '-m comment --comment "a comment" -j ACCEPT',
    "-j REJECT",
    "-p tcp -j REJECT --reject-with tcp-reset",
    "-j LOG --log-prefix dropped --log-level 6",
    "-j MARK --set-xmark 0x1/0xff",
    "-j CONNMARK --save-mark",
    "-p tcp -j DNAT --to-destination {end}",
    "-s {net} -j SNAT --to-source {host}",
    "-s {net} ! -d {net} -j MASQUERADE",
    "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",
)
"""Rules that most backends can hold, each of the extensions at least once."""


def parsed(text: str, *, family: Family, language: Language) -> Rule | None:
    """The rule of a catalogue text; None where the family has none like it, or the language doesn't know it."""
    try:
        rule = parse_rule(text.format(**WORDS[family]), family=family, language=language)
    except FamilyParseError:
        return None
    except ParseError:
        return None  # an extension's option without the extension
    opaque = isinstance(rule.target, OpaqueTarget) or any(isinstance(match, OpaqueMatch) for match in rule.matches)
    return None if opaque else rule


def may_stand(rule: Rule, table: Table, hooks: Collection[Hook]) -> bool:
    """Whether the model takes the rule in a chain of the table that packets reach from the hooks."""
    target = rule.target
    if target is not None and target.tables is not None and table not in target.tables:
        return False
    if target is not None and target.hooks is not None and not set(hooks) <= target.hooks:
        return False
    no_input = rule.in_interface is not None and set(hooks) & {Hook.OUTPUT, Hook.POSTROUTING}
    no_output = rule.out_interface is not None and set(hooks) & {Hook.PREROUTING, Hook.INPUT}
    return not no_input and not no_output


def rules_of(
    texts: Iterable[str], *, family: Family, table: Table, hooks: Collection[Hook], language: Language
) -> tuple[Rule, ...]:
    """The rules of catalogue texts that may stand there."""
    rules = (parsed(text, family=family, language=language) for text in texts)
    return tuple(rule for rule in rules if rule is not None and may_stand(rule, table, hooks))


# --- fixed rulesets ----------------------------------------------------------------------------------------

_SAMPLE: Final[tuple[tuple[Table, str, Hook | None, tuple[str, ...]], ...]] = (
    (
        Table.FILTER,
        "fw",
        Hook.INPUT,
        (
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-i lo -j ACCEPT",
            "-s @peers -j peers",
            '-p tcp -m tcp --dport 22 -m comment --comment "shell, for operators only" -j ACCEPT',
            "-p tcp -m tcp --dport @web -j ACCEPT",
            "-p udp -m udp --dport 51820 -j ACCEPT",
            "{ping} -j ACCEPT",
            "! -s {net} -d {host} -j LOG --log-prefix stranger",
            "-p udp -g rest",
            "-j RETURN",
        ),
    ),
    (Table.FILTER, "mesh", Hook.FORWARD, ("-i wg0 -o eth+ -j ACCEPT", "-o wg0 -s {net} -j ACCEPT", "-j rest")),
    (
        Table.FILTER,
        "peers",
        None,
        ("-s {host} -j RETURN", "-p tcp -m tcp --dport 80 -j ACCEPT", "-s {host} -j RETURN", "-s {net} -j ACCEPT"),
    ),
    (Table.FILTER, "rest", None, ("-m mark --mark 0x1/0xff -j ACCEPT", "-j REJECT")),
    (Table.NAT, "out", Hook.POSTROUTING, ("-s {net} ! -d {net} -j MASQUERADE",)),
    (Table.NAT, "in", Hook.PREROUTING, ("-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",)),
    (Table.MANGLE, "mark", Hook.PREROUTING, ("-p udp -j MARK --set-xmark 0x1/0xff", "", "")),
    (Table.RAW, "empty", None, ()),
)
_POLICIES: Final = {Hook.INPUT: Policy.DROP, Hook.FORWARD: Policy.ACCEPT}


def sample(language: Language, families: Collection[Family] = tuple(Family)) -> Ruleset:
    """A ruleset of every kind of object: chains of four tables, jumps, a goto, sets, ranks, places and policies."""
    chains: list[Chain] = []
    attachments: list[Attachment] = []
    sets: list[Set] = []
    for family in families:
        net, host = WORDS[family]["net"], WORDS[family]["host"]
        other = WORDS[family]["other"]
        sets.append(Set.of(family, "peers", (net, other, host)))
        sets.append(Set.of(family, "web", ("80", "443"), type=ElementType.PORT))
        sets.append(Set(family=family, name="nobody"))
        for table, name, hook, texts in _SAMPLE:
            hooks = [hook] if hook else []
            rules = rules_of(texts, family=family, table=table, hooks=hooks, language=language)
            chains.append(Chain(family=family, table=table, name=name, rules=rules))
            if hook:
                policy = _POLICIES.get(hook, Policy.RETURN) if table is Table.FILTER else Policy.RETURN
                attachments.append(Attachment(family=family, table=table, hook=hook, chain=name, policy=policy))
        when = Rule(protocol=6)
        last = Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="rest", rank=7, when=when)
        mesh = Attachment(family=family, table=Table.FILTER, hook=Hook.OUTPUT, chain="peers", place=Place.LAST)
        attachments += [last, mesh]
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


def small(families: Collection[Family] = tuple(Family), *, policy: Policy = Policy.RETURN) -> Ruleset:
    """A ruleset that every backend can hold: two chains, one jump, one attachment, for each family."""
    chains: list[Chain] = []
    for family in families:
        rules = (commented("one", target=Jump("second")), commented("two"), commented("three"))
        chains.append(Chain(family=family, table=Table.FILTER, name="first", rules=rules))
        chains.append(Chain(family=family, table=Table.FILTER, name="second", rules=(commented("four"),)))
    return attached(chains, policy=policy)


def attached(chains: Iterable[Chain], *, hook: Hook = Hook.INPUT, policy: Policy = Policy.RETURN) -> Ruleset:
    """The chains, those named ``first`` attached to a hook of their table."""
    chains = tuple(chains)
    attachments = tuple(
        Attachment(family=chain.family, table=chain.table, hook=hook, chain=chain.name, policy=policy)
        for chain in chains
        if chain.name == "first"
    )
    return Ruleset(chains=chains, attachments=attachments)


def commented(text: str, **fields: Any) -> Rule:
    """A rule with a comment to know it by."""
    return msgspec.structs.replace(Rule(matches=(Comment(text),)), **fields)


def copied(ruleset: Ruleset) -> Ruleset:
    """An equal ruleset of other objects, as a source that reads its file again would make it."""
    replace = msgspec.structs.replace
    return Ruleset(
        chains=tuple(replace(chain, rules=tuple(map(replace, chain.rules))) for chain in ruleset.chains),
        sets=tuple(map(replace, ruleset.sets)),
        attachments=tuple(replace(item, when=replace(item.when)) for item in ruleset.attachments),
    )


def at_first(ruleset: Ruleset) -> Ruleset:
    """The ruleset with every attachment before what others have on its hook, where none can overrule it."""
    first = [item for item in ruleset.attachments if item.place is Place.FIRST]
    return msgspec.structs.replace(ruleset, attachments=tuple(first))


def of_families(ruleset: Ruleset, families: Collection[Family]) -> Ruleset:
    """The part of a ruleset that is of these families."""
    return Ruleset(
        chains=tuple(chain for chain in ruleset.chains if chain.family in families),
        sets=tuple(entry for entry in ruleset.sets if entry.family in families),
        attachments=tuple(item for item in ruleset.attachments if item.family in families),
    )


def without_chain(ruleset: Ruleset, key: ChainKey) -> Ruleset:
    """The ruleset without a chain, and without the rules and attachments that led there."""

    def leads_there(chain: Chain, rule: Rule) -> bool:
        target = rule.target
        return isinstance(target, Jump | Goto) and ChainKey(chain.family, chain.table, target.chain) == key

    chains = [
        msgspec.structs.replace(chain, rules=tuple(rule for rule in chain.rules if not leads_there(chain, rule)))
        for chain in ruleset.chains
        if chain.key != key
    ]
    attachments = [item for item in ruleset.attachments if ChainKey(item.family, item.table, item.chain) != key]
    return Ruleset(chains=tuple(chains), sets=ruleset.sets, attachments=tuple(attachments))


def without_set(ruleset: Ruleset, entry: Set) -> Ruleset:
    """The ruleset without a set, and without the rules that named it."""

    def names_it(rule: Rule) -> bool:
        return any(reference.name == entry.name for reference, _ in set_references(rule))

    chains = [
        chain
        if chain.family is not entry.family
        else msgspec.structs.replace(chain, rules=tuple(rule for rule in chain.rules if not names_it(rule)))
        for chain in ruleset.chains
    ]
    return Ruleset(
        chains=tuple(chains),
        sets=tuple(held for held in ruleset.sets if held is not entry),
        attachments=tuple(item for item in ruleset.attachments if not names_it(item.when)),
    )


def compact(families: Collection[Family]) -> Ruleset:
    """One object of each kind in few lines, for laws that try every line of a transaction."""
    chains: list[Chain] = []
    sets: list[Set] = []
    attachments: list[Attachment] = []
    for family in families:
        sets.append(Set.of(family, "hosts", (WORDS[family]["host"], WORDS[family]["net"])))
        rules = (Rule(source=SetRef("hosts"), target=ACCEPT), Rule(target=Jump("second")), commented("three"))
        chains.append(Chain(family=family, table=Table.FILTER, name="first", rules=rules))
        chains.append(Chain(family=family, table=Table.FILTER, name="second", rules=(commented("four"),)))
        held = Attachment(family=family, table=Table.FILTER, hook=Hook.FORWARD, chain="first", policy=Policy.DROP)
        attachments.append(held)
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


def compact_changed(families: Collection[Family]) -> Ruleset:
    """What :func:`compact` becomes: rules gone, come, moved and edited, another policy, element and chain."""
    chains: list[Chain] = []
    sets: list[Set] = []
    attachments: list[Attachment] = []
    for family in families:
        sets.append(Set.of(family, "hosts", (WORDS[family]["host"], WORDS[family]["other"])))
        rules = (commented("three"), Rule(source=SetRef("hosts"), target=DROP), Rule(target=Goto("third")))
        chains.append(Chain(family=family, table=Table.FILTER, name="first", rules=rules))
        chains.append(Chain(family=family, table=Table.FILTER, name="third", rules=(commented("five"),)))
        held = Attachment(family=family, table=Table.FILTER, hook=Hook.FORWARD, chain="first")
        attachments.append(held)
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))
