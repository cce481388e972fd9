"""Cases: rules of hashlimit."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from meshfw.errors import ModelError
from meshfw.extensions.hashlimit import MODES, HashLimit
from meshfw.extensions.hashlimit_rates import ByteRate, PacketRate, parse_burst
from meshfw.model import Family, Match
from tests.extensions.case import Case

M = "-m hashlimit"
ALL = "meter hashlimit-%s size %d { ip saddr & 0.0.0.0 timeout 1s limit rate %s/second } counter"
CASES = (
    Case(
        "46",
        "filter",
        f"{M} --hashlimit 13107mb/s --hashlimit-name big",
        f"{M} --hashlimit-upto 13743895328b/s --hashlimit-name big",
        None,
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit 10/second --hashlimit-name a0",
        f"{M} --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name a0",
        ALL % ("a0", 65535, 10),
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit-upto 10/second --hashlimit-name a1",
        f"{M} --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name a1",
        ALL % ("a1", 65535, 10),
    ),
    Case(
        "6",
        "filter",
        f"{M} --hashlimit-upto 10/second --hashlimit-name a1",
        f"{M} --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name a1",
        "meter hashlimit-a1 size 65535 { ip6 saddr & :: timeout 1s limit rate 10/second } counter",
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit-above 20/sec --hashlimit-burst 14497 --hashlimit-mode srcip "
        "--hashlimit-name new-.:connections --hashlimit-htable-expire 31991",
        "",
        "meter hashlimit-new-./3aconnections size 65535 "
        "{ ip saddr timeout 32s limit rate over 20/second burst 14497 packets } counter",
    ),
    Case(
        "4",
        "filter",
        f"{M} ! --hashlimit-upto 60/min --hashlimit-mode dstip|srcip --hashlimit-name a2 "
        "--hashlimit-srcmask 255.255.0.0 --hashlimit-dstmask 32",
        f"{M} --hashlimit-above 1/sec --hashlimit-burst 5 --hashlimit-mode srcip,dstip --hashlimit-name a2 "
        "--hashlimit-htable-expire 60000 --hashlimit-srcmask 16",
        "meter hashlimit-a2 size 65535 "
        "{ ip daddr . ip saddr & 255.255.0.0 timeout 1m limit rate over 1/second } counter",
    ),
    Case(
        "6",
        "filter",
        f"{M} ! --hashlimit-above 3/sec --hashlimit-mode srcip --hashlimit-name a3 --hashlimit-srcmask 64 "
        "--hashlimit-burst 1k",
        f"{M} --hashlimit-upto 3/sec --hashlimit-burst 1024 --hashlimit-mode srcip --hashlimit-name a3 "
        "--hashlimit-srcmask 64",
        "meter hashlimit-a3 size 65535 "
        "{ ip6 saddr & ffff:ffff:ffff:ffff:: timeout 1s limit rate 3/second burst 1024 packets } counter",
    ),
    Case(
        "4",
        "filter",
        f"-p tcp -m tcp --dport 80 {M} --hashlimit-upto 300 --hashlimit-burst 15 --hashlimit-mode srcip,dstip "
        "--hashlimit-name https --hashlimit-htable-expire 300000 -m state --state NEW -j DROP",
        "-p tcp -m tcp --dport 80 -m hashlimit --hashlimit-upto 300/sec --hashlimit-burst 15 "
        "--hashlimit-mode srcip,dstip --hashlimit-name https --hashlimit-htable-expire 300000 "
        "-m state --state NEW -j DROP",
        "tcp dport 80 meter hashlimit-https size 65535 "
        "{ ip daddr . ip saddr timeout 5m limit rate 300/second burst 15 packets } ct state new counter drop",
    ),
    Case(
        "4",
        "filter",
        f"-p tcp {M} --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode srcip,srcport --hashlimit-name a4",
        "",
        "meter hashlimit-a4 size 65535 { ip saddr . tcp sport timeout 1h limit rate 1/hour burst 2 packets } counter",
    ),
    Case(
        "6",
        "filter",
        f"-p udp {M} --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode dstport --hashlimit-name a5",
        "",
        "meter hashlimit-a5 size 65535 { udp dport timeout 1d limit rate 1/day burst 1 packets } counter",
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode dstip --hashlimit-name a6 "
        "--hashlimit-htable-max 2000 --hashlimit-htable-gcinterval 60000 --hashlimit-htable-expire 90061000",
        "",
        "meter hashlimit-a6 size 2000 { ip daddr timeout 1d1h1m1s limit rate 1/second burst 1 packets } counter",
    ),
    Case(
        "46",
        "filter",
        f"{M} --hashlimit-upto 1/sec --hashlimit-burst 9 --hashlimit-name a7 --hashlimit-htable-gcinterval 60000",
        "",
        None,
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit 1/sec --hashlimit-name a8 --hashlimit-htable-size 2000000 --hashlimit-htable-max 5000000",
        f"{M} --hashlimit-upto 1/sec --hashlimit-burst 5 --hashlimit-name a8 --hashlimit-htable-size 1048576 "
        "--hashlimit-htable-max 1048576",
        ALL % ("a8", 1048576, 1),
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit-upto 10/sec --hashlimit-mode srcip --hashlimit-name b6 "
        "--hashlimit-htable-gcinterval 500 --hashlimit-htable-expire 1500",
        f"{M} --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name b6 "
        "--hashlimit-htable-gcinterval 500 --hashlimit-htable-expire 1500",
        "meter hashlimit-b6 size 65535 { ip saddr timeout 2s limit rate 10/second } counter",
    ),
    Case("46", "filter", f"{M} --hashlimit-upto 4kb/s --hashlimit-burst 400kb --hashlimit-name a9", "", None),
    Case("46", "filter", f"{M} --hashlimit-upto 10mb/s --hashlimit-name b0", "", None),
    Case("46", "filter", f"{M} --hashlimit-upto 123456b/s --hashlimit-burst 1mb --hashlimit-name b1", "", None),
    Case(
        "46",
        "filter",
        f"{M} --hashlimit-above 1500b/s --hashlimit-name b2 --hashlimit-htable-expire 15000",
        f"{M} --hashlimit-above 1488b/s --hashlimit-name b2",
        None,
    ),
    Case(
        "46",
        "filter",
        f"{M} --hashlimit-above 7/min --hashlimit-name b3 --hashlimit-rate-match",
        f"{M} --hashlimit-above 7/sec --hashlimit-burst 5 --hashlimit-name b3 --hashlimit-htable-expire 60000 "
        "--hashlimit-rate-match --hashlimit-rate-interval 60",
        None,
    ),
    Case(
        "46",
        "filter",
        f"{M} --hashlimit-upto 40mb/s --hashlimit-mode srcip --hashlimit-name b4 --hashlimit-rate-match",
        "",
        None,
    ),
    Case(
        "4",
        "filter",
        f"{M} --hashlimit-upto 40/sec --hashlimit-name b5 --hashlimit-rate-interval 3",
        f"{M} --hashlimit-upto 40/sec --hashlimit-burst 5 --hashlimit-name b5",
        ALL % ("b5", 65535, 40),
    ),
)
REFUSED = (
    (f"{M} --hashlimit-name a", "--hashlimit-upto and --hashlimit-above"),
    (f"{M} --hashlimit-upto 1/s", "--hashlimit-name"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-above 1/s --hashlimit-name a", "beside"),
    (f"{M} --hashlimit-upto 0/s --hashlimit-name a", "at least one"),
    (f"{M} --hashlimit-upto 1000001/s --hashlimit-name a", "too fast"),
    (f"{M} --hashlimit-upto 3/fortnight --hashlimit-name a", "3/fortnight"),
    (f"{M} --hashlimit-upto 3x/s --hashlimit-name a", "3x/s"),
    (f"{M} --hashlimit-upto 10mb/min --hashlimit-name a", "10mb/min"),
    (f"{M} --hashlimit-upto 15b/s --hashlimit-name a", "0b/s"),
    (f"{M} --hashlimit-upto 70000mb/s --hashlimit-name a", "count"),
    (f"{M} --hashlimit-upto 65535mb/s --hashlimit-name a", "count"),
    (f"{M} --hashlimit-upto 40kb/s --hashlimit-burst 100 --hashlimit-name a", "40960b"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-burst 0 --hashlimit-name a", "between 1"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-burst 1m --hashlimit-name a", "1000000"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-burst 5x --hashlimit-name a", "5x"),
    (f"{M} --hashlimit-upto 1/day --hashlimit-burst 2 --hashlimit-name a", "lower the burst"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a/b", "/proc"),
    (f'{M} --hashlimit-upto 1/s --hashlimit-name "a b"', "quotes"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a --hashlimit-mode src", "src"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a --hashlimit-srcmask 33", "33"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a --hashlimit-srcmask 255.0.255.0", "255.0.255.0"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a --hashlimit-htable-gcinterval 0", "between 1"),
    (f"{M} --hashlimit-upto 1/s --hashlimit-name a --hashlimit-htable-expire 0", "between 1"),
)
EQUAL = (
    (
        f"{M} --hashlimit 1/s --hashlimit-name a",
        f"{M} --hashlimit-upto 1/second --hashlimit-name a --hashlimit-burst 5",
    ),
    (f"{M} ! --hashlimit 1/s --hashlimit-name a", f"{M} --hashlimit-above 1/s --hashlimit-name a"),
    (
        f"{M} --hashlimit 60/min --hashlimit-name a",
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-htable-expire 60000",
    ),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode srcip,dstip",
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode dstip|srcip --hashlimit-srcmask 32",
    ),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a",
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode srcip --hashlimit-srcmask 0",
    ),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-srcmask 3",
        f"{M} --hashlimit 1/s --hashlimit-name a",
    ),
    (f"{M} --hashlimit 1500b/s --hashlimit-name a", f"{M} --hashlimit 1488b/s --hashlimit-name a"),
)
DIFFERENT = (
    (f"{M} --hashlimit 1/s --hashlimit-name a", f"{M} --hashlimit 1/s --hashlimit-name b"),
    (f"{M} --hashlimit 1/s --hashlimit-name a", f"{M} --hashlimit-above 1/s --hashlimit-name a"),
    (f"{M} --hashlimit 60/min --hashlimit-name a", f"{M} --hashlimit 1/s --hashlimit-name a"),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode srcip",
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode dstip",
    ),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a",
        f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-htable-max 9",
    ),
    (f"{M} --hashlimit 16b/s --hashlimit-name a", f"{M} --hashlimit 32b/s --hashlimit-name a"),
    (
        f"{M} --hashlimit 1/s --hashlimit-name a -m mark --mark 1",
        f"-m mark --mark 1 {M} --hashlimit 1/s --hashlimit-name a",
    ),
)
UNSAYABLE = (
    (f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode srcport", "no protocol with ports"),
    (f"-p icmp {M} --hashlimit 1/s --hashlimit-name a --hashlimit-mode dstport", "no protocol with ports"),
    (f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-rate-match", "--hashlimit-rate-match"),
    (f"{M} --hashlimit 1kb/s --hashlimit-name a", "16 bytes"),
    (f"{M} --hashlimit 1/s --hashlimit-name a --hashlimit-htable-gcinterval 2", "gcinterval"),
    (f"{M} --hashlimit 1/s --hashlimit-name a {M} --hashlimit 2/s --hashlimit-name a", "twice"),
)
PACKETS = (
    f"{M} --hashlimit-upto 1/hour --hashlimit-name p0",
    f"{M} --hashlimit-above 2/hour --hashlimit-burst 3 --hashlimit-mode srcip --hashlimit-name p1",
    f"{M} --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode dstip,srcip --hashlimit-name p2",
    f"-p udp {M} --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode dstport --hashlimit-name p3",
    (
        f"-p udp {M} --hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip,srcport,dstport "
        "--hashlimit-name p4 --hashlimit-srcmask 31"
    ),
    (
        f"-p tcp {M} --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode dstip,dstport --hashlimit-name p5 "
        "--hashlimit-dstmask 24"
    ),
    f"{M} --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name p6 --hashlimit-srcmask 8",
)


def _made(fields: dict[str, Any]) -> Any:
    """The match, with a name that no other has: a kernel takes two of one name only where both are of a kind.

    None where there is none.
    """
    amount = fields.pop("amount")
    name = f"{fields.pop('name')[:6]}{crc32(repr(fields).encode()):x}"
    try:
        return HashLimit(name=name, burst=parse_burst(fields["rate"], amount), **fields)
    except ModelError:
        return None


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Token buckets."""
    packets = st.tuples(st.integers(1, 20) | st.integers(1, 1_000_000), st.sampled_from((1, 60, 3_600, 86_400)))
    octets = st.integers(16, 1 << 34).map(ByteRate)
    mask = st.none() | st.integers(0, family.bits - 1)
    made = st.fixed_dictionaries(
        {
            "name": st.text(
                st.characters(min_codepoint=33, max_codepoint=0xFF, exclude_characters="\"'\\/\x7f"), min_size=1
            )
            .filter(str.isprintable)
            .filter(lambda name: len(name) < 20 and name.split() == [name]),
            "rate": packets.map(lambda pair: PacketRate(*pair)) | octets,
            "above": st.booleans(),
            "amount": st.none() | st.integers(1, 1_000_000),
            "mode": st.sets(st.sampled_from(MODES)).map(tuple),
            "srcmask": mask,
            "dstmask": mask,
            "size": st.just(0) | st.integers(0, 1 << 21),
            "entries": st.just(0) | st.integers(0, 1 << 21),
            "collection": st.just(1000) | st.integers(1, 100_000),
            "expire": st.just(0) | st.integers(1, 0xFFFFFFFF),
            "interval": st.just(0) | st.integers(0, 100),
        }
    )
    return [made.map(_made).filter(lambda held: held is not None)]
