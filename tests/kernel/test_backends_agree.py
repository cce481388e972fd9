"""One ruleset means the same on every backend: packets at its edges, sent through each, end in the same place.

What is compared is where a packet arrived and as what, address translation included, and who answered it how.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from meshfw.backends.layout import names_in
from meshfw.errors import InexpressibleError
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft import render_rule
from meshfw.model import Family, Hook, Place, Policy, Rule, Ruleset, Table
from meshfw.plan import diff
from meshfw.snapshot import Snapshot
from meshfw.testing.strategies import rulesets
from tests.kernel.builder import Builder, both
from tests.kernel.edges import Edges, account, kinds
from tests.kernel.worlds import BACKENDS, LANGUAGE, Maker, worlds

pytestmark = pytest.mark.kernel

KINDS: Final = ("stateful", "stateless", "fragments")
"""Rulesets by chance: with conntrack and address translation; without; and without any condition on ports or types.

The last ones get fragments. Of a later fragment iptables-legacy knows that it has no ports; nf_tables takes its first
bytes for them, in rules of iptables-nft as well. Conntrack puts fragments together before any rule sees one.
"""
SEEDS: Final = 4
"""Rulesets of each kind."""
EVERYTHING: Final = 600
"""Packets of one family for a ruleset of everything."""
EACH: Final = 100
"""Packets of one family for a ruleset by chance."""
F, N, M, R = Table.FILTER, Table.NAT, Table.MANGLE, Table.RAW


@pytest.fixture
def make_world(request: pytest.FixtureRequest, kernel_room: object, tmp_path: Path) -> Iterator[Maker]:
    with worlds(request, tmp_path) as make:
        yield make


def assert_agreed(
    make_world: Maker, ruleset: Ruleset, chance: random.Random, *, count: int, fragments: bool, verdicts: int = 3
) -> int:
    """Send packets at the ruleset's edges through each backend; how many they were."""
    families = [family for family in Family if any(chain.family is family for chain in ruleset.chains)]
    packets = [
        packet for family in families for packet in Edges(ruleset, family, chance, fragments=fragments).packets(count)
    ]
    accounts = {}
    for engine in BACKENDS:
        world = make_world(Family.IPV6, engine)
        world.apply(ruleset)
        results = world.send_all(packets)
        accounts[engine] = [account(packet, result) for packet, result in zip(packets, results, strict=True)]
        world.close()
    expected = accounts["iptables-legacy"]
    for engine, found in accounts.items():
        wrong = [(p, a, b) for p, a, b in zip(packets, expected, found, strict=True) if a != b]
        assert not wrong, f"{engine}: {len(wrong)} of {len(packets)} differ, the first {wrong[0]}\n{printed(ruleset)}"
    seen = kinds(expected)
    assert len(seen) >= verdicts, f"the rules don't tell the packets apart: {seen}\n{printed(ruleset)}"
    return len(packets)


def printed(ruleset: Ruleset) -> str:
    """The ruleset for people."""
    return diff(Snapshot(), ruleset).text(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))


# --- a ruleset of everything -------------------------------------------------------------------------------


def add_sets(b: Builder) -> None:
    b.addresses("peers", ["10.4.0.4-10.4.0.9", "10.4.1.0/24", "10.4.7.1"], ["fd00:4::4-fd00:4::9", "fd00:4:1::/48"])
    b.addresses("blocked", ["198.51.100.64/26", "198.51.100.7"], ["2001:db8:3:40::/58", "2001:db8:3::7"])
    b.addresses("nobody", [], [])
    b.ports("web", "80", "443", "8080-8090")
    b.ports("low", "1-6", "7", "9")


