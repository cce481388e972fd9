"""The ttl and hl matches and the TTL and HL targets: how many hops a packet has left (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import complement, integer
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.model import Family, Match, Not, Packet, Rule, Table, Target, Twice

LAST: Final = 0xFF
_OPERATORS: Final = {"==": "equal", "!=": "equal", "<": "below", "<=": "below", ">": "above"}
_FIELDS: Final = {Family.IPV4: "ip ttl", Family.IPV6: "ip6 hoplimit"}


class Ttl(Match, frozen=True, kw_only=True):
    """The time to live of IPv4: one number, or all numbers below or above one."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    equal: int | Not[int] | None = None
    below: int | None = None
    above: int | None = None

    def __post_init__(self) -> None:
        if sum(held is not None for held in (self.equal, self.below, self.above)) != 1:
            raise ModelError("needs one comparison: equal to, less than or greater than a number")

    @property
    def met(self) -> tuple[tuple[int, int], ...]:
        """The numbers that meet it, as ranges."""
        if type(self.equal) is Not:
            return complement(((self.equal.value, self.equal.value),), last=LAST)
        if self.equal is not None:
            return ((self.equal, self.equal),)  # type: ignore[return-value]  # a plain number: the other is seen above
        low, high = (0, self.below - 1) if self.below is not None else ((self.above or 0) + 1, LAST)
        return ((low, high),) if low <= high else ()

    def atoms(self) -> Iterable[Any]:
        """The numbers that meet it."""
        yield ("ttl", self.met)

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet's number is one of them."""
        if packet.ttl is None:
            return None if self.met else False
        return any(low <= packet.ttl <= high for low, high in self.met)


class HopLimit(Ttl, frozen=True):
    """The hop limit of IPv6."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})


class SetTtl(Target, frozen=True, kw_only=True):
    """TTL: sets the time to live of IPv4, or adds to it up to 255, or takes from it down to 0."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    final: ClassVar[bool] = False
    set: int | None = None
    dec: int | None = None
    inc: int | None = None

    def __post_init__(self) -> None:
        if sum(held is not None for held in (self.set, self.dec, self.inc)) != 1:
            raise ModelError("needs one change: a number to set, to add or to take away")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "TTL"

    def changed(self, number: int) -> int:
        """What becomes of a number."""
        if self.set is not None:
            return self.set
        return min(LAST, number + self.inc) if self.inc is not None else max(0, number - (self.dec or 0))

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new number."""
        return packet if packet.ttl is None else msgspec.structs.replace(packet, ttl=self.changed(packet.ttl))

    def atom(self, family: Family | None = None) -> Any:
        """The change, that of every number to one and the same whichever words say it."""
        if LAST in (self.inc, self.dec):
            return ("TTL", "set", self.changed(0))
        return ("TTL", *next((name, held) for name, held in self._held if held is not None))

    @property
    def _held(self) -> tuple[tuple[str, int | None], ...]:
        return (("set", self.set), ("dec", self.dec), ("inc", self.inc))

    def twice(self) -> Twice | None:
        """Another number, unless it is set."""
        return None if self.set is not None else Twice("the number is changed twice", alters=True)


class SetHopLimit(SetTtl, frozen=True):
    """HL: the same for the hop limit of IPv6."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})

    @property
    def label(self) -> str:
        """The target's own name."""
        return "HL"


# --- nft ------------------------------------------------------------------------------------------------


def _match_nft(value: Ttl, family: Family, rule: Rule) -> Iterable[str]:
    """The comparison; nft 1.0.6 lists a ``<`` before a ``>`` of one field as a range that neither means."""
    left = _FIELDS[family]
    several = sum(isinstance(match, Ttl) for match in rule.matches) > 1
    if type(value.equal) is Not:
        yield f"{left} != {value.equal.value}"
    elif value.equal is not None:
        yield f"{left} {value.equal}"
    elif value.below is None:
        yield f"{left} > {value.above}"
    elif several:
        yield f"{left} <= {value.below - 1}" if value.below else f"{left} > {LAST}"
    else:
        yield f"{left} < {value.below}"


def _map(value: SetTtl) -> list[tuple[int, int]]:
    return [(number, value.changed(number)) for number in range(LAST + 1)]


def _target_nft(value: SetTtl, family: Family, rule: Rule) -> Iterable[str]:
    left = _FIELDS[family]
    if value.set is not None:
        yield f"{left} set {value.set}"
    elif family is Family.IPV4:
        raise InexpressibleError(
            "TTL --ttl-inc and --ttl-dec: nft has no arithmetic, and 1.0.6 can't set ip ttl from a map"
        )
    else:
        yield f"{left} set {left} map {{ {', '.join(f'{number} : {new}' for number, new in _map(value))} }}"


class _Reader:
    """Reads a condition into a match of its family."""

    def __init__(self, value: type[Ttl]) -> None:
        self._value = value

    def __call__(self, match: NftMatch, family: Family) -> Ttl | None:
        field = _OPERATORS.get(match.op)
        if match.mask is not None or field is None or not isinstance(match.right, int):
            return None
        number = match.right + (match.op == "<=")
        fields: dict[str, Any] = {field: Not(number) if match.negated else number}
        return self._value(**fields)


def _read_ttl(body: Any, family: Family) -> Target | None:
    return SetTtl(set=body["value"]) if isinstance(body["value"], int) else None


def _read_hop_limit(body: Any, family: Family) -> Target | None:
    if isinstance(body["value"], int):
        return SetHopLimit(set=body["value"])
    held = body["value"]["map"]
    pairs = [tuple(pair) for pair in held["data"]["set"]]
    first, last = pairs[0][1], pairs[-1][1]
    value = SetHopLimit(inc=first) if first else SetHopLimit(dec=LAST - last)
    own = {"payload": {"protocol": "ip6", "field": "hoplimit"}}
    return value if held["key"] == own and pairs == _map(value) else None


_NUMBER: Final = integer("a number from 0 to 255", high=LAST)
_STEP: Final = integer("a number from 1 to 255", low=1, high=LAST)


def _matches(name: str) -> tuple[Option, ...]:
    return (
        Option(f"--{name}-eq", "equal", _NUMBER, aliases=(f"--{name}",), invertible=True),
        Option(f"--{name}-lt", "below", _NUMBER),
        Option(f"--{name}-gt", "above", _NUMBER),
    )


def _changes(name: str) -> tuple[Option, ...]:
    return (
        Option(f"--{name}-set", "set", _NUMBER),
        Option(f"--{name}-dec", "dec", _STEP),
        Option(f"--{name}-inc", "inc", _STEP),
    )


EXTENSIONS: Final = (
    Extension(
        name="ttl",
        value=Ttl,
        options=_matches("ttl"),
        to_nft=_match_nft,
        from_nft={"ip ttl": _Reader(Ttl)},
    ),
    Extension(
        name="hl",
        value=HopLimit,
        options=_matches("hl"),
        to_nft=_match_nft,
        from_nft={"ip6 hoplimit": _Reader(HopLimit)},
    ),
    Extension(
        name="TTL",
        value=SetTtl,
        options=_changes("ttl"),
        to_nft=_target_nft,
        from_nft={"mangle ip ttl": _read_ttl},
    ),
    Extension(
        name="HL",
        value=SetHopLimit,
        options=_changes("hl"),
        to_nft=_target_nft,
        from_nft={"mangle ip6 hoplimit": _read_hop_limit},
    ),
)
