"""The physdev match: the bridge ports of a bridged packet (iptables-extensions(8), physdev)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Hook, Interface, Match, Not, Rule

_EVERY_PORT: Final = "+"


class Physdev(Match, frozen=True):
    """The port by which a packet entered its bridge or leaves it, and whether it is bridged rather than routed.

    A packet that meets no bridge has no ports, so it meets negated conditions alone. A name may end in ``+`` as an
    interface's, and ``+`` alone is any port.
    """

    is_in: bool | Not[bool] | None = None
    in_port: str | Not[str] | None = None
    is_out: bool | Not[bool] | None = None
    out_port: str | Not[str] | None = None
    is_bridged: bool | Not[bool] | None = None

    def __post_init__(self) -> None:
        held = [getattr(self, field) for field in self.__struct_fields__]
        if not any(held):
            raise ModelError("physdev needs at least one of its options")

    def atoms(self) -> Iterable[Any]:
        """One part for each field that is set."""
        for field in self.__struct_fields__:
            held = getattr(self, field)
            if held:
                yield ("physdev", field, *sign(held))

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Not on output where an output port is asked of packets that aren't bridged (xt_physdev.c)."""
        if (self.out_port or self.is_out) and self.is_bridged is not True:
            return frozenset(Hook) - {Hook.OUTPUT}
        return None


def _parse_port(text: str, context: ParseContext) -> str:
    return text if text == _EVERY_PORT else Interface(text).name


def _to_nft(value: Physdev, family: Family, rule: Rule) -> Iterable[str]:
    names = [option.name for option in _OPTIONS if getattr(value, option.field)]
    raise InexpressibleError(
        f"physdev {' '.join(names)}: in its {family} tables nft sees the bridge, but none of its ports"
    )


_PORT: Final = Codec(parse=_parse_port, format=str, expected="a bridge port's name, or its beginning and +")
_OPTIONS: Final = (
    Option("--physdev-is-in", "is_in", words=0, invertible=True),
    Option("--physdev-in", "in_port", _PORT, invertible=True),
    Option("--physdev-is-out", "is_out", words=0, invertible=True),
    Option("--physdev-out", "out_port", _PORT, invertible=True),
    Option("--physdev-is-bridged", "is_bridged", words=0, invertible=True),
)

EXTENSIONS: Final = (Extension(name="physdev", value=Physdev, options=_OPTIONS, to_nft=_to_nft),)
