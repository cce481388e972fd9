"""Laws of the model: what it refuses and where it says so, and when two rules are the same rule."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.languages.iptables import parse_rule
from meshfw.model import (
    ACCEPT,
    COMMENT_BYTES,
    HOOKS,
    NAME_MAX,
    SET_NAME_MAX,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    ElementType,
    Family,
    Goto,
    Hook,
    Interface,
    Jump,
    Network,
    Not,
    OpaqueMatch,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
    format_address,
    merge_ranges,
    parse_address,
    stored_comment,
)
from meshfw.testing.strategies import COMMENTS, networks, rulesets, sets

IPV4, IPV6 = Family.IPV4, Family.IPV6
LANGUAGE = Language.of(builtin_extensions())


def parsed(text: str, family: Family = IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def chain(name: str, *rules: Rule, family: Family = IPV4, table: Table = Table.FILTER) -> Chain:
    return Chain(family=family, table=table, name=name, rules=rules)


def attachment(name: str = "a", hook: Hook = Hook.INPUT, **fields: Any) -> Attachment:
    return Attachment(**{"family": IPV4, "table": Table.FILTER, "hook": hook, "chain": name, **fields})


def jump(name: str) -> Rule:
    return Rule(target=Jump(name))


# --- what is refused, and where ----------------------------------------------------------------------------

NET = Network.parse("10.0.0.0/8")
REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "an empty name": (lambda: chain(""), "chain name '' has 0 characters", ""),
    "a long name": (lambda: chain("x" * (NAME_MAX + 1)), f"1 to {NAME_MAX} are allowed", ""),
    "a name with a space": (lambda: chain("a b"), "holds a space", ""),
    "a name beyond ASCII": (lambda: chain("grün"), "outside printable ASCII", ""),
    "a name like an option": (lambda: chain("-A"), "can't begin with -", ""),
    "a name like a negation": (lambda: chain("!a"), "can't begin with - !", ""),
    "a name with a brace": (lambda: chain("a{b"), "braces", ""),
    "a verdict's name": (lambda: chain("DROP"), "is a target of iptables", ""),
    "a long set name": (lambda: Set(family=IPV4, name="x" * (SET_NAME_MAX + 1)), f"1 to {SET_NAME_MAX} are", ""),
    "an IPv6 address in IPv4": (
        lambda: chain("a", Rule(), Rule(source=Network.parse("fd00::/8"))),
        "source fd00::/8 is an ipv6 address in an ipv4 chain",
        "ipv4 filter a, rule 2",
    ),
    "a negated address of the other family": (
        lambda: chain("a", Rule(destination=Not(NET)), family=IPV6),
        "destination 10.0.0.0/8 is an ipv4 address in an ipv6 chain",
        "ipv6 filter a, rule 1",
    ),
    "an IPv6 fragment": (
        lambda: chain("a", Rule(fragment=True), family=IPV6),
        "-f matches IPv4 fragments only",
        "ipv6 filter a, rule 1",
    ),
    "NAT outside nat": (
        lambda: chain("a", parsed("-j MASQUERADE")),
        "MASQUERADE is allowed in table nat only, not in filter",
        "ipv4 filter a, rule 1",
    ),
    "REJECT outside filter": (
        lambda: chain("a", Rule(), parsed("-j REJECT"), table=Table.NAT),
        "REJECT is allowed in table filter only, not in nat",
        "ipv4 nat a, rule 2",
    ),
    "a port without its protocol": (
        lambda: chain("a", msgspec.structs.replace(parsed("-p tcp -m tcp --dport 22"), protocol=17)),
        "match tcp needs the rule to state its protocol (6)",
        "ipv4 filter a, rule 1",
    ),
    "a match of the other family": (
        lambda: chain("a", msgspec.structs.replace(parsed("-p icmp -m icmp --icmp-type 8"), protocol=58), family=IPV6),
        "does not exist for ipv6",
        "ipv6 filter a, rule 1",
    ),
    "NAT on the wrong hook": (
        lambda: Ruleset(
            chains=(
                chain("a", jump("b"), table=Table.NAT),
                chain("b", Rule(), parsed("-s 10.0.0.0/8 -j MASQUERADE"), table=Table.NAT),
            ),
            attachments=(attachment(table=Table.NAT, hook=Hook.PREROUTING),),
        ),
        "MASQUERADE is allowed on postrouting only, and packets come here from prerouting",
        "ipv4 nat b, rule 2",
    ),
    "a hook that the table hasn't": (
        lambda: attachment(hook=Hook.PREROUTING),
        "table filter has no hook prerouting; it has input, forward, output",
        "attachment of a to ipv4 filter prerouting",
    ),
    "conditions with a target": (
        lambda: attachment(when=Rule(target=ACCEPT)),
        "its conditions can't have a target",
        "attachment of a to ipv4 filter input",
    ),
    "conditions of the other family": (
        lambda: attachment(when=Rule(source=Network.parse("fd00::/8"))),
        "is an ipv6 address",
        "attachment of a to ipv4 filter input",
    ),
    "conditions with a policy": (
        lambda: attachment(when=Rule(protocol=6), policy=Policy.DROP),
        "it can't state a policy",
        "attachment of a to ipv4 filter input",
    ),
    "two policies of one hook": (
        lambda: Ruleset(
            chains=(chain("a"), chain("b")),
            attachments=(attachment("a", policy=Policy.DROP), attachment("b", policy=Policy.ACCEPT)),
        ),
        "attachments state different policies",
        "ipv4 filter input/first",
    ),
    "an attached chain that isn't there": (
        lambda: Ruleset(attachments=(attachment("b"),)),
        "there is no chain b in ipv4 filter",
        "attachment to ipv4 filter input/first",
    ),
    "a jump to nowhere": (
        lambda: Ruleset(chains=(chain("a", Rule(), jump("b")),)),
        "jump to b: there is no such chain in ipv4 filter",
        "ipv4 filter a, rule 2",
    ),
    "a jump to another table": (
        lambda: Ruleset(chains=(chain("a", jump("b")), chain("b", table=Table.NAT))),
        "there is no such chain in ipv4 filter",
        "ipv4 filter a, rule 1",
    ),
    "a goto to the other family": (
        lambda: Ruleset(chains=(chain("a", Rule(target=Goto("b"))), chain("b", family=IPV6))),
        "goto b: there is no such chain",
        "ipv4 filter a, rule 1",
    ),
    "a chain that jumps to itself": (
        lambda: Ruleset(chains=(chain("a", jump("a")),)),
        "chains jump in a loop: a -> a",
        "ipv4 filter",
    ),
    "a loop behind other chains": (
        lambda: Ruleset(
            chains=(
                chain("a", jump("b")),
                chain("b", jump("d"), Rule(target=Goto("c"))),
                chain("c", jump("b")),
                chain("d"),
            )
        ),
        "chains jump in a loop: b -> c -> b",
        "ipv4 filter",
    ),
    "a chain declared twice": (
        lambda: Ruleset(chains=(chain("a"), chain("a", Rule()))),
        "chain ipv4 filter a is declared twice",
        "",
    ),
    "a set declared twice": (
        lambda: Ruleset(sets=(Set(family=IPV4, name="s"), Set(family=IPV4, name="s"))),
        "set ipv4 s is declared twice",
        "",
    ),
    "a set that isn't there": (
        lambda: Ruleset(chains=(chain("a", Rule(), Rule(source=Not(SetRef("s")))),)),
        "there is no ipv4 set s",
        "ipv4 filter a, rule 2",
    ),
    "a set of the other family": (
        lambda: Ruleset(chains=(chain("a", Rule(source=SetRef("s"))),), sets=(Set(family=IPV6, name="s"),)),
        "there is no ipv4 set s",
        "ipv4 filter a, rule 1",
    ),
    "addresses out of a set of ports": (
        lambda: Ruleset(
            chains=(chain("a", Rule(source=SetRef("s"))),), sets=(Set(family=IPV4, name="s", type=ElementType.PORT),)
        ),
        "set s holds port elements, not address",
        "ipv4 filter a, rule 1",
    ),
    "ports out of a set of addresses": (
        lambda: Ruleset(chains=(chain("a", parsed("-p tcp -m tcp --dport @s")),), sets=(Set(family=IPV4, name="s"),)),
        "set s holds address elements, not port",
        "ipv4 filter a, rule 1",
    ),
    "a condition on a set that isn't there": (
        lambda: Ruleset(chains=(chain("a"),), attachments=(attachment(when=Rule(source=SetRef("s"))),)),
        "there is no ipv4 set s",
        "attachment of a",
    ),
    "an input interface on output": (
        lambda: Ruleset(
            chains=(chain("a", Rule(), Rule(in_interface=Interface("lo"))),),
            attachments=(attachment(hook=Hook.OUTPUT),),
        ),
        "a packet on output has no input interface",
        "ipv4 filter a, rule 2",
    ),
    "an output interface on input": (
        lambda: Ruleset(chains=(chain("a", Rule(out_interface=Interface("lo"))),), attachments=(attachment(),)),
        "a packet on input has no output interface",
        "ipv4 filter a, rule 1",
    ),
    "elements out of order": (
        lambda: Set(family=IPV4, name="s", elements=((2, 2), (1, 1))),
        "elements must be sorted",
        "set s",
    ),
    "elements that overlap": (
        lambda: Set(family=IPV4, name="s", intervals=True, elements=((1, 5), (5, 9))),
        "without overlap",
        "set s",
    ),
    "an element beyond the family": (
        lambda: Set(family=IPV4, name="s", elements=((1 << 32, 1 << 32),)),
        "of the set's family",
        "set s",
    ),
    "a range where none may be": (
        lambda: Set(family=IPV4, name="s", elements=((0x0A000000, 0x0A0000FF),)),
        "10.0.0.0/24 is a range and the set holds no intervals",
        "set s",
    ),
    "a range that ends before it begins": (
        lambda: Set.of(IPV4, "s", ["10.0.0.9-10.0.0.1"]),
        "'10.0.0.9-10.0.0.1': the range ends before it begins",
        "set s",
    ),
    "a port beyond 65535": (
        lambda: Set.of(IPV4, "s", ["65536"], type=ElementType.PORT),
        "'65536' is not a port",
        "set s",
    ),
    "a mask with gaps in a set": (
        lambda: Set.of(IPV4, "s", ["10.0.0.0/255.0.255.0"]),
        "a set can't hold a mask with gaps",
        "set s",
    ),
    "a long interface": (lambda: Interface("x" * 16), "must have 1 to 15 bytes", ""),
    "an interface with a slash": (lambda: Interface("a/b"), "holds a character that no interface can have", ""),
    "host bits": (lambda: Network(IPV4, 0x0A000001, 0xFF000000), "host bits outside the mask", ""),
    "a long comment": (lambda: Comment("x" * 256), "at most 255 bytes", ""),
    "a comment of two lines": (lambda: Comment("a\nb"), "line end", ""),
    "a long prefix": (lambda: Network.parse("10.0.0.0/33"), "prefix length 33 is more than 32", ""),
    "a mask of the other family": (lambda: Network.parse("10.0.0.0/ffff::"), "the mask is of the other family", ""),
    "a word as a mask": (lambda: Network.parse("10.0.0.0/eight"), "neither a prefix length nor a mask", ""),
    "a host name": (lambda: parse_address("localhost"), "is not an IPv4 or IPv6 address", ""),
    "octal octets": (lambda: parse_address("010.0.0.1"), "is not an IPv4 or IPv6 address", ""),
    "an address with a scope": (lambda: parse_address("fe80::1%eth0"), "has a scope", ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_says_why_and_where(what: str) -> None:
    make, reason, where = REFUSED[what]
    with pytest.raises(ModelError) as refused:
        make()
    assert reason in refused.value.reason
    assert refused.value.where == where
    assert str(refused.value) == (f"{where}: {refused.value.reason}" if where else refused.value.reason)


def test_a_rule_of_the_other_family_is_a_family_error() -> None:
    with pytest.raises(FamilyError):
        chain("a", Rule(source=NET), family=IPV6)
    with pytest.raises(FamilyError):
        Set.of(IPV6, "s", ["10.0.0.1"])


def test_what_is_refused_in_one_place_is_taken_in_another() -> None:
    nat = chain("a", parsed("-j MASQUERADE"), table=Table.NAT)
    held = Ruleset(chains=(nat,), attachments=(attachment(table=Table.NAT, hook=Hook.POSTROUTING),))
    assert held.chains == (nat,)
    assert Ruleset(chains=(chain("a", jump("c")), chain("b", jump("c")), chain("c"))), (
        "two ways to one chain are no loop"
    )


@pytest.mark.parametrize("table", Table)
def test_a_table_takes_attachments_on_its_hooks_alone(table: Table) -> None:
    for hook in Hook:
        if hook in HOOKS[table]:
            assert attachment(table=table, hook=hook).dispatcher.hook is hook
        else:
            with pytest.raises(ModelError):
                attachment(table=table, hook=hook)


# --- the ruleset as a whole --------------------------------------------------------------------------------


@given(rulesets(LANGUAGE), st.randoms(use_true_random=False))
def test_the_order_of_declaration_says_nothing(ruleset: Ruleset, random: Any) -> None:
    parts: list[list[Any]] = [list(ruleset.chains), list(ruleset.sets), list(ruleset.attachments)]
    for part in parts:
        random.shuffle(part)
    shuffled = Ruleset(chains=tuple(parts[0]), sets=tuple(parts[1]), attachments=tuple(parts[2]))
    assert shuffled.chains == ruleset.chains
    assert shuffled.sets == ruleset.sets
    assert [item.dispatcher for item in shuffled.attachments] == [item.dispatcher for item in ruleset.attachments]


@given(rulesets(LANGUAGE))
def test_every_attachment_is_one_rule_of_its_dispatcher(ruleset: Ruleset) -> None:
    dispatchers = {held.key: held for held in ruleset.dispatchers()}
    assert sum(len(held.rules) for held in dispatchers.values()) == len(ruleset.attachments)
    for item in ruleset.attachments:
        assert item.rule in dispatchers[item.dispatcher].rules
        assert item.policy in (Policy.RETURN, dispatchers[item.dispatcher].policy)
    assert bool(ruleset) == bool(ruleset.chains or ruleset.sets)
    families = {chain.family for chain in ruleset.chains} | {entry.family for entry in ruleset.sets}
    assert ruleset.families == families


def test_ranks_order_attachments_and_names_break_ties() -> None:
    ruleset = Ruleset(
        chains=(chain("a"), chain("b"), chain("c")),
        attachments=(attachment("b", rank=1), attachment("c", rank=-1), attachment("a", rank=1, policy=Policy.DROP)),
    )
    (held,) = ruleset.dispatchers()
    assert [rule.target for rule in held.rules] == [Jump("c"), Jump("a"), Jump("b")]
    assert held.policy is Policy.DROP


def test_places_of_one_hook_are_dispatchers_of_their_own() -> None:
    ruleset = Ruleset(
        chains=(chain("a"),),
        attachments=(attachment(policy=Policy.ACCEPT), attachment(place=Place.LAST, policy=Policy.DROP)),
    )
    assert [(held.key.place, held.policy) for held in ruleset.dispatchers()] == [
        (Place.FIRST, Policy.ACCEPT),
        (Place.LAST, Policy.DROP),
    ]


def test_a_chain_is_found_by_its_key() -> None:
    held = chain("a", family=IPV6)
    ruleset = Ruleset(chains=(held,))
    assert ruleset.chain(held.key) is held
    assert ruleset.chain(ChainKey(IPV4, Table.FILTER, "a")) is None


@pytest.mark.parametrize("value", [Rule(), chain("a"), Ruleset(), attachment(), Set(family=IPV4, name="s"), NET])
def test_values_are_frozen(value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)


# --- when two rules are the same ---------------------------------------------------------------------------

SAME = [
    ("-p 6 -j ACCEPT", "-p tcp -j ACCEPT"),
    ("-s 10.4.0.7 -j ACCEPT", "-s 10.4.0.7/32 -j ACCEPT"),
    ("-s 10.4.0.7/8 -j ACCEPT", "-s 10.0.0.0/255.0.0.0 -j ACCEPT"),
    ("-s 0.0.0.0/0 -j ACCEPT", "-j ACCEPT"),
    ("-m state --state NEW -j ACCEPT", "-m conntrack --ctstate NEW -j ACCEPT"),
    ("-m conntrack --ctstate NEW,RELATED -j ACCEPT", "-m conntrack --ctstate RELATED,NEW -j ACCEPT"),
    ("-m limit --limit 5/minute -j ACCEPT", "-m limit --limit 5/min -j ACCEPT"),
    ("-m mark --mark 1 -m conntrack --ctstate NEW -j DROP", "-m conntrack --ctstate NEW -m mark --mark 0x1 -j DROP"),
    ("-p tcp -m tcp -j ACCEPT", "-p tcp -j ACCEPT"),
    ("-p tcp -m tcp --syn -j ACCEPT", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"),
    ("-p tcp -m multiport --dports 80 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT"),
    ("-m comment --comment x -s 10.0.0.0/8 -j DROP", "-s 10.0.0.0/8 -m comment --comment x -j DROP"),
]
OTHER = [
    ("-j ACCEPT", "-j DROP"),
    ("-j ACCEPT", ""),
    ("-j a", "-g a"),
    ("-j a", "-j b"),
    ("-s 10.0.0.0/8 -j ACCEPT", "! -s 10.0.0.0/8 -j ACCEPT"),
    ("-s 10.0.0.0/8 -j ACCEPT", "-d 10.0.0.0/8 -j ACCEPT"),
    ("-i lo -j ACCEPT", "-o lo -j ACCEPT"),
    ("-p tcp -j ACCEPT", "! -p tcp -j ACCEPT"),
    ("-f -j DROP", "! -f -j DROP"),
    ("-f -j DROP", "-j DROP"),
    ("-m comment --comment a -j ACCEPT", "-m comment --comment b -j ACCEPT"),
    ("-m comment --comment a -j ACCEPT", "-j ACCEPT"),
    ("-p tcp -m tcp --dport 22 -j ACCEPT", "-p tcp -m tcp --sport 22 -j ACCEPT"),
    ("-p tcp -m tcp --dport 22 -j ACCEPT", "-p udp -m udp --dport 22 -j ACCEPT"),
    (
        "-m limit --limit 5/sec -m conntrack --ctstate NEW -j ACCEPT",
        "-m conntrack --ctstate NEW -m limit --limit 5/sec -j ACCEPT",
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_rules_of_one_meaning_are_equal(one: str, other: str) -> None:
    first, second = parsed(one), parsed(other)
    assert first == second
    assert (first != second) is False
    assert hash(first) == hash(second)
    assert first.key() == second.key()


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_rules_of_other_meanings_differ(one: str, other: str) -> None:
    assert parsed(one) != parsed(other)
    assert parsed(one).key() != parsed(other).key()


def test_a_rule_equals_nothing_but_a_rule() -> None:
    assert Rule() != "rule"
    assert Rule() != Rule().key()


@given(st.lists(st.sampled_from([*SAME, *OTHER]), min_size=2, max_size=2))
def test_equality_is_equality_of_keys(pairs: list[tuple[str, str]]) -> None:
    rules = [parsed(text) for pair in pairs for text in pair]
    for one in rules:
        for other in rules:
            assert (one == other) == (one.key() == other.key())
            assert one != other or hash(one) == hash(other)


def test_opaque_matches_keep_their_place() -> None:
    one, other = OpaqueMatch("statistic", ("--mode", "nth")), OpaqueMatch("recent", ("--set",))
    assert Rule(matches=(one, other)) != Rule(matches=(other, one))
    assert Rule(matches=(one, other)) == Rule(matches=(one, other))


# --- addresses, sets, comments -----------------------------------------------------------------------------


@given(st.integers(0, (1 << 128) - 1) | st.integers(0, 1 << 48) | st.integers(0, (1 << 32) - 1))
def test_an_address_is_written_as_the_c_library_writes_it(value: int) -> None:
    text = format_address(value, IPV6)
    assert text == socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
    assert parse_address(text) == (IPV6, value)
    if value < 1 << 32:
        assert format_address(value, IPV4) == str(ipaddress.IPv4Address(value))
        assert parse_address(format_address(value, IPV4)) == (IPV4, value)


@given(st.sampled_from(Family).flatmap(networks))
def test_a_network_is_read_back_from_its_text(network: Network) -> None:
    assert Network.parse(str(network)) == network
    assert network.last - network.address == (1 << network.family.bits) - 1 - network.mask


def test_a_mask_with_gaps_has_no_prefix() -> None:
    network = Network.parse("10.0.7.0/255.0.255.0")
    assert network.prefix is None
    assert str(network) == "10.0.7.0/255.0.255.0"
    assert network.atom() != Network.parse("10.0.7.0/24").atom()


@given(st.sampled_from(Family).flatmap(lambda family: sets(family, "s", ElementType.ADDRESS)))
def test_a_set_is_read_back_from_its_elements(held: Set) -> None:
    texts = [held.text(low, high) for low, high in held.elements]
    assert Set.of(held.family, "s", reversed(texts), intervals=held.intervals) == held


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))))
def test_merged_ranges_hold_the_same_numbers_without_overlap(ranges: list[tuple[int, int]]) -> None:
    merged = merge_ranges(ranges)
    numbers = {number for low, high in ranges for number in range(low, high + 1)}
    assert {number for low, high in merged for number in range(low, high + 1)} == numbers
    assert all(one[1] < other[0] for one, other in pairwise(merged))


@given(COMMENTS)
def test_a_stored_comment_fits_everywhere_and_is_its_own(text: str) -> None:
    stored = stored_comment(text)
    assert len(stored.encode()) <= COMMENT_BYTES
    assert '"' not in stored
    assert "\\" not in stored
    assert stored.isprintable()
    assert stored_comment(stored) == stored
    assert Rule(matches=(Comment(text),)) == Rule(matches=(Comment(stored),))


@given(st.text("ab\"'\\é ", min_size=100, max_size=120), st.text("ab", min_size=1, max_size=1))
def test_comments_that_are_cut_differ_still(text: str, end: str) -> None:
    one, other = f"{text}{'x' * 60}{end}", f"{text}{'x' * 60}{'b' if end == 'a' else 'a'}"
    assert stored_comment(one) != stored_comment(other)


# --- what a kernel would refuse ----------------------------------------------------------------------------


def _reached_from(text: str, hook: Hook, *, table: Table = Table.FILTER) -> Ruleset:
    parsed = parse_rule(text, family=Family.IPV4, language=Language.of(builtin_extensions()))
    chain = Chain(family=Family.IPV4, table=table, name="a", rules=(parsed,))
    return Ruleset(chains=(chain,), attachments=(Attachment(family=Family.IPV4, table=table, hook=hook, chain="a"),))


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("-m mac --mac-source 00:11:22:33:44:55 -j DROP", Hook.OUTPUT),
        ("-m addrtype --dst-type LOCAL --limit-iface-in -j DROP", Hook.OUTPUT),
        ("-m addrtype --dst-type LOCAL --limit-iface-out -j DROP", Hook.INPUT),
    ],
)
def test_a_match_stands_only_where_a_kernel_takes_it(text: str, hook: Hook) -> None:
    with pytest.raises(ModelError, match=r"ipv4 filter a, rule 1: match \w+ is allowed on"):
        _reached_from(text, hook)
    assert _reached_from(text, Hook.FORWARD)


def test_nat_drops_nothing() -> None:
    with pytest.raises(ModelError, match="DROP is allowed in table"):
        _reached_from("-j DROP", Hook.PREROUTING, table=Table.NAT)
    with pytest.raises(ModelError, match="table nat can't drop"):
        Attachment(family=Family.IPV4, table=Table.NAT, hook=Hook.PREROUTING, chain="a", policy=Policy.DROP)


@pytest.mark.parametrize("protocol", [0, -1, 256])
def test_a_protocol_is_a_number_of_the_header(protocol: int) -> None:
    with pytest.raises(ModelError, match="1 to 255"):
        Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=(Rule(protocol=protocol),))


def test_an_attachment_stands_once() -> None:
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a")
    attachment = Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.INPUT, chain="a")
    with pytest.raises(ModelError, match="declared twice"):
        Ruleset(chains=(chain,), attachments=(attachment, attachment))


@pytest.mark.parametrize("text", ["\ud800"])
def test_what_is_no_text_is_refused(text: str) -> None:
    for make in (Comment, Interface):
        with pytest.raises(ModelError, match="not Unicode"):
            make(text)
