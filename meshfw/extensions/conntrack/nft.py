"""The connection's conditions as nft lists them, and nft's JSON of them back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from meshfw.errors import InexpressibleError
from meshfw.extensions.codecs import listed, plain_condition, plain_ports, protocol_number, read_ports, set_nft, sign
from meshfw.extensions.conntrack.value import (
    REAL,
    SECONDS_MAX,
    TRANSLATED,
    Conntrack,
    CtState,
    CtStatus,
    Seconds,
    bounds,
    format_network,
    meets_connection,
    meets_no_connection,
)
from meshfw.extensions.extension import NftMatch, ParseContext
from meshfw.extensions.hostmask import HostMask
from meshfw.model import Family, Match, Network, Not, Rule

_NFT_STATES: Final = {
    "invalid": CtState.INVALID,
    "established": CtState.ESTABLISHED,
    "related": CtState.RELATED,
    "new": CtState.NEW,
    "untracked": CtState.UNTRACKED,
}
"""nft's names, in the order nft lists them; so the next."""
_NFT_STATUS: Final = {
    "expected": CtStatus.EXPECTED,
    "seen-reply": CtStatus.SEEN_REPLY,
    "assured": CtStatus.ASSURED,
    "confirmed": CtStatus.CONFIRMED,
}
_NFT_TRANSLATED: Final = {"snat": CtState.SNAT, "dnat": CtState.DNAT}
_MILLISECONDS: Final = 0xFFFFFFFF // 1000
"""The most seconds that nft's 32 bits of milliseconds hold."""


def _names(names: Mapping[str, int], mask: int) -> str:
    return ",".join(name for name, bit in names.items() if mask & bit)


def states_nft(states: Any) -> Iterable[str]:
    """The states that match, spelled out: ``ct state != new`` is another thing once two states are named."""
    negated, mask = sign(states)
    if mask & TRANSLATED:
        if negated:
            raise InexpressibleError(
                "! --ctstate with SNAT or DNAT: a packet without a connection meets it, but not in nft",
                nearest=() if mask & REAL else (f"ct status ! {_names(_NFT_TRANSLATED, mask)}",),
            )
        if mask & REAL:
            raise InexpressibleError("--ctstate with SNAT or DNAT beside other states: nft needs a rule for each")
        yield f"ct status {_names(_NFT_TRANSLATED, mask)}"
        return
    matching = mask ^ REAL if negated else mask
    if not matching:  # no packet meets it
        yield f"ct state ! {_names(_NFT_STATES, REAL)}"
    elif matching != REAL:
        yield f"ct state {_names(_NFT_STATES, matching)}"


def _status_nft(status: Any) -> Iterable[str]:
    negated, mask = sign(status)
    if not mask:  # no connection meets it, or every one
        yield "ct status ! 0x0" if negated else "ct status 0x0"
        return
    yield f"ct status {'! ' if negated else ''}{_names(_NFT_STATUS, mask)}"


