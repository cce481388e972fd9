"""The set match and the SET target: sets of ipset(8), which live beside every table (iptables-extensions(8), set)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Final, Literal

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, number, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, Fields, NftObject, Option, ParseContext
from meshfw.model import SET_NAME_MAX, Family, Match, Not, Packet, Rule, Target, Twice, byte_length

DIMENSIONS: Final = 6
"""The most ends of a packet that one look into a set names (linux/netfilter/ipset/ip_set.h, IPSET_DIM_MAX)."""
COUNTER_MAX: Final = 0xFFFFFFFFFFFFFFFF
TIMEOUT_MAX: Final = 0xFFFFFFFE
"""The longest timeout in seconds; one more stands for the set's own (libxt_SET.c)."""


class Element(msgspec.Struct, frozen=True, gc=False, order=True):
    """A set's name, and of which ends of the packet its element is made: ``src`` or ``dst`` for each dimension."""

    name: str
    ends: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= byte_length(self.name) <= SET_NAME_MAX:
            raise ModelError(f"set name {self.name!r} has not 1 to {SET_NAME_MAX} bytes")
        if not self.name.isprintable() or set(self.name) & set(" \"'\\"):
            raise ModelError(f"set name {self.name!r} holds a space, a quote or what can't be printed")
        if not 1 <= len(self.ends) <= DIMENSIONS or set(self.ends) - {"src", "dst"}:
            raise ModelError(f"{','.join(self.ends)!r} is not one to {DIMENSIONS} of src and dst, joined by commas")

    def __str__(self) -> str:
        return f"{self.name} {','.join(self.ends)}"


class Count(msgspec.Struct, frozen=True, gc=False, order=True):
    """A comparison with an element's counter: ``eq``, ``lt`` or ``gt`` a number of 64 bits."""

    comparison: Literal["eq", "lt", "gt"]
    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= COUNTER_MAX:
            raise ModelError(f"counter {self.value} is no number of 64 bits")


class InSet(Match, frozen=True, kw_only=True):
    """The packet's element is in a set, and its counters there are so many.

    ``nomatch`` lets an exception of the set count as a hit (``--return-nomatch``); a look counts the packet at the
    element, and at that of a list's member, unless ``uncounted`` or ``uncounted_members``.
    """

    stateful: ClassVar[bool] = True  # it counts
    element: Element | Not[Element]
    nomatch: bool = False
    uncounted: bool = False
    uncounted_members: bool = False
    packets: Count | Not[Count] | None = None
    octets: Count | Not[Count] | None = None

    def __post_init__(self) -> None:
        for held in (self.packets, self.octets):
            if type(held) is Not and held.value.comparison != "eq":
                raise ModelError(f"a counter's {held.value.comparison} can't be negated")

    def twice(self) -> Twice | None:
        """Another count, where the look counts."""
        uncounted = self.uncounted and self.uncounted_members
        return None if uncounted else Twice("a set with counters counts each packet twice")


class SetElement(Target, frozen=True, kw_only=True):
    """SET: the packet's element is put into a set, taken out of one, or gives the packet what a set holds for it.

    ``exist`` renews what is there already, ``timeout`` is the element's in seconds, None for the set's own. ``mapping``
    names of mark, prio and queue what the packet gets.
    """

    final: ClassVar[bool] = False
    add: Element | None = None
    exist: bool = False
    timeout: int | None = None
    delete: Element | None = None
    map: Element | None = None
    map_mark: bool = False
    map_prio: bool = False
    map_queue: bool = False

    @property
    def label(self) -> str:
        """Its name in iptables."""
        return "SET"

    def applied(self, packet: Packet) -> Packet:
        """The packet with what a set holds for it, which isn't known."""
        return msgspec.structs.replace(packet, mark=None) if self.map_mark else packet

    def __post_init__(self) -> None:
        if self.add is None and self.delete is None and self.map is None:
            raise ModelError("SET needs --add-set, --del-set or --map-set")
        if self.add is None and (self.exist or self.timeout is not None):
            raise ModelError("--exist and --timeout belong to --add-set")
        if bool(self.map_mark or self.map_prio or self.map_queue) != (self.map is not None):
            raise ModelError("--map-set stands with one or more of --map-mark, --map-prio and --map-queue")
        if self.timeout is not None and not 0 <= self.timeout <= TIMEOUT_MAX:
            raise ModelError(f"timeout {self.timeout} is not between 0 and {TIMEOUT_MAX}")


# --- iptables -------------------------------------------------------------------------------------------


def _parse_element(text: str, context: ParseContext) -> Element:
    name, _, ends = text.rpartition(" ")
    return Element(name, tuple(ends.split(",")))


