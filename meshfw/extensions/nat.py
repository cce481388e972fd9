"""The SNAT, DNAT, MASQUERADE and REDIRECT targets: address and port translation (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.codecs import Ports, listed, port, read_ports
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.iprange import AddressRange
from meshfw.extensions.netmap import read_netmap
from meshfw.model import (
    Family,
    Hook,
    Network,
    Packet,
    Rule,
    SetRef,
    Table,
    Target,
    Translation,
    format_address,
)

PORT_PROTOCOLS: Final = frozenset({1, 6, 17, 33, 132})
"""Protocols one of which a rule that translates ports must state (libxt_NAT.c: ICMP's identifier counts as a port)."""


class To(msgspec.Struct, frozen=True, gc=False):
    """Where a packet is translated to: addresses, ports, or both.

    With ``base`` the new port is ``ports.low`` plus the old one's distance from ``base``.
    """

    addresses: AddressRange | None = None
    ports: Ports | None = None
    base: int | None = None

    def __post_init__(self) -> None:
        if self.addresses is None and self.ports is None:
            raise ModelError("address translation needs an address or a port")
        if self.ports is not None:
            self.ports.ascending()
        if self.addresses is not None:
            self.addresses.ascending()
        if self.base is not None and (
            self.ports is None or self.ports.low >= self.ports.high or not 1 <= self.base <= 0xFFFF
        ):
            raise ModelError("a base port is from 1 to 65535 and needs a range of ports")

    def __str__(self) -> str:
        ports = "" if self.ports is None else f":{self.ports.nft()}"
        if self.base is not None:
            ports += f"/{self.base}"
        if self.addresses is None:
            return ports
        text = self.addresses.short()
        return f"[{text}]{ports}" if ports and self.addresses.family is Family.IPV6 else f"{text}{ports}"

    def translation(self, *, source: bool) -> Translation:
        """What becomes of that end."""
        addresses = None if self.addresses is None else (self.addresses.low, self.addresses.high)
        return Translation(source=source, addresses=addresses, ports=_pair(self.ports), base=self.base)

    def problem(self, label: str, rule: Rule, family: Family) -> str | None:
        """An address of the other family, or ports without a protocol that has them."""
        if self.addresses is not None and self.addresses.family is not family:
            return f"{label}: {self.addresses.short()} is an {self.addresses.family} address in an {family} chain"
        return _ports_problem(self.ports, label, rule)


def _pair(ports: Ports | None) -> tuple[int, int] | None:
    return None if ports is None else (ports.low, ports.high)


def _ports_problem(ports: Ports | None, label: str, rule: Rule) -> str | None:
    if ports is not None and rule.protocol not in PORT_PROTOCOLS:
        return f"{label} with ports needs the rule to state tcp, udp, sctp or dccp"
    return None


class Snat(Target, frozen=True, kw_only=True):
    """SNAT: the source becomes ``to``."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.NAT})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.POSTROUTING, Hook.INPUT})
    accepts: ClassVar[bool] = True
    to: To
    random: bool = False
    fully_random: bool = False
    persistent: bool = False

    def __post_init__(self) -> None:
        if self.to.base is not None:
            raise ModelError("SNAT can't shift ports")

    def translation(self, packet: Packet) -> Translation | None:
        """The new source."""
        return self.to.translation(source=True)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family, or ports without a protocol that has them."""
        return self.to.problem(self.label, rule, family)


class Dnat(Target, frozen=True, kw_only=True):
    """DNAT: the destination becomes ``to``."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.NAT})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.PREROUTING, Hook.OUTPUT})
    accepts: ClassVar[bool] = True
    to: To
    random: bool = False
    persistent: bool = False

    def translation(self, packet: Packet) -> Translation | None:
        """The new destination."""
        return self.to.translation(source=False)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family, or ports without a protocol that has them."""
        return self.to.problem(self.label, rule, family)


class Masquerade(Target, frozen=True, kw_only=True):
    """MASQUERADE: the source becomes the outgoing interface's address."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.NAT})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.POSTROUTING})
    accepts: ClassVar[bool] = True
    ports: Ports | None = None
    random: bool = False
    fully_random: bool = False

    def __post_init__(self) -> None:
        if self.ports is not None:
            self.ports.ascending()

    def translation(self, packet: Packet) -> Translation | None:
        """The new source."""
        return Translation(source=True, ports=_pair(self.ports), local=True)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Ports without a protocol that has them."""
        return _ports_problem(self.ports, self.label, rule)


class Redirect(Target, frozen=True, kw_only=True):
    """REDIRECT: the destination becomes this host."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.NAT})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.PREROUTING, Hook.OUTPUT})
    accepts: ClassVar[bool] = True
    ports: Ports | None = None
    random: bool = False

    def __post_init__(self) -> None:
        if self.ports is not None:
            self.ports.ascending()

    def translation(self, packet: Packet) -> Translation | None:
        """The new destination."""
        return Translation(source=False, ports=_pair(self.ports), local=True)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Ports without a protocol that has them."""
        return _ports_problem(self.ports, self.label, rule)


# --- iptables -------------------------------------------------------------------------------------------


def _parse_ports(text: str, context: ParseContext) -> Ports:
    """``PORT``, ``FIRST-LAST`` or a service name, which may hold a dash itself."""
    first, dash, last = text.partition("-")
    if dash and first.isascii() and first.isdigit():
        if not (last.isascii() and last.isdigit()):
            raise ModelError(f"{text!r}: a range ends with a number")
        return Ports(port(first, context), port(last, context)).ascending()
    held = port(text, context)
    return Ports(held, held)


def _parse_to(text: str, context: ParseContext) -> To:
    addresses, colon, ports = text.partition(":")
    if context.family is Family.IPV6 or text.startswith("["):
        addresses, colon, ports = _split_bracketed(text)
    held = AddressRange.parse(addresses).ascending() if addresses else None
    if held is not None and held.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    if not colon:
        return To(held)
    ports, slash, base = ports.partition("/")
    return To(held, _parse_ports(ports, context), port(base, context) if slash else None)


def _split_bracketed(text: str) -> tuple[str, str, str]:
    """Addresses, colon and ports of an IPv6 form: ``A``, ``A-B``, ``:PORTS``, ``[A]:PORTS`` or ``[A-B]:PORTS``."""
    if not text.startswith("["):
        return ("", ":", text[1:]) if text.startswith(":") and not text.startswith("::") else (text, "", "")
    addresses, closed, rest = text[1:].partition("]")
    if not closed or (rest and not rest.startswith(":")):
        raise ModelError(f"{text!r}: after the brackets comes nothing or a colon and ports")
    return addresses, rest[:1], rest[1:]


_PORTS: Final = Codec(parse=_parse_ports, format=lambda ports: ports.nft(), expected="a port or FIRST-LAST")
_TO: Final = Codec(parse=_parse_to, format=str, expected="ADDRESS[-ADDRESS][:PORT[-PORT]], IPv6 with ports in brackets")
_RANDOM: Final = Option("--random", "random", words=0)
_FULLY: Final = Option("--random-fully", "fully_random", words=0)
_PERSISTENT: Final = Option("--persistent", "persistent", words=0)
_TO_PORTS: Final = Option("--to-ports", "ports", _PORTS, aliases=("--to-port",))

# --- nft ------------------------------------------------------------------------------------------------

_NFT_FLAGS: Final = {"random": "random", "fully_random": "fully-random", "persistent": "persistent"}
"""nft's flags by field, in the order nft lists them."""


def _to_nft(keyword: str, target: str, value: Any) -> str:
    flags = ",".join(name for field, name in _NFT_FLAGS.items() if getattr(value, field, False))
    return " ".join(part for part in (keyword, f"to {target}" if target else "", flags) if part)


def _addresses_nft(held: AddressRange, *, ports: bool) -> str:
    """The addresses as nft lists them; but a prefix with ports, which it lists and can't read, stays a range."""
    low, high = format_address(held.low, held.family), format_address(held.high, held.family)
    bracketed = ports and held.family is Family.IPV6
    if held.low == held.high:
        return f"[{low}]" if bracketed else low
    size = held.high - held.low + 1
    if size & (size - 1) == 0 and held.low % size == 0 and not ports:
        return f"{low}/{held.family.bits - size.bit_length() + 1}"
    return f"[{low}]-[{high}]" if bracketed else f"{low}-{high}"


def _endpoint_nft(to: To) -> str:
    if to.base is not None:
        raise InexpressibleError(f"translation to {to}: nft can't shift ports")
    text = "" if to.addresses is None else _addresses_nft(to.addresses, ports=to.ports is not None)
    return text if to.ports is None else f"{text}:{to.ports.nft()}"


def _endpoint(keyword: str) -> Callable[[Any, Family, Rule], Iterable[str]]:
    return lambda value, family, rule: (_to_nft(keyword, _endpoint_nft(value.to), value),)


def _local(keyword: str) -> Callable[[Any, Family, Rule], Iterable[str]]:
    return lambda value, family, rule: (
        _to_nft(keyword, "" if value.ports is None else f":{value.ports.nft()}", value),
    )


def _read_flags(kind: type[Target], body: Mapping[str, Any]) -> dict[str, bool] | None:
    """The target's fields that the flags turn on; None where it has no such field."""
    fields = {name: field for field, name in _NFT_FLAGS.items() if field in kind.__struct_fields__}
    flags = listed(body.get("flags", []))
    return {fields[flag]: True for flag in flags} if set(flags) <= set(fields) else None


def _read_addresses(held: Any) -> AddressRange:
    if isinstance(held, str):
        return AddressRange.parse(held)
    if "prefix" in held:
        network = Network.parse(f"{held['prefix']['addr']}/{held['prefix']['len']}")
        return AddressRange(network.family, network.address, network.last)
    low, high = held["range"]
    return AddressRange.parse(f"{low}-{high}")


def _read_local(kind: type[Masquerade | Redirect]) -> Callable[[Any, Family], Target | None]:
    def read(body: Any, family: Family) -> Target | None:
        body = body or {}
        flags = _read_flags(kind, body)
        if flags is None or set(body) - {"port", "flags"}:
            return None
        ports = read_ports(body["port"]) if "port" in body else None
        return None if isinstance(ports, SetRef) else kind(ports=ports, **flags)

    return read


def _read_endpoint(kind: type[Snat | Dnat]) -> Callable[[Any, Family], Target | None]:
    def read(body: Any, family: Family) -> Target | None:
        if "type_flags" in body:
            return read_netmap(body)
        flags = _read_flags(kind, body)
        if flags is None or set(body) - {"addr", "port", "flags"}:
            return None
        addresses = _read_addresses(body["addr"]) if "addr" in body else None
        ports = read_ports(body["port"]) if "port" in body else None
        return None if isinstance(ports, SetRef) else kind(to=To(addresses, ports), **flags)

    return read


EXTENSIONS: Final = (
    Extension(
        name="SNAT",
        value=Snat,
        options=(Option("--to-source", "to", _TO, aliases=("--to",)), _RANDOM, _FULLY, _PERSISTENT),
        to_nft=_endpoint("snat"),
        from_nft={"snat": _read_endpoint(Snat)},
    ),
    Extension(
        name="DNAT",
        value=Dnat,
        options=(Option("--to-destination", "to", _TO, aliases=("--to",)), _RANDOM, _PERSISTENT),
        to_nft=_endpoint("dnat"),
        from_nft={"dnat": _read_endpoint(Dnat)},
    ),
    Extension(
        name="MASQUERADE",
        value=Masquerade,
        options=(_TO_PORTS, _RANDOM, _FULLY),
        to_nft=_local("masquerade"),
        from_nft={"masquerade": _read_local(Masquerade)},
    ),
    Extension(
        name="REDIRECT",
        value=Redirect,
        options=(_TO_PORTS, _RANDOM),
        to_nft=_local("redirect"),
        from_nft={"redirect": _read_local(Redirect)},
    ),
)
