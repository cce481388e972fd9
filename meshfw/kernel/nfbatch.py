"""A transaction of nf_tables written by ourselves: rules put in, moved and taken out, and elements of sets.

libnftables 1.0.6 loads every rule of every table before it puts a rule into the middle of a chain, all elements of a
set before it adds one, and never says which generation a transaction is for. A batch made here asks for nothing
beforehand, names the generation that it is based on (NFNL_BATCH_GENID, Linux 4.12: the kernel refuses it when anybody
has written since), and has the kernel answer with each new rule as it then stands (NLM_F_ECHO).

What a rule does is never encoded here: its expressions are bytes that the kernel itself gave out. Messages are laid
out as linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h say.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from meshfw.errors import KernelError
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfbody import NAMELESS
from meshfw.kernel.nfmessage import (
    NEWRULE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    REQUEST,
    NfObject,
    NfRule,
    delete_objects,
    family_number,
    header,
    names_rule,
    rule_question,
    rules_dump,
    string_attribute,
)

_CREATE, _APPEND, _ECHO = 0x400, 0x800, 0x8  # linux/netlink.h: NLM_F_*
_BEGIN, _END, _GENID, _SUBSYSTEM = 0x10, 0x11, 1, socket.htons(10)  # linux/netfilter/nfnetlink.h
_NEWSET, _NEWSETELEM, _DELSETELEM = 0xA09, 0xA0C, 0xA0E  # NFNL_SUBSYS_NFTABLES << 8 | enum nf_tables_msg_types
_NESTED: Final = 0x8000  # NLA_F_NESTED
_RULE_EXPRESSIONS, _RULE_POSITION, _RULE_USERDATA = 4, 6, 7  # enum nft_rule_attributes
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS_LIST = 1, 2, 3  # enum nft_set_elem_list_attributes
_SET_TABLE, _SET_NAME, _SET_ID, _ELEMENTS_ID = 1, 2, 10, 4  # NFTA_SET_*, NFTA_SET_ELEM_LIST_SET_ID
_ELEMENT, _KEY, _VALUE = 1, 1, 1  # NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
_ATTRIBUTE: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")

ELEMENTS_MAX: Final = 1000
"""Elements in one message: the list of them is an attribute, whose length has 16 bits."""


class NewRule(msgspec.Struct, frozen=True):
    """A rule to put in before the one with the handle ``before``, or at the end of its chain."""

    family: str
    table: str
    chain: str
    expressions: bytes
    userdata: bytes
    before: int | None = None


class Elements(msgspec.Struct, frozen=True):
    """Elements of a set without intervals to put in, or with ``gone`` to take out: keys as the kernel holds them.

    At most :data:`ELEMENTS_MAX`.
    """

    family: str
    table: str
    set: str
    keys: tuple[bytes, ...]
    gone: bool = False


class NewSet(msgspec.Struct, frozen=True):
    """A set without a name, its attributes as the kernel told them, for a rule that follows and names the ``id``."""

    family: str
    table: str
    id: int
    attributes: bytes


class Filling(msgspec.Struct, frozen=True):
    """The elements of such a set, as the kernel told them."""

    family: str
    table: str
    id: int
    elements: bytes


Change = NewRule | NfObject | Elements | NewSet | Filling
"""One message of a batch: a rule, elements or a set that come, or a rule that goes."""


class Refusal(msgspec.Struct, frozen=True):
    """What the kernel didn't take: the place of a change in its batch, and the errno."""

    index: int
    errno: int

    def __str__(self) -> str:
        return os.strerror(self.errno)


class Written(msgspec.Struct, frozen=True):
    """What became of a batch.

    ``stale``: somebody had written since the generation that it's based on. ``refusals`` say what the kernel didn't
    take. In both cases nothing was changed. Else ``rules`` are the new rules, in the order of the changes, as the
    kernel holds them; ``lost`` where answers didn't fit into the socket's buffer, so that some are missing.
    """

    stale: bool = False
    lost: bool = False
    refusals: tuple[Refusal, ...] = ()
    rules: tuple[NfRule, ...] = ()


