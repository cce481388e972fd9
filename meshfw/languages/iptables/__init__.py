"""The iptables-save and iptables-restore language: rules and whole dumps, parsed and printed canonically.

A rule is printed as iptables-save prints it: base options in the kernel's order, then the matches in the order
written with each one's options in its own fixed order, then the target.
"""

from __future__ import annotations

from meshfw.languages.iptables.command import Command, parse_command
from meshfw.languages.iptables.format import format_rule, protocol_name, quote_opaque, untellable
from meshfw.languages.iptables.rules import parse_rule, parse_rules, placed
from meshfw.languages.iptables.vocabulary import OPAQUE_TARGETS, VERDICTS, parse_protocol

__all__ = [
    "OPAQUE_TARGETS",
    "VERDICTS",
    "Command",
    "format_rule",
    "parse_command",
    "parse_protocol",
    "parse_rule",
    "parse_rules",
    "placed",
    "protocol_name",
    "quote_opaque",
    "untellable",
]
