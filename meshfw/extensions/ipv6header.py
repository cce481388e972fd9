"""The ipv6header match: which extension headers an IPv6 packet has (ip6tables-extensions(8), ipv6header)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import listed, plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Rule

HEADERS: Final = {
    "hop-by-hop": 0x80,
    "ipv6-opts": 0x40,
    "ipv6-route": 0x20,
    "ipv6-frag": 0x10,
    "ah": 0x08,
    "esp": 0x04,
    "ipv6-nonxt": 0x02,
    "protocol": 0x01,
}
"""Bits of headers in the order iptables prints (linux/netfilter_ipv6/ip6t_ipv6header.h); ``protocol`` is what no
extension header is, such as TCP."""
_NUMBERS: Final = {0: 0x80, 60: 0x40, 43: 0x20, 44: 0x10, 51: 0x08, 50: 0x04, 59: 0x02, 255: 0x01}
_ALIASES: Final = {
    "hop": 0x80,
    "hopopt": 0x80,
    "dst": 0x40,
    "route": 0x20,
    "frag": 0x10,
    "auth": 0x08,
    "none": 0x02,
    "prot": 0x01,
    **{str(number): bit for number, bit in _NUMBERS.items()},
}
_PROTOCOL: Final = 0x01
_LAST: Final = 0x07
"""ESP, no next header and protocol: every packet has exactly one of them, at its end."""


class Ipv6Header(Match, frozen=True):
    """The headers of a packet: exactly these, or ``soft``, at least these; negated soft is none of these."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    headers: int | Not[int]
    soft: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= sign(self.headers)[1] <= 0xFF:
            raise ModelError("ipv6header needs at least one header")

    def atoms(self) -> Iterable[Any]:
        """The bits and the mode; of soft ones one part for each bit."""
        negated, bits = sign(self.headers)
        if self.soft:
            for name, bit in HEADERS.items():
                if bits & bit:
                    named = EXTHDRS.get(bit, name)
                    yield ("no", named) if negated else (named,)  # as the header's own match says it
        elif _one_end(bits):
            yield ("ipv6header only", negated, bits)
        elif not negated:
            yield ("ipv6header none",)


def _one_end(bits: int) -> bool:
    """Whether exactly these can be the headers of a packet, which ends in one way."""
    return (bits & _LAST).bit_count() == 1


def _parse(text: str, context: ParseContext) -> int:
    bits = 0
    for name in filter(None, text.split(",")):
        bit = HEADERS.get(name.lower()) or _ALIASES.get(name.lower())
        if bit is None:
            raise ModelError(f"{name!r} is no extension header")
        bits |= bit
    return bits


def _format(bits: int) -> str:
    return ",".join(name for name, bit in HEADERS.items() if bits & bit)


_HEADERS: Final = Codec(parse=_parse, format=_format, expected=f"a list of {', '.join(HEADERS)}")

# --- nft ------------------------------------------------------------------------------------------------

EXTHDRS: Final = {0x80: "hbh", 0x20: "rt", 0x10: "frag"}
"""nft's names of the headers that it finds wherever they stand."""
_AS_PROTOCOL: Final = "it asks for the packet's protocol, which a rule states by -p"
_UNSEEN: Final = {
    0x08: "nft skips this header",
    0x40: "iptables takes the data of a later fragment for such a header, and nft does not",
    0x04: _AS_PROTOCOL,
    0x02: _AS_PROTOCOL,
    0x01: _AS_PROTOCOL,
}
"""Why nft can't say that a packet has a header."""
_ENDS: Final = {0x04: 50, 0x02: 59}
_EXTENSIONS: Final = frozenset(_NUMBERS) - {255}


def _to_nft(value: Ipv6Header, family: Family, rule: Rule) -> Iterable[str]:
    negated, bits = sign(value.headers)
    if value.soft:
        return _soft_nft(negated, bits)
    # By that name nft 1.0.6 takes the field for the packet's protocol, and refuses or aborts at another one's header.
    return _hard_nft("ip6 nexthdr" if rule.protocol is None else "@nh,48,8", negated, bits)


def _hard_nft(left: str, negated: bool, bits: int) -> Iterable[str]:
    if not _one_end(bits):
        if not negated:
            yield f"{left} != 0-255"
    elif bits & ~_LAST:
        raise InexpressibleError(
            f"{'! ' if negated else ''}--header {_format(bits)}: nft can't tell that a packet has no other header, "
            "such as ah; --soft can be said"
        )
    elif bits == _PROTOCOL:
        yield set_nft(left, f"{{ {', '.join(map(str, sorted(_EXTENSIONS)))} }}", not negated)
    else:
        yield set_nft(left, str(_ENDS[bits]), negated)


def _soft_nft(negated: bool, bits: int) -> Iterable[str]:
    for bit, why in _UNSEEN.items():
        if bits & bit:
            raise InexpressibleError(f"ipv6header --header {_format(bit)} --soft: {why}")
    for bit, name in EXTHDRS.items():
        if bits & bit:
            yield f"exthdr {name} {'missing' if negated else 'exists'}"


def read_presence(match: NftMatch, family: Family) -> Ipv6Header | None:
    """Reads that a header is there, or that it isn't."""
    bit = next((bit for bit, name in EXTHDRS.items() if match.key == f"exthdr {name}"), None)
    if match.op != "==" or not isinstance(match.right, bool) or bit is None:
        return None
    return Ipv6Header(bit if match.right else Not(bit), soft=True)


_WORDS: Final = {
    "ip": 0,
    "hopopt": 0,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "esp": 50,
    "ah": 51,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-icmp": 58,
}
"""Words that nft prints for numbers of next headers where the host has them (protocols(5))."""


def _read_next(match: NftMatch, family: Family) -> Ipv6Header | None:
    if not plain_condition(match):
        return None
    if match.right == {"range": [0, 255]}:
        return Ipv6Header(HEADERS["hop-by-hop"]) if match.negated else None
    numbers = {_WORDS.get(item, item) for item in listed(match.right)}
    if numbers == _EXTENSIONS:
        return Ipv6Header(_PROTOCOL if match.negated else Not(_PROTOCOL))
    ends = [bit for bit, number in _ENDS.items() if numbers == {number}]
    return Ipv6Header(Not(ends[0]) if match.negated else ends[0]) if ends else None


EXTENSIONS: Final = (
    Extension(
        name="ipv6header",
        value=Ipv6Header,
        options=(
            Option("--header", "headers", _HEADERS, invertible=True),
            Option("--soft", "soft", words=0),
        ),
        to_nft=_to_nft,
        from_nft={
            **{f"exthdr {name}": read_presence for name in EXTHDRS.values()},
            "ip6 nexthdr": _read_next,
        },
    ),
)
