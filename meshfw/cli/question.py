"""The packet that ``meshfw explain`` is asked about, out of the words of the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshfw.cli.arguments import UsageError
from meshfw.errors import ModelError
from meshfw.extensions import HostTables, ParseContext
from meshfw.extensions.addrtype import AddressType
from meshfw.extensions.codecs import PROTOCOL_NAMES, number, port, protocol_number
from meshfw.extensions.icmp import ICMP, ICMPV6, TYPES, TYPES6, parse_type
from meshfw.extensions.mac import octets
from meshfw.extensions.multiport import PROTOCOLS as WITH_PORTS
from meshfw.extensions.tcp import FLAGS, TCP, flag_bits
from meshfw.model import Family, Interface, Packet, format_address, parse_address
from meshfw.packet import Way

_STATES: Final = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED")
_USAGE: Final = "usage: meshfw explain [options]"
_ICMP: Final[Mapping[Family, tuple[int, Mapping[str, tuple[int, int | None]]]]] = {
    Family.IPV4: (ICMP, TYPES),
    Family.IPV6: (ICMPV6, TYPES6),
}


def ways_of(arguments: Namespace) -> tuple[Way, ...]:
    """The ways that the packet may go: the one that is told, or that its interfaces tell, or all."""
    comes, leaves = arguments.__dict__["in"], arguments.out
    if arguments.hook is not None:
        way = Way(arguments.hook)
        if way is Way.OUTPUT and comes is not None:
            raise _refused("--in", "a packet on its way out was made here, and came by no interface")
        if way is Way.INPUT and leaves is not None:
            raise _refused("--out", "a packet on its way in ends here, and leaves by no interface")
        return (way,)
    if comes is None and leaves is None:
        return tuple(Way)
    return (Way.FORWARD if comes and leaves else Way.INPUT if comes else Way.OUTPUT,)


def packet_of(arguments: Namespace, hosts: HostTables) -> Packet:
    """The packet.

    Raises:
        UsageError: the words make none, with the option that is wrong and what was expected.
    """
    words: dict[str, str] = {name: text for name, text in vars(arguments).items() if isinstance(text, str)}
    family, known = _addresses(words)
    protocol = _protocol(words, ParseContext(family, hosts=hosts))
    state = words.get("state", "NEW").upper()
    if state not in _STATES:
        raise _refused("--state", f"{words['state']!r} is none of {', '.join(_STATES)}")
    known.update(_upper(words, protocol, ParseContext(family, protocol, hosts)))
    if protocol == TCP and state == "NEW" and not arguments.fragment:
        known.setdefault("tcp_flags", FLAGS["SYN"])
    if arguments.fragment and family is Family.IPV6:
        raise _refused("--fragment", "rules see the fragments of IPv4 alone")
    for option, (field, read) in _FIELDS.items():
        if option in words:
            known[field] = _read(f"--{option.replace('_', '-')}", read, words[option])
    return Packet(family=family, protocol=protocol, state=state, fragment=arguments.fragment, **known)


def _refused(option: str, reason: object) -> UsageError:
    return UsageError(f"{option}: {reason}", usage=_USAGE)


def _read(option: str, reader: Any, *words: Any) -> Any:
    try:
        return reader(*words)
    except ModelError as error:
        raise _refused(option, error.reason) from None


def _addresses(words: Mapping[str, str]) -> tuple[Family, dict[str, Any]]:
    """The family, and the addresses by field."""
    known: dict[str, Any] = {}
    families: dict[str, Family] = {}
    for option, field in (("src", "source"), ("dst", "destination")):
        text = words.get(option)
        if text is None:
            continue
        if "/" in text:
            raise _refused(f"--{option}", f"{text!r} is a network, and a packet has one address")
        try:
            families[option], known[field] = parse_address(text)
        except ModelError as error:
            raise _refused(f"--{option}", f"{error.reason}; names aren't looked up") from None
    if not families:
        raise _refused("--src or --dst", "one of them is needed, an address of IPv4 or IPv6")
    if len(set(families.values())) > 1:
        (source, destination) = families.values()
        raise _refused("--dst", f"{words['dst']} is an {destination} address, and --src an {source} one")
    return next(iter(families.values())), known


def _protocol(words: Mapping[str, str], context: ParseContext) -> int | None:
    """The protocol that is told, or that an ICMP message has."""
    icmp = _ICMP[context.family][0]
    if "proto" not in words:
        return icmp if "icmp_type" in words else TCP if "tcp_flags" in words else None
    found: int = _read("--proto", protocol_number, words["proto"], context)
    if not found:
        raise _refused("--proto", f"{words['proto']!r} is every protocol, and a packet has one")
    if found in (ICMP, ICMPV6) and found != icmp:
        raise _refused("--proto", f"{words['proto']!r} isn't what {context.family} has: say {PROTOCOL_NAMES[icmp]}")
    return found


def _upper(words: Mapping[str, str], protocol: int | None, context: ParseContext) -> dict[str, Any]:
    """What is told of the protocol's own header, by field."""
    known: dict[str, Any] = {}
    for field in ("sport", "dport"):
        if field not in words:
            continue
        if protocol not in WITH_PORTS:
            has = f"{PROTOCOL_NAMES.get(protocol, protocol)} has no ports" if protocol else "ports need a protocol"
            raise _refused(f"--{field}", f"{has}: say --proto tcp, udp, sctp, dccp or udplite")
        known[field] = _read(f"--{field}", port, words[field], context)
    number_of_icmp, names = _ICMP[context.family]
    if "icmp_type" in words:
        if protocol != number_of_icmp:
            raise _refused("--icmp-type", f"it goes with --proto {PROTOCOL_NAMES[number_of_icmp]}")
        held = _read("--icmp-type", parse_type, words["icmp_type"], names)
        known["icmp"] = (held.type, held.code or 0)
    if "tcp_flags" in words:
        if protocol != TCP:
            raise _refused("--tcp-flags", "they go with --proto tcp")
        known["tcp_flags"] = _read("--tcp-flags", flag_bits, words["tcp_flags"])
    return known