def add_filters(b: Builder, *, stateful: bool) -> None:
    """Every kind of condition and verdict, in chains that lead into each other, on three hooks."""
    v4 = b.v4
    prohibited = "icmp-host-prohibited" if v4 else "icmp6-adm-prohibited"
    unreachable = "icmp-net-unreachable" if v4 else "icmp6-addr-unreachable"
    state = ["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-m conntrack --ctstate INVALID -j DROP"]
    dnat = ["-m conntrack --ctstate DNAT -m mark ! --mark 0x3/0xff -j ACCEPT"]
    later = ["-f -g later", "! -f -d {other} -p tcp -j inner"] if v4 else []
    b.chain(
        "forward",
        *(state if stateful else later),
        "-m mark --mark 0x1/0xff -j marked",
        f"-m mark --mark 0x2/0xff -j REJECT --reject-with {prohibited}",
        "-s @blocked -j DROP",
        f"-d @blocked -j REJECT --reject-with {unreachable}",
        "-d @nobody -j DROP",
        "-p udp -m udp --dport 4000 -j LOG --log-prefix edge",
        "-i wg0 -s @peers -p tcp -m tcp --dport @web -j web",
        "-i wg0 ! -s @peers -p udp -m udp --dport @low -j REJECT",
        "! -d @nobody -p udp -m udp --dport 5000:5010 -j ACCEPT",
        "-p udp -m multiport --dports 53,123,1000:1010 -g names",
        "-p tcp -m iprange --dst-range {range} -j inner",
        "-p sctp -m sctp --dport 36412:36422 -j ACCEPT",
        "-p sctp -m multiport ! --sports 2905,7000:7010 -s @peers -j REJECT",
        "{icmp} {ping} ! -s @peers -j RETURN",
        "{icmp} {ping} -j ACCEPT",
        "-s {peers} -p tcp -m tcp --syn -m multiport --ports 22,6000:6005 -j ACCEPT",
        *(dnat if stateful else []),
    )
    if v4:
        b.chain("later", "-d {host} -j ACCEPT", "-s @peers -p udp -j ACCEPT", "-i eth0 ! -d @peers -j REJECT")
    b.chain("marked", "-p udp -j ACCEPT", "-p tcp -j REJECT --reject-with tcp-reset", "-j RETURN")
    sub = "10.4.1.128/25" if v4 else "fd00:4:1:8000::/49"
    b.chain("web", "-p tcp -m tcp --dport 8085 -j RETURN", f"-s {sub} -j deep1", "-j ACCEPT")
    b.chain("deep1", "-p tcp -m tcp --sport 1024:2047 -j deep2", "-g deep3")
    b.chain("deep2", "-p tcp -m tcp --dport 443 -j ACCEPT")
    b.chain("deep3", "-d {host} -j DROP", "-p tcp -m tcp --tcp-flags SYN,ACK ACK -j REJECT --reject-with tcp-reset")
    b.chain("names", "-p udp -m udp --sport 53 -j RETURN", "-d {hosts} -j ACCEPT")
    b.chain("inner", "-p tcp -m tcp ! --dport 100:200 -j RETURN", "! -s {peer} -j DROP", "-j ACCEPT")
    b.chain("early", "-p tcp -j DROP", "-p udp -m udp --dport @web -j ACCEPT")
    b.chain("late", "-p udp -m udp --dport 7000:7010 -j ACCEPT", "-p udp -m udp --sport @low -j ACCEPT")
    b.attach("early", Hook.FORWARD, rank=-5, when="-i eth0 -d @peers", policy=Policy.RETURN)
    b.attach("forward", Hook.FORWARD, policy=Policy.DROP)
    b.attach("late", Hook.FORWARD, rank=5, when="-i wg0 -p udp")

    # What stands first drops or leaves it to what stands last.
    b.chain("guard", "-p tcp -m tcp --dport @low -j DROP", "-s {peer} -p udp -m udp --dport 53 -j RETURN", "-g guard2")
    b.chain("guard2", "-p udp -m udp --dport 50:60 -j REJECT")
    b.chain("input", "-i wg0 -s @peers -j ACCEPT", "-p tcp -m tcp --dport 22 -j ACCEPT", "{icmp} {ping} -j ACCEPT")
    b.attach("guard", Hook.INPUT)
    b.attach("input", Hook.INPUT, place=Place.LAST, policy=Policy.DROP)
    b.chain(
        "output",
        "-m mark --mark 0x3/0xff -j DROP",
        "-o eth0 -p tcp -m tcp --dport @low -j REJECT",
        "-d @blocked -j DROP",
    )
    b.attach("output", Hook.OUTPUT, place=Place.LAST, policy=Policy.ACCEPT)


