"""What becomes of a packet under a ruleset: its verdict, its translation, the rules on its way, and what can't be told.

The model is that of iptables, of this ruleset alone: hooks go through the tables in the order of their priorities, and
the first verdict ends a table. An ACCEPT ends the table, and the packet goes on to the next; so in the end "accept"
means that nothing in this ruleset holds the packet up. What rules of others on the same hooks do to it isn't told. On
nft an accept ends less than that (each base chain decides by itself), so there a ruleset that drops at place ``last``
what it accepts at place ``first`` drops it.

A condition that can't be told from the packet (a limit, a set of somebody else's, the clock) makes both ways possible:
the packet has then several possible endings, and each such condition is named as an :class:`Unknown`.

A packet of state NEW is taken for the first one of its connection, which is the one that table nat sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from meshfw.errors import ModelError
from meshfw.model import (
    ACCEPTED,
    DROPPED,
    Dispatcher,
    Elements,
    Ends,
    Family,
    Fate,
    Goto,
    Hook,
    Jump,
    Match,
    Packet,
    Place,
    Policy,
    Return,
    Rule,
    Ruleset,
    Table,
    Translation,
    Verdict,
)


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

TABLES: Final[Mapping[Hook, tuple[Table, ...]]] = {
    Hook.PREROUTING: (Table.RAW, Table.MANGLE, Table.NAT),
    Hook.INPUT: (Table.MANGLE, Table.FILTER, Table.SECURITY, Table.NAT),
    Hook.FORWARD: (Table.MANGLE, Table.FILTER, Table.SECURITY),
    Hook.OUTPUT: (Table.RAW, Table.MANGLE, Table.NAT, Table.FILTER, Table.SECURITY),
    Hook.POSTROUTING: (Table.MANGLE, Table.NAT),
}
"""The tables of each hook in the order of their priorities (netfilter_ipv4.h): nat is last where it changes sources."""

Route = Callable[[Packet], str | None]
"""Routing: the interface by which a packet leaves; empty where it ends in this host, None where that isn't known."""


class Spot(msgspec.Struct, frozen=True):
    """A rule's place: hook, table, chain and number from 1.

    A dispatcher is a chain called by hook and place, ``input/first``; number 0 is the policy behind its rules.
    """

    hook: Hook
    table: Table
    chain: str = ""
    number: int = 0

    def __str__(self) -> str:
        tail = f" rule {self.number}" if self.number else " policy" if self.chain else ""
        return f"{self.table} {self.chain or self.hook}{tail}"


class Unknown(msgspec.Struct, frozen=True):
    """What can't be told of the packet, and where that was asked: a match, or the name of something else."""

    what: Match | str
    spot: Spot


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, or a policy, that the packet meets; or may meet, where that isn't ``sure``.

    ``did`` is what the rule does with it, as text; ``depth`` is how many chains lead here.
    """

    spot: Spot
    rule: Rule | None
    sure: bool
    did: tuple[str, ...]
    depth: int


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One possible end: the verdict, the packet as it then is, and what its connection's ends became."""

    verdict: Verdict
    packet: Packet
    translations: tuple[Translation, ...] = ()


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A packet at one hook: the rules on its way, and how it may end there."""

    hook: Hook
    path: tuple[Step, ...] = ()
    endings: tuple[Ending, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The possible verdicts, each once; a single one where all is known."""
        return tuple(sorted({ending.verdict for ending in self.endings}))


class Journey(msgspec.Struct, frozen=True, kw_only=True):
    """A packet's whole way: what each hook does, and how it may end."""

    way: Way
    passages: tuple[Passage, ...] = ()
    endings: tuple[Ending, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The possible verdicts, each once; a single one where all is known."""
        return tuple(sorted({ending.verdict for ending in self.endings}))

    @property
    def unknowns(self) -> tuple[Unknown, ...]:
        """What can't be told of the packet on its way."""
        return tuple(unknown for passage in self.passages for unknown in passage.unknowns)

    @property
    def path(self) -> tuple[Step, ...]:
        """The rules on the way."""
        return tuple(step for passage in self.passages for step in passage.path)


def evaluate(ruleset: Ruleset, packet: Packet, *, hook: Hook) -> Passage:
    """What the ruleset does with a packet at one hook."""
    raise NotImplementedError


def journey(ruleset: Ruleset, packet: Packet, *, way: Way, route: Route | None = None) -> Journey:
    """What the ruleset does with a packet on its way through the host.

    A packet that is redirected to this host goes the way of input. ``route`` is asked where a translated packet goes;
    without it, the way stays, and the interface by which a packet leaves that was sent elsewhere isn't known.
    """
    raise NotImplementedError
