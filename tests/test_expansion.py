"""Laws of expansion: no set is left, packets meet what they met before, and what didn't change is the same object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.backend import Outcome, Site
from meshfw.backends.memory import MemoryBackend
from meshfw.errors import UnsupportedError
from meshfw.expansion import MOST, MOST_TOGETHER, Expansion, expand
from meshfw.extensions import builtin_extensions
from meshfw.extensions.codecs import Ports, sign
from meshfw.extensions.iprange import AddressRange, IpRange
from meshfw.extensions.language import Language
from meshfw.extensions.limit import Limit, Rate
from meshfw.extensions.log import Log
from meshfw.extensions.sctp import SCTP, Sctp
from meshfw.extensions.tcp import TCP, Tcp
from meshfw.extensions.udp import UDP, Udp
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import (
    ACCEPT,
    DROP,
    RETURN,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    ElementType,
    Family,
    Goto,
    Hook,
    Jump,
    Match,
    Network,
    Not,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
    Target,
    set_references,
)
from meshfw.reconcile import apply, plan
from meshfw.testing.rulesets import copied
from meshfw.testing.strategies import networks, sets
from meshfw.testing.wrapping import Recording

LANGUAGE = Language.of(builtin_extensions())
V4, V6 = Family.IPV4, Family.IPV6
OTHER = Set.of(V4, "other", ("192.0.2.1",))
PEERS = Set.of(V4, "peers", ("10.0.0.1", "10.1.0.0/16", "10.2.0.5-10.2.0.9"))
WEB = Set.of(V4, "web", ("80", "443", "8000-8080"), type=ElementType.PORT)
NOBODY = Set(family=V4, name="nobody")
NO_PORT = Set(family=V4, name="no-port", type=ElementType.PORT)
ALL = Set.of(V4, "all", ("0.0.0.0/0",))
EVERY = (OTHER, PEERS, WEB, NOBODY, NO_PORT, ALL)


def rule(text: str, family: Family = V4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def chain(name: str, *texts: str, family: Family = V4) -> Chain:
    return Chain(family=family, table=Table.FILTER, name=name, rules=tuple(rule(text, family) for text in texts))


def ruleset(*chains: Chain, held: Iterable[Set] = EVERY, attachments: Iterable[Attachment] = ()) -> Ruleset:
    return Ruleset(chains=chains, sets=tuple(held), attachments=tuple(attachments))


def texts(expanded: Ruleset, name: str, family: Family = V4) -> list[str]:
    held = expanded.chain(ChainKey(family, Table.FILTER, name))
    assert held is not None, f"there is no chain {name}"
    return [format_rule(one, family=family, language=LANGUAGE) for one in held.rules]


def expanded(declared: Ruleset, memo: Expansion | None = None) -> Ruleset:
    made = expand(declared, memo)
    assert made.problems == ()
    return made.ruleset


def becomes(*lines: str) -> list[str]:
    """What a chain ``a`` of these rules becomes, chains in between included."""
    made = expanded(ruleset(chain("a", *lines), chain("b")))
    return [f"{held.name}: {line}" for held in made.chains if held.name != "b" for line in texts(made, held.name)]


# --- what rules become -------------------------------------------------------------------------------------


def test_each_element_is_a_rule_in_order() -> None:
    assert becomes("-s @peers -j ACCEPT", "-p tcp -m tcp --dport @web -j DROP") == [
        "a: -s 10.0.0.1/32 -j ACCEPT",
        "a: -s 10.1.0.0/16 -j ACCEPT",
        "a: -m iprange --src-range 10.2.0.5-10.2.0.9 -j ACCEPT",
        "a: -p tcp -m tcp --dport 80 -j DROP",
        "a: -p tcp -m tcp --dport 443 -j DROP",
        "a: -p tcp -m tcp --dport 8000:8080 -j DROP",
    ]


def test_what_is_outside_a_set_is_a_rule_for_each_range() -> None:
    assert becomes("! -d @other -j DROP", "-p udp -m udp ! --sport @web -j DROP") == [
        "a: -m iprange --dst-range 0.0.0.0-192.0.2.0 -j DROP",
        "a: -m iprange --dst-range 192.0.2.2-255.255.255.255 -j DROP",
        "a: -p udp -m udp --sport 0:79 -j DROP",
        "a: -p udp -m udp --sport 81:442 -j DROP",
        "a: -p udp -m udp --sport 444:7999 -j DROP",
        "a: -p udp -m udp --sport 8081:65535 -j DROP",
    ]


def test_an_empty_set_is_met_by_nothing_and_its_negation_by_everything() -> None:
    assert becomes("-s @nobody -j DROP", "-p tcp -m tcp --dport @no-port -j DROP", "! -s @all -j DROP") == []
    assert becomes("! -s @nobody -i lo -j DROP", "-s @all -j RETURN") == ["a: -i lo -j DROP", "a: -j RETURN"]


def test_ports_outside_an_empty_set_are_still_of_their_protocol() -> None:
    (tcp, sctp) = becomes("-p tcp -m tcp ! --dport @no-port -j DROP", "-p sctp -m sctp ! --dport @no-port -j DROP")
    assert tcp == "a: -p tcp -m tcp -j DROP"
    assert sctp == "a: -p sctp -m sctp --dport 0:65535 -j DROP"


def test_neighbours_stay_rules_of_their_own_and_leave_no_hole() -> None:
    near = Set(family=V4, name="near", intervals=True, elements=((0, 0), (1, 3), (4, 7)))
    made = expanded(ruleset(chain("a", "-s @near -j DROP", "! -s @near -j RETURN"), held=(near,)))
    assert texts(made, "a") == [
        "-s 0.0.0.0/32 -j DROP",
        "-m iprange --src-range 0.0.0.1-0.0.0.3 -j DROP",
        "-s 0.0.0.4/30 -j DROP",
        "-m iprange --src-range 0.0.0.8-255.255.255.255 -j RETURN",
    ]


def test_two_sets_make_a_rule_for_each_pair() -> None:
    two = Set.of(V4, "two", ("10.0.0.1", "10.0.0.9"))
    both = "-s @two ! -d @two -p tcp -m tcp --sport @two-ports --dport 7 -j ACCEPT"
    ports = Set.of(V4, "two-ports", ("1", "2"), type=ElementType.PORT)
    made = texts(expanded(ruleset(chain("a", both), held=(two, ports))), "a")
    assert len(set(made)) == len(made) == 2 * 3 * 2
    assert (
        made[1] == "-s 10.0.0.1/32 -p tcp -m iprange --dst-range 0.0.0.0-10.0.0.0 -m tcp --sport 2 --dport 7 -j ACCEPT"
    )


def test_a_range_joins_those_that_the_rule_states_already() -> None:
    (_, _, made) = becomes("-s @peers -m iprange --src-range 10.2.0.7-10.3.0.0 -j ACCEPT")
    assert made == "a: -m iprange --src-range 10.2.0.5-10.2.0.9 -m iprange --src-range 10.2.0.7-10.3.0.0 -j ACCEPT"


def test_ipv6_is_expanded_in_its_own_addresses() -> None:
    held = Set.of(V6, "peers", ("fd00::/8", "2001:db8::1", "2001:db8::5-2001:db8::7"))
    made = expanded(ruleset(chain("a", "-s @peers -j ACCEPT", "! -d @peers -j DROP", family=V6), held=(held,)))
    assert texts(made, "a", V6) == [
        "-s 2001:db8::1/128 -j ACCEPT",
        "-m iprange --src-range 2001:db8::5-2001:db8::7 -j ACCEPT",
        "-s fd00::/8 -j ACCEPT",
        "-m iprange --dst-range ::-2001:db8:: -j DROP",
        "-m iprange --dst-range 2001:db8::2-2001:db8::4 -j DROP",
        "-m iprange --dst-range 2001:db8::8-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff -j DROP",
        "-d fe00::/7 -j DROP",
    ]


def test_a_match_that_counts_is_stated_once_behind_the_sets_before_it() -> None:
    line = (
        '-s @other -p tcp -m tcp --dport 22 -m limit --limit 1/sec -m mark --mark 0x1 -m comment --comment "c" -j DROP'
    )
    assert becomes(line) == [
        "a: -s 192.0.2.1/32 -p tcp -m tcp --dport 22 -m comment --comment c -j a~1",
        "a~1: -p tcp -m limit --limit 1/sec -m mark --mark 0x1 -m comment --comment c -j DROP",
    ]


def test_a_match_that_counts_is_stated_once_before_the_sets_behind_it() -> None:
    line = "-i lo -p tcp -m limit --limit 1/sec -m tcp --dport @web -j REJECT --reject-with tcp-reset"
    assert becomes(line) == [
        "a: -i lo -p tcp -m limit --limit 1/sec -j a~1",
        "a~1: -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset",
        "a~1: -p tcp -m tcp --dport 443 -j REJECT --reject-with tcp-reset",
        "a~1: -p tcp -m tcp --dport 8000:8080 -j REJECT --reject-with tcp-reset",
    ]


def test_sets_on_both_sides_of_a_match_that_counts_take_two_chains() -> None:
    line = "-s @other -p tcp -m limit --limit 1/sec -m tcp --dport @web -j LOG"
    assert becomes("-m limit --limit 9/sec -j LOG", line, line.replace("@other", "10.0.0.1"), "-j DROP") == [
        "a: -m limit --limit 9/sec -j LOG",
        "a: -s 192.0.2.1/32 -p tcp -j a~1",
        "a: -s 10.0.0.1/32 -p tcp -m limit --limit 1/sec -j a~3",
        "a: -j DROP",
        "a~1: -p tcp -m limit --limit 1/sec -j a~2",
        *(f"a~2: -p tcp -m tcp --dport {ports} -j LOG" for ports in ("80", "443", "8000:8080")),
        *(f"a~3: -p tcp -m tcp --dport {ports} -j LOG" for ports in ("80", "443", "8000:8080")),
    ]


def test_all_that_counts_before_a_set_stays_in_one_rule() -> None:
    assert becomes("-m limit --limit 1/sec -m recent --set -p udp -m udp --dport @web -j LOG")[:2] == [
        "a: -p udp -m limit --limit 1/sec -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource -j a~1",
        "a~1: -p udp -m udp --dport 80 -j LOG",
    ]


def test_what_the_language_does_not_know_may_count() -> None:
    assert becomes("-s @other -m recent --set --name x -j ACCEPT") == [
        "a: -s 192.0.2.1/32 -j a~1",
        "a~1: -m recent --set --name x --mask 255.255.255.255 --rsource -j ACCEPT",
    ]


def test_what_counts_before_an_empty_set_goes_on_counting() -> None:
    line = "-m recent --set --name x -p tcp -m tcp --dport @no-port -j DROP"
    assert becomes(line, f"-s @nobody {line}") == [
        "a: -p tcp -m recent --set --name x --mask 255.255.255.255 --rsource"
    ]


def test_chains_in_between_keep_their_names_whatever_the_sets_hold() -> None:
    lines = [f"-s @{name} -m limit --limit 1/sec -j LOG" for name in ("nobody", "other")]
    assert [line for line in becomes(*lines) if "LOG" in line] == ["a~2: -m limit --limit 1/sec -j LOG"]


def test_a_chain_in_between_takes_no_name_of_a_declared_one() -> None:
    line = "-s @other -m limit --limit 1/sec -j LOG"
    made = expanded(ruleset(chain("a", line, line, line), chain("a~2"), chain("a~x"), chain("a~1~2")))
    assert texts(made, "a") == [f"-s 192.0.2.1/32 -j a~{number}" for number in (1, 3, 4)]
    assert texts(made, "a~2") == []


def test_targets_that_load_lead_where_they_led() -> None:
    assert becomes("-s @other -j RETURN", "-s @other -g b", "-s @other -j b", "-s @other") == [
        "a: -s 192.0.2.1/32 -j RETURN",
        "a: -s 192.0.2.1/32 -g b",
        "a: -s 192.0.2.1/32 -j b",
        "a: -s 192.0.2.1/32",
    ]


# --- attachments -------------------------------------------------------------------------------------------


def attachment(when: str, name: str = "a", **fields: Any) -> Attachment:
    return Attachment(family=V4, table=Table.FILTER, hook=Hook.INPUT, chain=name, when=rule(when), **fields)


def jumps(*attachments: Attachment) -> list[str]:
    made = expanded(ruleset(chain("a"), chain("b"), attachments=attachments))
    return [format_rule(one, family=V4, language=LANGUAGE) for held in made.dispatchers() for one in held.rules]


def test_an_attachment_is_one_for_each_element() -> None:
    late = attachment("-i lo", "b", rank=1)
    assert jumps(late, attachment("-s @peers -i eth0"), attachment("-s @nobody")) == [
        "-s 10.0.0.1/32 -i eth0 -j a",
        "-s 10.1.0.0/16 -i eth0 -j a",
        "-i eth0 -m iprange --src-range 10.2.0.5-10.2.0.9 -j a",
        "-i lo -j b",
    ]
    assert jumps(attachment("-i lo"), attachment("-s @other"), attachment("-i eth0")) == [
        "-i lo -j a",
        "-s 192.0.2.1/32 -j a",
        "-i eth0 -j a",
    ]


def test_an_attachment_that_an_empty_set_leaves_out_is_none() -> None:
    assert jumps(attachment("-s @nobody")) == []
    assert jumps(attachment("! -s @nobody")) == ["-j a"]


# --- what can't be expanded --------------------------------------------------------------------------------

ODD = "x" * 127


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        (
            "a",
            "-s @peers -m limit --limit 1/sec -j RETURN",
            "match limit .* RETURN would lead elsewhere; split the rule",
        ),
        ("a", "-s @other -m recent --set -g b", "match recent .* goto b would lead elsewhere; split the rule"),
        ("a", "-m limit --limit 1/sec -s @nobody -j RETURN", "RETURN would lead elsewhere"),
        ("a", "-s @many -d @many -j DROP", f"make 90000 rules of it, and {MOST} is the most: split it"),
        (ODD, "-s @other -m limit --limit 1/sec", f"it needs a chain {ODD}~1, more than 128 characters: shorten"),
    ],
)
def test_what_cannot_be_expanded_is_named(name: str, line: str, reason: str) -> None:
    many = Set(family=V4, name="many", elements=tuple((value, value) for value in range(0, 600, 2)))
    declared = ruleset(chain(name, "-j ACCEPT", line, "-s @other -j DROP"), chain("b"), held=(*EVERY, many))
    made = expand(declared)
    ((where, why),) = made.problems
    assert where == f"ipv4 filter {name}, rule 2"
    assert re.search(reason, why)
    assert texts(made.ruleset, name) == ["-j ACCEPT", "-s 192.0.2.1/32 -j DROP"]


def wide(family: Family, name: str = "wide", size: int = 256) -> Set:
    return Set(family=family, name=name, elements=tuple((value, value) for value in range(0, 2 * size, 2)))


def test_a_ruleset_that_would_be_too_large_is_refused_before_anything_of_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshfw.expansion._multiplied", None)
    most = "-s @wide -d @wide -j DROP"
    chains = [chain("a", "-j ACCEPT", most, most), chain("b", most), chain("c", most, "-s @wide", most, family=V6)]
    made = expand(ruleset(*chains, held=(wide(V4), wide(V6))))
    ((where, why),) = made.problems
    assert where == "ipv6 filter c, rule 2"
    assert why.startswith(f"sets make {MOST_TOGETHER + 256} rules of the rules up to this one, and {MOST_TOGETHER} is")
    assert (made.ruleset, dict(made.parts)) == (Ruleset(), {})


@pytest.mark.parametrize(
    ("lines", "rules"),
    [
        (("-s @peers -j DROP", "-j ACCEPT", "! -s @peers -p tcp -m tcp --dport @web -j ACCEPT"), 3 + 4 * 3),
        (("-s @peers -p tcp -m limit --limit 1/sec -m tcp --dport @web -j LOG",), 3 + 1 + 3),
        (("-p tcp -m limit --limit 1/sec -m tcp --dport @web -j LOG", "-s @nobody"), 1 + 3),
        (("-s @peers -m limit --limit 1/sec", "-m comment --comment @peers -i lo"), 3 + 1),
    ],
)
def test_the_most_of_a_ruleset_counts_exactly_what_sets_make(
    monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], rules: int
) -> None:
    declared = ruleset(chain("a", *lines), attachments=[attachment("-s @peers -i lo")])

    def problems(most: int) -> list[str]:
        monkeypatch.setattr("meshfw.expansion.MOST_TOGETHER", most)
        return [where for where, _ in expand(declared).problems]

    assert problems(rules + 3) == []
    assert problems(rules + 2) == ["attachment of a to ipv4 filter input/first"]
    assert problems(rules - 1)[0].startswith("ipv4 filter a, rule ")


def test_what_a_memo_holds_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfw.expansion.MOST_TOGETHER", 6)
    first = expand(ruleset(chain("a", "-s @peers")))
    kept = first.ruleset.chains[0]
    two, three = chain("b", "-s @peers"), chain("c", "-s @other")
    second = expand(ruleset(first.declared.chains[0], two), first)
    assert second.problems == ()
    assert second.ruleset.chains[0] is kept
    assert [where for where, _ in expand(ruleset(*second.declared.chains, three), second).problems] == [
        "ipv4 filter c, rule 1"
    ]


class Counting(Match, frozen=True):
    """A match of somebody else's that counts the packets to some ports."""

    stateful = True
    ports: Ports | SetRef | None = None


