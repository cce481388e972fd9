"""What stands in an nf_tables table as digests of the kernel's own bytes, in any process the same while it stays so.

A dump is hashed as it comes, without a value for any rule: little more than the kernel's own part of it, 3.4 µs of
some 4 µs for each rule. What moves without anybody writing is left out: counters, the addressing of the answer, and in
each answer's head the generation, which every commit of anybody's moves. Layout: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from meshfw.errors import KernelError
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfmessage import (
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    REQUEST,
    attributes,
    raise_code,
    string_attribute,
)

_NFTABLES: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES; enum nf_tables_msg_types
_GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = _NFTABLES | 4, _NFTABLES | 7, _NFTABLES | 10, _NFTABLES | 13
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_USE, _CHAIN_COUNTERS = 3, 4, 6, 8
_SET_NAME, _SET_FLAGS, _SET_HANDLE, _SET_COUNT = 2, 3, 16, 20
_SET_ANONYMOUS, _SET_CONSTANT, _SET_MAP, _SET_TIMEOUT, _SET_EVAL = 0x1, 0x2, 0x8, 0x10, 0x20  # enum nft_set_flags
_ELEMENTS: Final = 3  # NFTA_SET_ELEM_LIST_ELEMENTS

_HEAD: Final = struct.Struct("=IHH")  # the beginning of struct nlmsghdr: length, type, flags
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTEMPTS: Final = 32
_UNADDRESSED: Final = bytes(REQUEST.size - 6)
"""Flags, sequence, port, and struct nfgenmsg, whose res_id is the end of the generation."""

# The expression "counter" up to the length of its data, whose type some kernels mark as nested (NFTA_EXPR_NAME, DATA);
# NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS are 20 and 32 bytes behind its beginning, 8 bytes each.
_COUNTER: Final = _ATTRIBUTE.pack(12, 1) + b"counter\0" + struct.pack("=H", 28)
_NUMBERS, _COUNTER_SIZE = 20, 40
_NO_NUMBERS: Final = bytes(_COUNTER_SIZE - _NUMBERS)

_Take = Callable[[bytearray, int], bool]


class _TornError(Exception):
    """The kernel says that somebody wrote in the middle of a dump."""


def rules_digest(netlink: Nfnetlink, family: str, table: str, *, chain: str) -> bytes:
    """The digest of one chain's rules with their handles; KernelError with EINTR where others never let a dump happen.

    An expression is taken for a counter by its bytes, where a rule holds such bytes once: within rules that count, as
    all of meshfw's do, and all of iptables', that's the counter itself.
    """
    narrowed = string_attribute(1, table) + string_attribute(2, chain)  # NFTA_RULE_TABLE, NFTA_RULE_CHAIN
    for _ in range(_ATTEMPTS):
        digest = hashlib.sha256()
        try:
            if netlink.datagrams(_GETRULE, narrowed, family=family, take=partial(_take_rules, digest.update)):
                return digest.digest()
        except _TornError:
            continue
    raise _interrupted()


def _take_rules(update: Callable[[memoryview], object], data: bytearray, size: int) -> bool:
    """Hash a datagram of rules. Written out flat, since it runs for each of thousands of rules (0.8 µs)."""
    head, find, offset = _HEAD.unpack_from, data.find, 0
    while offset < size:
        length, kind, flags = head(data, offset)
        end = offset + length
        if flags & NLM_F_DUMP_INTR:
            raise _TornError
        if kind in _ENDS:
            raise_code(data, offset)
            update(memoryview(data)[:offset])
            return True
        if length < REQUEST.size or end > size:
            raise OSError(errno.EPROTO, "netlink message with an impossible length")
        data[offset + 6 : offset + REQUEST.size] = _UNADDRESSED
        counter = find(_COUNTER, offset, end)
        if 0 <= counter <= end - _COUNTER_SIZE and find(_COUNTER, counter + _COUNTER_SIZE, end) < 0:
            data[counter + _NUMBERS : counter + _COUNTER_SIZE] = _NO_NUMBERS
        offset = end + 3 & ~3
    update(memoryview(data)[:size])
    return False


_ENDS: Final = frozenset({NLMSG_DONE, NLMSG_ERROR})


class ChainHead(NamedTuple):
    """A chain without its rules: the digest of its hook, priority, policy and flags.

    How many rules lead to it is left out: they are of the same table, and have digests of their own.
    """

    digest: bytes
    is_base: bool


def chain_heads(netlink: Nfnetlink, family: str, table: str) -> dict[str, ChainHead]:
    """The chains of a table by their names."""
    own = string_attribute(1, table)  # NFTA_CHAIN_TABLE, which the kernel writes first
    heads: dict[str, ChainHead] = {}
    for body in messages(netlink, _GETCHAIN, b"", family=family):
        if body.startswith(own):
            found = dict(attributes(body, 0, len(body)))
            for passing in (_CHAIN_USE, _CHAIN_COUNTERS):
                found.pop(passing, None)
            name = found[_CHAIN_NAME].rstrip(b"\0").decode("utf-8", "surrogateescape")
            heads[name] = ChainHead(_hashed(found), _CHAIN_HOOK in found)
    return heads


def sets_digest(netlink: Nfnetlink, family: str, table: str, *, constant: bool = False) -> bytes:
    """The digest of a table's sets and maps with their elements, in whatever order the kernel has these.

    Those that can't be changed once they are made, as the sets within rules are, are known by their handles, which no
    other set of the table ever had or will have; with ``constant`` by their elements as well. Elements that come and
    go by themselves are left out: they are of sets which meshfw doesn't make.
    """
    digest = hashlib.sha256()
    for body in messages(netlink, _GETSET, string_attribute(1, table), family=family):  # NFTA_SET_TABLE
        found = dict(attributes(body, 0, len(body)))
        found.pop(_SET_COUNT, None)
        digest.update(_hashed(found))
        flags = int.from_bytes(found.get(_SET_FLAGS, b""), "big")
        known = flags & _SET_CONSTANT and _SET_HANDLE in found and not constant
        if not known and not flags & (_SET_TIMEOUT | _SET_EVAL):
            name = _ATTRIBUTE.pack(4 + len(found[_SET_NAME]), 2) + found[_SET_NAME]  # NFTA_SET_ELEM_LIST_SET
            narrowed = string_attribute(1, table) + name + bytes(-len(name) & 3)
            digest.update(_elements(netlink, family, narrowed))
    return digest.digest()


def sets_count(netlink: Nfnetlink, family: str, table: str) -> int:
    """How many sets a table has, those within rules among them; maps with a name of their own aren't counted."""
    count = 0
    for body in messages(netlink, _GETSET, string_attribute(1, table), family=family):  # NFTA_SET_TABLE
        flags = int.from_bytes(dict(attributes(body, 0, len(body))).get(_SET_FLAGS, b""), "big")
        count += flags & (_SET_MAP | _SET_ANONYMOUS) != _SET_MAP
    return count


