"""The ipvs match: connections that the kernel's virtual server balances (iptables-extensions(8), ipvs)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.codecs import port, protocol_number, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Match, Network, Not, Rule, format_address

DIRECTIONS: Final = ("ORIGINAL", "REPLY")
METHODS: Final = ("GATE", "IPIP", "MASQ")
"""How packets go on to the real server: by its link address, in a tunnel, or with another address."""


class Ipvs(Match, frozen=True):
    """A packet of a balanced connection, or with ``Not(True)`` one of none, and what is known of its virtual service.

    Every other field asks for such a connection too, negated ones as well.
    """

    balanced: bool | Not[bool] | None = None
    protocol: int | Not[int] | None = None
    address: Network | Not[Network] | None = None
    port: int | Not[int] | None = None
    direction: str | None = None
    method: str | Not[str] | None = None
    control_port: int | Not[int] | None = None

    def __post_init__(self) -> None:
        held = [getattr(self, field) for field in self.__struct_fields__]
        if all(item is None for item in held):
            raise ModelError("ipvs needs at least one of its options")
        if any(item is not None for item in held[1:]):
            if self.balanced == Not(True):
                raise ModelError("! --ipvs stands for itself: the other options ask for such a connection")
            msgspec.structs.force_setattr(self, "balanced", None)  # as each of the others asks for it

    def atoms(self) -> Iterable[Any]:
        """Whether there is such a connection, and one part for each other field."""
        yield ("ipvs", self.balanced != Not(True))
        for field in self.__struct_fields__[1:]:
            held = getattr(self, field)
            if held is not None:
                negated, value = sign(held)
                yield ("ipvs", field, negated, value.atom() if isinstance(value, Network) else value)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        address = sign(self.address)[1]
        if address is not None and address.family is not family:
            return f"--vaddr {address} is an {address.family} address in an {family} chain"
        return None


def _parse_address(text: str, context: ParseContext) -> Network:
    network = Network.parse(text)
    if network.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    return network


def _format_address(network: Network) -> str:
    host = network.mask == (1 << network.family.bits) - 1
    return format_address(network.address, network.family) if host else str(network)


def _word(words: tuple[str, ...]) -> Codec:
    def parse(text: str, context: ParseContext) -> str:
        if text.upper() not in words:
            raise ModelError(f"{text!r} is none of {', '.join(words)}")
        return text.upper()

    return Codec(parse=parse, format=str, expected=" or ".join(words))


def _save(value: Ipvs, family: Family) -> Iterable[str]:
    others = [option for option in _OPTIONS[1:] if getattr(value, option.field) is not None]
    for option in others or _OPTIONS[:1]:
        negated, held = sign(getattr(value, option.field))
        yield from ("!", option.name) if negated else (option.name,)
        if option.codec is not None:
            yield option.codec.format(held)


def _to_nft(value: Ipvs, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("ipvs: nft knows nothing of the virtual server's connections")


_PROTOCOL: Final = Codec(parse=protocol_number, format=str, expected="a protocol by number or name")
_ADDRESS: Final = Codec(parse=_parse_address, format=_format_address, expected="ADDRESS or ADDRESS/LENGTH")
_PORT: Final = Codec(parse=port, format=str, expected="a port by number or service name")
_OPTIONS: Final = (
    Option("--ipvs", "balanced", words=0, invertible=True),
    Option("--vproto", "protocol", _PROTOCOL, invertible=True),
    Option("--vaddr", "address", _ADDRESS, invertible=True),
    Option("--vport", "port", _PORT, invertible=True),
    Option("--vdir", "direction", _word(DIRECTIONS)),
    Option("--vmethod", "method", _word(METHODS), invertible=True),
    Option("--vportctl", "control_port", _PORT, invertible=True),
)

EXTENSIONS: Final = (Extension(name="ipvs", value=Ipvs, options=_OPTIONS, save=_save, to_nft=_to_nft),)