def test_a_match_that_counts_by_a_set_is_named() -> None:
    held = Chain(family=V4, table=Table.FILTER, name="a", rules=(Rule(matches=(Counting(SetRef("web")),)),))
    assert expand(ruleset(held)).problems == (
        ("ipv4 filter a, rule 1", "match counting counts, and would do so for each element by itself"),
    )


def test_an_attachment_that_counts_or_stands_twice_is_named() -> None:
    counting = attachment("-s @peers -m limit --limit 1/sec")
    ((where, why),) = expand(ruleset(chain("a"), attachments=[counting])).problems
    assert where == "attachment of a to ipv4 filter input/first"
    assert "attach a chain whose rule jumps to a with these conditions" in why
    twice = [attachment("-s @other"), attachment("-s 192.0.2.1")]
    ((where, why),) = expand(ruleset(chain("a"), attachments=twice)).problems
    assert (where, "give one of them another rank" in why) == ("attachment of a to ipv4 filter input/first", True)
    twice[0] = msgspec.structs.replace(twice[0], rank=1)
    assert expand(ruleset(chain("a"), attachments=twice)).problems == ()


# --- what stays the same object ----------------------------------------------------------------------------

PLAIN = chain("plain", "-j ACCEPT", "-s 10.0.0.1 -j DROP")
LIMITED = chain("limited", "-s @peers -m limit --limit 1/sec -j LOG", "-p tcp -m tcp --dport @web -j DROP")
OTHERS = chain("others", "-s @other -j DROP")


