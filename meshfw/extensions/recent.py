"""The recent match: lists of addresses and of when they were seen (iptables-extensions(8), recent)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, NoReturn

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, set_nft, sign, word
from meshfw.extensions.extension import Codec, Extension, NftObject, Option, ParseContext
from meshfw.model import Family, Match, Not, Rule, Twice, format_address, parse_address

NAME_BYTES: Final = 199  # linux/netfilter/xt_recent.h, XT_RECENT_NAME_LEN with the final NUL
HITS_MAX: Final = 0xFFFF
_SECONDS_MAX: Final = 0x7FFFFFFF
ACTIONS: Final = ("set", "rcheck", "update", "remove")


class Recent(Match, frozen=True, kw_only=True):
    """An address that stands in a list: looked up, and put in, renewed or taken out, by ``action``.

    ``seconds`` and ``hits`` (0: any) are how long ago and how often it was seen, ``reap`` forgets what is older,
    ``ttl`` asks for the same time to live. The address is the source, or the ``destination``, under ``mask`` (None: as
    it is).
    """

    stateful: ClassVar[bool] = True
    action: str | Not[str]
    seconds: int = 0
    reap: bool = False
    hits: int = 0
    ttl: bool = False
    name: str = "DEFAULT"
    mask: int | None = None
    destination: bool = False

    def __post_init__(self) -> None:
        action = sign(self.action)[1]
        if action not in ACTIONS:
            raise ModelError(f"{action!r} is none of {', '.join(ACTIONS)}")
        if not 0 <= self.seconds <= _SECONDS_MAX or not 0 <= self.hits <= HITS_MAX:
            raise ModelError(f"recent: at most {_SECONDS_MAX} seconds and {HITS_MAX} hits")
        if action in ("set", "remove") and (self.seconds or self.hits or self.ttl):
            raise ModelError(f"--{action} can't stand beside --seconds, --hitcount or --rttl")
        if self.reap and not self.seconds:
            raise ModelError("--reap needs --seconds")
        if "/" in self.name or self.name in (".", ".."):
            raise ModelError(f"{self.name!r}: the name of a list is a file's in /proc")

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A mask of the other family."""
        if self.mask is not None and self.mask >> family.bits:
            return f"recent: the mask is longer than an {family} address"
        return None

    def twice(self) -> Twice | None:
        """Another sighting: copies share the list of that name."""
        return Twice("each packet is seen twice in the list of that name, so that hits add up twice as fast")


def _parse_mask(text: str, context: ParseContext) -> int:
    family, mask = parse_address(text)
    if family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} mask")
    return mask


_MASK: Final = Codec(parse=_parse_mask, format=str, expected="a mask as an address, such as 255.255.255.0")


def _build(fields: dict[str, Any], context: ParseContext) -> Recent:
    if "action" not in fields:
        raise ModelError(f"recent needs one of {', '.join(f'--{action}' for action in ACTIONS)}")
    if fields.pop("source", False) and "destination" in fields:
        raise ModelError("--rsource can't stand beside --rdest")
    if fields.get("mask") == (1 << context.family.bits) - 1:
        del fields["mask"]
    return Recent(**fields)


def _save(value: Recent, family: Family) -> Iterator[str]:
    negated, action = sign(value.action)
    if negated:
        yield "!"
    yield f"--{action}"
    if value.seconds:
        yield from ("--seconds", str(value.seconds))
    if value.reap:
        yield "--reap"
    if value.hits:
        yield from ("--hitcount", str(value.hits))
    if value.ttl:
        yield "--rttl"
    mask = (1 << family.bits) - 1 if value.mask is None else value.mask
    yield from ("--name", value.name, "--mask", format_address(mask, family))
    yield "--rdest" if value.destination else "--rsource"


def _to_nft(value: Recent, family: Family, rule: Rule) -> NoReturn:
    raise InexpressibleError(
        f"recent --name {value.name}: nft keeps no times or hits of an address, only that it was seen within {_KEPT}",
        nearest=tuple(_nearest(value, family)),
    )


_KEPT: Final = "1m"
"""How long an address stands in the set that comes near to a list."""


def _nearest(value: Recent, family: Family) -> Iterator[str | NftObject]:
    """A set from which addresses go by themselves; that they were seen, and no more, is what it knows."""
    kind, header = ("ipv4_addr", "ip") if family is Family.IPV4 else ("ipv6_addr", "ip6")
    negated, action = sign(value.action)
    name, left = f"recent-{value.name}", f"{header} {'daddr' if value.destination else 'saddr'}"
    if (negated and action == "set") or value.mask is not None or not name.replace("-", "").replace("_", "").isalnum():
        return
    yield NftObject("set", name, f"type {kind}; flags dynamic,timeout; timeout {_KEPT};")
    if action != "set":
        yield set_nft(left, f"@{name}", negated)
    if action in ("set", "update") and not negated:
        yield f"update @{name} {{ {left} }}"


EXTENSIONS: Final = (
    Extension(
        name="recent",
        value=Recent,
        options=(
            *(Option(f"--{action}", "action", words=0, preset=action, invertible=True) for action in ACTIONS),
            Option("--seconds", "seconds", integer("a number of seconds", low=1, high=_SECONDS_MAX)),
            Option("--reap", "reap", words=0),
            Option("--hitcount", "hits", integer("a number of packets", high=HITS_MAX)),
            Option("--rttl", "ttl", words=0),
            Option("--name", "name", word("the name of a list", most=NAME_BYTES)),
            Option("--mask", "mask", _MASK),
            Option("--rsource", "source", words=0),
            Option("--rdest", "destination", words=0),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
    ),
)
