"""The words of iptables itself: base options, commands, verdicts, protocols, and targets that others bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import PROTOCOL_NUMBERS, number
from meshfw.extensions.language import Language
from meshfw.model import ACCEPT, DROP, RETURN, Target

BASE_OPTIONS: Final[Mapping[str, str]] = {
    "-s": "source",
    "--source": "source",
    "--src": "source",
    "-d": "destination",
    "--destination": "destination",
    "--dst": "destination",
    "-i": "in_interface",
    "--in-interface": "in_interface",
    "-o": "out_interface",
    "--out-interface": "out_interface",
    "-p": "protocol",
    "--protocol": "protocol",
    "--proto": "protocol",
    "-f": "fragment",
    "--fragments": "fragment",
    "-m": "match",
    "--match": "match",
    "-j": "jump",
    "--jump": "jump",
    "-g": "goto",
    "--goto": "goto",
    "-c": "counters",
    "--set-counters": "counters",
    "-4": "ipv4",
    "--ipv4": "ipv4",
    "-6": "ipv6",
    "--ipv6": "ipv6",
}
_SHORT_COMMANDS: Final[Mapping[str, str]] = {
    "-A": "append",
    "-I": "insert",
    "-D": "delete",
    "-R": "replace",
    "-C": "check",
    "-N": "new-chain",
    "-X": "delete-chain",
    "-E": "rename-chain",
    "-F": "flush",
    "-Z": "zero",
    "-P": "policy",
    "-L": "list",
    "-S": "list-rules",
    "-t": "table",
    "-w": "wait",
    "-W": "wait-interval",
    "-v": "verbose",
    "-n": "numeric",
    "-x": "exact",
    "-M": "modprobe",
    "-h": "help",
    "-V": "version",
}
COMMANDS: Final[Mapping[str, str]] = {
    **_SHORT_COMMANDS,
    **{f"--{name}": name for name in _SHORT_COMMANDS.values()},
    "--line-numbers": "line-numbers",
}
"""Options of a command line that say where a rule goes, and are none of the rule (iptables(8), COMMANDS)."""
INVERTIBLE: Final = frozenset({"source", "destination", "in_interface", "out_interface", "protocol", "fragment"})
GLUED: Final = frozenset("sdiopmjg")
VERDICTS: Final[Mapping[str, Target]] = {"ACCEPT": ACCEPT, "DROP": DROP, "RETURN": RETURN}

OPAQUE_TARGETS: Final = frozenset("ACCOUNT CHAOS DELUDE DHCPMAC DNETMAP ECHO IPMARK LOGMARK PROTO SYSRQ TARPIT".split())
"""Names of targets that others bring (xtables-addons(8)): they are kept opaque, and never taken for a chain."""


def unabbreviated(text: str) -> str | None:
    """The long option that the word cuts short, as getopt_long(3) takes it; None where it is none, or several."""
    if len(text) < 3 or not text.startswith("--"):
        return None
    found = {
        meaning: name for table in (BASE_OPTIONS, COMMANDS) for name, meaning in table.items() if name.startswith(text)
    }
    return next(iter(found.values())) if len(found) == 1 else None


GONE: Final[Mapping[str, str]] = {"ULOG": "-j NFLOG: Linux has had no ULOG since 3.17"}
"""Targets that no kernel of today has, and what to write instead."""


def parse_protocol(text: str, language: Language) -> int | None:
    """A protocol's number; 0 for ``all``; None where the word is none (iptables(8), --protocol)."""
    lower = text.lower()
    if lower == "all":
        return 0
    found = PROTOCOL_NUMBERS.get(lower)
    if found is None:
        found = language.hosts.protocols.get(lower)
    if found is not None:
        return found
    try:
        return number(text, high=255)
    except ModelError:
        return None
