"""The socket match: packets for which the host has a socket open (iptables-extensions(8), socket)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.model import Family, Hook, Match, Rule, Twice


class Socket(Match, frozen=True):
    """A packet of an open socket, found by its addresses and ports, or those that an ICMP error quotes.

    A socket that listens on every address counts with ``nowildcard`` alone, and with ``transparent`` one with
    IP_TRANSPARENT alone. ``restore_mark`` gives the packet the socket's mark, so its place among the matches counts.
    """

    stateful: ClassVar[bool] = True
    transparent: bool | None = None
    nowildcard: bool | None = None
    restore_mark: bool | None = None

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet may be one for this host (xt_socket.c)."""
        return frozenset({Hook.PREROUTING, Hook.INPUT})

    def twice(self) -> Twice | None:
        """Nothing: the socket is the same."""
        return None


_TRANSPARENT: Final = "socket transparent 1"
_ANY: Final = "socket transparent 0-1"


def _to_nft(value: Socket, family: Family, rule: Rule) -> Iterable[str]:
    if value.restore_mark:
        raise InexpressibleError("--restore-skmark: nft ends a rule at a closing socket, which has no mark to copy")
    if not value.nowildcard:
        raise InexpressibleError(
            "socket without --nowildcard: nft ends a rule at a socket that opens or closes, asked for its address",
            nearest=("socket wildcard 0", *((_TRANSPARENT,) if value.transparent else ())),
        )
    yield _TRANSPARENT if value.transparent else _ANY


def _read(match: NftMatch, family: Family) -> Socket | None:
    if match.op != "==" or match.mask is not None:
        return None
    if match.right == 1:
        return Socket(transparent=True, nowildcard=True)
    return Socket(nowildcard=True) if match.right == {"range": [0, 1]} else None


_OPTIONS: Final = (
    Option("--transparent", "transparent", words=0),
    Option("--nowildcard", "nowildcard", words=0),
    Option("--restore-skmark", "restore_mark", words=0),
)
_READERS: Final[dict[str, Any]] = {"socket transparent": _read}

EXTENSIONS: Final = (Extension(name="socket", value=Socket, options=_OPTIONS, to_nft=_to_nft, from_nft=_READERS),)
