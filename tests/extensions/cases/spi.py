"""Cases: rules of esp, ah and ipcomp."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.spans import EVERY, Span
from meshfw.extensions.spi import Ah, Esp, IpComp
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-p esp --espspi 5", "-p esp -m esp --espspi 5", "esp spi 5 counter"),
    Case("46", "filter", "-p esp -m esp ! --espspi :32", "-p esp -m esp ! --espspi 0:32", "esp spi != 0-32 counter"),
    Case("46", "filter", "-p esp -m esp --espspi :", "-p esp -m esp", "meta l4proto 50 counter"),
    Case("46", "filter", "-p esp -m esp --espspi 4:3", "", "esp spi != 0-4294967295 counter"),
    Case(
        "46",
        "filter",
        "-p esp -m esp ! --espspi :",
        "-p esp -m esp ! --espspi 0:4294967295",
        "esp spi != 0-4294967295 counter",
    ),
    Case("6", "filter", "-m ah ! --ahspi :", "-m ah ! --ahspi 0:4294967295", "ah spi != 0-4294967295 counter"),
    Case("4", "filter", "-p ah -m ah ! --ahspi 0:4294967295", "", "ah spi != 0-4294967295 counter"),
    Case("46", "filter", "-p ipcomp -m ipcomp ! --ipcompspi 0:4294967295", "", "comp cpi != 0-65535 counter"),
    Case("46", "filter", "-p esp -m esp ! --espspi 4:3", "", "esp spi 0-4294967295 counter"),
    Case(
        "4", "filter", "-p ah -m ah --ahspi 0x10:", "-p ah -m ah --ahspi 16:4294967295", "ah spi 16-4294967295 counter"
    ),
    Case("4", "filter", "-p 51 --ahspi 0:4294967295", "-p ah -m ah", "meta l4proto 51 counter"),
    Case("6", "filter", "-m ah --ahspi 500:550", "", "ah spi 500-550 counter"),
    Case(
        "6",
        "filter",
        "-m ah --ahres ! --ahlen 120 ! --ahspi 5",
        "-m ah ! --ahspi 5 ! --ahlen 120 --ahres",
        "ah spi != 5 ah hdrlength != 28 ah reserved 0 counter",
    ),
    Case("6", "filter", "-m ah --ahlen 0 --ahspi 0:", "-m ah", "ah spi 0-4294967295 counter"),
    Case("6", "filter", "-m ah ! --ahlen 0", "", "ah spi 0-4294967295 counter"),
    Case("6", "filter", "-m ah --ahlen 30", "", "ah spi 0-4294967295 ah hdrlength != 0-255 counter"),
    Case("6", "filter", "-p udp -m ah --ahspi 5", "", None),
    Case("46", "filter", "-p ipcomp --ipcompspi 18", "-p ipcomp -m ipcomp --ipcompspi 18", "comp cpi 18 counter"),
    Case("46", "filter", "-p ipcomp -m ipcomp --ipcompspi :", "-p ipcomp -m ipcomp", "meta l4proto 108 counter"),
    Case(
        "46",
        "filter",
        "-p 108 -m ipcomp --compres ! --ipcompspi 4:",
        "-p ipcomp -m ipcomp ! --ipcompspi 4:4294967295 --compres",
        "comp cpi != 4-65535 counter",
    ),
    Case("46", "filter", "-p ipcomp -m ipcomp --ipcompspi 65536", "", "comp cpi != 0-65535 counter"),
)
REFUSED = (
    ("-m esp --espspi 5", "protocol"),
    ("-p esp --espspi 4294967296", "between 0 and 4294967295"),
    ("-m ah --ahspi 5", "protocol"),
    ("-p ah --ahlen 5", "do not exist for ipv4"),
    ("-p ah -m ah --ahspi 0:invalid", "not a number"),
    ("-m ipcomp", "protocol"),
)
EQUAL = (
    ("-p esp -m esp", "-p esp"),
    ("-p ah -m ah", "-p 51"),
    ("-p ipcomp -m ipcomp --ipcompspi 0:65535", "-p ipcomp"),
    ("-p ipcomp -m ipcomp --compres", "-p ipcomp"),
    ("-p esp -m esp ! --espspi 0:9", "-p esp -m esp --espspi 10:"),
    ("-p esp -m esp ! --espspi :", "-p esp -m esp --espspi 2:1"),
)
DIFFERENT = (
    ("-p esp -m esp ! --espspi :", "-p esp"),
    ("-p ah -m ah ! --ahspi :", "-p ah -m ah"),
    ("-p ipcomp -m ipcomp ! --ipcompspi :", "-p ipcomp -m ipcomp"),
)
PACKETS = (
    *(
        f"-p {name} -m {name} {sign}--{name}spi {span}"
        for name in ("esp", "ipcomp")
        for span in ("5", "5:9", ":5", "9:5", "6:")
        for sign in ("", "! ")
    ),
    "-p esp",
    "-p ipcomp -m ipcomp --ipcompspi 65536:70000",
)
PACKETS_IPV6 = (
    "-m ah",
    *(f"-m ah {sign}--ahspi {span}" for span in ("5", "5:9", "9:5") for sign in ("", "! ")),
    *(f"-m ah {sign}--ahlen {octets}" for octets in (12, 16, 13) for sign in ("", "! ")),
    "-m ah --ahres",
    "-m ah ! --ahspi 5 --ahlen 12 --ahres",
)
PACKETS_IPV4 = tuple(f"-p ah -m ah {sign}--ahspi {span}" for span in ("5", "5:9", "9:5") for sign in ("", "! "))

_INDEX = st.integers(0, 9) | st.integers(0, 0xFFFFFFFF) | st.sampled_from((0xFFFF, 0x10000, 0xFFFFFFFF))
_SPAN = st.builds(Span, _INDEX, _INDEX)
# None and the negation of every index are what iptables 1.8.9 loses; text and nft keep both.
_SPANS = st.none() | _SPAN | _SPAN.map(Not) | st.just(Not(EVERY))


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    held: list[st.SearchStrategy[Any]] = []
    if family is Family.IPV6:
        length = st.integers(0, 40)
        held.append(st.builds(Ah, _SPANS, st.none() | length | length.map(Not), st.booleans(), st.just(family)))
    elif protocol == 51:
        held.append(st.builds(Ah, _SPANS))
    if protocol == 50:
        held.append(st.builds(Esp, _SPANS))
    if protocol == 108:
        held.append(st.builds(IpComp, _SPANS, st.booleans()))
    return held