def add_marks(b: Builder) -> None:
    b.chain("spoofed", "-i eth0 -s @peers -j DROP", table=R)
    b.attach("spoofed", Hook.PREROUTING, table=R)
    b.chain(
        "marks",
        "-p udp -m udp --dport 2000:2010 -j MARK --set-xmark 0x1/0xff",
        "-p tcp -s @peers -m tcp --dport 2000:2010 -j MARK --set-xmark 0x1/0xff",
        "-p tcp ! -s @peers -m tcp --dport 2005:2015 -j MARK --set-xmark 0x2/0xff",
        "-p tcp -m tcp --dport 8085 -j MARK --set-xmark 0x3/0xff",
        table=M,
    )
    b.attach("marks", Hook.PREROUTING, table=M, policy=Policy.ACCEPT)
    b.chain("own-marks", "-p udp -m multiport --dports 9,5000:5010 -j MARK --set-xmark 0x3/0xff", table=M)
    b.attach("own-marks", Hook.OUTPUT, table=M)


def add_translations(b: Builder) -> None:
    published = "198.51.100.9" if b.v4 else "2001:db8:3::9"
    b.chain(
        "in",
        "-d {gateway} -p tcp -m tcp --dport @web -j DNAT --to-destination {host_port}",
        "-s @blocked -j RETURN",
        f"-d {published} -p udp -j DNAT --to-destination {{host}}",
        f"-d {published} -p sctp -m sctp --dport 36412 -j DNAT --to-destination {{host_port}}",
        "-i wg0 ! -s @peers -p udp -m udp --dport 5300:5310 -j REDIRECT --to-ports 53",
        "-p tcp -m tcp --dport 3128 -j REDIRECT",
        "-i eth0 -d {wan} -p udp -m udp --dport @low -j DNAT --to-destination {peer}",
        table=N,
    )
    b.attach("in", Hook.PREROUTING, table=N)
    b.chain(
        "out",
        "-d {other} -j RETURN",
        "-s @peers -o eth0 -p udp -m udp --dport 7001 -j SNAT --to-source "
        + ("{alias}:7777" if b.v4 else "[{alias}]:7777"),
        "-s @peers -o eth0 -p tcp -j SNAT --to-source {alias}",
        "-s {peers} -o eth0 -j MASQUERADE",
        table=N,
    )
    b.attach("out", Hook.POSTROUTING, table=N, policy=Policy.ACCEPT)
    b.chain("own", "-p tcp -m tcp --dport 6000:6005 -j DNAT --to-destination {host_port}", table=N)
    b.attach("own", Hook.OUTPUT, table=N)


def add_everything(b: Builder) -> None:
    add_sets(b)
    add_marks(b)
    add_translations(b)
    add_filters(b, stateful=True)


def add_filters_alone(b: Builder) -> None:
    """Without what keeps track of connections, which would put fragments together before any rule sees one."""
    add_sets(b)
    add_marks(b)
    add_filters(b, stateful=False)


@pytest.mark.parametrize(
    ("build", "fragments"), [(add_everything, False), (add_filters_alone, True)], ids=["everything", "stateless"]
)
def test_a_ruleset_of_everything_means_the_same_on_every_backend(
    make_world: Maker, build: Callable[[Builder], None], *, fragments: bool
) -> None:
    chance = random.Random(f"{build.__name__}")  # noqa: S311 - the same packets in every run, no secrets
    sent = assert_agreed(make_world, both(build), chance, count=EVERYTHING, fragments=fragments, verdicts=6)
    assert sent == 2 * EVERYTHING


def test_thousands_of_packets_are_compared() -> None:
    assert 2 * (2 * EVERYTHING + len(KINDS) * SEEDS * EACH) >= 2000


