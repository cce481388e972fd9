"""Laws of the typed extensions' meaning: what behaves equally is equal, whichever words say it, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from meshfw.errors import ModelError
from meshfw.extensions.addrtype import AddressType, AddrType
from meshfw.extensions.codecs import MarkValue, Ports
from meshfw.extensions.conntrack import Conntrack, CtState, CtStatus, Seconds, State
from meshfw.extensions.icmp import Icmp, IcmpType
from meshfw.extensions.iprange import AddressRange, IpRange
from meshfw.extensions.limit import Limit, Rate
from meshfw.extensions.log import Log
from meshfw.extensions.mac import Mac
from meshfw.extensions.mark import Mark, MarkChange, SetConnMark, SetMark
from meshfw.extensions.multiport import Multiport
from meshfw.extensions.nat import Dnat, Masquerade, Redirect, Snat, To
from meshfw.extensions.reject import Reject
from meshfw.extensions.sctp import Chunk, Chunks
from meshfw.extensions.tcp import SYN, Tcp, TcpFlags
from meshfw.languages.iptables import parse_rule
from meshfw.model import DROPPED, Chain, Family, Hook, Network, Not, Packet, Rule, SetRef, Table
from tests.extensions import cases
from tests.extensions.case import LANGUAGE


def rule(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


EQUAL = [
    ("-p tcp", "-p tcp -m tcp"),
    ("-p tcp", "-p tcp --dport 0:65535"),
    ("-p tcp --tcp-flags NONE NONE", "-p tcp"),
    ("-p tcp --syn", "-p tcp --tcp-flags SYN,RST,ACK,FIN SYN"),
    ("-p tcp ! --tcp-flags RST NONE", "-p tcp --tcp-flags RST RST"),
    ("-p tcp ! --tcp-flags RST RST", "-p tcp --tcp-flags RST NONE"),
    ("-p tcp ! --dport 0:1023", "-p tcp --dport 1024:"),
    ("-p tcp ! --dport 80", "-p tcp -m multiport ! --dports 80"),
    ("-p tcp ! --dport 80", "-p tcp -m multiport --dports 0:79,81:65535"),
    ("-p tcp --sport 1 --dport 2", "-p tcp -m tcp --dport 2 -m tcp --sport 1"),
    ("-p tcp --dport 80", "-p tcp -m multiport --dports 80"),
    ("-p udp --dport 80:82", "-p udp -m multiport --dports 82,80,81"),
    ("-p udp -m multiport --dports 80,90", "-p udp -m multiport --dports 90,80,80"),
    ("-p udp -m multiport --dports 80:85,83:90", "-p udp --dport 80:90"),
    ("-p udp -m multiport --dports 0:65535", "-p udp"),
    ("-p udp -m multiport ! --ports 5,6", "-p udp ! --dport 5:6 ! --sport 5:6"),
    ("-p sctp --sport :", "-p sctp"),
    ("-p sctp --chunk-types any INIT,DATA", "-p sctp --chunk-types any data,init"),
    ("-p icmp --icmp-type any", "-p icmp"),
    ("-p icmp --icmp-type ping", "-p icmp --icmp-type 8"),
    ("-p icmp --icmp-type port-unreachable", "-p icmp --icmp-type 3/3"),
    ("-m state --state NEW", "-m conntrack --ctstate NEW"),
    ("-m state --state NEW,RELATED", "-m conntrack --ctstate RELATED,NEW"),
    ("-m conntrack ! --ctstate INVALID", "-m state --state NEW,RELATED,ESTABLISHED,UNTRACKED"),
    ("-m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED", ""),
    ("-m conntrack --ctstate NEW --ctdir ORIGINAL", "-m conntrack --ctdir ORIGINAL -m state --state NEW"),
    ("-m conntrack --ctproto tcp", "-m conntrack --ctproto 6"),
    ("-m conntrack --ctorigsrc 10.0.0.1", "-m conntrack --ctorigsrc 10.0.0.1/32"),
    ("-m conntrack --ctorigsrc 10.0.0.1/8", "-m conntrack --ctorigsrc 10.0.0.0/255.0.0.0"),
    (
        "-m conntrack ! --ctstatus ASSURED,EXPECTED",
        "-m conntrack ! --ctstatus ASSURED -m conntrack ! --ctstatus EXPECTED",
    ),
    ("-m conntrack --ctexpire 10:20", "-m conntrack --ctexpire 10: -m conntrack --ctexpire :20"),
    ("-m conntrack ! --ctexpire 0:9", "-m conntrack --ctexpire 10:"),
    ("-m mark --mark 16/0xff", "-m mark --mark 0x10/255"),
    ("-m mark --mark 0/0", ""),
    ("-m limit", "-m limit --limit 3/hour --limit-burst 5"),
    ("-m limit --limit 60/min", "-m limit --limit 1/s"),
    ("-m limit --limit 24/day", "-m limit --limit 1/hour"),
    ("-m limit --limit 9999/s", "-m limit --limit 10000/s"),
    ("-m addrtype --src-type LOCAL,NAT", "-m addrtype --src-type NAT,LOCAL"),
    ("-m addrtype --src-type LOCAL --dst-type NAT", "-m addrtype --dst-type NAT -m addrtype --src-type LOCAL"),
    ("-m iprange --src-range 10.0.0.0-10.0.0.255", "-s 10.0.0.0/24"),
    ("-m iprange ! --dst-range 10.0.0.1", "! -d 10.0.0.1"),
    ("-m iprange --src-range 0.0.0.0-255.255.255.255", ""),
    ("-m mac --mac-source AA:BB:CC:DD:EE:F", "-m mac --mac-source aa:bb:cc:dd:ee:0f"),
    ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
    ("-j LOG", "-j LOG --log-level warning"),
    ("-j LOG --log-uid --log-level debug", "-j LOG --log-level 7 --log-uid"),
    ("-j SNAT --to-source 10.0.0.1-10.0.0.1", "-j SNAT --to-source 10.0.0.1"),
    ("-p tcp -j DNAT --to-destination 10.0.0.1:80-80", "-p tcp -j DNAT --to-destination 10.0.0.1:80"),
    ("-j MARK --set-mark 1", "-j MARK --set-xmark 0x1/0xffffffff"),
    ("-j MARK --or-mark 6", "-j MARK --set-mark 6/6"),
    ("-j MARK --and-mark 0xff", "-j MARK --set-xmark 0/0xffffff00"),
    ("-j MARK --xor-mark 6", "-j MARK --set-xmark 6/0"),
    ("-j CONNMARK --save-mark --mask 0xff", "-j CONNMARK --save-mark --ctmask 0xff --nfmask 0xff"),
    ("-j CONNMARK --set-xmark 1/0xf --nfmask 3", "-j CONNMARK --set-xmark 1/0xf"),
    ("-m mark --mark 1 -m state --state NEW -p tcp", "-p tcp -m state --state NEW -m mark --mark 1"),
]


@pytest.mark.parametrize(("one", "other"), [*EQUAL, *cases.EQUAL])
def test_equal_behaviour_is_an_equal_rule(one: str, other: str) -> None:
    assert rule(one) == rule(other)
    assert hash(rule(one)) == hash(rule(other))


DIFFERENT = [
    ("-p tcp --dport 80", "-p tcp --sport 80"),
    ("-p tcp --dport 80", "-p tcp ! --dport 80"),
    ("-p tcp --dport 80", "-p udp --dport 80"),
    ("-p tcp -m multiport --ports 80", "-p tcp --dport 80"),
    ("-p tcp -m multiport --ports 80", "-p tcp --sport 80 --dport 80"),
    ("-p tcp -m multiport --dports 80,82", "-p tcp -m multiport --dports 80:82"),
    ("-p tcp --syn", "-p tcp ! --syn"),
    ("-p tcp --tcp-flags SYN,ACK SYN", "-p tcp --tcp-flags SYN SYN"),
    ("-p tcp ! --tcp-flags SYN,ACK SYN", "-p tcp --tcp-flags SYN,ACK ACK"),
    ("-p tcp --tcp-option 5", "-p tcp ! --tcp-option 5"),
    ("-p sctp --chunk-types any INIT,DATA", "-p sctp --chunk-types all INIT,DATA"),
    ("-p sctp --chunk-types any DATA:B", "-p sctp --chunk-types any DATA:b"),
    ("-p icmp --icmp-type 3", "-p icmp --icmp-type 3/0"),
    ("-p icmp --icmp-type 3/4", "-p icmp ! --icmp-type 3/4"),
    ("-p icmp ! --icmp-type any", "-p icmp"),
    ("-m conntrack --ctstate NEW", "-m conntrack --ctstate NEW,INVALID"),
    ("-m conntrack --ctstate DNAT", "-m conntrack --ctstate SNAT"),
    ("-m conntrack ! --ctstate DNAT", "-m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED,SNAT"),
    # A packet without a connection meets the first whatever its direction, and never the second.
    ("-m conntrack --ctstate INVALID --ctdir ORIGINAL", "-m conntrack --ctdir ORIGINAL -m state --state INVALID"),
    ("-m conntrack --ctorigsrc 10.0.0.1", "-m conntrack --ctorigdst 10.0.0.1"),
    ("-m conntrack --ctorigsrc 10.0.0.1", "-m conntrack --ctreplsrc 10.0.0.1"),
    ("-p tcp -m conntrack --ctorigdstport 80", "-p tcp -m conntrack --ctrepldstport 80"),
    ("-m conntrack --ctstatus ASSURED,EXPECTED", "-m conntrack --ctstatus ASSURED -m conntrack --ctstatus EXPECTED"),
    ("-m conntrack --ctexpire 0:", ""),  # it still asks for a connection
    ("-m conntrack ! --ctexpire 5:6", "-m conntrack --ctexpire 5:6"),
    ("-m mark --mark 1", "-m connmark --mark 1"),
    ("-m mark --mark 1", "-m mark --mark 1/1"),
    ("-m connmark --mark 0/0", ""),  # it still asks for a connection
    ("-m limit --limit 1/s", "-m limit --limit 2/s"),
    ("-m limit --limit-burst 6", "-m limit --limit-burst 7"),
    # Of two buckets in a row the second sees what the first let pass.
    ("-m limit --limit 1/s -m mark --mark 1", "-m mark --mark 1 -m limit --limit 1/s"),
    ("-m limit --limit 1/s -m limit --limit 2/s", "-m limit --limit 2/s -m limit --limit 1/s"),
    ("-m addrtype --src-type LOCAL", "-m addrtype --dst-type LOCAL"),
    ("-m addrtype --src-type LOCAL", "-m addrtype --src-type LOCAL --limit-iface-in"),
    ("-m addrtype --src-type LOCAL --limit-iface-out", "-m addrtype --src-type LOCAL --limit-iface-in"),
    ("-m iprange --src-range 10.0.0.0-10.0.0.254", "-s 10.0.0.0/24"),
    ("-m iprange ! --src-range 0.0.0.0-255.255.255.255", ""),
    ("-m mac --mac-source 00:00:00:00:00:01", "-m mac ! --mac-source 00:00:00:00:00:01"),
    ("-j REJECT", "-j REJECT --reject-with icmp-host-unreachable"),
    ("-j LOG --log-prefix a", "-j LOG --log-prefix b"),
    ("-j LOG --log-uid", "-j LOG --log-ip-options"),
    ("-j MASQUERADE", "-j MASQUERADE --random"),
    ("-j MASQUERADE --random", "-j MASQUERADE --random-fully"),
    ("-j SNAT --to-source 10.0.0.1", "-j DNAT --to-destination 10.0.0.1"),
    ("-j SNAT --to-source 10.0.0.1", "-j SNAT --to-source 10.0.0.1 --persistent"),
    ("-p tcp -j DNAT --to-destination :80", "-p tcp -j REDIRECT --to-ports 80"),
    ("-p tcp -j DNAT --to-destination :80-90", "-p tcp -j DNAT --to-destination :80-90/1"),
    ("-j MARK --set-mark 1", "-j CONNMARK --set-mark 1"),
    ("-j MARK --or-mark 1", "-j MARK --xor-mark 1"),
    ("-j CONNMARK --save-mark", "-j CONNMARK --restore-mark"),
    ("-j CONNMARK --save-mark --nfmask 1", "-j CONNMARK --save-mark --ctmask 1"),
    ("-j CONNMARK --save-mark --left-shift-mark 1", "-j CONNMARK --save-mark --right-shift-mark 1"),
]


@pytest.mark.parametrize(("one", "other"), [*DIFFERENT, *cases.DIFFERENT])
def test_different_behaviour_is_a_different_rule(one: str, other: str) -> None:
    assert rule(one) != rule(other)


def test_values_can_be_made_without_text() -> None:
    made = Rule(
        protocol=6,
        matches=(
            Tcp(dport=Ports(22, 22), flags=SYN),
            Conntrack(states=CtState.NEW, status=Not(CtStatus.EXPECTED), expire=Seconds(1, 9)),
            State(CtState.NEW | CtState.ESTABLISHED),
            Mark(Not(MarkValue(1, 0xF))),
            AddrType(destination=AddressType.LOCAL),
            Limit(Rate(120, 60), 7),
        ),
        target=Reject("tcp-reset"),
    )
    text = (
        "-p tcp --dport 22 --syn -m conntrack --ctstate NEW ! --ctstatus EXPECTED --ctexpire 1:9 "
        "-m state --state NEW,ESTABLISHED -m mark ! --mark 1/0xf -m addrtype --dst-type LOCAL "
        "-m limit --limit 2/s --limit-burst 7 -j REJECT --reject-with tcp-reset"
    )
    assert made == rule(text)


IMPOSSIBLE = [
    (lambda: Multiport(dports=(Ports(5, 4),)), "ascending"),
    (lambda: To(ports=Ports(5, 4)), "ascending"),
    (lambda: Masquerade(ports=Ports(5, 4)), "ascending"),
    (lambda: Redirect(ports=Ports(5, 4)), "ascending"),
    (lambda: Ports(0, 65536), "65535"),
    (lambda: IcmpType(256), "255"),
    (lambda: IcmpType(3, 256), "255"),
    (lambda: State(0), "needs one"),
    (lambda: State(int(CtState.DNAT)), "needs one"),
    (Conntrack, "at least one"),
    (lambda: Conntrack(states=Not(0)), "at least one state"),
    (lambda: Conntrack(direction="original"), "ORIGINAL"),
    (Multiport, "one of"),
    (lambda: Multiport(dports=()), "1 to 15"),
    (lambda: Multiport(dports=(Ports(1, 2),) * 8), "16"),
    (lambda: Rate(1, 7), "unit"),
    (lambda: Limit(Rate(1), 10001), "between"),
    (AddrType, "--src-type or --dst-type"),
    (lambda: AddrType(source=1, interface="both"), "neither"),
    (IpRange, "--src-range or --dst-range"),
    (lambda: To(AddressRange(Family.IPV4, 5, 4)), "ascending"),
    (lambda: AddressRange(Family.IPV4, 1 << 32, 1), "two ipv4 addresses"),
    (lambda: Mac("AA:BB:CC:DD:EE:FF"), "lower-case"),
    (lambda: Chunks("most"), "most"),
    (lambda: Log(prefix="x" * 30), "29"),
    (lambda: Log(prefix="a\nb"), "line end"),
    (lambda: Log(level=8), "between"),
    (lambda: Reject("silence"), "silence"),
    (To, "address or a port"),
    (lambda: To(ports=Ports(1, 2), base=0), "base port"),
    (lambda: Snat(to=To(ports=Ports(1, 2), base=1)), "shift"),
    (lambda: MarkChange(1 << 32), "32 bits"),
    (SetConnMark, "one of"),
    (lambda: SetConnMark(copy="swap"), "swap"),
    (lambda: SetConnMark(MarkChange(1), shift=32), "31"),
]


@pytest.mark.parametrize(("make", "reason"), IMPOSSIBLE)
def test_a_value_that_can_not_be_is_never_made(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        make()


def test_a_condition_that_everybody_meets_leaves_no_trace() -> None:
    assert Tcp(dport=Ports(0, 65535)) == Tcp()
    assert Tcp(flags=TcpFlags(0, 0)) == Tcp()
    assert tuple(Icmp(IcmpType(255)).atoms()) == ()


def test_a_port_set_is_not_its_members() -> None:
    assert Rule(protocol=6, matches=(Tcp(dport=SetRef("web")),)) != Rule(
        protocol=6, matches=(Tcp(sport=SetRef("web")),)
    )
    assert rule("-p tcp --dport @web") == Rule(protocol=6, matches=(Tcp(dport=SetRef("web")),))


def test_chunk_flags_print_in_the_order_of_their_bits() -> None:
    assert str(Chunk(0, mask=0b1111, flags=0b0101)) == "DATA:iUbE"


HOOKS = [
    (Reject(), {Hook.INPUT, Hook.FORWARD, Hook.OUTPUT}, Table.FILTER),
    (Masquerade(), {Hook.POSTROUTING}, Table.NAT),
    (Snat(to=To(AddressRange(Family.IPV4, 1, 1))), {Hook.POSTROUTING, Hook.INPUT}, Table.NAT),
    (Dnat(to=To(AddressRange(Family.IPV4, 1, 1))), {Hook.PREROUTING, Hook.OUTPUT}, Table.NAT),
    (Redirect(), {Hook.PREROUTING, Hook.OUTPUT}, Table.NAT),
]


@pytest.mark.parametrize(("target", "hooks", "table"), HOOKS)
def test_a_target_knows_its_hooks_and_table(
    target: Reject | Masquerade | Snat | Dnat | Redirect, hooks: set[Hook], table: Table
) -> None:
    assert target.hooks is not None
    assert set(target.hooks) == hooks
    assert target.tables == frozenset({table})
    assert target.final
    Chain(family=Family.IPV4, table=table, name="a", rules=(Rule(target=target),))
    with pytest.raises(ModelError, match="allowed in table"):
        Chain(family=Family.IPV4, table=Table.RAW, name="a", rules=(Rule(target=target),))


@pytest.mark.parametrize("target", [Log(), SetMark(MarkChange(1)), SetConnMark(MarkChange(1))])
@pytest.mark.parametrize("table", Table)
def test_a_target_that_goes_on_stands_in_every_table(target: Log | SetMark | SetConnMark, table: Table) -> None:
    assert not target.final
    Chain(family=Family.IPV6, table=table, name="a", rules=(Rule(target=target), Rule(target=target)))


FAMILIES = [
    Rule(matches=(Conntrack(orig_source=Not(Network.parse("10.0.0.1"))),)),
    Rule(matches=(IpRange(source=AddressRange(Family.IPV4, 1, 9)),)),
    Rule(target=Snat(to=To(AddressRange(Family.IPV4, 1, 9)))),
    Rule(target=Reject("net-unreachable")),
    Rule(matches=(AddrType(source=AddressType.BROADCAST),)),
    Rule(protocol=1, matches=(Icmp(IcmpType(8)),)),
]


@pytest.mark.parametrize("held", FAMILIES)
def test_a_rule_of_one_family_is_no_rule_of_the_other(held: Rule) -> None:
    assert held.problem(Family.IPV4) is None
    assert held.problem(Family.IPV6) is not None


CHANGED = [
    ("-j NOTRACK", {"state": "UNTRACKED"}),
    ("-j CT --zone 5", {}),
    ("-p tcp -j TPROXY --on-port 80 --tproxy-mark 0x6/0xf", {"mark": 0x16}),
    ("-j SET --map-set s src --map-mark", {"mark": None}),
    ("-j NETMAP --to 10.0.0.0/8", {"source": None, "destination": None, "snat": None, "dnat": None}),
]


@pytest.mark.parametrize(("text", "changed"), CHANGED)
def test_a_target_says_how_later_rules_see_the_packet(text: str, changed: dict[str, object]) -> None:
    packet = Packet(family=Family.IPV4, source=1, destination=2, state="NEW", mark=0x13, snat=False, dnat=False)
    target = rule(text).target
    assert target is not None
    assert target.applied(packet) == msgspec.structs.replace(packet, **changed)


def test_what_belongs_to_no_connection_carries_no_label_and_is_expected_by_nobody() -> None:
    for state, answer in (("UNTRACKED", True), ("NEW", None)):
        packet = Packet(family=Family.IPV4, state=state)
        for text in ("-m connlabel ! --label 1", "-m helper ! --helper ftp"):
            (match,) = rule(text).matches
            assert match.meets(packet) is answer


@pytest.mark.parametrize(
    ("flags", "verdicts"), [(2, (DROPPED,)), (16, (DROPPED,)), (17, (None,)), (None, (None, DROPPED))]
)
def test_synproxy_answers_the_handshake_alone(flags: int | None, verdicts: tuple[object, ...]) -> None:
    target = rule("-p tcp -j SYNPROXY").target
    assert target is not None
    assert target.verdicts(Packet(family=Family.IPV4, tcp_flags=flags)) == verdicts
