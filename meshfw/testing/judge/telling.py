"""A probe in words."""

from __future__ import annotations

from meshfw.extensions.codecs import PROTOCOL_NAMES
from meshfw.extensions.tcp import FLAGS
from meshfw.model import Packet, format_address
from meshfw.testing.judge.frames import HEADERS, Probe


def told(probe: Probe) -> str:
    """The probe as a person tells it: where it starts, its ends, what is special about it, and what went before."""
    packet = probe.packet
    words = [f"from the {probe.start}:", _ends(packet), PROTOCOL_NAMES.get(packet.protocol or 0, str(packet.protocol))]
    if packet.tcp_flags is not None:
        on = ",".join(name for name, bit in FLAGS.items() if packet.tcp_flags & bit)
        words.append(f"flags {on or 'NONE'}")
    if packet.icmp is not None:
        words.append(f"type {packet.icmp[0]}/{packet.icmp[1]}")
    if packet.fragment:
        words.append("a later fragment")
    for name, value, usual in (("mark", packet.mark, 0), ("tos", packet.tos, 0), ("ttl", packet.ttl, 64)):
        if value != usual and value is not None:
            words.append(f"{name} {value:#x}" if name != "ttl" else f"ttl {value}")
    if packet.length is not None and packet.length != HEADERS[packet.family]:
        words.append(f"{packet.length} bytes")
    if packet.state is not None:
        words.append(f"state {packet.state}")
    if probe.prior:
        words.append(f"after {'; '.join(f'{_ends(p.packet)} from the {p.start}' for p in probe.prior)}")
    return " ".join(words)


def _ends(packet: Packet) -> str:
    return f"{_end(packet, packet.source, packet.sport)} > {_end(packet, packet.destination, packet.dport)}"


def _end(packet: Packet, address: int | None, port: int | None) -> str:
    text = "?" if address is None else format_address(address, packet.family)
    return text if port is None else f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
