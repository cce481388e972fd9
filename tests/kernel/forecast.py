"""What meshfw says of a probe, without a kernel: its verdict in the words in which the probe's fate is told."""

from __future__ import annotations

from typing import Final

from meshfw.extensions.tcp import FLAGS
from meshfw.model import Family, Fate, Network, Packet, format_address, parse_address
from meshfw.packet import Ending, Evaluator, Way
from meshfw.testing import frames
from meshfw.testing.topology import CLIENT_NETWORKS, MESH, MESH_ADDRESS, WAN, WAN_ADDRESS

_ON_MESH: Final = {Family.IPV4: "10.5.0.0/24", Family.IPV6: "fd00:5::/64"}
_REPLIES: Final = {Family.IPV4: 0, Family.IPV6: 129}
_REQUESTS: Final = {Family.IPV4: 8, Family.IPV6: 128}


def route(packet: Packet) -> str | None:
    """The routes of the gateway between client and server (:mod:`meshfw.testing.topology`)."""
    address = packet.destination
    if address is None:
        return None
    if _local(address, packet.family):
        return ""
    behind = (_ON_MESH[packet.family], *CLIENT_NETWORKS[packet.family])
    return MESH if any(Network.parse(network).holds(address) for network in behind) else WAN


def _local(address: int, family: Family) -> bool:
    return format_address(address, family) in (MESH_ADDRESS[family], WAN_ADDRESS[family])


def as_packet(probe: frames.Packet) -> Packet:
    """The probe as the evaluation takes it; each is the first packet of its flow."""
    family = probe.family
    source, destination = parse_address(probe.source)[1], parse_address(probe.destination)[1]
    icmp = probe.protocol == "icmp"
    has_ports = not icmp and not probe.fragment
    return Packet(
        family=family,
        source=source,
        destination=destination,
        source_type="LOCAL" if _local(source, family) else "UNICAST",
        destination_type="LOCAL" if _local(destination, family) else "UNICAST",
        protocol=frames.PROTOCOLS[family][probe.protocol],
        sport=probe.sport if has_ports else None,
        dport=probe.dport if has_ports else None,
        icmp=(probe.icmp or (_REQUESTS[family], 0)) if icmp else None,
        tcp_flags=probe.flags if probe.protocol == "tcp" else None,
        in_interface={"client": MESH, "server": WAN}.get(probe.start, ""),
        state=_state(probe),
        fragment=probe.fragment,
    )


def _state(probe: frames.Packet) -> str:
    """What conntrack makes of a flow's first packet: a reply that nobody asked for belongs to no connection."""
    if probe.protocol == "tcp" and probe.flags & FLAGS["SYN"] and probe.flags & FLAGS["ACK"]:
        return "INVALID"
    if probe.protocol == "icmp" and (probe.icmp or (0, 0))[0] == _REPLIES[probe.family] and probe.icmp is not None:
        return "INVALID"
    return "NEW"


def forecast(evaluator: Evaluator, probe: frames.Packet) -> frozenset[str]:
    """The verdicts that the probe may meet, in the words of :attr:`~meshfw.testing.probes.Result.verdict`."""
    packet = as_packet(probe)
    way = Way.OUTPUT if probe.start == "gateway" else Way.FORWARD
    found = evaluator.journey(packet, way=way, route=route)
    return frozenset(_verdict(ending, probe) for ending in found.endings)


def _verdict(ending: Ending, probe: frames.Packet) -> str:
    packet, family = ending.packet, probe.family
    if ending.verdict.fate is Fate.DROP:
        return "dropped"
    if ending.verdict.fate is Fate.REJECT:
        return f"rejected ({ending.verdict.answer.removeprefix('tcp-')})"
    words = ["accepted" if packet.out_interface else "accepted by the gateway"]
    source, destination = packet.source, packet.destination
    for translation in ending.translations:
        if translation.local and translation.source:
            source = parse_address((WAN_ADDRESS if packet.out_interface == WAN else MESH_ADDRESS)[family])[1]
        elif translation.local:
            destination = parse_address((WAN_ADDRESS if packet.in_interface == WAN else MESH_ADDRESS)[family])[1]
    assert source is not None
    assert destination is not None
    names = format_address(source, family), format_address(destination, family)
    if names[0] != probe.source:
        words.append(f"from {names[0]}")
    if (names[1], packet.dport or 0) != (probe.destination, probe.dport) and not probe.fragment:
        words.append(f"to {_place(names[1], packet.dport)}")
    return " ".join(words)


def _place(address: str, port: int | None) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
