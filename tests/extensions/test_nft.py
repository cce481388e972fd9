"""Laws of the typed extensions in nft: rendered as nft lists it, read back as the same rule, refused with a reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import pytest

from meshfw.errors import InexpressibleError
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import FAMILIES, NftText, UnreadableError, read_rule, render_rule
from meshfw.model import Family, Hook, Rule
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE, Case
from tests.extensions.cases import CASES, UNHELD, UNSAYABLE

WRITTEN = (*CASES, *UNHELD)
BY_RULE = pytest.mark.parametrize("case", WRITTEN, ids=[f"{case.families}: {case.written}" for case in WRITTEN])


def text(rule: Rule, family: Family, hook: Hook | None = None) -> str:
    return str(render_rule(rule, family=family, language=LANGUAGE, hook=hook))


@BY_RULE
def test_a_rule_is_written_as_nft_lists_it(case: Case) -> None:
    for family, rule in case.rules():
        if case.nft is not None:
            assert text(rule, family, case.hook) == case.nft
            continue
        with pytest.raises(InexpressibleError) as caught:
            text(rule, family, case.hook)
        assert len(caught.value.reason) > 20


REASONS = [
    ("-p tcp -m conntrack --ctproto 6 -m tcp --dport 80", "behind that match"),
    ("-m conntrack --ctstate ESTABLISHED,DNAT", "a rule for each"),
    ("-m conntrack ! --ctstate DNAT", "without a connection"),
    ("-m conntrack --ctstate INVALID --ctdir ORIGINAL", "split it"),
    ("-m conntrack --ctorigdstport 80", "--ctproto"),
    ("-m conntrack --ctexpire 4294968:", "4294967 s"),
    ("-p tcp -j DNAT --to-destination :80-90/1", "shift"),
    ("-j CONNMARK --save-mark --mask 1", "overwrites"),
    ('-j LOG --log-prefix "$"', "dollar"),
]


@pytest.mark.parametrize(("rule", "reason"), [*REASONS, *UNSAYABLE])
def test_what_nft_can_not_say_is_refused_with_the_reason(rule: str, reason: str) -> None:
    with pytest.raises(InexpressibleError, match=reason):
        text(parse_rule(rule, family=Family.IPV4, language=LANGUAGE), Family.IPV4)


NEAREST = [
    ("-m owner ! --uid-owner 1337", ("meta skuid != 1337",)),
    ("-m rpfilter --validmark --invert", ("fib saddr . mark . iif oif missing",)),
    ("-p tcp -j TPROXY --on-port 80", ("tproxy to :80 accept",)),
    ("-p tcp -j TPROXY --on-port 0 --on-ip 10.0.0.1", ("tproxy to 10.0.0.1 accept",)),
    (
        "-p tcp -j TPROXY --on-port 80 --tproxy-mark 1/3",
        ("tproxy to :80 meta mark set meta mark & 0xfffffffc ^ 0x1 accept",),
    ),
]


@pytest.mark.parametrize(("rule", "nearest"), NEAREST)
def test_what_comes_near_is_told_beside_the_reason(rule: str, nearest: tuple[str, ...]) -> None:
    with pytest.raises(InexpressibleError) as caught:
        text(parse_rule(rule, family=Family.IPV4, language=LANGUAGE), Family.IPV4)
    assert caught.value.nearest == nearest


IN_PLACE = [
    ("-p tcp -m tcp --sport 5 -m limit -m tcp --dport 7", "tcp sport 5 limit rate 3/hour tcp dport 7-7 counter"),
    (
        "-p udp -m udp --sport 5 -m quota --quota 5 -m udp ! --dport 7",
        "udp sport 5 quota 5 bytes udp dport != 7-7 counter",
    ),
    (
        "-p udp -m udp ! --sport 5 -m quota --quota 5 -m udp ! --dport 7",
        "udp sport != 5-5 quota 5 bytes udp dport != 7 counter",
    ),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("rule", "nft_text"), IN_PLACE)
def test_no_condition_goes_before_a_match_that_counts(nft: Nft, rule: str, nft_text: str) -> None:
    parsed = parse_rule(rule, family=Family.IPV6, language=LANGUAGE)
    assert text(parsed, Family.IPV6) == nft_text
    check_round_trip(nft, [(Family.IPV6, parsed)])


def test_a_field_that_would_go_before_a_match_that_counts_is_refused() -> None:
    parsed = parse_rule("-m ah --ahlen 12 -m limit -m ah --ahres", family=Family.IPV6, language=LANGUAGE)
    with pytest.raises(InexpressibleError, match=r"ah reserved .* looks at it before"):
        text(parsed, Family.IPV6)


# --- the kernel --------------------------------------------------------------------------------------------


class Nft:
    """The nft tool in one namespace: loads many rules in one transaction, each in a chain of its own."""

    def __init__(self, room: Netns) -> None:
        self._room = room

    def _done(self, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
        with self._room.entered():
            return subprocess.run(["nft", *arguments], input=script, capture_output=True, text=True, check=False)

    @cached_property
    def lacks(self) -> tuple[str, ...]:
        """Statements that this kernel has no module for."""
        script = "add table ip t\nadd chain ip t c\nadd rule ip t c counter {}\n"
        return tuple(
            keyword
            for keyword, statement in ((" queue ", "queue to 0"),)
            if self._done("-c", "-f", "-", script=script.format(statement)).returncode
        )

    def knows(self, text: str) -> bool:
        """Whether the kernel can hold the rule."""
        return not any(keyword in text for keyword in self.lacks)

    def run(self, *arguments: str, script: str = "") -> str:
        done = self._done(*arguments, script=script)
        assert done.returncode == 0, f"{done.stderr}\n{script}"
        return done.stdout

    def listed(self, rules: Sequence[tuple[Family, str | NftText]]) -> list[tuple[str, list[dict[str, Any]], str]]:
        """Text, JSON statements and comment of each rule, as nft lists it.

        Each has a table of its own, with the objects that it refers to: in one, two meters can't have one name.
        """
        lines = ["flush ruleset"]
        for index, (family, rule) in enumerate(rules):
            table = f"{FAMILIES[family]} t{index}"
            lines += [f"add table {table}", f"add chain {table} c{index}"]
            if isinstance(rule, NftText):
                lines += [held.command(FAMILIES[family], f"t{index}") for held in rule.objects]
            lines.append(f"add rule {table} c{index} {rule}")
        self.run("-f", "-", script="\n".join(lines) + "\n")
        texts: dict[str, str] = {}
        chain = ""
        for line in self.run("-s", "-p", "list", "ruleset").splitlines():
            words = line.split()
            if words[:1] == ["chain"]:
                chain = words[1]
            elif words and words[0] in ("}", "table"):
                chain = ""
            elif words and chain:
                texts[chain] = line.strip()
        held = json.loads(self.run("-j", "-s", "-p", "list", "ruleset"))["nftables"]
        found = {item["rule"]["chain"]: item["rule"] for item in held if "rule" in item}
        return [
            (texts[f"c{index}"], found[f"c{index}"]["expr"], found[f"c{index}"].get("comment", ""))
            for index in range(len(rules))
        ]


@pytest.fixture(scope="module")
def nft(requires: Callable[..., None]) -> Iterator[Nft]:
    requires("nft")
    with Netns() as room:
        yield Nft(room)


def check_round_trip(
    nft: Nft, held: list[tuple[Family, Rule]], *, same_text: bool = True, hooks: Sequence[Hook | None] = ()
) -> None:
    """Each rule is listed in the words it was written in, and its JSON reads back as the same rule."""
    chosen = hooks or [None] * len(held)
    kept = [(pair, hook) for pair, hook in zip(held, chosen, strict=True) if nft.knows(text(pair[1], pair[0], hook))]
    held = [pair for pair, _ in kept]
    rendered = [
        (family, render_rule(rule, family=family, language=LANGUAGE, hook=hook)) for (family, rule), hook in kept
    ]
    listing = nft.listed(rendered)
    if same_text:
        assert [line for line, _, _ in listing] == [str(line) for _, line in rendered]
    for (family, rule), (line, statements, comment) in zip(held, listing, strict=True):
        again = read_rule(statements, family=family, language=LANGUAGE, comment=comment)
        if not any("native" in loss.variants for loss in rule.losses()):
            assert again == rule, line


@pytest.mark.kernel
def test_the_kernel_keeps_every_rule_as_it_was_written(nft: Nft) -> None:
    pairs = [(pair, case) for case in CASES if case.nft is not None for pair in case.rules()]
    for same in (True, False):
        chosen = [(pair, case.hook) for pair, case in pairs if case.same is same]
        check_round_trip(nft, [pair for pair, _ in chosen], hooks=[hook for _, hook in chosen], same_text=same)


@pytest.mark.kernel
@pytest.mark.parametrize(
    "rule",
    [
        "-p udp -m multiport --dports 80 -m multiport --sports 5",
        "-p tcp --tcp-option 8",
        "-p tcp --tcp-option 253",
        "-p tcp --tcp-flags SYN SYN,ACK",
        "-p tcp ! --tcp-flags SYN ALL",
        "-p tcp ! --tcp-option 8",
        "-p tcp -j SNAT --to-source 192.0.2.0-192.0.2.255:80",
        "-p tcp -j DNAT --to-destination 192.0.2.2-192.0.2.3:80-90",
        "-p tcp -j SYNPROXY --mss 1460",
        "-p tcp -j SYNPROXY --wscale 9",
    ],
)
def test_what_nft_lists_in_other_words_is_read_as_the_same_rule(nft: Nft, rule: str) -> None:
    parsed = parse_rule(rule, family=Family.IPV4, language=LANGUAGE)
    ((line, _, _),) = nft.listed([(Family.IPV4, text(parsed, Family.IPV4))])
    assert line != text(parsed, Family.IPV4), "then it could join the cases whose text is compared"
    check_round_trip(nft, [(Family.IPV4, parsed)], same_text=False)


@pytest.mark.kernel
@pytest.mark.parametrize("header", ["! --header protocol", "--header esp", "--header protocol"])
@pytest.mark.parametrize("rest", ["-m tcp --dport 5", "-m limit -m tcp --dport 5", "-j REJECT --reject-with tcp-reset"])
def test_the_next_header_stands_beside_the_packets_protocol(nft: Nft, header: str, rest: str) -> None:
    parsed = parse_rule(f"-p tcp -m ipv6header {header} {rest}", family=Family.IPV6, language=LANGUAGE)
    check_round_trip(nft, [(Family.IPV6, parsed)], same_text=False)


@pytest.mark.kernel
@pytest.mark.parametrize("first", range(0, 256, 64))
def test_every_icmp_type_and_code_comes_back(nft: Nft, first: int) -> None:
    written = []
    for number in range(first, first + 64):
        written += [(Family.IPV4, f"-p icmp --icmp-type {number}"), (Family.IPV4, f"-p icmp --icmp-type 3/{number}")]
        written += [
            (Family.IPV6, f"-p icmpv6 --icmpv6-type {number}"),
            (Family.IPV6, f"-p icmpv6 ! --icmpv6-type 1/{number}"),
        ]
    held = [(family, parse_rule(rule, family=family, language=LANGUAGE)) for family, rule in written]
    check_round_trip(nft, held)


# --- what others write -------------------------------------------------------------------------------------


FOREIGN = [
    "tcp dport >= 1024",
    "tcp dport < 1024",
    "tcp flags == syn",
    "tcp sequence 5",
    "tcp option @253,0,8 253",
    "sctp chunk init a-rwnd 1",
    "sctp chunk data flags 1",
    "icmp type != 0-254",
    "icmp type 0-255",
    "tcp option maxseg size != 1200",
    "tcp option maxseg size { 1200, 1300 }",
    "tcp flags & (ecn | cwr) != (ecn | cwr)",
    "tcp flags & (ecn | syn) == ecn",
    "tcp flags ecn,syn",
    "ip dscp { cs1, cs2 }",
    "ip dscp > 5",
    "ip ecn { ce, ect0 }",
    "@nh,8,8 0x5-0x7",
    "@nh,16,8 & 0x1c == 0x4",
    "@nh,0,16 & 0x1c0 == 0x40",
    "ip ttl >= 5",
    "ip ttl 5-9",
    "ip ttl { 5, 9 }",
    "meta length > 5",
    "meta pkttype { host, other }",
    "meta cpu 1-3",
    "meta iifgroup 5-9",
    "iifgroup & 1 == 5",
    "iifgroup { 5, 9 }",
    "meta rtclassid > 3",
    "esp spi { 5, 9 }",
    "esp sequence 5",
    "ah hdrlength 4",
    "comp flags 0x5",
    "tcp sport . tcp dport { 1 . 2, 3 . 4 }",
    "icmp type { echo-request, echo-reply }",
    "icmp code 4",
    "icmp type . icmp code { 3 . 4, 3 . 1 }",
    "ct state == new,established",
    "ct status dying",
    "ct status expected,snat",
    "ct status & (expected | assured) != expected | assured",
    "ct expiration 5s",
    "ct expiration > 5s",
    "ct mark > 5",
    "ct mark & 0xf < 5",
    "meta mark { 1, 2 }",
    "meta mark 1-5",
    "fib daddr oif 1",
    "fib saddr . mark type local",
    "ether daddr aa:bb:cc:dd:ee:ff",
    "ether saddr { aa:bb:cc:dd:ee:ff, aa:bb:cc:dd:ee:fe }",
    "limit rate over 5/second",
    "limit rate 5/week",
    "limit rate 5 kbytes/second",
    "dup to ip saddr map { 10.0.0.1 : 10.0.0.2 }",
    "meta nftrace set 0",
    "meta mark set ct mark | 0x1",
    "meta mark set jhash ip saddr mod 2",
    "meta mark set meta mark << 1",
    "ct mark set meta mark | 1",
    "ip dscp set cs1 ip ttl set 5",
    "ip ttl set 5 ip ttl set 6",
    "tcp option maxseg size set 5 tcp option maxseg size set 4",
    "reset tcp option nop",
    "ip ecn set ce meta mark set 5",
    "@nh,8,8 set 0x5",
    "ct label set 1",
]
FOREIGN_NAT = [
    "masquerade persistent",
    "redirect fully-random",
    "dnat to 10.0.0.1 fully-random",
    "dnat to ip saddr map { 10.0.0.1 : 10.0.0.2 }",
    "meta l4proto 6 redirect to :tcp dport map { 1 : 2 }",
]


def readable(statements: list[dict[str, Any]]) -> Rule | None:
    try:
        return read_rule(statements, family=Family.IPV4, language=LANGUAGE)
    except UnreadableError:
        return None


@pytest.mark.kernel
def test_a_rule_that_we_would_not_write_is_never_taken_for_one_that_we_would(nft: Nft) -> None:
    written = [(Family.IPV4, f"{rule} counter") for rule in FOREIGN] + [(Family.IPV4, rule) for rule in FOREIGN_NAT]
    taken = {line: readable(statements) for line, statements, _ in nft.listed(written)}
    assert {line: rule for line, rule in taken.items() if rule is not None} == {}


OTHER_WORDS = [
    ("tcp flags & (fin | syn) == 0x0", "-p tcp --tcp-flags FIN,SYN NONE"),
    ("tcp flags & (syn | ack) == syn", "-p tcp --tcp-flags SYN,ACK SYN"),
    ("meta l4proto 6 th dport { 22, 80 }", "-p tcp -m multiport --dports 80,22"),
    ("tcp dport { 22 }", "-p tcp --dport 22"),
    ("ct state { new, established }", "-m state --state NEW,ESTABLISHED"),
    ("ct state != { new, established }", "-m state ! --state NEW,ESTABLISHED"),
    ("ct state != new", "-m state ! --state NEW"),
    ("ct state ! new,invalid", "-m state ! --state NEW,INVALID"),
    ("ct original saddr 10.0.0.1", None),
    ("icmp type 8", "-p icmp --icmp-type 8"),
    ("meta mark & 0xff000000 == 0x01000000", "-m mark --mark 0x1000000/0xff000000"),
    ("limit rate 60/minute", "-m limit --limit 1/s"),
    ("fib daddr type { local }", "-m addrtype --dst-type LOCAL"),
    ("reject with icmp port-unreachable", "-j REJECT"),
    ("log level warn", "-j LOG"),
    ("meta mark set meta mark and 0xff", "-j MARK --and-mark 0xff"),
    ("ip saddr 10.0.0.5-10.0.0.9", "-m iprange --src-range 10.0.0.5-10.0.0.9"),
    ("tcp flags & (ecn | cwr) == ecn", "-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr"),
    ("tcp flags ! ecn", "-p tcp -m ecn ! --ecn-tcp-ece"),
    ("tcp flags ecn", "-p tcp -m ecn --ecn-tcp-ece"),
    ("@nh,8,8 0x10", "-m tos --tos 0x10"),
    ("ip ecn set ce ip dscp set ef", "-j TOS --set-tos 0xbb"),
    ("ip ttl <= 5", "-m ttl --ttl-lt 6"),
    ("iifgroup default", "-m devgroup --src-group 0"),
    ("oifgroup 0-255", "-m devgroup --dst-group 0/0xffffff00"),
    ("meta l4proto 6 reset tcp option 5 reset tcp option 3", "-p tcp -j TCPOPTSTRIP --strip-options 3,5"),
    ("meta pkttype host", "-m pkttype --pkt-type unicast"),
]


@pytest.mark.kernel
def test_other_words_for_the_same_are_read_as_the_same(nft: Nft) -> None:
    listing = nft.listed([(Family.IPV4, rule) for rule, _ in OTHER_WORDS])
    for (rule, meant), (_, statements, _) in zip(OTHER_WORDS, listing, strict=True):
        wanted = None if meant is None else parse_rule(meant, family=Family.IPV4, language=LANGUAGE)
        assert readable(statements) == wanted, rule


STRANGE_JSON = [
    {"reject": {"type": "icmpx", "expr": "no-answer"}},
    {"reject": {"type": "icmp", "expr": "frag-needed"}},
    {"log": {"prefix": "x", "group": 1, "level": "warn"}},
    {"log": {"level": "audit", "prefix": "x"}},
    {"queue": {"num": 1, "flags": ["bypass", "whatever"]}},
    {"dup": {"addr": {"map": {}}}},
    {"mangle": {"key": {"meta": {"key": "nftrace"}}, "value": 0}},
    {"mangle": {"key": {"meta": {"key": "priority"}}, "value": 5}},
    {"secmark": "theirs"},
    {"log": {"flags": ["skuid", "whatever"]}},
    {"limit": {"rate": 5, "burst": 5, "per": "minute", "inv": True}},
    {"limit": {"rate": 0, "burst": 5, "per": "minute"}},
    {"masquerade": {"flags": "persistent"}},
    {"redirect": {"port": "@web"}},
    {"snat": {"addr": "10.0.0.1", "family": "ip", "type_flags": "prefix"}},
    {"dnat": {"addr": {"map": {}}}},
    {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"-": [{"meta": {"key": "mark"}}, 1]}}},
    {"mangle": {"key": {"meta": {"key": "mark"}}, "value": "one"}},
    {"mangle": {"key": {"ct": {"key": "mark"}}, "value": {"meta": {"key": "cpu"}}}},
    {"match": {"op": "==", "left": {"ct": {"key": "direction"}}, "right": {"set": ["original", "reply"]}}},
    {"mangle": {"key": {"payload": {"protocol": "ip", "field": "ttl"}}, "value": {"+": [1, 2]}}},
    {"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": "gold"}},
    {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "nexthop"}}}},
    {"reset": {"tcp option": {"name": "eol"}}},
    {"match": {"op": "==", "left": {"meta": {"key": "iifgroup"}}, "right": "office"}},
    {"match": {"op": "==", "left": {"meta": {"key": "pkttype"}}, "right": "loopback"}},
    {"match": {"op": "==", "left": {"payload": {"protocol": "ether", "field": "saddr"}}, "right": {"set": []}}},
]


@pytest.mark.parametrize("statement", STRANGE_JSON, ids=json.dumps)
def test_json_that_means_something_else_is_unreadable(statement: dict[str, Any]) -> None:
    assert readable([statement]) is None
