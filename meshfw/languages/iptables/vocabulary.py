"""The words of iptables itself: base options, verdicts, targets of the manual, and protocols."""

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
    "--fragment": "fragment",
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
COMMANDS: Final = frozenset(
    "-A --append -I --insert -D --delete -R --replace -C --check -N --new-chain -P --policy -F --flush -X "
    "--delete-chain -t --table -w --wait".split()
)
"""Options of a command line that say where a rule goes, and are none of the rule."""
INVERTIBLE: Final = frozenset({"source", "destination", "in_interface", "out_interface", "protocol", "fragment"})
GLUED: Final = frozenset("sdiopmjg")
VERDICTS: Final[Mapping[str, Target]] = {"ACCEPT": ACCEPT, "DROP": DROP, "RETURN": RETURN}

OPAQUE_TARGETS: Final = frozenset(
    "AUDIT CHECKSUM CLASSIFY CLUSTERIP CONNSECMARK CT DNPT DSCP ECN HL LED NETMAP NFLOG NFQUEUE "
    "NOTRACK QUEUE SECMARK SET SNPT SYNPROXY TCPMSS TCPOPTSTRIP TEE TOS TPROXY TRACE TTL ULOG".split()
)
"""Names of targets in iptables-extensions(8): without a typed value they are kept opaque, never taken for a chain."""


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