def same(one: Ruleset, other: Ruleset) -> list[str]:
    """The names of the chains that are one object in both."""
    return [held.name for held in one.chains if any(held is old for old in other.chains)]


def test_a_ruleset_without_sets_is_itself() -> None:
    declared = Ruleset(chains=(PLAIN,))
    assert expanded(declared) is declared


def test_sets_that_no_rule_names_vanish() -> None:
    made = expanded(ruleset(PLAIN))
    assert made == Ruleset(chains=(PLAIN,))
    assert same(made, Ruleset(chains=(PLAIN,))) == ["plain"]


def test_a_chain_without_sets_is_itself() -> None:
    declared = ruleset(PLAIN, LIMITED)
    assert same(expanded(declared), declared) == ["plain"]


def test_the_same_ruleset_is_the_same_expansion() -> None:
    declared = ruleset(PLAIN, LIMITED)
    made = expand(declared)
    assert expand(declared, made) is made
    assert expand(copied(declared), made) is not made


def test_a_chain_whose_sets_did_not_change_is_the_same_object_again() -> None:
    first = expand(ruleset(PLAIN, LIMITED, OTHERS))
    everything = ["limited", "limited~1", "others", "plain"]
    again = expand(ruleset(PLAIN, LIMITED, OTHERS, held=map(msgspec.structs.replace, EVERY)), first)
    assert same(again.ruleset, first.ruleset) == everything
    more = msgspec.structs.replace(OTHER, elements=((5, 5), *OTHER.elements))
    other = expand(ruleset(PLAIN, LIMITED, OTHERS, held=(more if held is OTHER else held for held in EVERY)), again)
    assert same(other.ruleset, first.ruleset) == ["limited", "limited~1", "plain"]
    assert same(other.ruleset, Ruleset(chains=(PLAIN,))) == ["plain"]
    assert len(texts(other.ruleset, "others")) == len(texts(first.ruleset, "others")) + 1 == 2
    back = expand(ruleset(PLAIN, LIMITED, OTHERS), other)
    assert back.ruleset == first.ruleset