def test_an_element_that_is_off_by_one_is_noticed(make_world: Maker) -> None:
    def add_less(b: Builder) -> None:
        add_filters_alone(b)
        b.replace_ports("web", "80", "443", "8080-8089")

    chance = random.Random("off by one")  # noqa: S311 - the same packets in every run, no secrets
    packets = Edges(both(add_filters_alone), Family.IPV4, chance).packets(600)
    accounts = []
    for build in (add_filters_alone, add_less):
        world = make_world(Family.IPV4, "nft")
        world.apply(both(build))
        accounts.append([account(*pair) for pair in zip(packets, world.send_all(packets), strict=True)])
    differ = [packet for packet, one, other in zip(packets, *accounts, strict=True) if one != other]
    assert differ
    assert {packet.dport for packet in differ} == {8090}


@pytest.mark.parametrize("engine", BACKENDS)
def test_an_accept_ends_what_stands_last_where_accepts_win(make_world: Maker, engine: str) -> None:
    # The one thing in which backends differ by themselves: on nft each place is a base chain, and each has its say.
    def build(b: Builder) -> None:
        b.chain("early", "-p udp -j ACCEPT")
        b.chain("late", "-j DROP")
        b.attach("early", Hook.FORWARD)
        b.attach("late", Hook.FORWARD, place=Place.LAST)

    world = make_world(Family.IPV6, engine)
    world.apply(both(build))
    wins = world.backend().capabilities.foreign_accept_wins
    assert world.verdict("udp", 9) == ("accepted" if wins else "dropped")
    assert world.verdict("tcp", 9) == "dropped"


