"""The CT and NOTRACK targets: how a packet's connection will be tracked (iptables-extensions(8), CT)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import number
from meshfw.extensions.extension import Codec, Extension, Fields, Option, ParseContext
from meshfw.model import Family, Packet, Rule, Table, Target, byte_length

HELPER_BYTES: Final = 15  # linux/netfilter/xt_CT.h, helper[16] and timeout[32] with the final NUL
TIMEOUT_BYTES: Final = 31
EVENTS: Final = "new related destroy reply assured protoinfo helper mark natseqinfo secmark".split()
"""Events of a connection in the order of their bits (nf_conntrack_common.h, enum ip_conntrack_events)."""
EXPECTATION_EVENTS: Final = ("new",)
DIRECTIONS: Final = ("", "orig", "reply")


class Zone(msgspec.Struct, frozen=True, gc=False, order=True):
    """A zone of connections by number, None for the packet's mark; for one direction with ``orig`` or ``reply``."""

    id: int | None
    direction: str = ""

    def __post_init__(self) -> None:
        if self.id is not None and not 0 <= self.id <= 0xFFFF:
            raise ModelError(f"zone {self.id} is not between 0 and 65535")
        if self.direction not in DIRECTIONS:
            raise ModelError(f"{self.direction!r} is neither orig nor reply")


class Notrack(Target, frozen=True):
    """NOTRACK: the packet belongs to no connection."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.RAW})
    final: ClassVar[bool] = False

    def applied(self, packet: Packet) -> Packet:
        """The packet without a connection."""
        return msgspec.structs.replace(packet, state="UNTRACKED")

    def atom(self, family: Family | None = None) -> Any:
        """The same as that of ``CT --notrack``."""
        return ("notrack",)


class Ct(Target, frozen=True, kw_only=True):
    """CT: no tracking at all, or a connection's zone, helper, timeout policy, and the events that are told of it.

    Without an option it settles that: the packet's connection is tracked as it would be, whatever a later CT says.
    ``events`` and ``expectation_events`` are bits in the order of :data:`EVENTS`; 0 tells of all.
    """

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.RAW})
    final: ClassVar[bool] = False
    notrack: bool = False
    helper: str = ""
    timeout: str = ""
    events: int = 0
    expectation_events: int = 0
    zone: Zone | None = None

    def __post_init__(self) -> None:
        for name, most in ((self.helper, HELPER_BYTES), (self.timeout, TIMEOUT_BYTES)):
            if byte_length(name) > most or not name.isprintable() or set(name) & set(" \"'\\"):
                raise ModelError(f"{name!r} is not a name of at most {most} bytes without space and quote")
        if self.zone is not None and self.zone.id == 0:
            msgspec.structs.force_setattr(self, "zone", None)  # the one of every connection, which nobody prints

    def applied(self, packet: Packet) -> Packet:
        """The packet without a connection, where it says so."""
        return msgspec.structs.replace(packet, state="UNTRACKED") if self.notrack else packet

    def atom(self, family: Family | None = None) -> Any:
        """Whatever stands beside ``--notrack`` has no effect (xt_CT.c)."""
        return ("notrack",) if self.notrack else self

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A helper or timeout policy, which is one of a protocol, in a rule that states none."""
        if (self.helper or self.timeout) and not self.notrack and not isinstance(rule.protocol, int):
            return f"CT --{'helper' if self.helper else 'timeout'} needs the rule to state a protocol"
        return None


# --- iptables -------------------------------------------------------------------------------------------


def _events(names: tuple[str, ...] | list[str]) -> Codec:
    def parse(text: str, context: ParseContext) -> int:
        mask = 0
        for word in text.split(","):
            if word not in names:
                raise ModelError(f"{word!r} is no event")
            mask |= 1 << names.index(word)
        return mask

    return Codec(
        parse=parse,
        format=lambda mask: ",".join(name for bit, name in enumerate(names) if mask & 1 << bit),
        expected=f"a list of {', '.join(names)}",
    )


def _name(what: str) -> Codec:
    def parse(text: str, context: ParseContext) -> str:
        if not text:
            raise ModelError(f"an empty name is no {what}'s")
        return text

    return Codec(parse=parse, format=str, expected=f"a {what}'s name")


