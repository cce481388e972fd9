"""What a rule can say of a packet's connection, as values; equal meaning is equal atoms."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from typing import Any, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import ALL_PORTS, Ports, port_met, sign
from meshfw.extensions.hostmask import HostMask
from meshfw.model import Ends, Family, Loss, Match, Network, Not, Packet, Rule, every, format_address, some, turned


class CtState(IntFlag):
    """The states of a packet, exactly one at a time, and two that tell of address translation."""

    INVALID = 0x01
    NEW = 0x02
    RELATED = 0x04
    ESTABLISHED = 0x08
    UNTRACKED = 0x10
    SNAT = 0x20
    DNAT = 0x40


class CtStatus(IntFlag):
    """The bits of a connection's status (linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status)."""

    EXPECTED = 0x01
    SEEN_REPLY = 0x02
    ASSURED = 0x04
    CONFIRMED = 0x08


TRANSLATED: Final = int(CtState.SNAT | CtState.DNAT)
"""The two that are no states: they may stand beside one, or be asked for alone."""
REAL: Final = 0x1F
"""All the others, one of which every packet is in."""
_NO_CONNECTION: Final = int(CtState.INVALID | CtState.UNTRACKED)
SECONDS_MAX: Final = 0xFFFFFFFF
DIRECTIONS: Final = ("ORIGINAL", "REPLY")


def format_network(network: Network | HostMask) -> str:
    """A host without its mask, as the tool prints it here."""
    return format_address(network.address, network.family) if network.prefix == network.family.bits else str(network)


class Seconds(msgspec.Struct, frozen=True, gc=False, order=True):
    """A range of whole seconds, both ends included; one that ends below its beginning holds none."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (0 <= self.low <= SECONDS_MAX and 0 <= self.high <= SECONDS_MAX):
            raise ModelError(f"seconds {self.low}:{self.high}: two numbers of 32 bits")

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


def _state_atom(states: Any) -> tuple[Any, ...] | None:
    """The states that match, without a sign where that can be; None when every packet does."""
    negated, mask = sign(states)
    mask = int(mask)
    if mask & TRANSLATED:
        return ("ct state", negated, mask)
    matching = mask ^ REAL if negated else mask
    return None if matching == REAL else ("ct state", False, matching)


def meets_no_connection(states: Any) -> bool:
    """Whether a packet without a connection can meet the states."""
    negated, mask = sign(states)
    return bool((~mask if negated else mask) & _NO_CONNECTION)


def _met(held: Any) -> bool | None:
    """Whether every connection meets a range of ports or seconds, or none does; None where it depends."""
    negated, value = sign(held)
    if value.low > value.high:
        return negated
    if value in (ALL_PORTS, _ALL_SECONDS):
        return not negated
    return None


_ALL_SECONDS: Final = Seconds(0, SECONDS_MAX)


def meets_connection(held: Any) -> bool | None:
    """Whether every connection meets a condition, or none does; None where it depends on the connection."""
    value = sign(held)[1]
    if isinstance(value, Ports | Seconds):
        return _met(held)
    if type(value) is int and not value:  # --ctstatus NONE
        return type(held) is Not
    return None


_ANY_TIME: Final = Loss(
    frozenset({"native"}),
    "--ctexpire of any time or of none: nft can't list 0 s, and keeps whether there is a connection",
)


def bounds(negated: bool, seconds: Seconds) -> tuple[int, int] | None:
    """The lowest and highest number of seconds that match; None where there are two ranges, or none."""
    if not negated:
        return seconds.low, seconds.high
    if seconds.low and seconds.high == SECONDS_MAX:
        return 0, seconds.low - 1
    return (seconds.high + 1, SECONDS_MAX) if not seconds.low and seconds.high < SECONDS_MAX else None


def _expire_atoms(negated: bool, seconds: Seconds) -> Iterable[Any]:
    """One part for each end of the range, as two conditions would have."""
    held = bounds(negated, seconds)
    if held is None:
        yield ("ct expire", negated, seconds)
        return
    low, high = held
    if low:
        yield ("ct expire from", low)
    if high < SECONDS_MAX:
        yield ("ct expire to", high)


def states_met(states: Any, packet: Packet) -> bool | None:
    """Whether the packet is in one of the states, or its connection translated as they say (xt_conntrack.c)."""
    negated, mask = sign(states)
    real = mask & REAL
    hits = [None if packet.state is None and real not in (0, REAL) else bool(real & _bits(packet.state))]
    for bit, translated in ((CtState.SNAT, packet.snat), (CtState.DNAT, packet.dnat)):
        if mask & bit:
            hits.append(packet.tracked and translated if packet.tracked is not None else None)
    return turned(some(hits), negated)


def _bits(state: str | None) -> int:
    return REAL if state is None else CtState[state]


class State(Match, frozen=True):
    """The state of a packet, as ``-m state`` says it."""

    states: int | Not[int]

    def __post_init__(self) -> None:
        mask = sign(self.states)[1]
        if not mask or mask & ~REAL:
            raise ModelError("--state needs one or more of INVALID, NEW, RELATED, ESTABLISHED, UNTRACKED")

    def atoms(self) -> Iterable[Any]:
        """The same as conntrack's."""
        atom = _state_atom(self.states)
        return () if atom is None else (atom,)

    def meets(self, packet: Packet) -> bool | None:
        """The state."""
        return states_met(self.states, packet)


