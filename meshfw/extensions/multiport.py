"""The multiport match: a list of ports (iptables-extensions(8), multiport)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import (
    ALL_PORTS,
    Ports,
    complement,
    header_met,
    join_ranges,
    listed,
    plain_condition,
    port,
    port_atoms,
    read_ports,
    set_nft,
    sign,
)
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Rule, SetRef, every, merge_ranges, some, turned

PORTS_MAX: Final = 15
"""Ports of one match; a range takes two (linux/netfilter/xt_multiport.h, XT_MULTI_PORTS)."""
PROTOCOLS: Final = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
"""The protocols whose ports it sees, by the name of their header in nft."""

PortList = tuple[Ports, ...] | Not[tuple[Ports, ...]]


class Multiport(Match, frozen=True):
    """A list of source ports, of destination ports, or of ports of either end, in the order written."""

    protocols: ClassVar[frozenset[int] | None] = frozenset(PROTOCOLS)
    sports: PortList | None = None
    dports: PortList | None = None
    ports: PortList | None = None

    def __post_init__(self) -> None:
        held = [value for value in (self.sports, self.dports, self.ports) if value is not None]
        if len(held) != 1:
            raise ModelError("multiport needs one of --sports, --dports and --ports")
        ports = sign(held[0])[1]
        for item in ports:
            item.ascending()
        size = sum(1 if item.low == item.high else 2 for item in ports)
        if not 1 <= size <= PORTS_MAX:
            raise ModelError(f"multiport holds 1 to {PORTS_MAX} ports, a range counts as two; here are {size}")

    @property
    def parts(self) -> tuple[str, bool, tuple[Ports, ...]]:
        """``sport``, ``dport`` or ``port``, whether it is negated, and the list."""
        for field, held in (("sport", self.sports), ("dport", self.dports)):
            if held is not None:
                return (field, *sign(held))
        return ("port", *sign(self.ports))

    def atoms(self) -> Iterable[Any]:
        """The list as a set; one list for both ends, negated, is a condition for each."""
        field, negated, ports = self.parts
        for name in ("sport", "dport") if field == "port" and negated else (field,):
            yield from port_atoms(name, negated, ports)

    def meets(self, packet: Packet) -> bool | None:
        """Whether a port of these ends is in the list; negated, whether none is."""
        field, negated, ports = self.parts
        ends = {"sport": (packet.sport,), "dport": (packet.dport,)}.get(field, (packet.sport, packet.dport))
        listed_one = some(None if end is None else any(item.low <= end <= item.high for item in ports) for end in ends)
        return every((header_met(packet, PROTOCOLS), turned(listed_one, negated)))


def _parse(text: str, context: ParseContext) -> tuple[Ports, ...]:
    ports = []
    for item in text.split(","):
        first, colon, last = item.partition(":")
        low = port(first, context)
        high = port(last, context) if colon else low
        if colon and low >= high:
            raise ModelError(f"ports {item}: a range of a list ends above its beginning")
        ports.append(Ports(low, high))
    return tuple(ports)


_PORTS: Final = Codec(
    parse=_parse,
    format=lambda ports: ",".join(map(str, ports)),
    expected=f"at most {PORTS_MAX} ports, FIRST:LAST or service names, joined by commas",
)

# --- nft ------------------------------------------------------------------------------------------------

_EVERY: Final = (ALL_PORTS.low, ALL_PORTS.high)


def _ranges(ports: Iterable[Ports]) -> tuple[tuple[int, int], ...]:
    """The ports as nft lists them: neighbours joined where a range stands among them, else each by itself."""
    merged = merge_ranges((item.low, item.high) for item in ports)
    return merged if all(low == high for low, high in merged) else join_ranges(merged)


def _text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _list_nft(left: str, negated: bool, ranges: tuple[tuple[int, int], ...]) -> str:
    items = [_text(low, high) for low, high in ranges]
    return set_nft(left, items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}", negated)


def _pairs(ranges: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Source and destination ports of which either is in the ranges, as pairs without overlap."""
    joined = join_ranges(ranges)
    return [
        *((held, _EVERY) for held in joined),
        *((other, held) for other in complement(joined) for held in joined),
    ]


def _to_nft(value: Multiport, family: Family, rule: Rule) -> Iterable[str]:
    header = PROTOCOLS.get(rule.protocol) if isinstance(rule.protocol, int) else None
    if header is None:
        raise InexpressibleError("multiport in a rule that states none of its protocols")
    field, negated, ports = value.parts
    ranges = _ranges(ports)
    if ranges == (_EVERY,) and not negated:
        return
    if field != "port":
        yield _list_nft(f"{header} {field}", negated, ranges)
    elif negated:
        yield _list_nft(f"{header} sport", negated, ranges)
        yield _list_nft(f"{header} dport", negated, ranges)
    else:
        pairs = ", ".join(f"{_text(*source)} . {_text(*target)}" for source, target in _pairs(ranges))
        yield f"{header} sport . {header} dport {{ {pairs} }}"


class _Reader:
    """Reads one key of nft's JSON into one field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __call__(self, match: NftMatch, family: Family) -> Multiport | None:
        held = [read_ports(item) for item in listed(match.right)]
        ports = tuple(item for item in held if isinstance(item, Ports))
        if not plain_condition(match) or len(ports) < len(held):
            return None
        return Multiport(**{self._field: Not(ports) if match.negated else ports})


def _read_pairs(match: NftMatch, family: Family) -> Multiport | None:
    pairs = []
    for item in listed(match.right):
        source, target = (read_ports(part) for part in item["concat"])
        if isinstance(source, SetRef) or isinstance(target, SetRef):
            return None
        pairs.append(((source.low, source.high), (target.low, target.high)))
    ranges = tuple(source for source, target in pairs if target == _EVERY)
    if match.negated or sorted(pairs) != sorted(_pairs(ranges)):
        return None
    return Multiport(ports=tuple(Ports(low, high) for low, high in ranges))


def _readers() -> dict[str, Callable[[Any, Family], Match | None]]:
    readers: dict[str, Callable[[Any, Family], Match | None]] = {}
    for header in PROTOCOLS.values():
        for field in ("sport", "dport"):
            readers[f"{header} {field} set"] = _Reader(f"{field}s")
            if header == "udplite":  # the others' own matches read a single port
                readers[f"{header} {field}"] = _Reader(f"{field}s")
        readers[f"{header} sport . {header} dport"] = _read_pairs
    return readers


EXTENSIONS: Final = (
    Extension(
        name="multiport",
        value=Multiport,
        options=(
            Option("--sports", "sports", _PORTS, aliases=("--source-ports",), invertible=True),
            Option("--dports", "dports", _PORTS, aliases=("--destination-ports",), invertible=True),
            Option("--ports", "ports", _PORTS, invertible=True),
        ),
        to_nft=_to_nft,
        from_nft=_readers(),
    ),
)
