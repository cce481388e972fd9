"""The icmp and icmp6 matches: type and code of ICMP and ICMPv6 (iptables-extensions(8), icmp and icmp6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import header_met, number, plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Rule, every, turned

ICMP: Final = 1
ICMPV6: Final = 58

TYPES: Final[Mapping[str, tuple[int, int | None]]] = {
    "echo-reply": (0, None),
    "pong": (0, None),
    "destination-unreachable": (3, None),
    "network-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "source-route-failed": (3, 5),
    "network-unknown": (3, 6),
    "host-unknown": (3, 7),
    "network-prohibited": (3, 9),
    "host-prohibited": (3, 10),
    "tos-network-unreachable": (3, 11),
    "tos-host-unreachable": (3, 12),
    "communication-prohibited": (3, 13),
    "host-precedence-violation": (3, 14),
    "precedence-cutoff": (3, 15),
    "source-quench": (4, None),
    "redirect": (5, None),
    "network-redirect": (5, 0),
    "host-redirect": (5, 1),
    "tos-network-redirect": (5, 2),
    "tos-host-redirect": (5, 3),
    "echo-request": (8, None),
    "ping": (8, None),
    "router-advertisement": (9, None),
    "router-solicitation": (10, None),
    "time-exceeded": (11, None),
    "ttl-exceeded": (11, None),
    "ttl-zero-during-transit": (11, 0),
    "ttl-zero-during-reassembly": (11, 1),
    "parameter-problem": (12, None),
    "ip-header-bad": (12, 0),
    "required-option-missing": (12, 1),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
    "address-mask-request": (17, None),
    "address-mask-reply": (18, None),
}
"""Type and code of each name that iptables knows (libxt_icmp.h); code None is any code."""

TYPES6: Final[Mapping[str, tuple[int, int | None]]] = {
    "destination-unreachable": (1, None),
    "no-route": (1, 0),
    "communication-prohibited": (1, 1),
    "beyond-scope": (1, 2),
    "address-unreachable": (1, 3),
    "port-unreachable": (1, 4),
    "failed-policy": (1, 5),
    "reject-route": (1, 6),
    "packet-too-big": (2, None),
    "time-exceeded": (3, None),
    "ttl-exceeded": (3, None),
    "ttl-zero-during-transit": (3, 0),
    "ttl-zero-during-reassembly": (3, 1),
    "parameter-problem": (4, None),
    "bad-header": (4, 0),
    "unknown-header-type": (4, 1),
    "unknown-option": (4, 2),
    "echo-request": (128, None),
    "ping": (128, None),
    "echo-reply": (129, None),
    "pong": (129, None),
    "router-solicitation": (133, None),
    "router-advertisement": (134, None),
    "neighbour-solicitation": (135, None),
    "neighbor-solicitation": (135, None),
    "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None),
    "redirect": (137, None),
}
"""The same for ICMPv6 (libip6t_icmp6.c)."""


class IcmpType(msgspec.Struct, frozen=True, gc=False, order=True):
    """A message type and, unless it is None, a code."""

    type: int
    code: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.type <= 0xFF or not 0 <= (self.code or 0) <= 0xFF:
            raise ModelError(f"ICMP type {self}: numbers from 0 to 255")

    def __str__(self) -> str:
        return str(self.type) if self.code is None else f"{self.type}/{self.code}"


ANY: Final = IcmpType(0xFF)
"""What the icmp match of iptables takes for any type and code (linux/netfilter/xt_tcpudp.c)."""


def parse_type(text: str, names: Mapping[str, tuple[int, int | None]]) -> IcmpType:
    """A type by one of the names or by number, or ``TYPE/CODE``."""
    known = names.get(text.lower())
    if known is not None:
        return IcmpType(*known)
    kind, slash, code = text.partition("/")
    every = not slash or code == "0:255"  # of any other range of codes iptables-save keeps the first alone
    try:
        return IcmpType(number(kind, high=0xFF), None if every else number(code, high=0xFF))
    except ModelError:
        raise ModelError(f"{text!r} is not an ICMP type") from None


def _parse(text: str, context: ParseContext) -> IcmpType:
    if text.lower() == "any":
        return ANY
    found = parse_type(text, TYPES)
    return ANY if found.type == ANY.type else found


def _format(value: IcmpType) -> str:
    return "any" if value.type == ANY.type else str(value)


def _met(held: IcmpType, message: tuple[int, int] | None) -> bool | None:
    if message is None:
        return None
    kind, code = message
    return kind == held.type and held.code in (None, code)


class Icmp(Match, frozen=True):
    """The type and code of an ICMP message."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({ICMP})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    type: IcmpType | Not[IcmpType]

    def atoms(self) -> Iterable[Any]:
        """Type and code with their sign; nothing for any type."""
        if self.type != ANY:
            yield ("icmp type", *sign(self.type))

    def meets(self, packet: Packet) -> bool | None:
        """Type and code."""
        negated, held = sign(self.type)
        kind = True if held.type == ANY.type else _met(held, packet.icmp)
        return every((header_met(packet, self.protocols or ()), turned(kind, negated)))