def test_a_changed_chain_or_a_new_name_like_its_own_is_expanded_anew() -> None:
    first = expand(ruleset(LIMITED, OTHERS))
    edited = msgspec.structs.replace(LIMITED, rules=LIMITED.rules[::-1])
    made = expand(ruleset(edited, OTHERS), first)
    assert same(made.ruleset, first.ruleset) == ["others"]
    assert made.ruleset == expanded(ruleset(edited, OTHERS))
    taken = expand(ruleset(LIMITED, OTHERS, chain("limited~1")), first)
    assert same(taken.ruleset, first.ruleset) == ["others"]
    assert texts(taken.ruleset, "limited~1") == []
    assert texts(taken.ruleset, "limited~2")


def test_a_problem_is_found_again() -> None:
    bad = chain("bad", "-s @peers -m limit --limit 1/sec -j RETURN")
    first = expand(ruleset(bad))
    assert len(first.problems) == 1
    assert expand(ruleset(bad, PLAIN), first).problems == first.problems


# --- what a backend gets -----------------------------------------------------------------------------------


def without_sets() -> MemoryBackend:
    return MemoryBackend(Site(owner="meshfw", language=LANGUAGE, options={"native_sets": False}))


def test_a_backend_without_sets_is_asked_about_what_it_gets() -> None:
    backend = Recording(without_sets())
    declared = ruleset(PLAIN, LIMITED, OTHERS)
    report = apply(backend, declared)
    assert report.outcome is Outcome.CHANGED
    assert report.plan.desired == expanded(declared)
    assert backend.calls == ["check", "observe", "compile", "commit", "observe some"]
    backend.calls.clear()
    assert apply(backend, declared).outcome is Outcome.IDLE
    assert backend.calls == ["fingerprint"]
    assert not plan(backend, copied(declared))


