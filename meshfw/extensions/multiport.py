"""The multiport match: a list of ports (iptables-extensions(8), multiport)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import ALL_PORTS, Ports, port, ports_atom, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Match, Not

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
            atom = ports_atom(name, negated, ports)
            if negated or atom[-1] != ((ALL_PORTS.low, ALL_PORTS.high),):
                yield atom


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

EXTENSIONS: Final = (
    Extension(
        name="multiport",
        value=Multiport,
        options=(
            Option("--sports", "sports", _PORTS, aliases=("--source-ports",), invertible=True),
            Option("--dports", "dports", _PORTS, aliases=("--destination-ports",), invertible=True),
            Option("--ports", "ports", _PORTS, invertible=True),
        ),
    ),
)
