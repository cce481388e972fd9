"""A packet as it may be at some point of its way, and what rules do to it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.model import Packet, Translation, Verdict, format_address


class World(msgspec.Struct, frozen=True):
    """The packet as it may be at some point, and what became of its connection's ends until then."""

    packet: Packet
    translations: tuple[Translation, ...] = ()


_MANY: Final = 64
"""Worlds that are told apart; of more than these only what they agree in is known."""


def altered(world: World, fields: Mapping[str, Any]) -> World:
    """The world with other values in these fields of the packet."""
    return World(msgspec.structs.replace(world.packet, **fields), world.translations)


def translated(world: World, translation: Translation | None) -> World:
    """The world behind a translation, if there is one."""
    if translation is None:
        return world
    return World(translation.applied(world.packet), (*world.translations, translation))


def joined(one: Sequence[World], other: Sequence[World]) -> Sequence[World]:
    """The worlds of both, each once; where there are too many, one for each that was translated alike."""
    if not one or not other:
        worlds = list(one or other)
        if len(worlds) < 2:
            return worlds
    found = list(dict.fromkeys((*one, *other)))
    if len(found) <= _MANY:
        return found
    groups: dict[tuple[Translation, ...], list[Packet]] = {}
    for world in found:
        groups.setdefault(world.translations, []).append(world.packet)
    return [World(_blended(packets), translations) for translations, packets in groups.items()]


def _blended(packets: Sequence[Packet]) -> Packet:
    """The packet of which only that is known in which all agree."""
    first = packets[0]
    unclear = {
        field: None
        for field in first.__struct_fields__
        if any(getattr(packet, field) != getattr(first, field) for packet in packets)
    }
    return msgspec.structs.replace(first, **unclear)


def told(before: Packet, after: Packet, verdict: Verdict | None, translation: Translation | None) -> str:
    """What a target did with a packet."""
    if translation is not None:
        return translation.text(before.family)
    changes = [
        f"{name} {_value(field, before)} becomes {_value(field, after)}"
        for field, name in _CHANGES.items()
        if getattr(before, field) != getattr(after, field)
    ]
    return ", ".join([*changes, "goes on" if verdict is None else str(verdict)])


_CHANGES: Final = {
    "mark": "mark",
    "ct_mark": "connection mark",
    "tos": "type of service",
    "ttl": "time to live",
    "state": "state",
    "source": "source",
    "destination": "destination",
}


def _value(field: str, packet: Packet) -> str:
    value = getattr(packet, field)
    if value is None:
        return "unknown"
    if field in ("source", "destination"):
        return format_address(value, packet.family)
    return value if isinstance(value, str) else hex(value)