def test_what_did_not_change_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = without_sets()
    apply(backend, ruleset(PLAIN, LIMITED, OTHERS))
    backend.cache.drop("forgotten by a test")
    apply(backend, ruleset(PLAIN, LIMITED, OTHERS, held=map(msgspec.structs.replace, EVERY)))
    monkeypatch.setattr("meshfw.plan.align", None)
    report = apply(backend, ruleset(PLAIN, LIMITED, OTHERS, held=EVERY))
    assert (report.outcome, report.cache) == (Outcome.CLEAN, "hit")


def test_an_element_is_one_rule_of_the_plan() -> None:
    backend = without_sets()
    declared = ruleset(PLAIN, LIMITED, OTHERS)
    apply(backend, declared)
    more = msgspec.structs.replace(PEERS, elements=(*PEERS.elements, (1 << 31, 1 << 31)))
    found = plan(backend, msgspec.structs.replace(declared, sets=(OTHER, more, WEB)))
    assert found.text(lambda one, family: format_rule(one, family=family, language=LANGUAGE)) == (
        "+ ipv4 filter limited 4: -s 128.0.0.0/32 -j limited~1\n"
    )


def test_what_cannot_be_expanded_is_refused_before_anything_is_asked() -> None:
    backend = Recording(without_sets())
    declared = ruleset(chain("a", "-j ACCEPT", "-s @peers -m limit --limit 1/sec -j RETURN"))
    for call in (apply, plan):
        with pytest.raises(UnsupportedError, match="ipv4 filter a, rule 2: match limit can't be repeated"):
            call(backend, declared)
    assert backend.calls == []


