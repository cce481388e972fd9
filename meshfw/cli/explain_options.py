"""The options by which ``meshfw explain`` is told of a packet; words, which :mod:`meshfw.cli.question` reads."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Final

_PACKET: Final = (
    ("--src", "ADDRESS", "the source"),
    ("--dst", "ADDRESS", "the destination"),
    ("--proto", "PROTOCOL", "tcp, udp, icmp and so on, or a number"),
    ("--sport", "PORT", "the source port"),
    ("--dport", "PORT", "the destination port"),
    ("--icmp-type", "TYPE", "an ICMP message, such as 8, 3/4 or echo-request"),
    ("--tcp-flags", "FLAGS", "flags that are on, such as SYN,ACK (default: SYN where the state is NEW)"),
    ("--in", "NAME", "the interface by which it comes; where it has none it was made here"),
    ("--out", "NAME", "the interface by which it leaves; where it has none it ends here"),
    ("--state", "STATE", "NEW, ESTABLISHED, RELATED, INVALID or UNTRACKED (default: NEW)"),
    ("--mark", "NUMBER", "its mark when it comes (default: 0)"),
    ("--connmark", "NUMBER", "the mark of its connection (default: 0 where the state is NEW)"),
    ("--mac", "ADDRESS", "the source of its Ethernet frame"),
    ("--src-type", "TYPE", "what the source is to this host's routing: LOCAL, UNICAST and so on"),
    ("--dst-type", "TYPE", "what the destination is to it"),
)
VALUED: Final = frozenset({"--hook", *(option for option, _, _ in _PACKET)})
"""Those that take a word, besides -f and --file, which translate has too."""
WAYS: Final = ("forward", "input", "output")


def add_explain(parser: ArgumentParser, *, name: Callable[[str], str]) -> None:
    """Add them to the verb's parser, and those that say what the packet meets; ``name`` refuses what names nothing."""
    packet = parser.add_argument_group(
        "the packet", "What isn't said isn't known, and conditions on it may be met or not."
    )
    for option, metavar, text in _PACKET:
        packet.add_argument(option, metavar=metavar, type=name, help=text)
    packet.add_argument("--fragment", action="store_true", help="it is a second or further fragment (IPv4)")
    packet.add_argument(
        "--hook", choices=WAYS, help="its way, where the interfaces don't tell; else all three are shown"
    )
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        type=name,
        help="the rules of a dump, a ruleset of nft's or everybody's here (live:TOOL), instead of the declared rules",
    )
    rules.add_argument(
        "--live", action="store_true", help="what the kernel holds of ours, instead of the declared rules"
    )