def _counter(comparison: Literal["eq", "lt", "gt"]) -> Codec:
    return Codec(
        parse=lambda text, context: Count(comparison, number(text, high=COUNTER_MAX)),
        format=lambda held: str(held.value),
        expected="a number of 64 bits",
    )


_ELEMENT: Final = Codec(
    parse=_parse_element, format=str, expected=f"a set's name and up to {DIMENSIONS} of src and dst"
)
_COUNTERS: Final = {comparison: _counter(comparison) for comparison in ("eq", "lt", "gt")}


def _build_in_set(fields: Fields, context: ParseContext) -> InSet:
    if "element" not in fields:
        raise ModelError("set needs --match-set")
    # Both are so anyway; only their negation says something.
    for field in ("uncounted", "uncounted_members"):
        fields[field] = type(fields.get(field)) is Not
    return InSet(**fields)


def _save_in_set(value: InSet, family: Family) -> Iterable[str]:
    negated, element = sign(value.element)
    yield from ("!", "--match-set") if negated else ("--match-set",)
    yield from (element.name, ",".join(element.ends))
    if value.nomatch:
        yield "--return-nomatch"
    if value.uncounted:
        yield from ("!", "--update-counters")
    if value.uncounted_members:
        yield from ("!", "--update-subcounters")
    for name, held in (("packets", value.packets), ("bytes", value.octets)):
        if held is None:
            continue
        negated, count = sign(held)
        if negated:
            yield "!"
        yield from (f"--{name}-{count.comparison}", str(count.value))


# --- nft ------------------------------------------------------------------------------------------------


def _foreign(name: str, nearest: Iterable[str | NftObject] = ()) -> InexpressibleError:
    return InexpressibleError(
        f"set {name} is one of ipset(8), which nft can't see; -s @NAME and -d @NAME name a set of the ruleset itself",
        nearest=tuple(nearest),
    )


def _nearest(value: InSet, family: Family) -> Iterable[str | NftObject]:
    """A set of that name in the table, empty at first, looked up by one address."""
    negated, element = sign(value.element)
    if (
        len(element.ends) > 1
        or value.packets is not None
        or value.octets is not None
        or not _SPOKEN.match(element.name)
    ):
        return
    kind, header = ("ipv4_addr", "ip") if family is Family.IPV4 else ("ipv6_addr", "ip6")
    yield NftObject("set", element.name, f"type {kind}; flags interval;")
    yield set_nft(f"{header} {'saddr' if element.ends == ('src',) else 'daddr'}", f"@{element.name}", negated)


_SPOKEN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


def _in_set_nft(value: InSet, family: Family, rule: Rule) -> Iterable[str]:
    raise _foreign(sign(value.element)[1].name, _nearest(value, family))


def _set_element_nft(value: SetElement, family: Family, rule: Rule) -> Iterable[str]:
    raise _foreign(next(held.name for held in (value.add, value.delete, value.map) if held is not None))


EXTENSIONS: Final = (
    Extension(
        name="set",
        value=InSet,
        options=(
            Option("--match-set", "element", _ELEMENT, aliases=("--set",), words=2, invertible=True),
            Option("--return-nomatch", "nomatch", words=0),
            Option("--update-counters", "uncounted", words=0, invertible=True),
            Option("--update-subcounters", "uncounted_members", words=0, invertible=True),
            Option("--packets-eq", "packets", _COUNTERS["eq"], invertible=True),
            Option("--packets-lt", "packets", _COUNTERS["lt"]),
            Option("--packets-gt", "packets", _COUNTERS["gt"]),
            Option("--bytes-eq", "octets", _COUNTERS["eq"], invertible=True),
            Option("--bytes-lt", "octets", _COUNTERS["lt"]),
            Option("--bytes-gt", "octets", _COUNTERS["gt"]),
        ),
        build=_build_in_set,
        save=_save_in_set,
        to_nft=_in_set_nft,
    ),
    Extension(
        name="SET",
        value=SetElement,
        options=(
            Option("--add-set", "add", _ELEMENT, words=2),
            Option("--exist", "exist", words=0),
            Option("--timeout", "timeout", integer("seconds", high=TIMEOUT_MAX)),
            Option("--del-set", "delete", _ELEMENT, words=2),
            Option("--map-set", "map", _ELEMENT, words=2),
            Option("--map-mark", "map_mark", words=0),
            Option("--map-prio", "map_prio", words=0),
            Option("--map-queue", "map_queue", words=0),
        ),
        to_nft=_set_element_nft,
    ),
)
