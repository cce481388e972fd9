"""The icmp and icmp6 matches: type and code of ICMP and ICMPv6 (iptables-extensions(8), icmp and icmp6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import number, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Match, Not

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


def _parse_type(text: str, names: Mapping[str, tuple[int, int | None]]) -> IcmpType:
    known = names.get(text.lower())
    if known is not None:
        return IcmpType(*known)
    kind, slash, code = text.partition("/")
    try:
        return IcmpType(number(kind, high=0xFF), number(code, high=0xFF) if slash else None)
    except ModelError:
        raise ModelError(f"{text!r} is not an ICMP type") from None


def _parse(text: str, context: ParseContext) -> IcmpType:
    if text.lower() == "any":
        return ANY
    found = _parse_type(text, TYPES)
    return ANY if found.type == ANY.type else found


def _format(value: IcmpType) -> str:
    return "any" if value.type == ANY.type else str(value)


class Icmp(Match, frozen=True):
    """The type and code of an ICMP message."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({ICMP})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    type: IcmpType | Not[IcmpType]

    def atoms(self) -> Iterable[Any]:
        """Type and code with their sign; nothing for any type."""
        if self.type != ANY:
            yield ("icmp type", *sign(self.type))


class Icmp6(Match, frozen=True):
    """The type and code of an ICMPv6 message."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({ICMPV6})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    type: IcmpType | Not[IcmpType]

    def atoms(self) -> Iterable[Any]:
        """Type and code with their sign."""
        yield ("icmpv6 type", *sign(self.type))


_TYPE: Final = Codec(parse=_parse, format=_format, expected="an ICMP type by name or number, or TYPE/CODE")
_TYPE6: Final = Codec(
    parse=lambda text, context: _parse_type(text, TYPES6),
    format=str,
    expected="an ICMPv6 type by name or number, or TYPE/CODE",
)

EXTENSIONS: Final = (
    Extension(
        name="icmp",
        value=Icmp,
        implied_by=ICMP,
        options=(Option("--icmp-type", "type", _TYPE, invertible=True),),
    ),
    Extension(
        name="icmp6",
        value=Icmp6,
        aliases=("icmpv6", "ipv6-icmp"),
        implied_by=ICMPV6,
        options=(Option("--icmpv6-type", "type", _TYPE6, aliases=("--icmp6-type",), invertible=True),),
    ),
)
