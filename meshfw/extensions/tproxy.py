"""The TPROXY target: a packet is given to a local socket as it is (iptables-extensions(8), TPROXY)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.codecs import MarkValue, parse_mark, port
from meshfw.extensions.extension import Codec, Extension, Fields, Option, ParseContext
from meshfw.model import Family, Hook, Network, Packet, Rule, Table, Target, Twice, format_address, parse_address

PROTOCOLS: Final = frozenset({6, 17})
NO_MARK: Final = MarkValue(0, 0)


class TProxy(Target, frozen=True, kw_only=True):
    """TPROXY: the socket that listens on the port gets the packet, and the packet a mark; without one it is dropped.

    Port 0 is the packet's own, no address the one of the interface it came by. ``mark`` is and-ed out and xor-ed in.
    """

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.PREROUTING})
    port: int
    address: Network | None = None
    mark: MarkValue = NO_MARK

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 0xFFFF:
            raise ModelError(f"port {self.port} is not between 0 and 65535")
        if self.address is not None and self.address.prefix != self.address.family.bits:
            raise ModelError(f"TPROXY: {self.address} is not one address")

    def applied(self, packet: Packet) -> Packet:
        """The packet with its mark."""
        mark = None if packet.mark is None else packet.mark & ~self.mark.mask & 0xFFFFFFFF ^ self.mark.value
        return msgspec.structs.replace(packet, mark=mark)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule that states neither TCP nor UDP, or an address of the other family."""
        if rule.protocol not in PROTOCOLS:
            return "TPROXY needs the rule to state tcp or udp"
        if self.address is not None and self.address.family is not family:
            return f"TPROXY: {self.address} is an {self.address.family} address in an {family} chain"
        return None

    def twice(self) -> Twice | None:
        """Bits turned back, where some are turned over."""
        turned = self.mark.value & ~self.mark.mask
        return Twice("bits of the mark are turned over twice", alters=True) if turned else None


def _parse_address(text: str, context: ParseContext) -> Network | None:
    family, address = parse_address(text)
    if family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    return Network(family, address, (1 << family.bits) - 1) if address else None


_PORT: Final = Codec(parse=port, format=str, expected="a port or a service's name")
_ADDRESS: Final = Codec(parse=_parse_address, format=str, expected="an address")
_MARK: Final = Codec(parse=parse_mark, format=str, expected="VALUE or VALUE/MASK, each of 32 bits")


def _build(fields: Fields, context: ParseContext) -> TProxy:
    if "port" not in fields:
        raise ModelError("TPROXY needs --on-port")
    return TProxy(**fields)


def _address_text(value: TProxy, family: Family) -> str:
    return format_address(0 if value.address is None else value.address.address, family)


def _save(value: TProxy, family: Family) -> Iterable[str]:
    yield from ("--on-port", str(value.port), "--on-ip", _address_text(value, family))
    yield from ("--tproxy-mark", f"{value.mark.value:#x}/{value.mark.mask:#x}")


def _to_nft(value: TProxy, family: Family, rule: Rule) -> Iterable[str]:
    address = _address_text(value, family) if value.address is not None else ""
    where = f"[{address}]" if address and family is Family.IPV6 else address
    where += f":{value.port}" if value.port or not where else ""
    mark = value.mark
    change = f" meta mark set meta mark & {~mark.mask & 0xFFFFFFFF:#x} ^ {mark.value:#x}" if mark != NO_MARK else ""
    raise InexpressibleError(
        "TPROXY drops a packet for which no socket listens, and nft's tproxy goes on to the next rule",
        nearest=(f"tproxy to {where}{change} accept",),
    )


_OPTIONS: Final[tuple[Any, ...]] = (
    Option("--on-port", "port", _PORT),
    Option("--on-ip", "address", _ADDRESS),
    Option("--tproxy-mark", "mark", _MARK),
)

EXTENSIONS: Final = (
    Extension(name="TPROXY", value=TProxy, options=_OPTIONS, build=_build, save=_save, to_nft=_to_nft),
)
