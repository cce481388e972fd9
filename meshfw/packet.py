"""What becomes of a packet under a ruleset: its verdict, its translation, the rules on its way, and what can't be told.

The model is that of iptables, of this ruleset alone: a hook goes through the tables in the order of their priorities,
and the first verdict ends a table. An ACCEPT ends the table, and the packet goes on to the next; so "accept" in the end
means that nothing in this ruleset holds the packet up. What rules of others on the same hooks do with it isn't told. On
nft an accept ends less: each base chain decides by itself, so what a ruleset accepts at place ``first`` it may still
drop at place ``last``.

A condition that can't be told from the packet (a limit, somebody else's set, the clock) makes both ways possible: the
packet has then several possible endings, and each such condition is named as an :class:`Unknown`.

A packet of state NEW is taken for the first one of its connection, which is the one that table nat sees. Of one that
belongs to a connection already, addresses are those that the rules see: what nat does to it isn't known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw.model import ACCEPTED, Ends, Fate, Hook, Packet, Ruleset, Verdict
from meshfw.passage import Ending, Firewall, Passage, Spot, Step, Unknown
from meshfw.worlds import World

__all__ = [
    "WAYS",
    "Ending",
    "Evaluator",
    "Journey",
    "Passage",
    "Route",
    "Spot",
    "Step",
    "Unknown",
    "Way",
    "evaluate",
    "journey",
]


class Way(StrEnum):
    """A packet's way through a host: on to another host, to this host, or from it."""

    FORWARD = "forward"
    INPUT = "input"
    OUTPUT = "output"


WAYS: Final[Mapping[Way, tuple[Hook, ...]]] = {
    Way.FORWARD: (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING),
    Way.INPUT: (Hook.PREROUTING, Hook.INPUT),
    Way.OUTPUT: (Hook.OUTPUT, Hook.POSTROUTING),
}
"""The hooks of each way, in order."""

OUT_OF_HOPS: Final = Verdict(Fate.REJECT, "time-exceeded")
"""What routing does with a packet that has no hop left (RFC 1812, 5.3.1; RFC 8200, 3): no rule is asked."""

Route = Callable[[Packet], str | None]
"""Routing: the interface by which a packet leaves; empty where it ends in this host, None where that isn't known."""


class Journey(msgspec.Struct, frozen=True, kw_only=True):
    """A packet's whole way: what each hook does, and how it may end.

    Where the packet may go two ways, each has its own passages, one after the other.
    """

    way: Way
    passages: tuple[Passage, ...] = ()
    endings: tuple[Ending, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The possible verdicts, each once; a single one where all that matters is known."""
        return tuple(sorted({ending.verdict for ending in self.endings}))

    @property
    def path(self) -> tuple[Step, ...]:
        """The rules on the way."""
        return tuple(step for passage in self.passages for step in passage.path)

    @property
    def unknowns(self) -> tuple[Unknown, ...]:
        """What can't be told of the packet on its way."""
        return tuple(unknown for passage in self.passages for unknown in passage.unknowns)


def evaluate(ruleset: Ruleset, packet: Packet, *, hook: Hook) -> Passage:
    """What a ruleset does with a packet at one hook; for many packets see :class:`Evaluator`."""
    return Evaluator(ruleset).evaluate(packet, hook=hook)


def journey(ruleset: Ruleset, packet: Packet, *, way: Way, route: Route | None = None) -> Journey:
    """What a ruleset does with a packet on its way through the host; for many packets see :class:`Evaluator`."""
    return Evaluator(ruleset).journey(packet, way=way, route=route)


class Evaluator:
    """A ruleset made ready to be asked about many packets."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._firewall = Firewall(ruleset)

    def evaluate(self, packet: Packet, *, hook: Hook) -> Passage:
        """What becomes of the packet at one hook, where it has no interfaces but those that packets have there."""
        return self._firewall.passage(hook, [World(_opened(packet, hook))])

    def journey(self, packet: Packet, *, way: Way, route: Route | None = None) -> Journey:
        """What becomes of the packet on its way through the host, from hook to hook as each leaves it.

        Where it goes is what ``way`` and its outgoing interface say, also of one that is sent to another address on the
        way; but what is redirected to this host goes the way of input. Where ``route`` is given it is asked instead.
        """
        first = WAYS[way][0]
        start = self._firewall.passage(first, [World(_opened(packet, first))])
        passages = [start]
        endings = [ending for ending in start.endings if not ending.passed]
        groups: dict[Way, list[World]] = {}
        for world in start.passed:
            onward, name = _routed(world, way, packet.out_interface, route)
            moved = msgspec.structs.replace(world.packet, out_interface=name)
            if onward is Way.FORWARD and moved.ttl is not None:
                if moved.ttl <= 1:
                    endings.append(Ending(OUT_OF_HOPS, moved, world.translations))
                    continue
                moved = msgspec.structs.replace(moved, ttl=moved.ttl - 1)
            groups.setdefault(onward, []).append(World(moved, world.translations))
        sure = len(groups) == 1 and not endings
        for onward, group in groups.items():
            worlds: Sequence[World] = group
            for hook in WAYS[onward][1:]:
                if worlds:
                    passages.append(self._firewall.passage(hook, worlds, sure=sure))
                    ended = [ending for ending in passages[-1].endings if not ending.passed]
                    endings += ended
                    sure = sure and not ended
                    worlds = passages[-1].passed
            endings += [Ending(ACCEPTED, world.packet, world.translations) for world in worlds]
        return Journey(way=way, passages=tuple(passages), endings=tuple(dict.fromkeys(endings)))


def _routed(world: World, way: Way, leaves_by: str | None, route: Route | None) -> tuple[Way, str | None]:
    """The way that a packet takes behind its first hook, and the interface by which it leaves."""
    local = any(translation.local for translation in world.translations)
    if way is Way.OUTPUT:
        name = route(world.packet) if route is not None else "lo" if local else leaves_by
        return way, name
    if route is not None:
        name = route(world.packet)
        if name is not None:
            return (Way.FORWARD, name) if name else (Way.INPUT, "")
    return (Way.INPUT, "") if local or way is Way.INPUT else (way, leaves_by)


def _opened(packet: Packet, hook: Hook) -> Packet:
    """The packet as it comes to a hook: with no interface that it can't have there, and what a new connection has."""
    known: dict[str, Any] = {}
    if hook in (Hook.PREROUTING, Hook.INPUT):
        known["out_interface"] = ""
    if hook is Hook.OUTPUT:
        known.update(in_interface="", mac="")
    if packet.state == "NEW":
        known["direction"] = "ORIGINAL"
        if packet.snat is None and hook is not Hook.POSTROUTING:
            known["snat"] = False
        if hook in (Hook.PREROUTING, Hook.OUTPUT):
            known.update(_unopened(packet))
    return msgspec.structs.replace(packet, **known)


def _unopened(packet: Packet) -> dict[str, Any]:
    """What is known of a connection before any rule saw it, where the packet doesn't say otherwise."""
    ends = Ends(source=packet.source, destination=packet.destination, sport=packet.sport, dport=packet.dport)
    known = {"dnat": False, "ct_mark": 0, "origin": ends}
    return {field: value for field, value in known.items() if getattr(packet, field) is None}
