"""How everybody and every number looks in the pictures, and what each is called there and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Contestant(msgspec.Struct, frozen=True):
    """Somebody in the pictures: its name there, its colour, and how its line is drawn."""

    label: str
    colour: str
    line: str = "-"
    marker: str = "o"
    hatch: str = ""


# Okabe and Ito's colours, which the colour-blind can tell apart; a plain tool has its backend's, in dashes.
_NFT, _IPTABLES_NFT, _LEGACY, _IPTC = "#0072B2", "#009E73", "#D55E00", "#F0E442"
CONTESTANTS: Final[Mapping[str, Contestant]] = {
    "meshfw, nft": Contestant("meshfw, nft", _NFT),
    "meshfw, iptables-nft": Contestant("meshfw, iptables-nft", _IPTABLES_NFT),
    "meshfw, iptables-legacy": Contestant("meshfw, iptables-legacy", _LEGACY),
    "meshfw, iptc": Contestant("meshfw, iptc", _IPTC),
    "plain, nft": Contestant("nft alone", _NFT, "--", "", "////"),
    "plain, iptables-nft": Contestant("iptables-nft-restore, -save alone", _IPTABLES_NFT, "--", "", "////"),
    "plain, iptables-legacy": Contestant("iptables-legacy-restore, -save alone", _LEGACY, "--", "", "////"),
    "plain, iptc": Contestant("the same beside iptc", _IPTC, "--", "", "////"),
    "per-rule-nft": Contestant("a process per rule, iptables-nft", "#56B4E9", "-.", "s"),
    "per-rule-legacy": Contestant("a process per rule, iptables-legacy", "#E69F00", "-.", "s"),
    "python-iptables": Contestant("python-iptables, legacy", "#CC79A7", ":", "D"),
}
_UNKNOWN: Final = Contestant("", "#555555")


def named(name: str) -> Contestant:
    """A contestant by its name in the results; one that isn't known is grey."""
    return CONTESTANTS.get(name) or msgspec.structs.replace(_UNKNOWN, label=name)


def plain_number(value: float, _position: float = 0) -> str:
    """A number on an axis, without an exponent."""
    return f"{value:,.0f}" if value >= 1 else f"{value:.10f}".rstrip("0").rstrip(".")