class Icmp6(Match, frozen=True):
    """The type and code of an ICMPv6 message."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({ICMPV6})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    type: IcmpType | Not[IcmpType]

    def atoms(self) -> Iterable[Any]:
        """Type and code with their sign."""
        yield ("icmpv6 type", *sign(self.type))

    def meets(self, packet: Packet) -> bool | None:
        """Type and code."""
        negated, held = sign(self.type)
        return every((header_met(packet, self.protocols or ()), turned(_met(held, packet.icmp), negated)))


_TYPE: Final = Codec(parse=_parse, format=_format, expected="an ICMP type by name or number, or TYPE/CODE")
_TYPE6: Final = Codec(
    parse=lambda text, context: parse_type(text, TYPES6),
    format=str,
    expected="an ICMPv6 type by name or number, or TYPE/CODE",
)

# --- nft ------------------------------------------------------------------------------------------------

_NFT_TYPES: Final[Mapping[int, str]] = {
    0: "echo-reply",
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    8: "echo-request",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
    15: "info-request",
    16: "info-reply",
    17: "address-mask-request",
    18: "address-mask-reply",
}
"""The types that nft 1.0.6 lists by name; it lists others by number, and so the codes."""
_NFT_CODES: Final[Mapping[int, str]] = {
    0: "net-unreachable",
    1: "host-unreachable",
    2: "prot-unreachable",
    3: "port-unreachable",
    4: "frag-needed",
    9: "net-prohibited",
    10: "host-prohibited",
    13: "admin-prohibited",
}
_NFT_TYPES6: Final[Mapping[int, str]] = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "nd-router-solicit",
    134: "nd-router-advert",
    135: "nd-neighbor-solicit",
    136: "nd-neighbor-advert",
    137: "nd-redirect",
    138: "router-renumbering",
    141: "ind-neighbor-solicit",
    142: "ind-neighbor-advert",
    143: "mld2-listener-report",
}
_NFT_CODES6: Final[Mapping[int, str]] = {
    0: "no-route",
    1: "admin-prohibited",
    3: "addr-unreachable",
    4: "port-unreachable",
    5: "policy-fail",
    6: "reject-route",
}


class _Nft:
    """The two ways between a type and nft, for one of the protocols."""

    def __init__(
        self, value: type[Icmp | Icmp6], header: str, types: Mapping[int, str], codes: Mapping[int, str]
    ) -> None:
        self._value = value
        self._header = header
        self._names = (types, codes)
        self._numbers = tuple({name: number for number, name in names.items()} for names in (types, codes))

    def statements(self, value: Any, family: Family, rule: Rule) -> Iterable[str]:
        """The condition; type and code together, so that their negation is one too."""
        negated, held = sign(value.type)
        if self._value is Icmp and held == ANY:
            if negated:  # no packet meets it
                yield f"{self._header} type != 0-255"
            return
        kind = self._names[0].get(held.type, str(held.type))
        if held.code is None:
            yield set_nft(f"{self._header} type", kind, negated)
            return
        code = self._names[1].get(held.code, str(held.code))
        yield set_nft(f"{self._header} type . {self._header} code", f"{{ {kind} . {code} }}", negated)

    def readers(self) -> dict[str, Callable[[Any, Family], Match | None]]:
        """The readers of nft's JSON."""
        return {
            f"{self._header} type": self._read_type,
            f"{self._header} type . {self._header} code": self._read_both,
        }

    def _number(self, right: Any, which: int) -> int:
        return right if isinstance(right, int) else self._numbers[which][right]

    def _made(self, match: NftMatch, held: IcmpType) -> Match | None:
        return self._value(Not(held) if match.negated else held) if plain_condition(match) else None

    def _read_type(self, match: NftMatch, family: Family) -> Match | None:
        if isinstance(match.right, dict):
            every = match.right.get("range") == [self._names[0].get(0, 0), 0xFF]
            return Icmp(Not(ANY)) if every and match.op == "!=" and self._value is Icmp else None
        return self._made(match, IcmpType(self._number(match.right, 0)))

    def _read_both(self, match: NftMatch, family: Family) -> Match | None:
        (element,) = match.right["set"]
        kind, code = element["concat"]
        return self._made(match, IcmpType(self._number(kind, 0), self._number(code, 1)))


_NFT: Final = _Nft(Icmp, "icmp", _NFT_TYPES, _NFT_CODES)
_NFT6: Final = _Nft(Icmp6, "icmpv6", _NFT_TYPES6, _NFT_CODES6)

EXTENSIONS: Final = (
    Extension(
        name="icmp",
        value=Icmp,
        implied_by=ICMP,
        options=(Option("--icmp-type", "type", _TYPE, invertible=True),),
        to_nft=_NFT.statements,
        from_nft=_NFT.readers(),
    ),
    Extension(
        name="icmp6",
        value=Icmp6,
        aliases=("icmpv6", "ipv6-icmp"),
        implied_by=ICMPV6,
        options=(Option("--icmpv6-type", "type", _TYPE6, invertible=True),),
        to_nft=_NFT6.statements,
        from_nft=_NFT6.readers(),
    ),
)
