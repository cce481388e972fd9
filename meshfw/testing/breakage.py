"""Somebody else who works on the host's firewall with its own tool: breaks our rules, and has rules of his own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from meshfw.errors import BackendError
from meshfw.testing.breakage_iptables import IptablesTool
from meshfw.testing.breakage_nft import NftTool
from meshfw.testing.netns import Netns


class Tool(Protocol):
    """A tool in the hands of somebody else, in one namespace, against the rules that a backend keeps for an owner.

    ``breakages`` has each way to break our rules under what a person calls it (*somebody* ...). One that was carried
    out, each in its turn on rules that are whole, gives the command lines that it took, and undoes what some packet of
    :func:`meshfw.testing.gateway.journeys` meets.
    """

    @property
    def breakages(self) -> Mapping[str, Callable[[], Iterable[str]]]:
        """The breakages by their titles."""
        ...

    def move_in(self) -> Sequence[str]:
        """Rules of others come to stand beside ours; the command lines that it took."""
        ...

    def foreign(self) -> str:
        """The rules of others, to the last byte but for counters."""
        ...

    def leftovers(self) -> Sequence[str]:
        """What of the owner's still stands."""
        ...


TOOLS: Final[Mapping[str, Callable[[Netns, str], Tool]]] = {
    "nft": NftTool,
    "iptables-nft": partial(IptablesTool, variant="nft"),
    "iptables-legacy": partial(IptablesTool, variant="legacy"),
}
"""Who can break the rules of a backend, by the backend's name."""


def tool_against(backend: str, netns: Netns, owner: str) -> Tool:
    """Somebody who can break what a backend keeps; BackendError where the demonstration knows nobody."""
    maker = TOOLS.get(backend)
    if maker is None:
        raise BackendError(f"nobody here knows how to break the rules of {backend}")
    return maker(netns, owner)
