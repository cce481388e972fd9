"""The u32 match: words of 32 bits anywhere in a packet (iptables-extensions(8), u32)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import join_ranges, listed, number, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.spans import Ranges
from meshfw.model import Family, Match, Not, Rule

SIZE_MAX: Final = 10
"""Tests of a match, numbers of a location and spans of a test (linux/netfilter/xt_u32.h, XT_U32_MAXSIZE)."""
_WORD: Final = 0xFFFFFFFF
_BITS: Final = 32
_SURE: Final = {Family.IPV4: 16, Family.IPV6: 36}
"""The last place at which every packet has a word, by the length of its header."""
_ALWAYS: Final = min(_SURE.values())
_ADDRESSES: Final = (12, 16)
"""Where an IPv4 address is: nft lists the word as an address, whatever is done with it."""
_REACH: Final = 0xFFFF
"""The last place at which nft reads a word (net/netfilter/nft_payload.c, an offset of two bytes)."""


class Step(msgspec.Struct, frozen=True, gc=False, order=True):
    """What is done with the word read so far, by a number: ``&``, ``<<``, ``>>``, or ``@``, which reads another."""

    operator: str
    number: int

    def __str__(self) -> str:
        return f"{self.operator}{self.number:#x}"


class WordTest(msgspec.Struct, frozen=True, gc=False, order=True):
    """A word at a place in bytes from the IP header's beginning, changed by steps, lies in one of the ranges."""

    place: int
    steps: tuple[Step, ...]
    ranges: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        spans = (f"{low:#x}" if low == high else f"{low:#x}:{high:#x}" for low, high in self.ranges)
        return f"{self.place:#x}{''.join(map(str, self.steps))}={','.join(spans)}"

    def plain(self) -> tuple[int, Ranges] | None:
        """A mask, and ranges of what it leaves of the word at the place itself; None where a step reads another word.

        The ranges begin and end with numbers that the mask can leave.
        """
        mask, shift = _WORD, 0
        for step in self.steps:
            if step.operator == "@" or (step.operator != "&" and step.number >= _BITS):
                return None
            if step.operator == "&":
                mask &= _shifted(step.number, shift)
            else:
                shift += step.number if step.operator == ">>" else -step.number
                mask &= _shifted(_WORD, shift)
        ranges = []
        for low, high in self.ranges:
            first, last = (low << shift, high << shift) if shift >= 0 else (-(-low >> -shift), high >> -shift)
            held = _within(mask, first, last)
            ranges += [held] if held else []
        return mask, join_ranges(ranges)


def _shifted(word: int, shift: int) -> int:
    """The bits that become those of the word when they are shifted to the right."""
    return (word << shift if shift >= 0 else word >> -shift) & _WORD


def _within(mask: int, first: int, last: int) -> tuple[int, int] | None:
    """The least and the greatest number of a range that have no bits outside the mask; None where none has."""
    if first > last or first > mask:
        return None
    low, high = _below(mask, first), _below(mask, min(last, mask))
    if low < first:
        low = ((low | ~mask & _WORD) + 1) & mask
    return (low, high) if first <= low <= high else None


def _below(mask: int, limit: int) -> int:
    """The greatest number up to a limit that has no bits outside the mask."""
    for bit in reversed(range(_BITS)):
        if limit >> bit & 1 and not mask >> bit & 1:
            return (limit >> bit + 1 << bit + 1 | (1 << bit) - 1) & mask
    return limit


class U32(Match, frozen=True):
    """A packet that meets every test, or with ``Not`` one that fails a test or is too short for it."""

    tests: tuple[WordTest, ...] | Not[tuple[WordTest, ...]]

    def __post_init__(self) -> None:
        tests = sign(self.tests)[1]
        for held in (tests, *((0, *test.steps) for test in tests), *(test.ranges for test in tests)):
            if not 1 <= len(held) <= SIZE_MAX:
                raise ModelError(f"u32 takes 1 to {SIZE_MAX} tests, each of as many numbers and ranges")

    def atoms(self) -> Iterable[Any]:
        """Of plain tests of one value the bits, so that it is all one how they are masked; else the tests."""
        negated, tests = sign(self.tests)
        if negated:
            meaning = tests if len(tests) > 1 else tuple(_meaning(tests[0]))
            if not meaning:
                yield _NEVER
            elif meaning != (_NEVER,):
                yield ("u32 not", *meaning)
            return
        for test in tests:
            yield from _meaning(test)


_NEVER: Final = ("u32 never",)


def _meaning(test: WordTest) -> Iterable[Any]:
    plain = test.plain()
    if plain is None:
        yield test
        return
    mask, ranges = plain
    if not ranges:
        yield _NEVER
        return
    if test.place > _ALWAYS:
        yield ("u32", test.place)
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        yield from (("u32", test.place, bit, ranges[0][0] >> bit & 1) for bit in range(_BITS) if mask >> bit & 1)
    elif ranges != ((0, mask),):
        yield ("u32", test.place, mask, ranges)


# --- text -----------------------------------------------------------------------------------------------

_NUMBER: Final = r"\s*(0[xX][0-9a-fA-F]+|\d+)\s*"
_STEP: Final = re.compile(rf"\s*(&|<<|>>|@){_NUMBER}", re.ASCII)
_PLACE: Final = re.compile(_NUMBER, re.ASCII)
_RANGE: Final = re.compile(rf"{_NUMBER}(?::{_NUMBER})?\Z", re.ASCII)


