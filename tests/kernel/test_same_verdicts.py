"""The meaning of our translation against iptables' own: random rules, loaded by its tools and by our backends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshfw.extensions.tcp import FLAGS
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.model import Family
from meshfw.packet import Evaluator
from meshfw.testing.frames import Packet
from meshfw.testing.probes import Result
from tests.kernel.forecast import forecast
from tests.kernel.worlds import BACKENDS, ICMP_REPLY, LANGUAGE, WITNESSES, WORDS, Maker, World, worlds

pytestmark = pytest.mark.kernel

SYN, ACK = FLAGS["SYN"], FLAGS["ACK"]
PORTS = (1, 6, 7, 9, 10, 52, 53, 54, 79, 80, 90, 91, 100, 101, 1000, 1001, 8080)


@pytest.fixture
def make_world(request: pytest.FixtureRequest, kernel_room: object, tmp_path: Path) -> Iterator[Maker]:
    with worlds(request, tmp_path) as make:
        yield make


class RandomDump:
    """A dump of one family: rules over a small world of addresses, ports, types and interfaces."""

    def __init__(self, chance: random.Random, family: Family) -> None:
        self._chance = chance
        self._words = WORDS[family]

    def text(self) -> str:
        pick, words = self._chance.choice, self._words
        lines = ["*mangle", ":PREROUTING ACCEPT"]
        lines += [self._rule("PREROUTING", f"-j MARK --set-xmark {pick(('0x1/0xff', '0x3/0x3'))}") for _ in range(3)]
        lines += ["*nat", ":PREROUTING ACCEPT", ":POSTROUTING ACCEPT"]
        lines.append(f"-A PREROUTING -d {words['other']} -p tcp -j DNAT --to-destination {words['host_port']}")
        lines.append(f"-A PREROUTING -i wg0 -p udp -m udp --dport 53 -j REDIRECT --to-ports {pick((53, 8080))}")
        lines.append(f"-A POSTROUTING -s {words['peers']} -o eth0 -p {pick(('udp', 'tcp'))} -j MASQUERADE")
        lines += [
            "*filter",
            f":INPUT {pick(('ACCEPT', 'DROP'))}",
            f":FORWARD {pick(('ACCEPT', 'DROP'))}",
            ":a -",
            ":b -",
        ]
        # Whatever comes behind: some packets are accepted, some rejected, and most are left to the random rules.
        lines += ["-A FORWARD -p udp -m udp --dport 7:54 -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 79:91 -j REJECT"]
        verdicts = ("-j ACCEPT", "-j DROP", "-j RETURN", "-j REJECT", "")
        for name, targets, count in (
            ("INPUT", (*verdicts, "-j a"), 6),
            ("FORWARD", (*verdicts, "-j a", "-g a", "-g b"), 12),
            ("a", (*verdicts, "-j b", "-g b"), 6),
            ("b", verdicts, 6),
        ):
            lines += [self._rule(name, pick(targets)) for _ in range(count)]
        return "\n".join(" ".join(line.split()) for line in lines)

    def _rule(self, chain: str, target: str) -> str:
        text = self._conditions()
        if chain != "FORWARD":  # elsewhere, or on the way from elsewhere, a packet has no output interface
            text = text.replace("! -o eth0", "").replace("-o eth0", "")
        return f"-A {chain} {text} {target}"

    def _conditions(self) -> str:
        words, sign = self._words, self._chance.choice(("", "", "! "))
        groups = (
            (f"{sign}-s {words['peers']}", f"-s {words['peer']}", f"{sign}-s {words['host']}"),
            (f"{sign}-d {words['hosts']}", f"-d {words['other']}", f"{sign}-d {words['host']}"),
            (f"{sign}-i wg+", "-i eth0", f"{sign}-o eth0"),
        )
        chosen = self._chance.sample(groups, self._chance.choice((1, 1, 2)))
        return " ".join(self._chance.choice(texts) for texts in (*chosen, self._matches(sign)))

    def _matches(self, sign: str) -> tuple[str, ...]:
        pick, words = self._chance.choice, self._words
        transport = pick(("tcp", "udp"))
        icmp = words["icmp_not"] if sign else words["icmp"]
        return (
            f"-p {transport} -m multiport {sign}--dports {pick(('7,80:90', '1:9,53', '8080'))}",
            f"-p {transport} -m multiport {sign}--ports 53,1000:1023",
            f"-p tcp -m tcp {sign}--dport {pick(('80', '1:100', '53:65535'))}",
            f"-p udp -m udp {sign}--sport {pick(('1024:2047', '53', ':1000'))} --dport 1:1000",
            f"{sign}-p {pick(('tcp', 'udp', '1', '58'))}",
            f"{icmp} {pick((words['ping'], 'echo-reply', 'destination-unreachable'))}",
            f"-m iprange {sign}--dst-range {words['range']}",
            f"-m conntrack {sign}--ctstate {pick(('NEW', 'ESTABLISHED,RELATED', 'INVALID,NEW'))}",
            "-m conntrack --ctstate DNAT",
            f"-m mark {sign}--mark {pick(('0x1', '0x2/0x2', '0x3/0xff'))}",
            f"-m addrtype {sign}--dst-type LOCAL",
            f"-p tcp -m tcp {sign}--tcp-flags FIN,SYN,RST,ACK {pick(('SYN', 'ACK', 'SYN,ACK'))}",
            "-p tcp -m tcp --dport 80 -m comment --comment web",
        )


def probes(world: World, chance: random.Random) -> list[Packet]:
    """Packets on both sides of the boundaries that random rules have."""
    v4 = world.family is Family.IPV4
    stem = "192.0.2." if v4 else "2001:db8:2::"
    sources = ("peer", "10.4.255.255" if v4 else "fd00:4:ffff::1")
    found: list[Packet] = []
    for source in sources:
        for destination in ("host", "host2", "other", "gateway", "wan", f"{stem}4", f"{stem}9"):
            for protocol in ("udp", "tcp"):
                found += [
                    world.packet(protocol, port, sport=sport, source=source, destination=destination)
                    for port, sport in zip(chance.sample(PORTS, 6), (0, 0, 53, 1000, 1024, 2047), strict=True)
                ]
            for icmp in (None, ICMP_REPLY[world.family]):
                found.append(world.packet("icmp", source=source, destination=destination, icmp=icmp))
            for flags in (ACK, SYN | ACK):
                found.append(world.packet("tcp", 80, source=source, destination=destination, flags=flags))
    for destination in sources:
        for protocol in ("udp", "tcp"):
            found += [
                world.packet(protocol, port, source="host", destination=destination, start="server")
                for port in (53, 80, 8080)
            ]
    return found


def account(result: Result) -> tuple[object, ...]:
    """What is compared: the packet that arrived, changes included, and the kind and origin of the answer."""
    seen, answer = result.arrived, result.answer
    return (
        result.verdict,
        seen and (seen.kind, seen.source, seen.destination, seen.dport),
        answer and (answer.kind, answer.source, answer.destination),
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", Family, ids=str)
def test_random_rules_mean_what_iptables_makes_of_them(make_world: Maker, family: Family, seed: int) -> None:
    chance = random.Random(f"{seed} {family}")  # noqa: S311 - the same examples in every run, no secrets
    text = RandomDump(chance, family).text()
    packets: list[Packet] = []
    accounts, sent = {}, []
    for engine in (*WITNESSES, *BACKENDS):
        world = make_world(family, engine)
        packets = packets or probes(world, chance)
        world.load(text)
        results = world.send_all(packets)
        sent = [result.packet for result in results]
        accounts[engine] = [account(result) for result in results]
    expected = accounts[WITNESSES[0]]
    assert len(packets) > 200
    assert len({verdict for verdict, *_ in expected}) >= 3, "the rules tell the packets apart"
    for engine, found in accounts.items():
        wrong = [(p, a, b) for p, a, b in zip(packets, expected, found, strict=True) if a != b]
        assert not wrong, f"{engine}: {len(wrong)} of {len(packets)} differ, the first {wrong[0]}\n{text}"
    check_forecasts(text.format(**WORDS[family]), family, sent, [str(verdict) for verdict, *_ in expected])


def check_forecasts(text: str, family: Family, packets: list[Packet], verdicts: list[str]) -> None:
    """What the evaluation says of each packet is what the kernel did; where it names more than one, one of them is."""
    tables = text.replace("\n*", "\nCOMMIT\n*") + "\nCOMMIT\n"
    evaluator = Evaluator(ruleset_of_dump(parse_dump(tables, family=family, language=LANGUAGE)))
    forecasts = [forecast(evaluator, packet) for packet in packets]
    wrong = [(p, sorted(f), v) for p, f, v in zip(packets, forecasts, verdicts, strict=True) if v not in f]
    assert not wrong, f"{len(wrong)} of {len(packets)} come otherwise than said, the first {wrong[0]}\n{text}"
    sure = sum(1 for found in forecasts if len(found) == 1)
    assert sure > len(packets) * 9 // 10, "what is all uncertain is no forecast"