@pytest.mark.parametrize("engine", ["iptables-legacy", "iptables-legacy-restore"])
def test_a_later_fragment_has_no_ports_on_legacy(make_world: Maker, engine: str) -> None:
    # nf_tables takes a fragment's first bytes for its ports, unless conntrack has put it together before.
    world = make_world(Family.IPV4, engine)
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -p udp -m udp ! --dport 53 -j DROP
        -A FORWARD -p tcp -m multiport ! --dports 53,80 -j DROP
    """)
    for protocol in ("udp", "tcp"):
        assert world.verdict(protocol, fragment=True) == "accepted"
        assert world.verdict(protocol, 54) == "dropped"


# --- rulesets by chance ------------------------------------------------------------------------------------


class Draw:
    """A ruleset by chance, of one family at a time: sets, chains that lead into each other, and what leads there.

    On each hook of a table there is one place: what stands first and accepts ends the hook on iptables alone.
    """

    def __init__(self, chance: random.Random, kind: str) -> None:
        self._chance = chance
        self._kind = kind

    def __call__(self, b: Builder) -> None:
        chance, pick = self._chance, self._chance.choice
        self._sets(b)
        targets = ["-j ACCEPT", "-j DROP", "-j RETURN", "-j REJECT", "", *self._rejects(b)]
        for name, led, count in (("c", (), 4), ("b", ("-j c", "-g c"), 6), ("a", ("-j b", "-g b", "-g c"), 6)):
            b.chain(name, *(self._rule(b, pick((*targets, *led))) for _ in range(count)))
        jumps = [*targets, "-j a", "-g a", "-j b", "-g c", "-j LOG --log-prefix chance"]
        for hook in (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT):
            place = pick(tuple(Place))
            policy = pick(tuple(Policy))
            rank = chance.sample(range(-9, 10), 3)
            for number in range(pick((1, 2, 3))):
                name = f"{hook}-{number}"
                b.chain(name, *(self._rule(b, pick(jumps), hook) for _ in range(pick((2, 4, 8)))))
                when = self._when(b, hook) if chance.random() < 0.3 else ""
                own = Policy.RETURN if when else policy
                b.attach(name, hook, place=place, rank=rank[number], policy=own, when=when)
        for hook in (Hook.PREROUTING, Hook.OUTPUT):
            marks = (f"-j MARK --set-xmark {mark}" for mark in ("0x1/0xff", "0x3/0x3", "0x2/0xf"))
            b.chain(f"m-{hook}", *(self._rule(b, mark) for mark in marks), table=M)
            b.attach(f"m-{hook}", hook, table=M, place=pick(tuple(Place)), policy=pick((Policy.ACCEPT, Policy.RETURN)))
        if self._kind == "stateful":
            self._translations(b)

    def _sets(self, b: Builder) -> None:
        """Sets near the addresses and ports that packets have anyway, as ranges, prefixes and single elements."""
        chance = self._chance
        for name, stem, other in (("s", "10.4.0.", "fd00:4::"), ("d", "192.0.2.", "2001:db8:2::")):
            low = chance.randrange(3, 8)
            ends = [(low, low + chance.randrange(4)), (16, 31), (40, 40 + chance.randrange(3))]
            chosen = chance.sample(ends, chance.choice((1, 2, 3)))
            v4, v6 = (
                [f"{net}{first:{base}}-{net}{last:{base}}" for first, last in chosen]
                for net, base in ((stem, "d"), (other, "x"))
            )
            b.addresses(name, v4, v6)
        ports = ("7", "53", "80-90", "1-6", "1000-1023", "8080", "65535", "0")
        b.ports("p", *chance.sample(ports, chance.choice((1, 2, 4))))

    @staticmethod
    def _rejects(b: Builder) -> tuple[str, ...]:
        words = (
            ("icmp-host-unreachable", "icmp-admin-prohibited") if b.v4 else ("icmp6-no-route", "icmp6-adm-prohibited")
        )
        return tuple(f"-j REJECT --reject-with {word}" for word in words)

    def _rule(self, b: Builder, target: str, hook: Hook | None = None) -> str:
        texts = [*self._addresses(), self._match(b)]
        if hook not in {None, Hook.OUTPUT}:
            texts.append(self._chance.choice(("", "", "-i wg0", "! -i wg+", "-i eth0")))
        if hook in {Hook.FORWARD, Hook.OUTPUT}:
            texts.append(self._chance.choice(("", "", "", "-o eth0", "! -o eth0")))
        return " ".join((*self._chance.sample(texts, len(texts)), target))

    def _when(self, b: Builder, hook: Hook) -> str:
        return self._rule(b, "", hook)

    def _addresses(self) -> tuple[str, ...]:
        pick, sign = self._chance.choice, self._chance.choice(("", "", "! "))
        sources = ("-s @s", "! -s @s", f"{sign}-s {{peers}}", "-s {peer}", "", "", "")
        destinations = ("-d @d", "! -d @d", f"{sign}-d {{hosts}}", f"{sign}-d {{host}}", "-d {gateway}", "", "", "")
        return pick(sources), pick(destinations)

    def _match(self, b: Builder) -> str:
        pick = self._chance.choice
        sign = pick(("", "", "! "))
        texts = [
            "",
            f"-m iprange {sign}--dst-range {{range}}",
            f"{sign}-p {pick(('tcp', 'udp', 'sctp', '1', '58'))}",
            f"-m mark {sign}--mark {pick(('0x1', '0x2/0x2', '0x3/0xff'))}",
            f"-m addrtype {sign}--dst-type LOCAL",
        ]
        if self._kind != "fragments":
            texts += self._headers(sign)
        elif b.v4:
            texts += ["-f", "! -f"]
        if self._kind == "stateful":
            texts += [
                f"-m conntrack {sign}--ctstate {pick(('NEW', 'ESTABLISHED,RELATED', 'INVALID,NEW', 'INVALID'))}",
                f"-m conntrack --ctstate {pick(('DNAT', 'SNAT'))}",
            ]
        return pick(texts)

    def _headers(self, sign: str) -> list[str]:
        """Conditions on what stands behind the IP header, which a later fragment doesn't have."""
        pick = self._chance.choice
        transport, icmp = pick(("tcp", "udp", "sctp")), "{icmp_not}" if sign else "{icmp}"
        return [
            f"-p {transport} -m {transport} --dport @p",
            f"-p {transport} -m {transport} ! --dport @p --sport {pick(('1024:2047', ':1000', '53'))}",
            f"-p {transport} -m {transport} --sport @p",
            f"-p {transport} -m {transport} {sign}--dport {pick(('80', '1:100', '53:65535'))}",
            f"-p {transport} -m multiport {sign}--dports {pick(('7,80:90', '1:9,53', '8080'))}",
            f"-p {transport} -m multiport {sign}--ports 53,1000:1023",
            f"{icmp} {pick(('{ping}', 'echo-reply'))}",
            f"-p tcp -m tcp {sign}--tcp-flags FIN,SYN,RST,ACK {pick(('SYN', 'ACK', 'RST', 'NONE', 'SYN,ACK'))}",
        ]

    def _translations(self, b: Builder) -> None:
        pick, port = self._chance.choice, self._chance.choice((53, 8080, 3128))
        to: tuple[str, ...] = (
            "-j DNAT --to-destination {host_port}",
            "-j DNAT --to-destination {host2}",
            f"-j REDIRECT --to-ports {port}",
            "-j RETURN",
            "-j ACCEPT",
        )
        for hook in (Hook.PREROUTING, Hook.OUTPUT):
            rules = [self._translation(pick(("udp", "tcp", "sctp")), pick(to)) for _ in range(5)]
            b.chain(f"n-{hook}", *rules, table=N)
            b.attach(f"n-{hook}", hook, table=N, place=pick(tuple(Place)), policy=pick((Policy.ACCEPT, Policy.RETURN)))
        to = ("-j MASQUERADE", "-j SNAT --to-source {alias}", "-j RETURN", "-j ACCEPT")
        rules = [
            self._translation(pick(("udp", "tcp", "sctp")), f"-o {pick(('eth0', 'wg0'))} {pick(to)}") for _ in range(6)
        ]
        b.chain("n-out", *rules, table=N)
        b.attach("n-out", Hook.POSTROUTING, table=N, place=pick(tuple(Place)))

    def _translation(self, protocol: str, target: str) -> str:
        ports = self._chance.choice(("--dport @p", "! --dport @p", "--sport 1024:2047", "--dport 1:100"))
        return f"{' '.join(self._addresses())} -p {protocol} -m {protocol} {ports} {target}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_ruleset_by_chance_means_the_same_on_every_backend(make_world: Maker, seed: int, kind: str) -> None:
    chance = random.Random(f"{seed} {kind}")  # noqa: S311 - the same examples in every run, no secrets
    ruleset = both(Draw(chance, kind))
    sent = assert_agreed(make_world, ruleset, chance, count=EACH, fragments=kind == "fragments")
    assert sent == 2 * EACH


