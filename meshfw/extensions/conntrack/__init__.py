"""The conntrack and state matches: what connection tracking knows of a packet (iptables-extensions(8), conntrack)."""

from __future__ import annotations

from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import PORTS, mapped, number, protocol_number
from meshfw.extensions.conntrack.nft import READERS, states_nft, to_nft
from meshfw.extensions.conntrack.value import (
    DIRECTIONS,
    REAL,
    SECONDS_MAX,
    Conntrack,
    CtState,
    CtStatus,
    Seconds,
    State,
    format_network,
)
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.hostmask import HostMask, parse_host_mask
from meshfw.model import Network


def _parse_network(text: str, context: ParseContext) -> Network | HostMask:
    held = parse_host_mask(text, context)
    network = held.network
    return network if network.address == held.address else held


def _parse_seconds(text: str, context: ParseContext) -> Seconds:
    first, colon, last = text.partition(":")
    low = number(first) if first or not colon else 0
    return Seconds(low, low if not colon else number(last) if last else SECONDS_MAX)


def _parse_direction(text: str, context: ParseContext) -> str:
    if text.upper() not in DIRECTIONS:
        raise ModelError(f"{text!r} is neither ORIGINAL nor REPLY")
    return text.upper()


_STATES: Final = {state.name or "": int(state) for state in CtState}
_STATUSES: Final = {"NONE": 0, **{status.name or "": int(status) for status in CtStatus}}
_STATE: Final = mapped(_STATES, "connection state")
_PLAIN_STATE: Final = mapped({name: bit for name, bit in _STATES.items() if bit & REAL}, "connection state")
_STATUS: Final = mapped(_STATUSES, "connection status")
_NETWORK: Final = Codec(parse=_parse_network, format=format_network, expected="ADDRESS or ADDRESS/MASK")
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
        to_nft=to_nft,
        from_nft=READERS,
    ),
    Extension(
        name="state",
        value=State,
        options=(Option("--state", "states", _PLAIN_STATE, invertible=True),),
        to_nft=lambda value, family, rule: states_nft(value.states),
    ),
)

__all__ = ["EXTENSIONS", "Conntrack", "CtState", "CtStatus", "Seconds", "State"]
