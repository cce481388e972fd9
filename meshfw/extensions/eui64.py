"""The eui64 match: an IPv6 source address that is made of its Ethernet sender's (ip6tables-extensions(8), eui64)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError
from meshfw.extensions.extension import Extension
from meshfw.model import Family, Hook, Match, Rule


class Eui64(Match, frozen=True):
    """The lower half of the source address is the EUI-64 of the sender's Ethernet address (RFC 4291, appendix A)."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet still has the header it came in with (ip6t_eui64.c)."""
        return frozenset({Hook.PREROUTING, Hook.INPUT, Hook.FORWARD})


def _to_nft(value: Eui64, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("eui64: nft compares no part of a packet with another part of it")


EXTENSIONS: Final = (Extension(name="eui64", value=Eui64, to_nft=_to_nft),)