def _parse_test(text: str) -> WordTest:
    location, equals, spans = text.partition("=")
    place = _PLACE.match(location)
    if place is None or not equals:
        raise ModelError(f"{text.strip()!r} is no test such as 0&0xff=1:2")
    steps, at = [], place.end()
    while at < len(location):
        found = _STEP.match(location, at)
        if found is None:
            raise ModelError(f"{location[at:].strip()!r} begins with none of &, <<, >> and @ and a number")
        steps.append(Step(found[1], number(found[2])))
        at = found.end()
    ranges = []
    for span in spans.split(","):
        held = _RANGE.match(span)
        if held is None:
            raise ModelError(f"{span.strip()!r} is neither a number nor FIRST:LAST")
        ranges.append((number(held[1]), number(held[2] or held[1])))
    return WordTest(number(place[1]), tuple(steps), tuple(ranges))


def _parse(text: str, context: ParseContext) -> tuple[WordTest, ...]:
    return tuple(_parse_test(item) for item in text.split("&&"))


_TESTS: Final = Codec(
    parse=_parse,
    format=lambda tests: f'"{"&&".join(map(str, tests))}"',
    expected="tests joined by &&, each PLACE and steps, = and numbers or ranges",
)

# --- nft ------------------------------------------------------------------------------------------------


def _to_nft(value: U32, family: Family, rule: Rule) -> Iterable[str]:
    negated, tests = sign(value.tests)
    if negated and (len(tests) > 1 or (tests[0].place > _SURE[family] and tuple(_meaning(tests[0])) != (_NEVER,))):
        raise InexpressibleError(
            "! --u32: a packet that is too short ends a rule of nft, and one of several tests no more"
        )
    for test in tests:
        yield from _test_nft(test, negated, family)


def _test_nft(test: WordTest, negated: bool, family: Family) -> Iterable[str]:
    plain = test.plain()
    if plain is None:
        raise InexpressibleError(f"--u32 {test}: nft reads at no place that the packet names, and shifts by no 32 bits")
    if test.place > _REACH:
        raise InexpressibleError(f"--u32 {test}: nft reads at no place beyond 65535")
    mask, ranges = plain
    every = ranges == ((0, mask),)
    if every and test.place > _ALWAYS:
        raise InexpressibleError(f"--u32 {test}: it asks for a packet's length alone, up to that place")
    if (not ranges and not negated) or (every and negated):
        yield "@nh,0,32 != 0x0-0xffffffff"
    if not ranges or every:
        return
    if family is Family.IPV4 and test.place in _ADDRESSES:
        raise InexpressibleError(f"--u32 {test}: nft lists an address as an address, as those of -s and -d")
    whole = mask == _WORD
    if whole and not negated and len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        for half in (0xFFFF0000, 0xFFFF):
            yield _masked_nft(test.place, half, ((ranges[0][0] & half, ranges[0][0] & half),), negated)
    elif not whole:
        yield _masked_nft(test.place, mask, ranges, negated)
    else:
        yield f"@nh,{8 * test.place},{_BITS}{' !=' if negated else ''} {_ranges_nft(ranges, always_range=True)}"


def _masked_nft(place: int, mask: int, ranges: Ranges, negated: bool) -> str:
    """A test under a mask that leaves a bit free: that bit is set, lest nft list the rest as a field that it knows."""
    free = 1 << (~mask & _WORD).bit_length() - 1
    marked = tuple((low | free, high | free) for low, high in ranges)
    sign_text = "!=" if negated else "=="
    kept = f" & {mask | free:#x}" if mask | free != _WORD else ""
    return f"@nh,{8 * place},{_BITS}{kept} | {free:#x} {sign_text} {_ranges_nft(marked)}"


def _ranges_nft(ranges: Ranges, *, always_range: bool = False) -> str:
    if len(ranges) == 1:
        low, high = ranges[0]
        return f"{low:#x}" if low == high and not always_range else f"{low:#x}-{high:#x}"
    style = "#x" if always_range else "d"  # nft lists the elements of a set so, beside a mask or without one
    texts = (f"{low:{style}}" if low == high else f"{low:{style}}-{high:{style}}" for low, high in ranges)
    return f"{{ {', '.join(texts)} }}"


def _read(match: NftMatch, family: Family) -> U32 | None:
    _, offset, length = match.key.split(",")
    mask = _WORD if match.mask is None else int(match.mask)
    if match.op not in ("==", "!=") or int(offset) % 8 or int(length) != _BITS or match.bits & ~mask:
        return None
    ranges = []
    for item in listed(match.right):
        low, high = (int(end) for end in (item["range"] if isinstance(item, dict) else (item, item)))
        if low & match.bits != match.bits or high & match.bits != match.bits:
            return None
        ranges.append((low ^ match.bits, high ^ match.bits))
    steps = (Step("&", mask ^ match.bits),) if match.bits else ()
    tests = (WordTest(int(offset) // 8, steps, tuple(ranges)),)
    return U32(Not(tests) if match.negated else tests)


EXTENSIONS: Final = (
    Extension(
        name="u32",
        value=U32,
        options=(Option("--u32", "tests", _TESTS, invertible=True),),
        to_nft=_to_nft,
        from_nft={"@nh": _read, "@nh |": _read, "@nh & |": _read},
    ),
)