def _interface(text: str) -> str:
    if text.endswith("+"):
        raise ModelError(f"{text!r} stands for several interfaces, and a packet has one")
    return Interface(text).name


def _address_type(text: str) -> str:
    if text.upper() not in AddressType.__members__:
        raise ModelError(f"{text!r} is none of {', '.join(AddressType.__members__)}")
    return text.upper()


_FIELDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "in": ("in_interface", _interface),
    "out": ("out_interface", _interface),
    "mark": ("mark", number),
    "connmark": ("ct_mark", number),
    "src_type": ("source_type", _address_type),
    "dst_type": ("destination_type", _address_type),
    "mac": ("mac", octets),
}
"""What stands for itself: the field of each option, and how its word is read."""


def packet_text(packet: Packet) -> str:
    """The packet as a person writes it: ``ipv4 tcp 10.0.0.7:1024 -> 192.0.2.5:80, NEW``."""
    words = [str(packet.family)]
    if packet.protocol is not None:
        words.append(PROTOCOL_NAMES.get(packet.protocol, f"protocol {packet.protocol}"))
    if packet.icmp is not None:
        words.append(f"{packet.icmp[0]}/{packet.icmp[1]}")
    words += [
        _end(packet.source, packet.sport, packet.family),
        "->",
        _end(packet.destination, packet.dport, packet.family),
    ]
    return f"{' '.join(words)}, {packet.state}"


def _end(address: int | None, number: int | None, family: Family) -> str:
    text = "any" if address is None else format_address(address, family)
    if number is None:
        return text
    return f"[{text}]:{number}" if family is Family.IPV6 else f"{text}:{number}"