# --- what packets meet -------------------------------------------------------------------------------------

PROTOCOLS: dict[int, type[Tcp | Udp | Sctp]] = {TCP: Tcp, UDP: Udp, SCTP: Sctp}


class Packet(msgspec.Struct, frozen=True):
    """What rules look at; ``limits`` are the rates that let it pass."""

    source: int
    destination: int
    protocol: int
    sport: int
    dport: int
    limits: frozenset[int]


class Walk:
    """The way of one packet through a ruleset: what it met that counts or goes on, and the verdict."""

    def __init__(self, held: Ruleset, family: Family, packet: Packet) -> None:
        self.met: list[object] = []
        self._packet = packet
        self._rules = {one.name: one.rules for one in held.chains if one.family is family}
        self._sets = {one.name: one.elements for one in held.sets if one.family is family}
        dispatcher = next((one for one in held.dispatchers() if one.key.family is family), None)
        self.verdict = self._through(dispatcher.rules) if dispatcher is not None else None

    def _through(self, rules: tuple[Rule, ...]) -> Target | None:
        for one in rules:
            if not self._meets(one):
                continue
            if one.target in (ACCEPT, DROP):
                return one.target
            if one.target == RETURN:
                return None
            if isinstance(one.target, Goto):
                return self._through(self._rules[one.target.chain])
            if isinstance(one.target, Jump):
                verdict = self._through(self._rules[one.target.chain])
                if verdict is not None:
                    return verdict
            elif one.target is not None or one.comment == "met":
                self.met.append(one.target or one.comment)
        return None

    def _meets(self, one: Rule) -> bool:
        base = (
            self._within(one.source, self._packet.source),
            self._within(one.destination, self._packet.destination),
            one.protocol in (None, self._packet.protocol),
        )
        return all(base) and all(self._match(match) for match in one.matches)

    def _match(self, match: Match) -> bool:
        if isinstance(match, Limit):
            self.met.append(match)
            return match.rate.packets in self._packet.limits
        if isinstance(match, IpRange):
            ends = ((match.source, self._packet.source), (match.destination, self._packet.destination))
            return all(self._within(held, value) for held, value in ends)
        if isinstance(match, Tcp | Udp | Sctp):
            ports = ((match.sport, self._packet.sport), (match.dport, self._packet.dport))
            return all(self._within(held, value) for held, value in ports)
        assert isinstance(match, Comment)
        return True

    def _within(self, held: Any, value: int) -> bool:
        if held is None:
            return True
        negated, inner = sign(held)
        if isinstance(inner, SetRef):
            return any(low <= value <= high for low, high in self._sets[inner.name]) != negated
        if isinstance(inner, Network):
            return (value & inner.mask == inner.address) != negated
        assert isinstance(inner, AddressRange | Ports)
        return (inner.low <= value <= inner.high) != negated