def _status_met(status: Any, state: str | None) -> bool | None:
    """Whether a bit is on: of a connection's first packet none is, and what is established was seen to be answered."""
    negated, mask = sign(status)
    if not mask or state == "NEW":
        return bool(negated)
    answered = CtStatus.SEEN_REPLY | CtStatus.CONFIRMED
    return turned(True if state == "ESTABLISHED" and mask & answered else None, negated)


class Conntrack(Match, frozen=True, kw_only=True):
    """State, protocol, addresses, ports, status, remaining seconds and direction of a packet's connection."""

    states: int | Not[int] | None = None
    protocol: int | Not[int] | None = None
    orig_source: Network | HostMask | Not[Network | HostMask] | None = None
    orig_destination: Network | HostMask | Not[Network | HostMask] | None = None
    reply_source: Network | HostMask | Not[Network | HostMask] | None = None
    reply_destination: Network | HostMask | Not[Network | HostMask] | None = None
    orig_sport: Ports | Not[Ports] | None = None
    orig_dport: Ports | Not[Ports] | None = None
    reply_sport: Ports | Not[Ports] | None = None
    reply_dport: Ports | Not[Ports] | None = None
    status: int | Not[int] | None = None
    expire: Seconds | Not[Seconds] | None = None
    direction: str | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field) is None for field in self.__struct_fields__):
            raise ModelError("conntrack needs at least one option")
        if self.states is not None and not sign(self.states)[1]:
            raise ModelError("--ctstate needs at least one state")
        if self.direction not in (None, *DIRECTIONS):
            raise ModelError(f"{self.direction!r} is neither ORIGINAL nor REPLY")
        for network in self._networks():
            if network.prefix is None:
                raise ModelError(f"conntrack: {network} has a mask with gaps, which iptables-save would leave out")

    def _networks(self) -> Iterable[Network]:
        for held in (self.orig_source, self.orig_destination, self.reply_source, self.reply_destination):
            if held is not None:
                network = sign(held)[1]
                yield network.network if isinstance(network, HostMask) else network

    def connection_atoms(self) -> Iterable[Any]:
        """The parts of the meaning that a packet needs a connection for."""
        for field in self.__struct_fields__:
            held = getattr(self, field)
            if held is None or field == "states":
                continue
            negated, value = sign(held)
            met = None if field == "protocol" else meets_connection(held)
            if met is not None:
                yield (f"ct {field}", met)
            elif field == "status" and negated:
                yield from (("ct status", True, int(bit)) for bit in CtStatus if value & bit)
            elif field == "expire":
                yield from _expire_atoms(negated, value)
            else:
                yield (f"ct {field}", negated, value.atom() if isinstance(value, Network | HostMask) else value)

    def atoms(self) -> Iterable[Any]:
        """One part for each field; but a packet without a connection that meets the states passes the others unseen."""
        parts = list(self.connection_atoms())
        if self.states is None:
            return parts
        state = _state_atom(self.states)
        if parts and meets_no_connection(self.states):
            return [("ct state or", state, frozenset(parts))]
        return parts if state is None else [state, *parts]

    def losses(self) -> Iterable[Loss]:
        """An expiry that every connection has, or none."""
        if self.expire is not None and meets_connection(self.expire) is not None:
            yield _ANY_TIME

    def meets(self, packet: Packet) -> bool | None:
        """All of it; but of a packet without a connection the states alone, which it must name."""
        state = True if self.states is None else states_met(self.states, packet)
        unconnected = self.states is not None and meets_no_connection(self.states)
        if packet.tracked is False:
            return state if self.states is not None else False
        rest = every(self._connection_met(packet))
        if packet.tracked is None and unconnected:
            return state if rest else None
        return every((state, rest, True if packet.tracked or self.states is not None else None))

    def _connection_met(self, packet: Packet) -> Iterable[bool | None]:
        """Whether the packet's connection meets each condition; a NEW packet is taken for its first."""
        first = packet.state == "NEW"
        ends = packet.origin or Ends()
        back = packet if first else Ends()
        own = packet.protocol if packet.state != "RELATED" else None  # an ICMP error tells of another's connection
        if self.protocol is not None:
            negated, protocol = sign(self.protocol)
            yield turned(None if own is None else own == protocol, negated)
        for network, address in (
            (self.orig_source, ends.source),
            (self.orig_destination, ends.destination),
            (self.reply_source, back.destination),
            (self.reply_destination, back.source),
        ):
            if network is not None:
                negated, held = sign(network)
                yield turned(None if address is None else held.holds(address), negated)
        for ports, number in (
            (self.orig_sport, ends.sport),
            (self.orig_dport, ends.dport),
            (self.reply_sport, back.dport),
            (self.reply_dport, back.sport),
        ):
            yield port_met(ports, number, {})
        if self.status is not None:
            yield _status_met(self.status, packet.state)
        if self.expire is not None:
            yield None
        if self.direction is not None:
            yield None if packet.direction is None else packet.direction == self.direction

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        for network in self._networks():
            if network.family is not family:
                return f"conntrack: {network} is an {network.family} address in an {family} chain"
        return None
