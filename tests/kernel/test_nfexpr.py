"""Which rules iptables-nft tells all of: every one that it makes itself, and none of nft's that says more."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshfw.extensions.limit import Rate
from meshfw.kernel import nfexpr
from meshfw.kernel.command import run
from meshfw.kernel.netlink import Nfnetlink, NfRule
from meshfw.kernel.nfexpr import read_body, without_counter
from meshfw.kernel.nfmessage import attributes
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Jump, Table
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import CATALOGUE, may_stand, parsed
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import CASES

pytestmark = pytest.mark.kernel

TOOLS = {Family.IPV4: "iptables-nft-restore", Family.IPV6: "ip6tables-nft-restore"}
NAMES = {Family.IPV4: "ip", Family.IPV6: "ip6"}


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    requires(*TOOLS.values(), "nft")
    with kernel_room() as made:
        yield made


def rules(room: Netns, family: Family, table: str, chain: str) -> tuple[NfRule, ...]:
    with Nfnetlink(room.path) as netlink:
        return netlink.rules(NAMES[family], table, chain)


def texts(family: Family, table: Table) -> list[str]:
    """Rules of the catalogue and of every extension that may stand in a chain of a table."""
    found = [parsed(text, family=family, language=LANGUAGE) for text in CATALOGUE]
    found += [
        rule
        for case in CASES
        for of, rule in case.rules()
        if of is family and case.table == table  # one that names a built-in chain works only there
    ]
    kept = [rule for rule in found if rule is not None and not isinstance(rule.target, Jump)]
    kept = [rule for rule in kept if not _NEEDY.search(format_rule(rule, family=family, language=LANGUAGE))]
    return [
        format_rule(rule, family=family, language=LANGUAGE)
        for rule in kept
        if may_stand(rule, table, ()) and (rule.target is None or rule.target.hooks is None)
    ]


_NEEDY = re.compile(r"-m (?:set|nfacct|rateest|cgroup (?:! )?--path) |-j (?:SET|RATEEST|NFQUEUE) ")
"""Rules that a kernel takes only where it finds something else."""


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("table", [Table.FILTER, Table.NAT, Table.MANGLE, Table.RAW])
def test_whatever_iptables_makes_it_tells(room: Netns, family: Family, table: Table) -> None:
    written = texts(family, table)
    lines = "".join(f"-A X {text}\n" for text in written)
    with room.entered():
        run((TOOLS[family], "--noflush"), timeout=60, input=f"*{table}\n:X - [0:0]\n{lines}COMMIT\n".encode())
    held = rules(room, family, table.value, "X")
    assert len(held) == len(written) > 10
    ipv6 = family is Family.IPV6
    untold = [text for text, rule in zip(written, held, strict=True) if not read_body(rule.expressions, ipv6=ipv6).told]
    assert untold == []


NATIVE = (
    "ip saddr { 192.0.2.1, 192.0.2.2 } counter accept",
    "ip saddr @addresses counter accept",
    "ip saddr vmap { 192.0.2.1 : accept }",
    "ip saddr 192.0.2.1-192.0.2.9 counter accept",
    "tcp dport { 1, 2 } counter accept",
    "ct state new counter accept",
    "ct mark 1 counter accept",
    "fib saddr type local counter accept",
    "meta cpu 1 counter accept",
    "meta skuid 0 counter accept",
    "ip length 5 counter accept",
    "ip ttl 5 counter accept",
    "ip dscp 5 counter accept",
    "th dport 5 counter accept",
    "tcp option maxseg size 5 counter accept",
    "numgen inc mod 2 0 counter accept",
    "jhash ip saddr mod 2 0 counter accept",
    "limit rate over 5/second counter drop",
    "limit rate 6000/second counter accept",
    "limit rate 3400/second counter accept",
    "limit rate 60/minute counter accept",
    "limit rate 60/hour burst 1 packets counter accept",
    "limit rate 1/week counter accept",
    "limit rate 20000/second counter accept",
    "limit rate 5 kbytes/second counter accept",
    "quota over 5 bytes counter drop",
    'log prefix "a" counter',
    "counter reject",
    "counter masquerade",
    "counter notrack",
    "counter meta mark set 5",
    "counter meta nftrace set 0",
    "counter ip saddr set 192.0.2.1",
    "counter name seen accept",
    "accept",
    "counter counter accept",
    "counter ip saddr 192.0.2.1 accept",
    "ip saddr != 192.0.2.1-192.0.2.9 counter accept",
    "ip saddr > 192.0.2.1 counter accept",
    "update @seen { ip saddr } counter accept",
    "ip saddr set 192.0.2.1 counter accept",
    "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 counter accept",
    'iifname "a" iifname != "b" counter accept',
    "tcp dport 1-5 tcp dport != 3 counter accept",
    "meta l4proto tcp meta l4proto != udp counter accept",
    "meta l4proto 0 counter accept",
    "meta l4proto != tcp th dport 5 counter accept",
    "meta l4proto sctp th dport 5 counter accept",
    "mark and 1 or 2 == 3 counter accept",
    "tcp flags syn tcp flags & ack == ack counter accept",
    "tcp flags == syn counter accept",
    "ip frag-off & 0x3fff != 0 counter accept",
    "ip frag-off 1 counter accept",
    'iifname & "x" == "x" counter accept',
    "tcp dport & 1 == 1 counter accept",
    "limit rate 5/second ip saddr 192.0.2.1 counter accept",
    "socket transparent 1 counter accept",
    "rt classid 1 counter accept",
    "icmp type echo-request counter accept",
    "tcp sequence 5 counter accept",
)


@pytest.mark.parametrize("text", NATIVE)
def test_a_rule_of_nfts_that_says_more_is_not_told(room: Netns, text: str) -> None:
    table = "table ip native { set addresses { type ipv4_addr; }; set seen { type ipv4_addr; flags dynamic; }; }"
    chain = (
        "chain ip native X { type nat hook postrouting priority 0; }" if "masquerade" in text else "chain ip native X"
    )
    script = f"add table ip native; delete table ip native; add {table}; add counter ip native seen; add {chain}\n"
    with room.entered():
        done = run(("nft", "-f", "-"), timeout=60, input=f"{script}add rule ip native X {text}\n".encode(), check=False)
    if done.returncode != 0:
        pytest.skip(f"this nft or kernel has no such rule: {done.stderr.splitlines()[0]}")
    (rule,) = rules(room, Family.IPV4, "native", "X")
    assert not read_body(rule.expressions, ipv6=False).told


ALIKE = (
    "counter accept",
    "counter",
    "ip saddr != 10.0.0.0/9 counter drop",
    'iifname "eth*" oifname != "lo" counter return',
    "tcp sport 5 tcp dport 6-7 counter accept",
    "udp dport != 5-7 counter accept",
    "meta l4proto != 6 counter accept",
    "meta mark & 0xff != 0x5 counter accept",
    "ip frag-off & 0x1fff != 0 counter accept",
    "tcp flags & (syn|ack) != syn counter accept",
    "ip saddr 192.0.2.1 limit rate 5/second counter accept",
    "limit rate 10000/second burst 7 packets counter accept",
    "limit rate 5000/second counter accept",
    "limit rate 90/minute counter accept",
    "limit rate 23/day burst 1 packets counter accept",
    "counter meta nftrace set 1",
)


@pytest.mark.parametrize("text", ALIKE)
def test_a_rule_of_nfts_as_iptables_would_make_it_is_told(room: Netns, text: str) -> None:
    script = "add table ip native; delete table ip native; add table ip native; add chain ip native X\n"
    with room.entered():
        run(("nft", "-f", "-"), timeout=60, input=f"{script}add rule ip native X {text}\n".encode())
    (rule,) = rules(room, Family.IPV4, "native", "X")
    assert read_body(rule.expressions, ipv6=False).told


@pytest.fixture(scope="module")
def real(room: Netns) -> list[bytes]:
    """Expressions of many kinds."""
    written = texts(Family.IPV4, Table.FILTER)
    lines = "".join(f"-A Y {text}\n" for text in [*written, "-j X", "-g X"])
    with room.entered():
        run((TOOLS[Family.IPV4], "--noflush"), timeout=60, input=f"*filter\n:X -\n:Y -\n{lines}COMMIT\n".encode())
    return [rule.expressions for rule in rules(room, Family.IPV4, "filter", "Y")]


def damaged(real: list[bytes], data: st.DataObject) -> bytes:
    """A real rule with a few bytes changed, most of them where lengths, kinds and numbers are, and some cut off."""
    body = bytearray(data.draw(st.sampled_from(real)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from((0, 1, 2, 3, 4, 5, 6, 8, 17, 0x80)) | st.integers(0, 255))
    return bytes(body[: data.draw(st.just(len(body)) | st.integers(0, len(body)))])


FIXTURE_HOLDS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)


@given(st.data())
@FIXTURE_HOLDS
def test_bytes_that_are_no_rule_are_an_error_and_nothing_else(real: list[bytes], data: st.DataObject) -> None:
    for expressions in (damaged(real, data), data.draw(st.binary(max_size=80))):
        without_counter(expressions)
        for ipv6 in (False, True):
            try:
                read_body(expressions, ipv6=ipv6)
            except OSError:
                continue


@given(st.data())
@FIXTURE_HOLDS
def test_the_short_ways_to_the_facts_end_where_the_long_one_does(real: list[bytes], data: st.DataObject) -> None:
    body = damaged(real, data)
    try:
        elements = [element for _, element in attributes(body, 0, len(body))]
    except OSError:
        elements = []
    for element in elements:
        try:
            wanted: object = nfexpr._other_facts.__wrapped__(element)
        except OSError:
            with pytest.raises(OSError, match="impossible length"):
                nfexpr._facts(element)
        else:
            assert nfexpr._facts(element) == wanted


def test_ordinary_rules_leave_no_literals_in_memory() -> None:
    held = nfexpr._other_facts.cache_info().currsize
    for address in range(1000):
        value = attribute(3, attribute(1, address.to_bytes(4, "big")))
        compared = expression("cmp", attribute(1, b"\0\0\0\1") + attribute(2, bytes(4)) + value)
        remark = expression("match", attribute(1, b"comment\0") + attribute(3, b"%d" % address))
        assert not read_body(compared + remark + SEVEN + ACCEPTED, ipv6=False).told
    assert nfexpr._other_facts.cache_info().currsize - held <= 3
    assert nfexpr._judged.cache_info().currsize <= nfexpr._MEMORY


def test_counters_are_all_that_is_taken_out(real: list[bytes]) -> None:
    for expressions in real:
        body, packets, octets = without_counter(expressions)
        assert (packets, octets) == (0, 0)
        assert len(body) == len(expressions)
        assert without_counter(body) == (body, 0, 0)
        assert read_body(body, ipv6=False) == read_body(expressions, ipv6=False)


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) & 3)


def expression(name: str, data: bytes) -> bytes:
    return attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, data))


def counter(packets: int, octets: int) -> bytes:
    return expression("counter", attribute(1, octets.to_bytes(8, "big")) + attribute(2, packets.to_bytes(8, "big")))


ACCEPTED = expression("immediate", attribute(1, bytes(4)) + attribute(2, attribute(2, attribute(1, b"\0\0\0\1"))))
SEVEN = counter(7, 700)


@pytest.mark.parametrize("padding", [0, 16, 172, 256, 1000, 1001])
@pytest.mark.parametrize("inner", [SEVEN, SEVEN[4:], SEVEN + ACCEPTED], ids=["element", "bare", "a whole rule"])
def test_what_looks_like_a_counter_inside_another_expression_is_none(padding: int, inner: bytes) -> None:
    info = attribute(1, b"comment\0") + attribute(2, bytes(4)) + attribute(3, bytes(padding) + inner)
    first = expression("match", info)
    assert without_counter(first + counter(3, 300) + ACCEPTED) == (first + counter(0, 0) + ACCEPTED, 3, 300)
    assert without_counter(first + ACCEPTED) == (first + ACCEPTED, 0, 0)


@given(st.lists(st.integers(0, 400).map(lambda size: attribute(1, bytes(size))), max_size=6))
def test_a_counter_is_found_behind_whatever_precedes_it(before: list[bytes]) -> None:
    head = b"".join(before)
    assert without_counter(head + SEVEN + SEVEN) == (head + counter(0, 0) + SEVEN, 7, 700)


# --- limits ------------------------------------------------------------------------------------------------

UNITS = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


def limit(rate: int, unit: int) -> bytes:
    numbers = ((1, rate, 8), (2, unit, 8), (3, 5, 4), (4, 0, 4), (5, 0, 4))
    data = b"".join(attribute(kind, value.to_bytes(size, "big")) for kind, value, size in numbers)
    return expression("limit", data) + SEVEN + ACCEPTED


@pytest.mark.parametrize("unit", UNITS)
def test_every_rate_that_iptables_writes_is_told(unit: int) -> None:
    written = {Rate(packets, unit).reduced for packets in range(1, 10_001)}
    assert [rate for rate in written if not read_body(limit(rate.packets, rate.unit), ipv6=False).told] == []


@pytest.mark.parametrize("unit", [*UNITS, 7, 604_800, 2**40])
def test_a_rate_that_iptables_writes_otherwise_is_not_told(unit: int) -> None:
    told = {packets for packets in range(10_001) if read_body(limit(packets, unit), ipv6=False).told}
    rates = [Rate(packets, unit) for packets in range(1, 10_001)] if unit in UNITS else []
    assert told == {rate.packets for rate in rates if rate.reduced == rate}


def test_what_is_told_of_rates_is_what_both_tools_say(room: Netns) -> None:
    script = "add table ip filter; flush table ip filter; add chain ip filter RATES\n"
    pairs = [(packets, unit) for unit in UNITS for packets in (*range(1, 130), *range(131, 10_001, 97))]
    added = "".join(f"add rule ip filter RATES limit rate {packets}/{UNITS[unit]} counter\n" for packets, unit in pairs)
    with room.entered():
        run(("nft", "-f", "-"), timeout=60, input=(script + added).encode())
        before = rules(room, Family.IPV4, "filter", "RATES")
        printed = [
            line for line in run(("iptables-nft-save",), timeout=60).stdout.splitlines() if line.startswith("-A RATES ")
        ]
        text = "\n".join(("*filter", ":RATES -", *printed, "COMMIT\n"))
        run(("iptables-nft-restore", "--noflush"), timeout=60, input=text.encode())
    again = rules(room, Family.IPV4, "filter", "RATES")
    assert len(before) == len(again) == len(pairs)
    kept = [one.expressions == other.expressions for one, other in zip(before, again, strict=True)]
    assert [read_body(rule.expressions, ipv6=False).told for rule in before] == kept
    assert {True, False} == set(kept)
