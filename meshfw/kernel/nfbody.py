"""What a rule is in the kernel, as bytes that can be written again: its expressions, its comment, its nameless sets.

nft makes a set without a name of each list in braces (``tcp dport { 80, 443 }``). The kernel numbers it, and it is part
of the one rule that looks it up. So whoever writes such a rule makes the set in the same batch, and the rule names it
by an id of that batch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfdigest import messages
from meshfw.kernel.nfmessage import NfRule, attributes, string_attribute

_ATTRIBUTE: Final = struct.Struct("=HH")
_NESTED: Final = 0x8000  # NLA_F_NESTED
_GETSET, _GETSETELEM = 0xA0A, 0xA0D  # NFNL_SUBSYS_NFTABLES << 8 | enum nf_tables_msg_types
_ELEMENT, _NAME, _DATA = 1, 1, 2  # NFTA_LIST_ELEM; NFTA_EXPR_NAME, DATA
_LOOKUP_SET, _LOOKUP_ID = 1, 4  # NFTA_LOOKUP_SET, SET_ID
_SET_NAME: Final = 2  # NFTA_SET_NAME, and NFTA_SET_ELEM_LIST_SET
_SET_WRITTEN: Final = frozenset({3, 4, 5, 6, 7, 8, 9, 13})
"""NFTA_SET_FLAGS, KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN, POLICY, DESC, USERDATA: what makes a set what it is."""
_LIST: Final = 3  # NFTA_SET_ELEM_LIST_ELEMENTS
_PREFIXES: Final = (b"__set", b"__map")
_LIST_MAX: Final = 60_000  # of an attribute, whose length has 16 bits

NAMELESS: Final = "__set%d"
"""The name by which the kernel is asked for a number."""


class NamelessSet(msgspec.Struct, frozen=True, gc=False):
    """A set that belongs to one rule: the name it has there, its attributes and its elements as the kernel has them."""

    name: str
    attributes: bytes
    elements: bytes


class Body(msgspec.Struct, frozen=True, gc=False):
    """A rule's NFTA_RULE_EXPRESSIONS, with its counter, NFTA_RULE_USERDATA, with its comment, and its own sets."""

    expressions: bytes
    userdata: bytes
    sets: tuple[NamelessSet, ...] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes to write."""
        return len(self.expressions) + sum(len(held.attributes) + len(held.elements) for held in self.sets)


def body_of(link: Nfnetlink, family: str, table: str, rule: NfRule) -> Body | None:
    """The body of a rule that the kernel holds; None where a set of its own can't be written again."""
    sets = []
    for name in dict.fromkeys(_nameless(rule.expressions)):
        held = _read_set(link, family, table, name)
        if held is None:
            return None
        sets.append(held)
    return Body(rule.expressions, rule.userdata, tuple(sets))


def with_ids(expressions: bytes, ids: Mapping[str, int]) -> bytes:
    """The expressions with nameless sets named by their ids in a batch; without any, by what they all are called."""
    if not any(prefix in expressions for prefix in _PREFIXES):
        return expressions
    elements = (element for _, element in attributes(expressions, 0, len(expressions)))
    return b"".join(_attribute(_ELEMENT, _with_id(element, ids)) for element in elements)


def _with_id(element: bytes, ids: Mapping[str, int]) -> bytes:
    name = _looked_up(element)
    if name is None:
        return element
    held = dict(attributes(element, 0, len(element)))
    data = string_attribute(_LOOKUP_SET, NAMELESS)
    for kind, value in attributes(held[_DATA], 0, len(held[_DATA])):
        if kind not in (_LOOKUP_SET, _LOOKUP_ID):
            data += _attribute(kind, value)
    if name in ids:
        data += _attribute(_LOOKUP_ID, ids[name].to_bytes(4, "big"))
    return _attribute(_NAME, held[_NAME]) + _attribute(_DATA | _NESTED, data)


def _nameless(expressions: bytes) -> Iterator[str]:
    """The nameless sets that expressions look up."""
    if any(prefix in expressions for prefix in _PREFIXES):
        for _, element in attributes(expressions, 0, len(expressions)):
            name = _looked_up(element)
            if name is not None:
                yield name


def _looked_up(element: bytes) -> str | None:
    """The nameless set that an expression looks up; None for any other expression."""
    held = dict(attributes(element, 0, len(element)))
    if held.get(_NAME, b"").rstrip(b"\0") != b"lookup":
        return None
    data = held.get(_DATA, b"")
    name = dict(attributes(data, 0, len(data))).get(_LOOKUP_SET, b"").rstrip(b"\0")
    return name.decode("utf-8", "surrogateescape") if name.startswith(_PREFIXES) else None


def _read_set(link: Nfnetlink, family: str, table: str, name: str) -> NamelessSet | None:
    own = string_attribute(1, table)  # NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
    for body in messages(link, _GETSET, own, family=family):
        found = dict(attributes(body, 0, len(body)))
        if found.get(_SET_NAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape") == name:
            made = b"".join(_attribute(kind, value) for kind, value in found.items() if kind in _SET_WRITTEN)
            break
    else:
        return None
    elements = b""
    for body in messages(link, _GETSETELEM, own + string_attribute(_SET_NAME, name), family=family):
        elements += dict(attributes(body, 0, len(body))).get(_LIST, b"")
    return NamelessSet(name, made, elements) if len(elements) <= _LIST_MAX else None


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(data) + 4, kind) + data + bytes(-len(data) & 3)
