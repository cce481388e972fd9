"""The TEE target: a copy of the packet to another host of the local network (iptables-extensions(8), TEE)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Interface, Loss, Network, Rule, Target, Twice, format_address

_KEPT_BY_NUMBER: Final = Loss(
    frozenset({"native"}),
    "TEE --oif: nft keeps the number of the interface that has the name when the rule is loaded, TEE the name",
)


class Tee(Target, frozen=True):
    """TEE: copies the packet to ``gateway``, a single address, by the route that ``interface`` has to it, if stated."""

    final: ClassVar[bool] = False
    gateway: Network
    interface: Interface | None = None

    def __post_init__(self) -> None:
        if self.gateway.prefix != self.gateway.family.bits or not self.gateway.address:
            raise ModelError(f"TEE --gateway {self.gateway}: one address other than that of all zeros")

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        if self.gateway.family is not family:
            return f"TEE: {self.gateway} is an {self.gateway.family} address in an {family} chain"
        return None

    def losses(self) -> Iterable[Loss]:
        """The interface's name."""
        return () if self.interface is None else (_KEPT_BY_NUMBER,)

    def twice(self) -> Twice | None:
        """Another copy."""
        return Twice("each packet is copied twice")


def _parse(text: str, context: ParseContext) -> Network:
    if "/" in text:
        raise ModelError(f"{text!r} is not one address")
    gateway = Network.parse(text)
    if gateway.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    return gateway


def _text(gateway: Network) -> str:
    return format_address(gateway.address, gateway.family)


_GATEWAY: Final = Codec(parse=_parse, format=_text, expected="the address of a host")
_INTERFACE: Final = Codec(
    parse=lambda text, context: Interface(text), format=str, expected="the name of a network interface"
)


def _to_nft(value: Tee, family: Family, rule: Rule) -> Iterable[str]:
    device = "" if value.interface is None else f' device "{value.interface}"'
    yield f"dup to {_text(value.gateway)}{device}"


def _from_nft(body: Any, family: Family) -> Tee | None:
    if set(body) - {"addr", "dev"} or not isinstance(body["addr"], str):
        return None
    return Tee(Network.parse(body["addr"]), Interface(body["dev"]) if "dev" in body else None)


EXTENSIONS: Final = (
    Extension(
        name="TEE",
        value=Tee,
        options=(Option("--gateway", "gateway", _GATEWAY), Option("--oif", "interface", _INTERFACE)),
        to_nft=_to_nft,
        from_nft={"dup": _from_nft},
    ),
)