def _parse_zone(text: str, context: ParseContext) -> int | None:
    return None if text.lower() == "mark" else number(text, high=0xFFFF)


_ZONE: Final = Codec(parse=_parse_zone, format=str, expected="a zone from 0 to 65535, or mark")
_ZONES: Final = {"zone": "", "zone_orig": "orig", "zone_reply": "reply"}
_EVENTS: Final = _events(EVENTS)
_EXPECTATION_EVENTS: Final = _events(EXPECTATION_EVENTS)


def _build(fields: Fields, context: ParseContext) -> Ct:
    zones = [Zone(fields.pop(field), direction) for field, direction in _ZONES.items() if field in fields]
    if len(zones) == 2 and zones[0].direction != zones[1].direction and zones[0].id == zones[1].id:
        zones = [Zone(zones[0].id)] if zones[0].direction else zones[1:]
    if len(zones) > 1:
        raise ModelError("CT takes one of --zone, --zone-orig and --zone-reply")
    return Ct(**fields, zone=zones[0] if zones else None)


def _save(value: Ct, family: Family) -> Iterable[str]:
    if value.notrack:
        yield "--notrack"
    if value.helper:
        yield from ("--helper", value.helper)
    if value.timeout:
        yield from ("--timeout", value.timeout)
    if value.events:
        yield from ("--ctevents", _EVENTS.format(value.events))
    if value.expectation_events:
        yield from ("--expevents", _EXPECTATION_EVENTS.format(value.expectation_events))
    if value.zone is not None:
        yield f"--zone-{value.zone.direction}" if value.zone.direction else "--zone"
        yield "mark" if value.zone.id is None else str(value.zone.id)


# --- nft ------------------------------------------------------------------------------------------------

_NFT_ZONES: Final = {"": "ct zone", "orig": "ct original zone", "reply": "ct reply zone"}
_OPEN: Final = "ct state != untracked"
"""A packet that no NOTRACK has met: iptables' CT leaves such a one alone, nft's ``ct zone set`` would track it."""


def _to_nft(value: Ct, family: Family, rule: Rule) -> Iterable[str]:
    if value.notrack:
        yield "notrack"
        return
    for option, held in (
        ("--helper", value.helper),
        ("--timeout", value.timeout),
        ("--ctevents", value.events),
        ("--expevents", value.expectation_events),
    ):
        if held:
            raise InexpressibleError(
                f"CT {option}: nft says it to a connection that is tracked already, and in place of table raw none is"
            )
    zone = value.zone or Zone(0)
    if zone.id is None:
        raise InexpressibleError("CT --zone mark: nft takes a zone from no mark")
    yield _OPEN
    yield f"{_NFT_ZONES[zone.direction]} set {zone.id}"


def _zone_reader(direction: str) -> Callable[[Any, Family], Ct | None]:
    def read(bodies: Any, family: Family) -> Ct | None:
        condition, change = bodies
        untracked = condition["right"] in ("untracked", 64)  # by name, or by number where nft is asked for numbers
        if condition["op"] != "!=" or not untracked or not isinstance(change["value"], int):
            return None
        return Ct(zone=Zone(change["value"], direction))

    return read


_READERS: Final[Mapping[str, Callable[[Any, Family], Ct | None]]] = {
    f"match ct state + mangle {left}": _zone_reader(direction) for direction, left in _NFT_ZONES.items()
}

EXTENSIONS: Final = (
    Extension(
        name="CT",
        value=Ct,
        options=(
            Option("--notrack", "notrack", words=0),
            Option("--helper", "helper", _name("helper")),
            Option("--timeout", "timeout", _name("timeout policy")),
            Option("--ctevents", "events", _EVENTS),
            Option("--expevents", "expectation_events", _EXPECTATION_EVENTS),
            Option("--zone-orig", "zone_orig", _ZONE),
            Option("--zone-reply", "zone_reply", _ZONE),
            Option("--zone", "zone", _ZONE),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft=_READERS,
    ),
    Extension(
        name="NOTRACK",
        value=Notrack,
        to_nft=lambda value, family, rule: ("notrack",),
        from_nft={"notrack": lambda body, family: Notrack()},
    ),
)