def _duration(seconds: int) -> str:
    """Seconds as nft lists them."""
    if seconds > _MILLISECONDS:
        raise InexpressibleError(f"--ctexpire {seconds}: nft counts to {_MILLISECONDS} s")
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    parts = ((day, "d"), (hour, "h"), (minute, "m"), (second, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def _expire_nft(expire: Any) -> Iterable[str]:
    """The range as two bounds: nft compares milliseconds but lists whole seconds, so a range would lose its end."""
    met = meets_connection(expire)
    if met is not None:  # nft lists 0 s as nothing at all, so any time and none are said by the status
        yield "ct status ! 0x0" if met else "ct status 0x0"
        return
    held = bounds(*sign(expire))
    if held is None:
        raise InexpressibleError("! --ctexpire of a range inside: nft needs a rule for what is below and what is above")
    if held[0]:
        yield f"ct expiration >= {_duration(held[0])}"
    if held[1] < SECONDS_MAX:
        yield f"ct expiration < {_duration(held[1] + 1)}"


_NFT_NETWORKS: Final = {
    "orig_source": ("original", "saddr"),
    "orig_destination": ("original", "daddr"),
    "reply_source": ("reply", "saddr"),
    "reply_destination": ("reply", "daddr"),
}
_NFT_PORTS: Final = {
    "orig_sport": "ct original proto-src",
    "orig_dport": "ct original proto-dst",
    "reply_sport": "ct reply proto-src",
    "reply_dport": "ct reply proto-dst",
}


_PORT_PROTOCOLS: Final = frozenset({6, 17, 33, 132, 136})


def _tuple_nft(value: Conntrack, family: Family, rule: Rule) -> Iterable[str]:
    """Protocol, addresses and ports of the connection."""
    if value.protocol is not None:
        negated, protocol = sign(value.protocol)
        yield set_nft("ct protocol", str(protocol), negated)
    header = "ip" if family is Family.IPV4 else "ip6"
    for field, (direction, address) in _NFT_NETWORKS.items():
        held = getattr(value, field)
        if held is not None:
            negated, network = sign(held)
            network = network.network if isinstance(network, HostMask) else network
            yield set_nft(f"ct {direction} {header} {address}", format_network(network), negated)
    for field, left in _NFT_PORTS.items():
        held = getattr(value, field)
        if held is None:
            continue
        if not isinstance(rule.protocol, int) and value.protocol not in _PORT_PROTOCOLS:
            raise InexpressibleError("conntrack with ports: nft needs -p, or --ctproto with a protocol that has ports")
        negated, ports = plain_ports(held)
        yield set_nft(left, ports.nft(), negated)  # of all ports as well: it still asks for a connection


def _header_follows(value: Conntrack, rule: Rule) -> bool:
    """Whether a match whose header tells nft the protocol stands behind the value; of all ports, it does so as well."""
    place = next((index for index, match in enumerate(rule.matches) if match is value), -1)
    return any(match.protocols is not None and _states_something(match) for match in rule.matches[place + 1 :])


def _states_something(match: Match) -> bool:
    return any(getattr(match, field) is not None for field in match.__struct_fields__)


def to_nft(value: Conntrack, family: Family, rule: Rule) -> Iterable[str]:
    """The statements; InexpressibleError for what nft would let another packet through."""
    if value.states is not None:
        if meets_no_connection(value.states) and any(True for _ in value.connection_atoms()):
            raise InexpressibleError(
                "conntrack with --ctstate and more: iptables passes a packet without a connection that meets the "
                "states, whatever the other options say, and nft does not; split it into two matches"
            )
        yield from states_nft(value.states)
    told = type(value.protocol) is int or any(getattr(value, field) is not None for field in _NFT_PORTS)
    if told and _header_follows(value, rule):
        # nft takes ct protocol for the test of the packet's own, which it then leaves out: ICMP errors would pass.
        raise InexpressibleError(
            "conntrack with --ctproto or ports in front of a match on the protocol's header: put it behind that match"
        )
    yield from _tuple_nft(value, family, rule)
    if value.status is not None:
        yield from _status_nft(value.status)
    if value.expire is not None:
        yield from _expire_nft(value.expire)
    if value.direction is not None:
        yield f"ct direction {value.direction.lower()}"


def _read_bits(names: Mapping[str, int], right: Any) -> int | None:
    """The bits of nft's names; None where one isn't among these."""
    mask = 0
    for name in listed(right):
        if name not in names:
            return None
        mask |= names[name]
    return mask


def _read_state(match: NftMatch, family: Family) -> Conntrack | None:
    """States of which the packet's is one; it has one at a time, so equality with one is the same."""
    equality = match.op in ("==", "!=") and not isinstance(match.right, list)
    states = _read_bits(_NFT_STATES, match.right) if match.op == "in" or equality else None
    if not states:
        return None
    return Conntrack(states=Not(states) if match.negated else states)


def _read_status(match: NftMatch, family: Family) -> Conntrack | None:
    if match.op != "in":
        return None
    if match.right == 0:
        return Conntrack(status=0)
    status = _read_bits(_NFT_STATUS, match.right)
    if status:
        return Conntrack(status=status)
    translated = _read_bits(_NFT_TRANSLATED, match.right)
    return Conntrack(states=translated) if translated else None


def _read_no_state(match: NftMatch, family: Family) -> Conntrack | None:
    states = _read_bits(_NFT_STATES, match.mask) if match.op == "==" and match.right == 0 else None
    return Conntrack(states=Not(states)) if states else None


def _read_no_status(match: NftMatch, family: Family) -> Conntrack | None:
    if match.mask == 0 and match.op == "==" and match.right == 0:
        return Conntrack(status=Not(0))
    status = _read_bits(_NFT_STATUS, match.mask) if match.op == "==" and match.right == 0 else None
    return Conntrack(status=Not(status)) if status else None


def _read_expire(match: NftMatch, family: Family) -> Conntrack | None:
    if match.op == ">=":
        return Conntrack(expire=Seconds(match.right, SECONDS_MAX))
    return Conntrack(expire=Seconds(0, match.right - 1)) if match.op == "<" else None


def _read_direction(match: NftMatch, family: Family) -> Conntrack | None:
    return Conntrack(direction=str(match.right).upper()) if match.op == "==" else None


def _read_network(right: Any) -> Network:
    held = right["prefix"] if isinstance(right, dict) else None
    return Network.parse(right if held is None else f"{held['addr']}/{held['len']}")


class _Reader:
    """Reads one key of nft's JSON into one field."""

    def __init__(self, field: str, read: Callable[[Any], Any]) -> None:
        self._field = field
        self._read = read

    def __call__(self, match: NftMatch, family: Family) -> Conntrack | None:
        if not plain_condition(match):
            return None
        held = self._read(match.right)
        fields: dict[str, Any] = {self._field: Not(held) if match.negated else held}
        return Conntrack(**fields)


READERS: Final[Mapping[str, Callable[[Any, Family], Match | None]]] = {
    "ct state": _read_state,
    "ct state &": _read_no_state,
    "ct status": _read_status,
    "ct status &": _read_no_status,
    "ct expiration": _read_expire,
    "ct direction": _read_direction,
    "ct protocol": _Reader("protocol", lambda right: protocol_number(str(right), ParseContext(Family.IPV4))),
    **{
        f"ct {direction} {header} {address}": _Reader(field, _read_network)
        for field, (direction, address) in _NFT_NETWORKS.items()
        for header in ("ip", "ip6")
    },
    **{left: _Reader(field, read_ports) for field, left in _NFT_PORTS.items()},
}
