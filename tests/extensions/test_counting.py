"""Laws of matches that count or look at the clock: what a single case can't show."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from meshfw.extensions.connbytes import ConnBytes
from meshfw.extensions.hashlimit import HashLimit
from meshfw.extensions.hashlimit_rates import ByteRate, PacketRate
from meshfw.extensions.meter import name_of, nft_name
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import read_rule, render_rule
from meshfw.model import Family, Not, Rule
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE

V4 = Family.IPV4


def rule(text: str) -> Rule:
    return parse_rule(text, family=V4, language=LANGUAGE)


def nft(*arguments: str, script: str = "") -> str:
    return subprocess.run(["nft", *arguments], input=script, text=True, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def room(requires: Callable[..., None]) -> Iterator[Netns]:
    requires("nft")
    with Netns() as made:
        yield made


def load(*texts: str) -> None:
    """The rules in a chain of their own behind the loopback interface."""
    lines = ["flush ruleset", "add table ip t", "add chain ip t c { type filter hook input priority 0; }"]
    lines += [f"add rule ip t c {render_rule(rule(text), family=V4, language=LANGUAGE)}" for text in texts]
    nft("-f", "-", script="\n".join([*lines, ""]))


def counts() -> list[int]:
    listed = json.loads(nft("-j", "list", "chain", "ip", "t", "c"))["nftables"]
    return [
        part["counter"]["packets"]
        for item in listed
        for part in item.get("rule", {}).get("expr", ())
        if "counter" in part
    ]


def send(number: int) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to,
    ):
        to.bind(("127.0.0.1", 107))
        for _ in range(number):
            sender.sendto(b"x", ("127.0.0.1", 107))


ZONED = [
    "-m time --timestart 8:00 --timestop 17:59:58",
    "-m time --timestart 22:00 --timestop 6:00 --weekdays Mon,Sun",
    "-m time --timestop 0:59:59",
    "-m time --timestart 23:00",
    "-m time --datestart 2020-02-29T12:00:01 --datestop 2030-07-01",
]


@pytest.mark.kernel
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_a_time_is_utc_wherever_the_host_is(room: Netns, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with room.entered():
            load(*ZONED)
            held = json.loads(nft("-j", "-s", "list", "chain", "ip", "t", "c"))["nftables"]
            monkeypatch.setenv("TZ", "UTC")
            assert 'meta hour "08:00"-"17:59:58" counter' in nft("-s", "list", "chain", "ip", "t", "c")
            monkeypatch.setenv("TZ", zone)
        found = [item["rule"]["expr"] for item in held if "rule" in item]
        assert [read_rule(expr, family=V4, language=LANGUAGE) for expr in found] == [rule(text) for text in ZONED]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.kernel
def test_chance_meets_its_share(room: Netns) -> None:
    shares = (0.1, 0.5, 0.9)
    with room.entered():
        load(*(f"-m statistic --mode random --probability {share}" for share in shares))
        send(5000)
        found = counts()
    for share, count in zip(shares, found, strict=True):
        spread = (5000 * share * (1 - share)) ** 0.5
        assert abs(count - 5000 * share) < 7 * spread


@pytest.mark.kernel
def test_an_idle_bucket_is_forgotten(room: Netns) -> None:
    """In 1.3 s a bucket gets one packet back; as iptables has forgotten it by then, five more meet the rule."""
    with room.entered():
        load(
            "-m hashlimit --hashlimit-upto 1/s --hashlimit-name gone",
            "-m hashlimit --hashlimit-upto 1/s --hashlimit-name kept --hashlimit-htable-expire 10000",
        )
        send(20)
        assert counts() == [5, 5]
        time.sleep(1.3)
        send(20)
        assert counts() == [10, 6]


LOST = [
    "-m connbytes ! --connbytes 5:5 --connbytes-mode packets --connbytes-dir both",
    "-m connbytes --connbytes 0:0 --connbytes-mode packets --connbytes-dir both",
    "-m time --datestop 1970",
    "-m hashlimit --hashlimit-upto 300kb/s --hashlimit-burst 1700kb --hashlimit-name a",
    "-m hashlimit --hashlimit-upto 2/day --hashlimit-burst 5 --hashlimit-name a",
    "-m rateest --rateest RE1 --rateest-lt --rateest-bps 1234567",
    "-m rateest --rateest RE1 --rateest-lt --rateest-bps 8 --rateest-pps 5",
    "-m cluster --cluster-total-nodes 9 --cluster-local-node 7 --cluster-hash-seed 1",
]


@pytest.mark.parametrize("text", LOST)
def test_what_iptables_tools_lose_is_told_and_kept(text: str) -> None:
    held = rule(text)
    assert [loss.variants for loss in held.losses()] == [{"legacy", "nft"}]
    assert rule(format_rule(held, family=V4, language=LANGUAGE)) == held


@pytest.mark.parametrize("name", ["a", "reject", "x/y", "a.b-c_d", "é 100%", "/2f"])
def test_a_name_comes_back_from_nft(name: str) -> None:
    coded = nft_name("hashlimit-", name)
    assert re.fullmatch(r"hashlimit-[A-Za-z0-9_./-]+", coded)
    assert name_of("hashlimit-", coded) == name
    assert name_of("connlimit-", coded) is None


def test_bytes_are_rounded_as_the_kernel_keeps_them() -> None:
    """Of every power of two and its neighbours: what is printed is kept as the same cost, and printed again."""
    for exponent in range(5, 34):
        for octets in (2**exponent - 1, 2**exponent, 2**exponent + 17):
            rate = ByteRate(octets)
            assert rate.reduced.cost == rate.cost
            assert rate.reduced.reduced == rate.reduced


def test_a_bucket_that_fills_up_before_it_is_forgotten_has_no_clean_up() -> None:
    early = HashLimit(name="a", rate=PacketRate(10), burst=5, collection=7000)
    late = HashLimit(name="a", rate=PacketRate(1), burst=5, collection=7000)
    assert early.refills
    assert Rule(matches=(early,)) == Rule(matches=(HashLimit(name="a", rate=PacketRate(10), burst=5),))
    assert Rule(matches=(late,)) != Rule(matches=(HashLimit(name="a", rate=PacketRate(1), burst=5),))


def test_a_count_of_none_and_of_all_are_told_apart() -> None:
    everything, nothing = (
        ConnBytes((0, (1 << 64) - 1), "bytes", "both"),
        ConnBytes(Not((0, (1 << 64) - 1)), "bytes", "both"),
    )
    assert Rule(matches=(everything,)) != Rule(matches=(nothing,))
