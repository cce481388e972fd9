"""The realm and devgroup matches: numbers that routes and interfaces are grouped by (ip-route(8), ip-link(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import MarkValue, parse_mark, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Hook, Match, Not, Rule

FULL: Final = 0xFFFFFFFF
NEVER: Final = MarkValue(FULL, 0)
ZERO_NAMES: Final = frozenset({"cosmos", "default"})
"""What iproute2's files call realm 0 and group 0; iptables and nft print these where the files are."""

Number = MarkValue | Not[MarkValue]


class Realm(Match, frozen=True):
    """The realm of a packet's route, of IPv4 (iptables-extensions(8), realm)."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    realm: Number

    def atoms(self) -> Iterable[Any]:
        """Value, mask and sign."""
        return _atoms("realm", self.realm)

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet has a route (xt_realm.c)."""
        return frozenset(Hook) - {Hook.PREROUTING}


class DevGroup(Match, frozen=True):
    """The groups of the interfaces that a packet came in by and goes out by (iptables-extensions(8), devgroup)."""

    source: Number | None = None
    destination: Number | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.destination is None:
            raise ModelError("devgroup needs --src-group or --dst-group")

    def atoms(self) -> Iterable[Any]:
        """Value, mask and sign of each; bits outside a mask don't count here."""
        for field, held in (("iif group", self.source), ("oif group", self.destination)):
            if held is not None:
                yield from _atoms(field, _inside(held))

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet has these interfaces (xt_devgroup.c)."""
        hooks = set(Hook)
        if self.source is not None:
            hooks &= {Hook.PREROUTING, Hook.INPUT, Hook.FORWARD}
        if self.destination is not None:
            hooks &= {Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING}
        return frozenset(hooks)


def _inside(held: Number) -> Number:
    negated, value = sign(held)
    value = MarkValue(value.value & value.mask, value.mask)
    return Not(value) if negated else value


def _atoms(field: str, held: Number) -> Iterable[tuple[Any, ...]]:
    negated, value = sign(held)
    outside = bool(value.value & ~value.mask)
    if value.mask and not outside:
        yield (field, negated, value)
    elif negated != outside:  # no number meets it
        yield (field, False, NEVER)


def _parse(text: str, context: ParseContext) -> MarkValue:
    if text in ZERO_NAMES:
        return MarkValue(0)
    try:
        return parse_mark(text, context)
    except ModelError:
        if text[:1].isalpha():
            raise ModelError(f"the name {text!r} is a host's own: write its number") from None
        raise


# --- nft ------------------------------------------------------------------------------------------------


def _number_nft(left: str, held: Number) -> Iterable[str]:
    """The condition in nft; a range stands for 0, which nft lists by its name where iproute2's files are."""
    negated, value = sign(held)
    number, mask = value.value, value.mask
    outside = bool(number & ~mask)
    if not mask or outside:
        if negated != outside:
            yield f"{left} != 0-{FULL}"
        return
    sizes = {FULL ^ FULL >> length: length for length in range(1, 33)}
    if mask in sizes:
        text = str(number) if mask == FULL else f"{number}/{sizes[mask]}"
        yield set_nft(left, text if number else f"0-{FULL ^ mask}", negated)
    elif number:
        yield f"{left} & {mask} {'!=' if negated else '=='} {number}"
    else:
        yield set_nft(f"{left} & {mask}", "0-0", negated)


def _plain(word: Any) -> int:
    return 0 if word in ZERO_NAMES else int(word)


def _read_number(match: NftMatch) -> Number | None:
    right, mask = match.right, FULL if match.mask is None else _plain(match.mask)
    if match.op not in ("==", "!="):
        return None
    if not isinstance(right, dict):
        held = MarkValue(_plain(right), mask)
    elif "prefix" in right:
        held = MarkValue(_plain(right["prefix"]["addr"]), FULL ^ FULL >> int(right["prefix"]["len"]))
    else:
        low, high = map(_plain, right["range"])
        if low == high:
            held = MarkValue(low, mask)
        elif low or mask != FULL or high & (high + 1):
            return None
        else:
            held = MarkValue(0, FULL ^ high)
    return Not(held) if match.negated else held


def _reader(make: Callable[[Number], Match | None]) -> Callable[[NftMatch, Family], Match | None]:
    def read(match: NftMatch, family: Family) -> Match | None:
        held = _read_number(match)
        return None if held is None else make(held)

    return read


def _readers(key: str, make: Callable[[Number], Match | None]) -> dict[str, Callable[[NftMatch, Family], Match | None]]:
    return {key: _reader(make), f"{key} &": _reader(make)}


def _groups_nft(value: DevGroup, family: Family, rule: Rule) -> Iterable[str]:
    for left, held in (("iifgroup", value.source), ("oifgroup", value.destination)):
        if held is not None:
            yield from _number_nft(left, _inside(held))


_NUMBER: Final = Codec(parse=_parse, format=str, expected="VALUE or VALUE/MASK, each of 32 bits")

EXTENSIONS: Final = (
    Extension(
        name="realm",
        value=Realm,
        options=(Option("--realm", "realm", _NUMBER, invertible=True),),
        to_nft=lambda value, family, rule: _number_nft("meta rtclassid", value.realm),
        from_nft=_readers("meta rtclassid", Realm),
    ),
    Extension(
        name="devgroup",
        value=DevGroup,
        options=(
            Option("--src-group", "source", _NUMBER, invertible=True),
            Option("--dst-group", "destination", _NUMBER, invertible=True),
        ),
        to_nft=_groups_nft,
        from_nft={
            **_readers("meta iifgroup", lambda held: DevGroup(source=held) if _inside(held) == held else None),
            **_readers("meta oifgroup", lambda held: DevGroup(destination=held) if _inside(held) == held else None),
        },
    ),
)