def _elements(netlink: Nfnetlink, family: str, narrowed: bytes) -> bytes:
    elements: list[bytes] = []
    for body in messages(netlink, _GETSETELEM, narrowed, family=family):
        for kind, held in attributes(body, 0, len(body)):
            if kind == _ELEMENTS:
                elements.extend(element for _, element in attributes(held, 0, len(held)))
    digest = hashlib.sha256()
    for element in sorted(elements):
        digest.update(len(element).to_bytes(4, "big") + element)
    return digest.digest()


def messages(netlink: Nfnetlink, ask: int, narrowed: bytes, *, family: str) -> Iterator[bytes]:
    """The attributes of each message that answers a dump."""
    for _ in range(_ATTEMPTS):
        found: list[bytes] = []
        try:
            if netlink.datagrams(ask, narrowed, family=family, take=partial(_take, found.append)):
                yield from found
                return
        except _TornError:
            continue
    raise _interrupted()


def _interrupted() -> KernelError:
    return KernelError(f"read from nf_tables: others wrote during each of {_ATTEMPTS} readings", errno=errno.EINTR)


def _take(keep: Callable[[bytes], object], data: bytearray, size: int) -> bool:
    offset = 0
    while offset < size:
        length, kind, flags = _HEAD.unpack_from(data, offset)
        if flags & NLM_F_DUMP_INTR:
            raise _TornError
        if kind in _ENDS:
            raise_code(data, offset)
            return True
        if length < REQUEST.size or offset + length > size:
            raise OSError(errno.EPROTO, "netlink message with an impossible length")
        keep(bytes(data[offset + REQUEST.size : offset + length]))
        offset += length + 3 & ~3
    return False


def _hashed(found: dict[int, bytes]) -> bytes:
    digest = hashlib.sha256()
    for kind, held in found.items():
        digest.update(struct.pack("=II", kind, len(held)) + held)
    return digest.digest()
