"""Rules of every typed extension: as a person writes them, as iptables-save prints them and as nft lists them."""

from __future__ import annotations

from typing import NamedTuple

from meshfw.extensions import HostTables, Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.model import Family, Rule

LANGUAGE = Language.of(
    builtin_extensions(),
    hosts=HostTables(services={("ssh", "tcp"): 22, ("domain", "tcp"): 53, ("domain", "udp"): 53}),
)
FAMILIES = {"4": Family.IPV4, "6": Family.IPV6}


class Case(NamedTuple):
    """One rule; ``families`` are the digits 4 and 6, ``table`` may name a built-in chain behind a slash.

    ``saved`` is empty where it is what was written; ``nft`` is None where nft has no way to say it.
    """

    families: str
    table: str
    written: str
    saved: str
    nft: str | None

    @property
    def canonical(self) -> str:
        """What iptables-save prints behind ``-A CHAIN``."""
        return self.saved or self.written

    def rules(self) -> list[tuple[Family, Rule]]:
        """The rule of each family."""
        return [
            (FAMILIES[digit], parse_rule(self.written, family=FAMILIES[digit], language=LANGUAGE))
            for digit in self.families
        ]


CASES = (
    # tcp
    Case("46", "filter", "-p tcp --dport 22", "-p tcp -m tcp --dport 22", "tcp dport 22 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m tcp --sport 1024: ! --dport :1023",
        "-p tcp -m tcp --sport 1024:65535 ! --dport 0:1023",
        "tcp sport 1024-65535 tcp dport != 0-1023 counter",
    ),
    Case("46", "filter", "-p tcp --dport 80:80", "-p tcp -m tcp --dport 80", "tcp dport 80 counter"),
    Case("46", "filter", "-p tcp --dport : --sport 7", "-p tcp -m tcp --sport 7", "tcp sport 7 counter"),
    Case("46", "filter", "-p tcp -m tcp --destination-port ssh", "-p tcp -m tcp --dport 22", "tcp dport 22 counter"),
    Case(
        "46",
        "filter",
        "-p tcp --syn",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags syn / fin,syn,rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --syn",
        "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags != syn / fin,syn,rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags ALL NONE",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE",
        "tcp flags ! fin,syn,rst,psh,ack,urg counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags ALL NONE",
        "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE",
        "tcp flags fin,syn,rst,psh,ack,urg counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags SYN,FIN FIN,SYN",
        "-p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN",
        "tcp flags fin,syn / fin,syn counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags ack,rst rst,ack",
        "-p tcp -m tcp ! --tcp-flags RST,ACK RST,ACK",
        "tcp flags != rst,ack / rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags RST RST",
        "-p tcp -m tcp --tcp-flags RST RST",
        "tcp flags & rst == rst counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags RST RST",
        "-p tcp -m tcp ! --tcp-flags RST RST",
        "tcp flags & rst != rst counter",
    ),
    Case(
        "46", "filter", "-p tcp --tcp-flags RST NONE", "-p tcp -m tcp --tcp-flags RST NONE", "tcp flags ! rst counter"
    ),
    Case(
        "46", "filter", "-p tcp ! --tcp-flags RST NONE", "-p tcp -m tcp ! --tcp-flags RST NONE", "tcp flags rst counter"
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags ALL FIN,PSH,URG --dport 1:2",
        "-p tcp -m tcp --dport 1:2 --tcp-flags FIN,SYN,RST,PSH,ACK,URG FIN,PSH,URG",
        "tcp dport 1-2 tcp flags fin,psh,urg / fin,syn,rst,psh,ack,urg counter",
    ),
    Case("46", "filter", "-p tcp --tcp-flags NONE NONE", "-p tcp -m tcp", "meta l4proto 6 counter"),
    Case("46", "filter", "-p tcp --tcp-flags SYN ACK", "-p tcp -m tcp --tcp-flags SYN ACK", None),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-option 5 --tcp-flags SYN SYN",
        "-p tcp -m tcp --tcp-option 5 --tcp-flags SYN SYN",
        "tcp flags & syn == syn tcp option sack exists counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --syn ! --tcp-option 8",
        "-p tcp -m tcp ! --tcp-option 8 --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags syn / fin,syn,rst,ack tcp option timestamp missing counter",
    ),
    Case("46", "filter", "-p tcp --tcp-option 253", "-p tcp -m tcp --tcp-option 253", None),
    # udp
    Case("46", "filter", "-p udp --dport 53", "-p udp -m udp --dport 53", "udp dport 53 counter"),
    Case(
        "46",
        "filter",
        "-p udp ! --sport 53 --dport 1024:65535",
        "-p udp -m udp ! --sport 53 --dport 1024:65535",
        "udp sport != 53 udp dport 1024-65535 counter",
    ),
    Case("46", "filter", "-p udp -m udp --source-port domain", "-p udp -m udp --sport 53", "udp sport 53 counter"),
    Case("46", "filter", "-p udp -m udp", "", "meta l4proto 17 counter"),
    # sctp
    Case("46", "filter", "-p sctp --dport 36412", "-p sctp -m sctp --dport 36412", "sctp dport 36412 counter"),
    Case(
        "46",
        "filter",
        "-p sctp ! --sport 1:2 --dport 3:",
        "-p sctp -m sctp ! --sport 1:2 --dport 3:65535",
        "sctp sport != 1-2 sctp dport 3-65535 counter",
    ),
    Case("46", "filter", "-p sctp --sport :", "-p sctp -m sctp --sport 0:65535", "sctp sport 0-65535 counter"),
    Case(
        "46", "filter", "-p sctp --chunk-types any INIT,DATA:Be", "-p sctp -m sctp --chunk-types any DATA:Be,INIT", None
    ),
    Case(
        "46",
        "filter",
        "-p sctp ! --chunk-types only shutdown_complete:t,abort:T",
        "-p sctp -m sctp ! --chunk-types only ABORT:T,SHUTDOWN_COMPLETE:t",
        None,
    ),
    Case(
        "46",
        "filter",
        "-p sctp --dport 9 --chunk-types all ALL",
        "-p sctp -m sctp --dport 9 --chunk-types all ALL",
        None,
    ),
    Case("46", "filter", "-p sctp --chunk-types any NONE", "-p sctp -m sctp --chunk-types any NONE", None),
    # icmp
    Case("4", "filter", "-p icmp --icmp-type any", "-p icmp -m icmp --icmp-type any", "meta l4proto 1 counter"),
    Case("4", "filter", "-p icmp ! --icmp-type any", "-p icmp -m icmp ! --icmp-type any", None),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type echo-request",
        "-p icmp -m icmp --icmp-type 8",
        "icmp type echo-request counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp -m icmp --icmp-type PING",
        "-p icmp -m icmp --icmp-type 8",
        "icmp type echo-request counter",
    ),
    Case(
        "4", "filter", "-p icmp ! --icmp-type 0", "-p icmp -m icmp ! --icmp-type 0", "icmp type != echo-reply counter"
    ),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type fragmentation-needed",
        "-p icmp -m icmp --icmp-type 3/4",
        "icmp type . icmp code { destination-unreachable . frag-needed } counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp ! --icmp-type 3/4",
        "-p icmp -m icmp ! --icmp-type 3/4",
        "icmp type . icmp code != { destination-unreachable . frag-needed } counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type 3/0:255",
        "-p icmp -m icmp --icmp-type 3",
        "icmp type destination-unreachable counter",
    ),
    Case("4", "filter", "-p icmp --icmp-type 255/7", "-p icmp -m icmp --icmp-type any", "meta l4proto 1 counter"),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type 42/200",
        "-p icmp -m icmp --icmp-type 42/200",
        "icmp type . icmp code { 42 . 200 } counter",
    ),
    Case(
        "6",
        "filter",
        "-p ipv6-icmp --icmpv6-type packet-too-big",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 2",
        "icmpv6 type packet-too-big counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 -m icmp6 --icmpv6-type neighbor-solicitation",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135",
        "icmpv6 type nd-neighbor-solicit counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 ! --icmpv6-type 1/4",
        "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4",
        "icmpv6 type . icmpv6 code != { destination-unreachable . port-unreachable } counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 --icmpv6-type unknown-option",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 4/2",
        "icmpv6 type . icmpv6 code { parameter-problem . 2 } counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 --icmpv6-type 255",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 255",
        "icmpv6 type 255 counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 -m ipv6-icmp --icmpv6-type 143",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 143",
        "icmpv6 type mld2-listener-report counter",
    ),
    # comment
    Case("46", "filter", "-m comment --comment plain", "", 'counter comment "plain"'),
    Case("46", "filter", '-m comment --comment "two words"', "", 'counter comment "two words"'),
    Case(
        "46",
        "filter",
        '-p tcp -m comment --comment "it\'s \\"so\\"" -m tcp --dport 1',
        '-p tcp -m comment --comment "it\\\'s \\"so\\"" -m tcp --dport 1',
        "tcp dport 1 counter comment \"it's 'so'#cd8949f849d6\"",
    ),
    # conntrack
    Case("46", "filter", "-m conntrack --ctstate RELATED,ESTABLISHED", "", "ct state established,related counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstate established,new,invalid",
        "-m conntrack --ctstate INVALID,NEW,ESTABLISHED",
        "ct state invalid,established,new counter",
    ),
    Case("46", "filter", "-m conntrack ! --ctstate NEW", "", "ct state invalid,established,related,untracked counter"),
    Case("46", "filter", "-m conntrack ! --ctstate INVALID,UNTRACKED", "", "ct state established,related,new counter"),
    Case("46", "filter", "-m conntrack --ctstate UNTRACKED", "", "ct state untracked counter"),
    Case("46", "filter", "-m conntrack --ctstate DNAT", "", "ct status dnat counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstate DNAT,SNAT",
        "-m conntrack --ctstate SNAT,DNAT",
        "ct status snat,dnat counter",
    ),
    Case("46", "filter", "-m conntrack --ctstate ESTABLISHED,DNAT", "", None),
    Case("46", "filter", "-m conntrack ! --ctstate DNAT", "", None),
    Case("46", "filter", "-m conntrack --ctproto tcp", "-m conntrack --ctproto 6", "ct protocol 6 counter"),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctproto 17 --ctdir reply",
        "-m conntrack ! --ctproto 17 --ctdir REPLY",
        "ct protocol != 17 ct direction reply counter",
    ),
    Case(
        "4",
        "filter",
        "-m conntrack --ctorigsrc 10.0.0.1 --ctorigdst 10.0.0.0/8",
        "",
        "ct original ip saddr 10.0.0.1 ct original ip daddr 10.0.0.0/8 counter",
    ),
    Case(
        "4",
        "filter",
        "-m conntrack ! --ctreplsrc 10.0.0.1 ! --ctrepldst 10.1.0.0/16",
        "",
        "ct reply ip saddr != 10.0.0.1 ct reply ip daddr != 10.1.0.0/16 counter",
    ),
    Case(
        "6",
        "filter",
        "-m conntrack --ctorigsrc fd00::1 --ctorigdst fd00::/8",
        "",
        "ct original ip6 saddr fd00::1 ct original ip6 daddr fd00::/8 counter",
    ),
    Case(
        "6",
        "filter",
        "-m conntrack ! --ctreplsrc fd00::1 ! --ctrepldst fd00:1::/32",
        "",
        "ct reply ip6 saddr != fd00::1 ct reply ip6 daddr != fd00:1::/32 counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m conntrack --ctorigsrcport 1024: --ctorigdstport 80",
        "-p tcp -m conntrack --ctorigsrcport 1024:65535 --ctorigdstport 80",
        "meta l4proto 6 ct original proto-src 1024-65535 ct original proto-dst 80 counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack --ctproto 17 ! --ctreplsrcport 53 --ctrepldstport 1:9",
        "",
        "ct protocol 17 ct reply proto-src != 53 ct reply proto-dst 1-9 counter",
    ),
    Case("46", "filter", "-m conntrack --ctorigdstport 80", "", None),
    Case(
        "46",
        "filter",
        "-p tcp --dport 80 -m conntrack --ctproto 6 --ctorigdstport 81",
        "-p tcp -m tcp --dport 80 -m conntrack --ctproto 6 --ctorigdstport 81",
        "tcp dport 80 ct protocol 6 ct original proto-dst 81 counter",
    ),
    Case("46", "filter", "-p tcp -m conntrack --ctproto 6 -m tcp --dport 80", "", None),
    Case("46", "filter", "-p tcp -m conntrack --ctorigdstport 81 -m tcp --dport 80", "", None),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstatus ASSURED,EXPECTED",
        "-m conntrack --ctstatus EXPECTED,ASSURED",
        "ct status expected,assured counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctstatus ASSURED,CONFIRMED,SEEN_REPLY",
        "-m conntrack ! --ctstatus SEEN_REPLY,ASSURED,CONFIRMED",
        "ct status ! seen-reply,assured,confirmed counter",
    ),
    Case("46", "filter", "-m conntrack --ctstatus NONE", "", None),
    Case("46", "filter", "-m conntrack --ctexpire 10:20", "", "ct expiration >= 10s ct expiration < 21s counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctexpire 3600:",
        "-m conntrack --ctexpire 3600:4294967295",
        "ct expiration >= 1h counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctexpire :90000",
        "-m conntrack ! --ctexpire 0:90000",
        "ct expiration >= 1d1h1s counter",
    ),
    Case("46", "filter", "-m conntrack ! --ctexpire 10:20", "", None),
    Case(
        "46",
        "filter",
        "-m conntrack --ctdir ORIGINAL --ctstate ESTABLISHED",
        "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL",
        "ct state established ct direction original counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack --ctdir ORIGINAL --ctstate INVALID",
        "-m conntrack --ctstate INVALID --ctdir ORIGINAL",
        None,
    ),
    # state
    Case(
        "46",
        "filter",
        "-m state --state ESTABLISHED,RELATED",
        "-m state --state RELATED,ESTABLISHED",
        "ct state established,related counter",
    ),
    Case("46", "filter", "-m state ! --state INVALID", "", "ct state established,related,new,untracked counter"),
    Case("46", "filter", "-m state --state n", "-m state --state NEW", "ct state new counter"),
    # multiport
    Case("46", "filter", "-p tcp -m multiport --dports 443,80,80", "", "tcp dport { 80, 443 } counter"),
    Case("46", "filter", "-p udp -m multiport ! --sports 53,1024:65535", "", "udp sport != { 53, 1024-65535 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80", "", "tcp dport 80 counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 82,80,81", "", "tcp dport { 80, 81, 82 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80,81,90:100", "", "tcp dport { 80-81, 90-100 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80:90,85:95", "", "tcp dport 80-95 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --ports 80,443",
        "",
        "tcp sport . tcp dport { 80 . 0-65535, 443 . 0-65535, 0-79 . 80, 0-79 . 443, 81-442 . 80, "
        "81-442 . 443, 444-65535 . 80, 444-65535 . 443 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p sctp -m multiport ! --ports 80,443",
        "",
        "sctp sport != { 80, 443 } sctp dport != { 80, 443 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p udplite -m multiport --source-ports 5",
        "-p udplite -m multiport --sports 5",
        "udplite sport 5 counter",
    ),
    Case(
        "46",
        "filter",
        "-p dccp -m multiport --destination-ports 5,6",
        "-p dccp -m multiport --dports 5,6",
        "dccp dport { 5, 6 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --ports 1:9",
        "",
        "tcp sport . tcp dport { 1-9 . 0-65535, 0 . 1-9, 10-65535 . 1-9 } counter",
    ),
    Case("46", "filter", "-p tcp -m multiport --dports 0:65535", "", "meta l4proto 6 counter"),
    Case("46", "filter", "-p tcp -m multiport ! --dports 0:65535", "", None),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --dports ssh,domain",
        "-p tcp -m multiport --dports 22,53",
        "tcp dport { 22, 53 } counter",
    ),
    # mark, connmark
    Case("46", "filter", "-m mark --mark 7", "-m mark --mark 0x7", "meta mark 0x00000007 counter"),
    Case("46", "filter", "-m mark ! --mark 0x10/0xff", "", "meta mark & 0x000000ff != 0x00000010 counter"),
    Case("46", "filter", "-m mark --mark 0x100/0xffffff00", "", "meta mark 0x00000100/24 counter"),
    Case("46", "filter", "-m mark --mark 0/0", "-m mark --mark 0x0/0x0", "meta mark 0x00000000/0 counter"),
    Case("46", "filter", "-m mark ! --mark 0/0", "-m mark ! --mark 0x0/0x0", None),
    Case("46", "filter", "-m mark --mark 0x11/0x1", "", None),
    Case("46", "filter", "-m connmark --mark 010", "-m connmark --mark 0x8", "ct mark 0x00000008 counter"),
    Case("46", "filter", "-m connmark ! --mark 0x4000/0x4000", "", "ct mark & 0x00004000 != 0x00004000 counter"),
    Case("46", "filter", "-m connmark --mark 0/0", "-m connmark --mark 0x0/0x0", "ct mark 0x00000000/0 counter"),
    Case("46", "filter", "-m connmark --mark 0x80000000/0xf0000000", "", "ct mark 0x80000000/4 counter"),
    # limit
    Case("46", "filter", "-m limit", "-m limit --limit 3/hour", "limit rate 3/hour counter"),
    Case("46", "filter", "-m limit --limit 5/minute", "-m limit --limit 5/min", "limit rate 5/minute counter"),
    Case(
        "46",
        "filter",
        "-m limit --limit 60/min --limit-burst 7",
        "-m limit --limit 1/sec --limit-burst 7",
        "limit rate 1/second burst 7 packets counter",
    ),
    Case("46", "filter", "-m limit --limit 24/day", "-m limit --limit 1/hour", "limit rate 1/hour counter"),
    Case("46", "filter", "-m limit --limit 7", "-m limit --limit 7/sec", "limit rate 7/second counter"),
    Case("46", "filter", "-m limit --limit 9999/s", "-m limit --limit 10000/sec", "limit rate 10000/second counter"),
    Case(
        "46",
        "filter",
        "-m limit --limit 7777/h --limit-burst 5",
        "-m limit --limit 7777/hour",
        "limit rate 7777/hour counter",
    ),
    Case("46", "filter", "-m limit --limit 1/day --limit-burst 1", "", "limit rate 1/day burst 1 packets counter"),
    # addrtype
    Case("46", "filter", "-m addrtype --dst-type LOCAL", "", "fib daddr type local counter"),
    Case(
        "4",
        "filter",
        "-m addrtype ! --src-type local --dst-type UNICAST,BROADCAST",
        "-m addrtype ! --src-type LOCAL --dst-type UNICAST,BROADCAST",
        "fib saddr type != local fib daddr type { unicast, broadcast } counter",
    ),
    Case(
        "4",
        "filter",
        "-m addrtype --src-type THROW,LOCAL",
        "-m addrtype --src-type LOCAL,THROW",
        "fib saddr type { local, 9 } counter",
    ),
    Case("4", "filter", "-m addrtype --src-type NAT", "", "fib saddr type 10 counter"),
    Case(
        "46",
        "filter",
        "-m addrtype --dst-type ANYCAST,LOCAL --limit-iface-in",
        "-m addrtype --dst-type LOCAL,ANYCAST --limit-iface-in",
        "fib daddr . iif type { local, anycast } counter",
    ),
    Case(
        "46",
        "filter",
        "-m addrtype --src-type LOCAL --limit-iface-out",
        "",
        "fib saddr . oif type local counter",
    ),
    Case("46", "mangle", "-m addrtype ! --src-type LOCAL", "", "fib saddr type != local counter"),
    Case("6", "filter", "-m addrtype --dst-type MULTICAST", "", None),
    # iprange
    Case("4", "filter", "-m iprange --src-range 10.0.0.5-10.0.0.9", "", "ip saddr 10.0.0.5-10.0.0.9 counter"),
    Case(
        "4",
        "filter",
        "-m iprange ! --dst-range 10.0.0.0-10.0.0.255 --src-range 10.0.0.1",
        "-m iprange --src-range 10.0.0.1-10.0.0.1 ! --dst-range 10.0.0.0-10.0.0.255",
        "ip saddr 10.0.0.1-10.0.0.1 ip daddr != 10.0.0.0-10.0.0.255 counter",
    ),
    Case("6", "filter", "-m iprange ! --src-range fd00::5-fd00::9", "", "ip6 saddr != fd00::5-fd00::9 counter"),
    Case("4", "filter", "-m iprange --src-range 0.0.0.0-255.255.255.255", "", "counter"),
    Case("4", "filter", "-m iprange ! --src-range 0.0.0.0-255.255.255.255", "", None),
    # mac
    Case(
        "46",
        "filter",
        "-m mac --mac-source AA:BB:CC:0D:EE:FF",
        "-m mac --mac-source aa:bb:cc:0d:ee:ff",
        "ether saddr aa:bb:cc:0d:ee:ff counter",
    ),
    Case(
        "46",
        "filter",
        "-m mac ! --mac-source 0:1:2:3:4:5",
        "-m mac ! --mac-source 00:01:02:03:04:05",
        "ether saddr != 00:01:02:03:04:05 counter",
    ),
    # REJECT
    Case("4", "filter", "-j REJECT", "-j REJECT --reject-with icmp-port-unreachable", "counter reject"),
    Case("6", "filter", "-j REJECT", "-j REJECT --reject-with icmp6-port-unreachable", "counter reject"),
    Case(
        "46",
        "filter",
        "-p tcp -j REJECT --reject-with tcp",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "meta l4proto 6 counter reject with tcp reset",
    ),
    Case("4", "filter", "-j REJECT --reject-with icmp-port-unreachable", "", "counter reject"),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with net-unreach",
        "-j REJECT --reject-with icmp-net-unreachable",
        "counter reject with icmp net-unreachable",
    ),
    Case(
        "4", "filter", "-j REJECT --reject-with icmp-host-unreachable", "", "counter reject with icmp host-unreachable"
    ),
    Case(
        "4", "filter", "-j REJECT --reject-with icmp-proto-unreachable", "", "counter reject with icmp prot-unreachable"
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with net-prohib",
        "-j REJECT --reject-with icmp-net-prohibited",
        "counter reject with icmp net-prohibited",
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with ICMP-HOST-PROHIBITED",
        "-j REJECT --reject-with icmp-host-prohibited",
        "counter reject with icmp host-prohibited",
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with admin-prohib",
        "-j REJECT --reject-with icmp-admin-prohibited",
        "counter reject with icmp admin-prohibited",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with no-route",
        "-j REJECT --reject-with icmp6-no-route",
        "counter reject with icmpv6 no-route",
    ),
    Case(
        "6", "filter", "-j REJECT --reject-with icmp6-adm-prohibited", "", "counter reject with icmpv6 admin-prohibited"
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with addr-unreach",
        "-j REJECT --reject-with icmp6-addr-unreachable",
        "counter reject with icmpv6 addr-unreachable",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with policy-fail",
        "-j REJECT --reject-with icmp6-policy-fail",
        "counter reject with icmpv6 policy-fail",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with reject-route",
        "-j REJECT --reject-with icmp6-reject-route",
        "counter reject with icmpv6 reject-route",
    ),
    # LOG
    Case("46", "filter", "-j LOG", "", "counter log"),
    Case(
        "46",
        "mangle",
        '-j LOG --log-prefix "dropped: " --log-level info',
        '-j LOG --log-prefix "dropped: " --log-level 6',
        'counter log prefix "dropped: " level info',
    ),
    Case("46", "filter", "-j LOG --log-level 4", "-j LOG", "counter log"),
    Case(
        "46",
        "filter",
        "-j LOG --log-level panic --log-uid",
        "-j LOG --log-level 0 --log-uid",
        "counter log level emerg flags skuid",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options",
        "counter log flags tcp sequence,options",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options",
        "-j LOG --log-ip-options --log-macdecode",
        "counter log flags ip options flags ether",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode",
        "counter log flags all",
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "cut after its twenty-ninth character"',
        '-j LOG --log-prefix "cut after its twenty-ninth ch"',
        'counter log prefix "cut after its twenty-ninth ch"',
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "a\\\\b\'c;{}#%"',
        '-j LOG --log-prefix "a\\\\b\\\'c;{}#%"',
        'counter log prefix "a\\b\'c;{}#%"',
    ),
    Case("46", "filter", '-j LOG --log-prefix "costs $5"', "", None),
    Case("46", "filter", '-j LOG --log-prefix "say \\"x\\""', "", None),
    Case(
        "46",
        "filter",
        "-j LOG --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-uid",
        "counter log flags tcp sequence,options flags skuid",
    ),
    Case("46", "filter", "-j LOG --log-tcp-sequence --log-uid", "", "counter log flags tcp sequence flags skuid"),
    # MASQUERADE
    Case("46", "nat/POSTROUTING", "-j MASQUERADE", "", "counter masquerade"),
    Case(
        "46",
        "nat/POSTROUTING",
        "-j MASQUERADE --random-fully --random",
        "-j MASQUERADE --random --random-fully",
        "counter masquerade random,fully-random",
    ),
    Case(
        "46",
        "nat/POSTROUTING",
        "-p tcp -j MASQUERADE --to-ports 1024-65535",
        "",
        "meta l4proto 6 counter masquerade to :1024-65535",
    ),
    Case(
        "46",
        "nat/POSTROUTING",
        "-p udp --dport 53 -j MASQUERADE --to-ports 40000 --random",
        "-p udp -m udp --dport 53 -j MASQUERADE --to-ports 40000 --random",
        "udp dport 53 counter masquerade to :40000 random",
    ),
    # SNAT
    Case("4", "nat/POSTROUTING", "-j SNAT --to-source 192.0.2.1", "", "counter snat to 192.0.2.1"),
    Case(
        "4",
        "nat/INPUT",
        "-j SNAT --to-source 192.0.2.1-192.0.2.9 --persistent",
        "",
        "counter snat to 192.0.2.1-192.0.2.9 persistent",
    ),
    Case("4", "nat/POSTROUTING", "-j SNAT --to-source 192.0.2.0-192.0.2.255", "", "counter snat to 192.0.2.0/24"),
    Case(
        "4",
        "nat/POSTROUTING",
        "-p tcp -j SNAT --to-source 192.0.2.1:1025-65535 --random-fully",
        "",
        "meta l4proto 6 counter snat to 192.0.2.1:1025-65535 fully-random",
    ),
    Case(
        "4",
        "nat/POSTROUTING",
        "-p tcp -j SNAT --to-source 192.0.2.1-192.0.2.9:80",
        "",
        "meta l4proto 6 counter snat to 192.0.2.1-192.0.2.9:80",
    ),
    Case(
        "46",
        "nat/POSTROUTING",
        "-p udp -j SNAT --to-source :1000-1005",
        "",
        "meta l4proto 17 counter snat to :1000-1005",
    ),
    Case(
        "6",
        "nat/POSTROUTING",
        "-j SNAT --to-source 2001:db8::1-2001:db8::9 --random",
        "",
        "counter snat to 2001:db8::1-2001:db8::9 random",
    ),
    Case(
        "6",
        "nat/POSTROUTING",
        "-p tcp -j SNAT --to-source [2001:db8::1]:80",
        "",
        "meta l4proto 6 counter snat to [2001:db8::1]:80",
    ),
    Case(
        "6",
        "nat/POSTROUTING",
        "-p tcp -j SNAT --to-source [2001:db8::1-2001:db8::9]:80-90",
        "",
        "meta l4proto 6 counter snat to [2001:db8::1]-[2001:db8::9]:80-90",
    ),
    # DNAT
    Case(
        "4",
        "nat/PREROUTING",
        "-j DNAT --to 192.0.2.1",
        "-j DNAT --to-destination 192.0.2.1",
        "counter dnat to 192.0.2.1",
    ),
    Case(
        "4",
        "nat/PREROUTING",
        "-p tcp --dport 80 -j DNAT --to-destination 192.0.2.1:8080",
        "-p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.1:8080",
        "tcp dport 80 counter dnat to 192.0.2.1:8080",
    ),
    Case(
        "4",
        "nat/OUTPUT",
        "-p tcp -j DNAT --to-destination 192.0.2.1-192.0.2.3:80-90 --random --persistent",
        "",
        "meta l4proto 6 counter dnat to 192.0.2.1-192.0.2.3:80-90 random,persistent",
    ),
    Case("46", "nat/PREROUTING", "-p tcp -j DNAT --to-destination :8080", "", "meta l4proto 6 counter dnat to :8080"),
    Case("46", "nat/PREROUTING", "-p tcp -j DNAT --to-destination :1000-2000/3000", "", None),
    Case(
        "6",
        "nat/PREROUTING",
        "-p tcp -j DNAT --to-destination [2001:db8::1]:ssh",
        "-p tcp -j DNAT --to-destination [2001:db8::1]:22",
        "meta l4proto 6 counter dnat to [2001:db8::1]:22",
    ),
    Case(
        "6",
        "nat/PREROUTING",
        "-j DNAT --to-destination [2001:db8::1]",
        "-j DNAT --to-destination 2001:db8::1",
        "counter dnat to 2001:db8::1",
    ),
    # REDIRECT
    Case("46", "nat/PREROUTING", "-j REDIRECT", "", "counter redirect"),
    Case(
        "46",
        "nat/PREROUTING",
        "-p tcp -j REDIRECT --to-port 8080",
        "-p tcp -j REDIRECT --to-ports 8080",
        "meta l4proto 6 counter redirect to :8080",
    ),
    Case(
        "46",
        "nat/OUTPUT",
        "-p udp -j REDIRECT --to-ports 5353-5353 --random",
        "-p udp -j REDIRECT --to-ports 5353 --random",
        "meta l4proto 17 counter redirect to :5353 random",
    ),
    Case(
        "46",
        "nat/PREROUTING",
        "-p tcp -j REDIRECT --to-ports 42-1234",
        "",
        "meta l4proto 6 counter redirect to :42-1234",
    ),
    # MARK
    Case(
        "46", "mangle", "-j MARK --set-mark 7", "-j MARK --set-xmark 0x7/0xffffffff", "counter meta mark set 0x00000007"
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-xmark 0x5/0x3",
        "",
        "counter meta mark set meta mark & 0xfffffffd ^ 0x00000004 | 0x00000001",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-mark 0x5/0x3",
        "-j MARK --set-xmark 0x5/0x7",
        "counter meta mark set meta mark & 0xfffffffd | 0x00000005",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --and-mark 0xff",
        "-j MARK --set-xmark 0x0/0xffffff00",
        "counter meta mark set meta mark & 0x000000ff",
    ),
    Case(
        "46",
        "filter",
        "-j MARK --or-mark 0x10",
        "-j MARK --set-xmark 0x10/0x10",
        "counter meta mark set meta mark | 0x00000010",
    ),
    Case(
        "46",
        "raw/PREROUTING",
        "-j MARK --xor-mark 0x10",
        "-j MARK --set-xmark 0x10/0x0",
        "counter meta mark set meta mark ^ 0x00000010",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-xmark 0x101/0xf",
        "",
        "counter meta mark set meta mark & 0xfffffff1 ^ 0x00000100 | 0x00000001",
    ),
    Case("46", "mangle", "-j MARK --set-xmark 0/0", "-j MARK --set-xmark 0x0/0x0", "counter meta mark set meta mark"),
    # CONNMARK
    Case(
        "46",
        "mangle",
        "-j CONNMARK --set-mark 7",
        "-j CONNMARK --set-xmark 0x7/0xffffffff",
        "counter ct mark set 0x00000007",
    ),
    Case(
        "46", "mangle", "-j CONNMARK --set-xmark 0x1/0xff", "", "counter ct mark set ct mark & 0xffffff01 | 0x00000001"
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --or-mark 0x10",
        "-j CONNMARK --set-xmark 0x10/0x10",
        "counter ct mark set ct mark | 0x00000010",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --set-mark 5 --mask 4",
        "-j CONNMARK --set-xmark 0x5/0x4",
        "counter ct mark set ct mark ^ 0x00000001 | 0x00000004",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark",
        "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "counter ct mark set meta mark",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "counter meta mark set ct mark",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffffffff",
        "",
        "counter ct mark set meta mark & 0x000000ff",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --ctmask 0xff",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xff",
        "counter meta mark set ct mark & 0x000000ff",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --mask 0xff",
        "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
        None,
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark --mask 0xff",
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
        None,
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --left-shift-mark 3",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff --left-shift-mark 3",
        None,
    ),
    Case("46", "mangle", "-j CONNMARK --set-xmark 0x5/0x7 --right-shift-mark 3", "", None),
    # together
    Case(
        "46",
        "filter",
        "-p tcp -m limit --limit 3/sec -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
        "",
        "meta l4proto 6 limit rate 3/second tcp dport 22 ct state new counter accept",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -m limit --limit 3/sec -j LOG --log-prefix ssh",
        "",
        'ct state new tcp dport 22 limit rate 3/second counter log prefix "ssh"',
    ),
    Case(
        "4",
        "filter",
        "-p udp -m multiport --dports 53,853 -m mark --mark 1 -m udp --sport 1024: -j REJECT",
        "-p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT "
        "--reject-with icmp-port-unreachable",
        "udp dport { 53, 853 } meta mark 0x00000001 udp sport 1024-65535 counter reject",
    ),
    Case(
        "6",
        "filter",
        "-p udp -m multiport --dports 53,853 -m mark --mark 1 -m udp --sport 1024: -j REJECT",
        "-p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT "
        "--reject-with icmp6-port-unreachable",
        "udp dport { 53, 853 } meta mark 0x00000001 udp sport 1024-65535 counter reject",
    ),
    Case(
        "4",
        "filter",
        "-s 10.0.0.0/8 -m iprange --src-range 10.0.0.5-10.0.0.9 -j DROP",
        "",
        "ip saddr 10.0.0.0/8 ip saddr 10.0.0.5-10.0.0.9 counter drop",
    ),
)
