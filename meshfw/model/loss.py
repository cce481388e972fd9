"""What the kernel's tools lose of a rule that the kernel itself would take."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshfw.model.address import Addresses, Interfaces, matches_none
from meshfw.model.kinds import Not


class Loss(msgspec.Struct, frozen=True):
    """A meaning that a kernel tool loses without a word: which of iptables' variants do, and what comes of it."""

    variants: frozenset[str]
    """``legacy`` and ``nft``: iptables would store the rule as another one; ``native``: nft itself would."""
    text: str
    shown: bool = True
    """What the tool saves then is another rule; False: the kernel alone counts otherwise than the rule says."""


def condition_losses(
    source: Addresses | None, destination: Addresses | None, incoming: Interfaces | None, outgoing: Interfaces | None
) -> Iterator[Loss]:
    """What is lost of conditions on addresses and interfaces that no packet meets."""
    for option, held in (("-s", source), ("-d", destination)):
        if type(held) is Not and matches_none(held):
            yield Loss(
                frozenset({"nft"}),
                f"! {option} {held.value} matches no packet: iptables-nft refuses such a rule, leave it out",
            )
    for option, interface in (("-i", incoming), ("-o", outgoing)):
        if interface is not None and matches_none(interface):
            yield Loss(
                frozenset({"legacy"}),
                f"! {option} + matches no packet, and iptables-legacy-save prints such a rule without it, as one that "
                "matches every packet",
            )