def conditions(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A condition on a set of that name prefix or on a value, of either sign, or none."""
    named = st.sampled_from((f"{name}1", f"{name}2")).map(SetRef)
    return st.one_of(st.none(), st.none(), named, named.map(Not), named.map(Not), values)


def port_conditions() -> st.SearchStrategy[Any]:
    return conditions("p", st.integers(0, 50).map(lambda low: Ports(low, low + 20)))


@st.composite
def drawn_rules(draw: st.DrawFn, family: Family, later: tuple[str, ...]) -> Rule:
    """Rules of every shape: sets, ranges and ports before, between and behind matches that count."""
    protocol = draw(st.sampled_from((None, None, TCP, *PROTOCOLS)))
    matches: list[Match] = [Limit(Rate(packets)) for packets in draw(st.sampled_from(((), (), (1,), (2,), (1, 2))))]
    for _ in range(draw(st.integers(0, 2)) if protocol else 0):
        ports = {"sport": draw(port_conditions()), "dport": draw(port_conditions())}
        matches.append(PROTOCOLS[protocol or TCP](**ports))
    if draw(st.integers(0, 4)) == 0:
        low = draw(st.integers(0, 40))
        matches.append(
            IpRange(**{draw(st.sampled_from(("source", "destination"))): AddressRange(family, low, low + 9)})
        )
    targets: tuple[Target | None, ...] = (ACCEPT, DROP, RETURN, Log(prefix="one"), Log(prefix="two"), None)
    targets += tuple(kind(name) for name in later for kind in (Jump, Goto))
    target = draw(st.sampled_from(targets))
    # Without a target there is nothing to tell, but that a rule which can't be cut was met.
    told = target is None and not any(match.stateful for match in matches)
    matches.append(Comment("met" if told else draw(st.sampled_from("xyz"))))
    return Rule(
        source=draw(conditions("a", networks(family))),
        destination=draw(st.none() | conditions("a", networks(family))),
        protocol=protocol,
        matches=tuple(draw(st.permutations(matches))),
        target=target,
    )


@st.composite
def drawn(draw: st.DrawFn, family: Family) -> Ruleset:
    """Three chains that lead into one another, the first attached under conditions."""
    held = [draw(sets(family, name, ElementType.ADDRESS)) for name in ("a1", "a2")]
    held += [draw(sets(family, name, ElementType.PORT)) for name in ("p1", "p2")]
    names = ("main", "sub", "sub~1")
    chains = []
    for index, name in enumerate(names):
        rules = draw(st.lists(drawn_rules(family, names[index + 1 :]), min_size=1, max_size=6))
        rules.append(Rule(target=Log(prefix=f"end of {name}")))  # which RETURN and a goto pass by
        chains.append(Chain(family=family, table=Table.FILTER, name=name, rules=tuple(rules)))
    when = Rule(source=draw(st.none() | conditions("a", networks(family))))
    entry = Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="main", when=when)
    return Ruleset(chains=tuple(chains), sets=tuple(held), attachments=(entry,))


@st.composite
def packets(draw: st.DrawFn, held: Ruleset, family: Family) -> Packet:
    """Packets at the edges of elements."""

    def near(kind: ElementType, top: int) -> int:
        bounds = {bound for one in held.sets if one.type is kind for pair in one.elements for bound in pair}
        edges = {edge for bound in bounds for edge in (bound - 1, bound, bound + 1)} | {0, 10, top}
        return draw(st.sampled_from(sorted(edge for edge in edges if 0 <= edge <= top)))

    top = (1 << family.bits) - 1
    return Packet(
        source=near(ElementType.ADDRESS, top),
        destination=near(ElementType.ADDRESS, top),
        protocol=draw(st.sampled_from((TCP, TCP, *PROTOCOLS, 1))),
        sport=near(ElementType.PORT, 0xFFFF),
        dport=near(ElementType.PORT, 0xFFFF),
        limits=draw(st.sampled_from((frozenset({1, 2}), frozenset({1, 2}), frozenset({1}), frozenset({2})))),
    )


def references(held: Ruleset) -> Iterator[str]:
    rules = [one for chain in held.chains for one in chain.rules] + [item.when for item in held.attachments]
    return (reference.name for one in rules for reference, _ in set_references(one))


def counting(held: Ruleset) -> int:
    return sum(match.stateful for chain in held.chains for one in chain.rules for match in one.matches)


def without_problems(declared: Ruleset) -> Ruleset:
    """The ruleset without the rules that can't be expanded."""
    named = {where for where, _ in expand(declared).problems}
    chains = tuple(
        msgspec.structs.replace(
            held, rules=tuple(one for at, one in enumerate(held.rules, 1) if f"{held.key}, rule {at}" not in named)
        )
        for held in declared.chains
    )
    return msgspec.structs.replace(declared, chains=chains)


@given(st.data(), st.sampled_from(Family))
def test_every_packet_meets_what_it_met_before(data: st.DataObject, family: Family) -> None:
    declared = without_problems(data.draw(drawn(family)))
    made = expanded(declared)
    assert made.sets == ()
    assert list(references(made)) == []
    assert counting(made) <= counting(declared), "each copy counts for itself"
    for _ in range(20):
        packet = data.draw(packets(declared, family))
        before, after = Walk(declared, family, packet), Walk(made, family, packet)
        assert (after.verdict, after.met) == (before.verdict, before.met)


@given(st.data())
def test_a_memo_never_shows(data: st.DataObject) -> None:
    one, other = data.draw(drawn(V4)), data.draw(drawn(V4))
    mixed = msgspec.structs.replace(one, sets=other.sets)
    memo = None
    for declared in (one, other, mixed, one):
        memo = expand(declared, memo)
        fresh = expand(declared)
        assert (memo.ruleset, memo.problems) == (fresh.ruleset, fresh.problems)
