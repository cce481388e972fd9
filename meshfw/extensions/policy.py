"""The policy match: the IPsec policy that a packet came by or leaves by (iptables-extensions(8), policy)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, number, protocol_number, sign
from meshfw.extensions.extension import Codec, Extension, Fields, NftMatch, Option, ParseContext
from meshfw.extensions.hostmask import HostMask, parse_host_mask
from meshfw.model import Family, Hook, Match, Not, Rule

ELEMENTS_MAX: Final = 4  # linux/netfilter/xt_policy.h, XT_POLICY_MAX_ELEM
PROTOCOLS: Final = {50: "esp", 51: "ah", 108: "ipcomp"}
MODES: Final = ("transport", "tunnel")
_HOOKS: Final = {
    "in": frozenset({Hook.PREROUTING, Hook.INPUT, Hook.FORWARD}),
    "out": frozenset({Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING}),
}


class Transformation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One security association of a policy: what is said of it; ``source`` and ``destination`` are a tunnel's ends."""

    reqid: int | Not[int] | None = None
    spi: int | Not[int] | None = None
    protocol: int | Not[int] | None = None
    mode: str | Not[str] | None = None
    destination: HostMask | Not[HostMask] | None = None
    source: HostMask | Not[HostMask] | None = None

    def __post_init__(self) -> None:
        if self.protocol is not None and sign(self.protocol)[1] not in PROTOCOLS:
            raise ModelError("policy --proto is one of esp, ah and ipcomp")
        if self.mode is not None and sign(self.mode)[1] not in MODES:
            raise ModelError("policy --mode is transport or tunnel")
        # Without --mode the tool takes transport for it.
        if self.ends and self.mode not in ("tunnel", Not("transport")):
            raise ModelError("--tunnel-src and --tunnel-dst need --mode tunnel")

    def atom(self) -> tuple[Any, ...]:
        """All that is said, without the host bits of the tunnel's ends."""
        held = (sign(getattr(self, field)) for field in self.__struct_fields__)
        return tuple((negated, value.atom() if isinstance(value, HostMask) else value) for negated, value in held)

    @property
    def ends(self) -> tuple[HostMask, ...]:
        """The addresses of a tunnel's ends."""
        return tuple(sign(held)[1] for held in (self.source, self.destination) if held is not None)


class Policy(Match, frozen=True, kw_only=True):
    """A packet that was decapsulated (``in``) or will be encapsulated (``out``) by IPsec, or with ``ipsec`` off isn't.

    One of its associations is the one element; with ``strict`` all of them are the elements, in this order.
    """

    direction: str
    ipsec: bool = True
    strict: bool = False
    elements: tuple[Transformation, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in _HOOKS:
            raise ModelError("policy needs --dir in or --dir out")
        if not self.ipsec and (self.strict or self.elements):
            raise ModelError("policy --pol none says nothing more")
        if len(self.elements) > (ELEMENTS_MAX if self.strict else 1):
            raise ModelError(f"policy has one element, with --strict at most {ELEMENTS_MAX}")
        if self.strict and (not self.elements or Transformation() in self.elements):
            raise ModelError("policy --strict says something of every element")

    def atoms(self) -> Iterable[Any]:
        """All that is said."""
        elements = tuple(element.atom() for element in self.elements)
        return (("policy", self.direction, self.ipsec, self.strict, elements),)

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where the policy of this direction is known (xt_policy.c)."""
        return _HOOKS[self.direction]

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        for element in self.elements:
            for end in element.ends:
                if end.family is not family:
                    return f"policy: {end} is an {end.family} address in an {family} chain"
        return None


# --- iptables -------------------------------------------------------------------------------------------


def _choice(names: tuple[str, ...]) -> Codec:
    def parse(text: str, context: ParseContext) -> str:
        if text not in names:
            raise ModelError(f"{text!r} is neither {' nor '.join(names)}")
        return text

    return Codec(parse=parse, format=str, expected=" or ".join(names))


_ENDS: Final = Codec(parse=parse_host_mask, format=str, expected="ADDRESS or ADDRESS/LENGTH")
_OF_ELEMENT: Final = {
    "--reqid": ("reqid", integer("a number of 32 bits")),
    "--spi": ("spi", Codec(parse=lambda text, context: number(text), format=hex, expected="a number of 32 bits")),
    "--proto": ("protocol", Codec(parse=protocol_number, format=PROTOCOLS.__getitem__, expected="esp, ah or ipcomp")),
    "--mode": ("mode", _choice(MODES)),
    "--tunnel-dst": ("destination", _ENDS),
    "--tunnel-src": ("source", _ENDS),
}
"""Options of an element in the order the tools print them: the field each fills, and its kind of value."""
_NEXT: Final = "--next"


def _build(fields: Fields, context: ParseContext) -> Policy:
    held: list[dict[str, Any]] = [{}]
    for option, value in fields.pop("elements", ()):
        if option == _NEXT:
            held.append({})
        elif _OF_ELEMENT[option][0] in held[-1]:
            raise ModelError(f"policy: {option} is given twice in one element")
        else:
            held[-1][_OF_ELEMENT[option][0]] = value
    if "direction" not in fields:
        raise ModelError("policy needs --dir in or --dir out")
    if len(held) > 1 and not fields.get("strict"):
        raise ModelError("policy --next needs --strict")
    elements = [Transformation(**element) for element in held]
    ipsec = fields.pop("policy", "ipsec") == "ipsec"
    if not fields.get("strict") and (not ipsec or elements == [Transformation()]):
        elements = []  # of none, the tools forget what else is said
    return Policy(**fields, ipsec=ipsec, elements=tuple(elements))


def _save(value: Policy, family: Family) -> Iterable[str]:
    yield from ("--dir", value.direction, "--pol", "ipsec" if value.ipsec else "none")
    if value.strict:
        yield "--strict"
    for index, element in enumerate(value.elements):
        if index:
            yield _NEXT
        for option, (field, codec) in _OF_ELEMENT.items():
            held = getattr(element, field)
            if held is not None:
                negated, said = sign(held)
                yield from ("!", option) if negated else (option,)
                yield codec.format(said)


# --- nft ------------------------------------------------------------------------------------------------

_NFT: Final = {"in": "meta ipsec", "out": "rt ipsec"}


def _to_nft(value: Policy, family: Family, rule: Rule) -> Iterable[str]:
    if value.strict:
        raise InexpressibleError("policy --strict: nft can't ask how many associations there are")
    if value.elements:
        raise InexpressibleError("policy with --reqid and such: nft looks at one association by its number, not at any")
    yield f"{_NFT[value.direction]} {'exists' if value.ipsec else 'missing'}"


def _reader(direction: str) -> Callable[[NftMatch, Family], Policy | None]:
    def read(match: NftMatch, family: Family) -> Policy | None:
        plain = match.op == "==" and match.mask is None and isinstance(match.right, bool)
        return Policy(direction=direction, ipsec=match.right) if plain else None

    return read


EXTENSIONS: Final = (
    Extension(
        name="policy",
        value=Policy,
        options=(
            Option("--dir", "direction", _choice(("in", "out"))),
            Option("--pol", "policy", _choice(("none", "ipsec"))),
            Option("--strict", "strict", words=0),
            *(Option(name, "elements", codec, invertible=True, many=True) for name, (_, codec) in _OF_ELEMENT.items()),
            Option(_NEXT, "elements", words=0, many=True),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={left: _reader(direction) for direction, left in _NFT.items()},
    ),
)
