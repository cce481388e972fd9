"""The conntrack and state matches: what connection tracking knows of a packet (iptables-extensions(8), conntrack)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from typing import Any, Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.codecs import PORTS, Ports, mapped, number, protocol_number, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Match, Network, Not, Rule, format_address


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


_TRANSLATED: Final = int(CtState.SNAT | CtState.DNAT)
_REAL: Final = 0x1F
_NO_CONNECTION: Final = int(CtState.INVALID | CtState.UNTRACKED)
_SECONDS_MAX: Final = 0xFFFFFFFF
_DIRECTIONS: Final = ("ORIGINAL", "REPLY")


class Seconds(msgspec.Struct, frozen=True, gc=False, order=True):
    """A range of whole seconds, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= _SECONDS_MAX:
            raise ModelError(f"seconds {self.low}:{self.high}: two numbers of 32 bits in ascending order")

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


def _state_atom(states: Any) -> tuple[Any, ...] | None:
    """The states that match, without a sign where that can be; None when every packet does."""
    negated, mask = sign(states)
    mask = int(mask)
    if mask & _TRANSLATED:
        return ("ct state", negated, mask)
    matching = mask ^ _REAL if negated else mask
    return None if matching == _REAL else ("ct state", False, matching)


def _meets_no_connection(states: Any) -> bool:
    """Whether a packet without a connection can meet the states."""
    negated, mask = sign(states)
    return bool((~mask if negated else mask) & _NO_CONNECTION)


class State(Match, frozen=True):
    """The state of a packet, as ``-m state`` says it."""

    states: int | Not[int]

    def __post_init__(self) -> None:
        mask = sign(self.states)[1]
        if not mask or mask & ~_REAL:
            raise ModelError("--state needs one or more of INVALID, NEW, RELATED, ESTABLISHED, UNTRACKED")

    def atoms(self) -> Iterable[Any]:
        """The same as conntrack's."""
        atom = _state_atom(self.states)
        return () if atom is None else (atom,)


class Conntrack(Match, frozen=True, kw_only=True):
    """State, protocol, addresses, ports, status, remaining seconds and direction of a packet's connection."""

    states: int | Not[int] | None = None
    protocol: int | Not[int] | None = None
    orig_source: Network | Not[Network] | None = None
    orig_destination: Network | Not[Network] | None = None
    reply_source: Network | Not[Network] | None = None
    reply_destination: Network | Not[Network] | None = None
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
        if self.direction not in (None, *_DIRECTIONS):
            raise ModelError(f"{self.direction!r} is neither ORIGINAL nor REPLY")
        for network in self._networks():
            if network.prefix is None:
                raise ModelError(f"conntrack: {network} has a mask with gaps, which iptables-save would leave out")

    def _networks(self) -> Iterable[Network]:
        for held in (self.orig_source, self.orig_destination, self.reply_source, self.reply_destination):
            if held is not None:
                yield sign(held)[1]

    def _connection_atoms(self) -> Iterable[Any]:
        for field in self.__struct_fields__:
            held = getattr(self, field)
            if held is None or field == "states":
                continue
            negated, value = sign(held)
            yield (f"ct {field}", negated, value.atom() if isinstance(value, Network) else value)

    def atoms(self) -> Iterable[Any]:
        """One part for each field; but a packet without a connection that meets the states passes the others unseen."""
        parts = list(self._connection_atoms())
        if self.states is None:
            return parts
        state = _state_atom(self.states)
        if parts and _meets_no_connection(self.states):
            return [("ct state or", state, frozenset(parts))]
        return parts if state is None else [state, *parts]

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        for network in self._networks():
            if network.family is not family:
                return f"conntrack: {network} is an {network.family} address in an {family} chain"
        return None


def _parse_network(text: str, context: ParseContext) -> Network:
    network = Network.parse(text)
    if network.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    return network


def _format_network(network: Network) -> str:
    """A host without its mask, as the tool prints it here."""
    return format_address(network.address, network.family) if network.prefix == network.family.bits else str(network)


def _parse_seconds(text: str, context: ParseContext) -> Seconds:
    first, colon, last = text.partition(":")
    low = number(first) if first or not colon else 0
    return Seconds(low, low if not colon else number(last) if last else _SECONDS_MAX)


def _parse_direction(text: str, context: ParseContext) -> str:
    if text.upper() not in _DIRECTIONS:
        raise ModelError(f"{text!r} is neither ORIGINAL nor REPLY")
    return text.upper()


_STATES: Final = {state.name or "": int(state) for state in CtState}
_STATUSES: Final = {"NONE": 0, **{status.name or "": int(status) for status in CtStatus}}
_STATE: Final = mapped(_STATES, "connection state")
_PLAIN_STATE: Final = mapped({name: bit for name, bit in _STATES.items() if bit & _REAL}, "connection state")
_STATUS: Final = mapped(_STATUSES, "connection status")
_NETWORK: Final = Codec(parse=_parse_network, format=_format_network, expected="ADDRESS or ADDRESS/MASK")
_PROTOCOL: Final = Codec(parse=protocol_number, format=str, expected="a protocol by number or name")
_SECONDS: Final = Codec(parse=_parse_seconds, format=str, expected="seconds, or FIRST:LAST")
_DIRECTION: Final = Codec(parse=_parse_direction, format=str, expected="ORIGINAL or REPLY")

EXTENSIONS: Final = (
    Extension(
        name="conntrack",
        value=Conntrack,
        options=(
            Option("--ctstate", "states", _STATE, invertible=True),
            Option("--ctproto", "protocol", _PROTOCOL, invertible=True),
            Option("--ctorigsrc", "orig_source", _NETWORK, invertible=True),
            Option("--ctorigdst", "orig_destination", _NETWORK, invertible=True),
            Option("--ctreplsrc", "reply_source", _NETWORK, invertible=True),
            Option("--ctrepldst", "reply_destination", _NETWORK, invertible=True),
            Option("--ctorigsrcport", "orig_sport", PORTS, invertible=True),
            Option("--ctorigdstport", "orig_dport", PORTS, invertible=True),
            Option("--ctreplsrcport", "reply_sport", PORTS, invertible=True),
            Option("--ctrepldstport", "reply_dport", PORTS, invertible=True),
            Option("--ctstatus", "status", _STATUS, invertible=True),
            Option("--ctexpire", "expire", _SECONDS, invertible=True),
            Option("--ctdir", "direction", _DIRECTION),
        ),
    ),
    Extension(
        name="state",
        value=State,
        options=(Option("--state", "states", _PLAIN_STATE, invertible=True),),
    ),
)
