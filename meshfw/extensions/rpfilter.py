"""The rpfilter match: whether the route back to a source leads out where the packet came in (iptables-extensions)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Family, Hook, Match, Rule, Table


class RpFilter(Match, frozen=True, kw_only=True):
    """A reply to the packet would leave by the interface that it came in by; ``loose`` for any, ``invert`` for none.

    ``validmark`` looks the route up with the packet's mark, ``accept_local`` lets this host's own addresses pass.
    """

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.RAW, Table.MANGLE})
    loose: bool = False
    validmark: bool = False
    accept_local: bool = False
    invert: bool = False

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet comes in; in tables raw and mangle alone (ipt_rpfilter.c)."""
        return frozenset({Hook.PREROUTING})


def _to_nft(value: RpFilter, family: Family, rule: Rule) -> Iterable[str]:
    """No form: where the kernel's two look-ups part was tried with sources of every kind of address and route."""
    if family is Family.IPV4:
        reason = "rpfilter fails a source that is a broadcast address, for which nft's fib finds a route back"
    else:
        reason = "rpfilter passes the source ::, for which nft's fib looks for a route back"
    nearest = f"fib saddr{' . mark' if value.validmark else ''}{'' if value.loose else ' . iif'} oif"
    raise InexpressibleError(reason, nearest=(f"{nearest} {'missing' if value.invert else 'exists'}",))


EXTENSIONS: Final = (
    Extension(
        name="rpfilter",
        value=RpFilter,
        options=(
            Option("--loose", "loose", words=0),
            Option("--validmark", "validmark", words=0),
            Option("--accept-local", "accept_local", words=0),
            Option("--invert", "invert", words=0),
        ),
        to_nft=_to_nft,
    ),
)