def write(link: Nfnetlink, changes: Sequence[Change], generation: int | None) -> Written:
    """Commit the changes as one transaction, if the generation still is the one given; None commits in any case.

    Raises:
        KernelError: the batch couldn't be sent, such as one that exceeds the socket's send buffer (EMSGSIZE).
    """
    base, answers, lost = link.exchange(lambda number: _batch(changes, generation, number), len(changes) + 2)
    refusals = []
    rules: dict[int, NfRule] = {}
    for data in answers:
        offset = 0
        while offset < len(data):
            length, kind, _, number, _ = header(data, offset)
            index = number - base - 1
            if not -1 <= index <= len(changes):
                pass  # left over from a call that was interrupted
            elif kind == NLMSG_ERROR:
                code = -_CODE.unpack_from(data, offset + 16)[0]
                if code == errno.ERESTART:
                    return Written(stale=True)
                if code:
                    refusals.append(Refusal(index, code))
            elif kind == NEWRULE and 0 <= index < len(changes):
                change = changes[index]
                if isinstance(change, NewRule):
                    parse = rules_dump(change.table, change.chain).parse
                    rules[index] = parse(data, offset + REQUEST.size, offset + length)
            offset += length + 3 & ~3
    if refusals:
        return Written(refusals=tuple(refusals))
    return Written(lost=lost, rules=tuple(rules[index] for index in sorted(rules)))


def rule_of(link: Nfnetlink, place: NfObject) -> NfRule | None:
    """The rule with a handle as it is now, its counter included; None where there is none. ``position`` isn't told."""
    asked, answers, _ = link.exchange(lambda number: rule_question(place, number), 1)
    for data in answers:
        length, kind, _, number, _ = header(data)
        if number != asked:
            continue  # left over from a call that was interrupted
        if kind == NEWRULE:
            return rules_dump(place.table, place.chain).parse(data, REQUEST.size, length)
        if kind == NLMSG_ERROR:
            code = -_CODE.unpack_from(data, 16)[0]
            if code != errno.ENOENT:
                raise KernelError(f"read a rule: {os.strerror(code)}", errno=code)
    return None


# --- messages ----------------------------------------------------------------------------------------------


def _batch(changes: Sequence[Change], generation: int | None, number: int) -> bytes:
    held = b"" if generation is None else _ATTRIBUTE.pack(8, _GENID) + generation.to_bytes(4, "big")
    size = REQUEST.size + len(held)
    begin = REQUEST.pack(size, _BEGIN, NLM_F_REQUEST, number, 0, 0, 0, _SUBSYSTEM) + held
    end = REQUEST.pack(REQUEST.size, _END, NLM_F_REQUEST, number + len(changes) + 1, 0, 0, 0, _SUBSYSTEM)
    return begin + b"".join(_message(change, number + 1 + at) for at, change in enumerate(changes)) + end


def _message(change: Change, number: int) -> bytes:
    if isinstance(change, NfObject):
        return delete_objects((change,), number)
    if isinstance(change, NewSet | Filling):
        kind, body = _set_message(change)
        flags = _CREATE
    elif isinstance(change, Elements):
        body = string_attribute(_ELEMENTS_TABLE, change.table) + string_attribute(_ELEMENTS_SET, change.set)
        body += _nested(_ELEMENTS_LIST, b"".join(map(_element, change.keys)))
        kind, flags = (_DELSETELEM, 0) if change.gone else (_NEWSETELEM, _CREATE)
    else:
        body = names_rule(NfObject(change.family, change.table, change.chain))
        if change.before is None:
            flags = _CREATE | _ECHO | _APPEND
        else:
            flags = _CREATE | _ECHO
            body += _attribute(_RULE_POSITION, change.before.to_bytes(8, "big"))
        kind = NEWRULE
        body += _nested(_RULE_EXPRESSIONS, change.expressions)
        if change.userdata:
            body += _attribute(_RULE_USERDATA, change.userdata)
    size = REQUEST.size + len(body)
    return REQUEST.pack(size, kind, NLM_F_REQUEST | flags, number, 0, family_number(change.family), 0, 0) + body


def _set_message(change: NewSet | Filling) -> tuple[int, bytes]:
    names = string_attribute(_SET_TABLE, change.table) + string_attribute(_SET_NAME, NAMELESS)
    number = change.id.to_bytes(4, "big")
    if isinstance(change, NewSet):
        return _NEWSET, names + change.attributes + _attribute(_SET_ID, number)
    return _NEWSETELEM, names + _attribute(_ELEMENTS_ID, number) + _nested(_ELEMENTS_LIST, change.elements)


def _element(key: bytes) -> bytes:
    return _nested(_ELEMENT, _nested(_KEY, _attribute(_VALUE, key)))


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(data) + 4, kind) + data + bytes(-len(data) & 3)
