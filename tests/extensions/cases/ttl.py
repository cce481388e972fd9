"""Cases: rules of ttl, hl, TTL and HL."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.ttl import HopLimit, SetHopLimit, SetTtl, Ttl
from meshfw.model import Family, Not
from tests.extensions.case import Case

_LESS = ", ".join(f"{hops} : {max(0, hops - 2)}" for hops in range(256))
_MORE = ", ".join(f"{hops} : {min(255, hops + 9)}" for hops in range(256))

CASES = (
    Case("4", "filter", "-m ttl --ttl 5", "-m ttl --ttl-eq 5", "ip ttl 5 counter"),
    Case("4", "filter", "-m ttl ! --ttl-eq 0x40", "-m ttl ! --ttl-eq 64", "ip ttl != 64 counter"),
    Case("4", "filter", "-m ttl --ttl-lt 0", "", "ip ttl < 0 counter"),
    Case("4", "filter", "-m ttl --ttl-gt 255", "", "ip ttl > 255 counter"),
    Case("4", "filter", "-m ttl --ttl-lt 9 -m ttl --ttl-gt 5", "", "ip ttl <= 8 ip ttl > 5 counter"),
    Case("4", "filter", "-m ttl --ttl-lt 0 -m ttl ! --ttl-eq 5", "", "ip ttl > 255 ip ttl != 5 counter"),
    Case("6", "filter", "-m hl --hl 255", "-m hl --hl-eq 255", "ip6 hoplimit 255 counter"),
    Case("6", "filter", "-m hl ! --hl-eq 255", "", "ip6 hoplimit != 255 counter"),
    Case("6", "filter", "-m hl --hl-lt 2", "", "ip6 hoplimit < 2 counter"),
    Case("6", "filter", "-m hl --hl-gt 2", "", "ip6 hoplimit > 2 counter"),
    Case("4", "mangle", "-j TTL --ttl-set 64", "", "counter ip ttl set 64"),
    Case("4", "mangle", "-j TTL --ttl-inc 1", "", None),
    Case("4", "mangle", "-j TTL --ttl-dec 255", "", None),
    Case("6", "mangle", "-j HL --hl-set 0", "", "counter ip6 hoplimit set 0"),
    Case("6", "mangle", "-j HL --hl-dec 2", "", f"counter ip6 hoplimit set ip6 hoplimit map {{ {_LESS} }}"),
    Case("6", "mangle", "-j HL --hl-inc 9", "", f"counter ip6 hoplimit set ip6 hoplimit map {{ {_MORE} }}"),
)
REFUSED = (
    ("-m ttl", "one comparison"),
    ("-m ttl --ttl-eq 256", "between 0 and 255"),
    ("-m ttl --ttl-gt 5 --ttl-lt 9", "one comparison"),
    ("-m ttl ! --ttl-lt 5", "can't be negated"),
    ("-j TTL", "one change"),
    ("-j TTL --ttl-inc 0", "between 1 and 255"),
    ("-j TTL --ttl-dec 1 --ttl-inc 1", "one change"),
)
EQUAL = (
    ("-m ttl ! --ttl-eq 0", "-m ttl --ttl-gt 0"),
    ("-m ttl --ttl-lt 1", "-m ttl --ttl-eq 0"),
    ("-m ttl --ttl-lt 0", "-m ttl --ttl-gt 255"),
    ("-j TTL --ttl-dec 255", "-j TTL --ttl-set 0"),
    ("-j TTL --ttl-inc 255", "-j TTL --ttl-set 255"),
)
DIFFERENT = (
    ("-m ttl --ttl-eq 5", "-m ttl ! --ttl-eq 5"),
    ("-m ttl --ttl-lt 5", "-m ttl --ttl-gt 5"),
    ("-j TTL --ttl-inc 5", "-j TTL --ttl-set 5"),
    ("-j TTL --ttl-inc 5", "-j TTL --ttl-dec 5"),
)
UNSAYABLE = (("-j TTL --ttl-dec 1", "no arithmetic"),)
PACKETS_IPV4 = (
    "-m ttl --ttl-eq 5",
    "-m ttl ! --ttl-eq 5",
    "-m ttl --ttl-lt 5",
    "-m ttl --ttl-gt 5",
    "-m ttl --ttl-gt 254",
    "-m ttl --ttl-gt 255",
)
PACKETS_IPV6 = tuple(rule.replace("ttl", "hl") for rule in PACKETS_IPV4)
CHANGES_IPV4 = ("-j TTL --ttl-set 3", "-j TTL --ttl-set 255")
CHANGES_IPV6 = (
    "-j HL --hl-set 3",
    "-j HL --hl-set 255",
    *(f"-j HL --hl-{change} {step}" for change in ("inc", "dec") for step in (1, 64, 255)),
)

_HOPS = st.integers(0, 255) | st.sampled_from((0, 1, 254, 255))
_STEP = st.integers(1, 255)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    kind = Ttl if family is Family.IPV4 else HopLimit
    return [st.builds(kind, equal=_HOPS | _HOPS.map(Not)) | st.builds(kind, below=_HOPS) | st.builds(kind, above=_HOPS)]


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    kind = SetTtl if family is Family.IPV4 else SetHopLimit
    return [st.builds(kind, set=_HOPS) | st.builds(kind, inc=_STEP) | st.builds(kind, dec=_STEP)]