# --- rulesets of the law book ------------------------------------------------------------------------------


def stateless(rule: Rule, family: Family, table: Table) -> bool:
    """Whether a rule does the same to each packet like another, and every backend can hold it."""
    if rule.stateful:
        return False
    try:
        render_rule(rule, family=family, language=LANGUAGE, names=names_in(table))
    except InexpressibleError:
        return False
    return True


def with_one_place(ruleset: Ruleset) -> Ruleset:
    """The ruleset without what stands last where something of the same table and hook stands first."""
    firsts = {(item.family, item.table, item.hook) for item in ruleset.attachments if item.place is Place.FIRST}
    held = [
        item
        for item in ruleset.attachments
        if item.place is Place.FIRST or (item.family, item.table, item.hook) not in firsts
    ]
    return msgspec.structs.replace(ruleset, attachments=tuple(held))


DRAWN: Final = rulesets(LANGUAGE, accepts=stateless).map(with_one_place).filter(lambda held: bool(held.attachments))


@settings(max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ruleset=DRAWN)
def test_what_the_law_book_draws_means_the_same_on_every_backend(make_world: Maker, ruleset: Ruleset) -> None:
    # The maker keeps its worlds until the end of all examples, and each example has its own.
    chance = random.Random("the law book")  # noqa: S311 - the same packets in every run, no secrets
    assert_agreed(make_world, ruleset, chance, count=40, fragments=False, verdicts=1)
