"""A legacy xtables table as the kernel hands it out: its bytes without counters, and the chains and rules in them.

The layout is that of linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h and
linux/netfilter/x_tables.h on a 64-bit kernel, the order of chains that of libiptc, which everybody writes with:
entries stand one behind the other, first the built-in chains in the order of their hooks, each ending with its
policy; then the user chains, each behind an entry whose ERROR target holds its name, each ending with a RETURN;
last an ERROR entry of the table's own. Whatever doesn't fit raises KernelError with EPROTO, never an endless loop.
"""

from __future__ import annotations

import builtins
import errno
import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

import msgspec

from meshfw.errors import KernelError
from meshfw.model import Family, Hook, Table

_HOOKS: Final = (Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING)  # enum nf_inet_hooks
_INFO: Final = struct.Struct("=I5I5III")  # struct ipt_getinfo, and ip6t_getinfo, behind the table's name
INFO_SIZE: Final = _INFO.size
COUNTERS_SIZE: Final = 16  # struct xt_counters: packets and bytes

_SIZES: Final = struct.Struct("=HH")  # target_offset, next_offset: from the entry's beginning, in bytes
_VERDICT: Final = struct.Struct("=i")
_TARGET: Final = 32  # struct xt_entry_target: u16 target_size, name[29], u8 revision; then the target's own data
_STANDARD_TARGET: Final = 40  # struct xt_standard_target
_ERROR_TARGET: Final = 62  # struct xt_error_target up to the end of errorname[30]
_ERROR_NAME: Final = b"ERROR\0"  # XT_ERROR_TARGET
_RETURN: Final = -5  # XT_RETURN
_POLICIES: Final = {-1: "drop", -2: "accept"}  # -NF_DROP - 1, -NF_ACCEPT - 1

# What stands in a rule's body where the kernel has an offset into the table, which every insertion moves. No
# table is so large that these are offsets.
_TO_CHAIN: Final = _VERDICT.pack(0x7FFFFFFE)  # followed by the chain's name
_TO_NEXT: Final = _VERDICT.pack(0x7FFFFFFF)  # a rule without target is a jump to the next one


class Layout(msgspec.Struct, frozen=True):
    """Where the fields of an entry stand, in bytes from its beginning (struct ipt_entry, struct ip6t_entry)."""

    conditions: int  # the size of struct ipt_ip, struct ip6t_ip6, with which it begins
    sizes: int
    counters: int
    entry: int  # the size of it all: here the matches begin
    unconditional: tuple[slice, ...]  # what is zero when the conditions name nothing: masks, protocol, flags, inversion


LAYOUTS: Final[Mapping[Family, Layout]] = MappingProxyType(
    {
        Family.IPV4: Layout(84, 88, 96, 112, (slice(8, 16), slice(48, 84))),
        Family.IPV6: Layout(136, 140, 152, 168, (slice(32, 64), slice(96, 128), slice(131, 133))),
    }
)


class XtInfo(msgspec.Struct, frozen=True):
    """What GET_INFO tells of a table (struct ipt_getinfo): offsets and ``size`` in bytes, hooks in the order of _HOOKS.

    It differs whenever the number or size of entries differs, and never says so when an edit keeps both.
    """

    valid_hooks: int
    hook_entry: tuple[int, ...]
    underflow: tuple[int, ...]
    num_entries: int
    size: int


class Blob(msgspec.Struct, frozen=True, eq=False):
    """One table of one moment. Two are equal when nothing but counters differs.

    ``masked`` is the entries with their counters zeroed, ``counters`` the counters alone (packets and bytes of each
    entry, 64 bits, in native order), ``offsets`` where each entry begins (32 bits, in native order).
    """

    family: Family
    table: Table
    info: XtInfo
    masked: bytes
    counters: bytes
    offsets: bytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blob):
            return NotImplemented
        mine, theirs = (self.family, self.table, self.info), (other.family, other.table, other.info)
        return mine == theirs and self.masked == other.masked

    def __ne__(self, other: object) -> bool:  # msgspec's own would compare identities
        return not self == other

    def __hash__(self) -> int:
        return hash((self.family, self.table, self.info))

    def __repr__(self) -> str:
        return f"<Blob {self.family} {self.table}: {self.info.num_entries} entries, {self.info.size} bytes>"


class XtRule(msgspec.Struct, frozen=True, gc=False):
    """A rule: ``body`` says what it does, equal bytes wherever it stands; ``packets`` and ``bytes`` are its counters.

    ``body`` is the entry without nfcache, comefrom and counters. The offset of a jump is replaced by the name of the
    chain, that of a rule without target by a mark; ``-g`` differs from ``-j`` in a flag of the conditions. ``jump`` is
    the chain that it jumps or goes to, "" when none. ``plain``: it has no condition and no match and jumps (not goes)
    there, as ``-A CHAIN -j JUMP`` makes it.
    """

    body: builtins.bytes
    packets: int
    bytes: int
    jump: str = ""
    plain: bool = False


class XtChain(msgspec.Struct, frozen=True):
    """A chain: ``hook`` and ``policy`` ("accept" or "drop") are None in a user chain.

    ``packets`` and ``bytes`` are the counters of the policy, 0 in a user chain.
    """

    name: str
    hook: str | None
    policy: str | None
    rules: tuple[XtRule, ...]
    packets: int = 0
    bytes: int = 0


XtTable: TypeAlias = Mapping[str, XtChain]
"""The chains of a table by name, in the kernel's order: the built-in ones first."""


class _Span(msgspec.Struct, frozen=True):
    """Where a chain stands: the numbers of its first entry and of its last, which is no rule but its policy or end."""

    name: str
    hook: Hook | None
    first: int
    last: int


def info_of(answer: bytes) -> XtInfo:
    """What an answer to GET_INFO says, which is INFO_SIZE bytes behind the table's name."""
    valid, *offsets, count, size = _INFO.unpack(answer)
    return XtInfo(valid, tuple(offsets[:5]), tuple(offsets[5:]), count, size)


def answer_of(info: XtInfo) -> bytes:
    """The answer to GET_INFO of a table with this shape."""
    return _INFO.pack(info.valid_hooks, *info.hook_entry, *info.underflow, info.num_entries, info.size)


def blob_of(family: Family, table: Table, info: XtInfo, entries: bytes) -> Blob:
    """The blob of a table from the answers to GET_INFO and GET_ENTRIES; KernelError with EPROTO when they don't fit."""
    layout = LAYOUTS[family]
    offsets = _entry_offsets(layout, info, entries)
    masked, zeroed = bytearray(entries), bytes(COUNTERS_SIZE)
    begin, end = layout.counters, layout.counters + COUNTERS_SIZE
    for offset in offsets:
        masked[offset + begin : offset + end] = zeroed
    return Blob(
        family=family,
        table=table,
        info=info,
        masked=bytes(masked),
        counters=b"".join([entries[offset + begin : offset + end] for offset in offsets]),
        offsets=struct.pack(f"={len(offsets)}I", *offsets),
    )


def parse(blob: Blob, *, wanted: Callable[[str], bool] | None = None) -> XtTable:
    """The chains of a table with their rules and counters; KernelError with EPROTO when it isn't built as one.

    ``wanted`` narrows it to some user chains, by name; built-in ones are always there.
    """
    offsets = memoryview(blob.offsets).cast("I")
    spans = _spans(blob, offsets)
    starts = {offsets[span.first]: span.name for span in spans}
    if len({span.name for span in spans}) < len(spans):
        _refuse("two chains with one name")
    kept = [span for span in spans if wanted is None or span.hook is not None or wanted(span.name)]
    return MappingProxyType({span.name: _chain(blob, span, offsets, starts) for span in kept})


def _refuse(reason: str) -> NoReturn:
    raise KernelError(f"understand an xtables table: {reason}", errno=errno.EPROTO)


def _entry_offsets(layout: Layout, info: XtInfo, entries: bytes) -> list[int]:
    """Where each entry begins; each of them leaves room for its fields and the head of its target."""
    unpack, sizes, entry, size = _SIZES.unpack_from, layout.sizes, layout.entry, len(entries)
    if size != info.size:
        _refuse(f"{size} bytes of entries instead of {info.size}")
    offsets, offset = [], 0
    while offset < size:
        offsets.append(offset)
        if offset + entry > size:
            _refuse(f"the entry at {offset} is cut off")
        target, step = unpack(entries, offset + sizes)
        if target < entry or step < target + _TARGET or offset + step > size:
            _refuse(f"the entry at {offset} has an impossible size")
        offset += step
    if len(offsets) != info.num_entries:
        _refuse(f"{len(offsets)} entries instead of {info.num_entries}")
    return offsets


def _spans(blob: Blob, offsets: memoryview[int]) -> list[_Span]:
    """The chains in order; together with the names' entries and the table's own end they take up all entries."""
    names = _names(blob, offsets)
    last = len(offsets) - 1
    if last not in names:
        _refuse("no ERROR entry at its end")
    heads = list(names)
    spans = _built_in(blob.info, offsets, heads[0])
    for head, following in pairwise(heads):
        if head + 1 == following:
            _refuse(f"chain {names[head]} has no end")
        if _verdict(blob, offsets[following - 1]) != _RETURN:
            _refuse(f"chain {names[head]} doesn't end with RETURN")
        spans.append(_Span(names[head], None, head + 1, following - 1))
    return spans


def _names(blob: Blob, offsets: memoryview[int]) -> dict[int, str]:
    """The numbers of the entries with an ERROR target, and the name in each."""
    data, sizes = blob.masked, LAYOUTS[blob.family].sizes
    unpack, found = _SIZES.unpack_from, {}
    for number, offset in enumerate(offsets):
        size, step = unpack(data, offset + sizes)
        target = offset + size
        if data[target + 2 : target + 8] == _ERROR_NAME:
            if size + _ERROR_TARGET > step:
                _refuse(f"the ERROR target at {target} is cut off")
            name = data[target + _TARGET : target + _ERROR_TARGET].split(b"\0", 1)[0]
            found[number] = name.decode("utf-8", "surrogateescape")
    return found


def _built_in(info: XtInfo, offsets: memoryview[int], end: int) -> list[_Span]:
    """The chains of the hooks, which take up the first ``end`` entries."""
    spans, following = [], 0
    for number, hook in enumerate(_HOOKS):
        if info.valid_hooks >> number & 1:
            last = bisect_left(offsets, info.underflow[number])
            if last >= end or offsets[last] != info.underflow[number] or last < following:
                _refuse(f"chain {hook.upper()} ends nowhere")
            if offsets[following] != info.hook_entry[number]:
                _refuse(f"chain {hook.upper()} doesn't begin where the one before it ends")
            spans.append(_Span(hook.upper(), hook, following, last))
            following = last + 1
    if following != end:
        _refuse("entries that belong to no chain")
    return spans


def _verdict(blob: Blob, offset: int) -> int | None:
    """The verdict of the entry at an offset, None when it has another target than the standard one."""
    size, step = _SIZES.unpack_from(blob.masked, offset + LAYOUTS[blob.family].sizes)
    if blob.masked[offset + size + 2] != 0:  # the name of the standard target is empty
        return None
    if size + _STANDARD_TARGET > step:
        _refuse(f"the target at {offset + size} is cut off")
    verdict: int = _VERDICT.unpack_from(blob.masked, offset + size + _TARGET)[0]
    return verdict


def _chain(blob: Blob, span: _Span, offsets: memoryview[int], starts: Mapping[int, str]) -> XtChain:
    rules = _rules(blob, span, offsets, starts)
    if span.hook is None:
        return XtChain(span.name, None, None, rules)
    policy = _POLICIES.get(_verdict(blob, offsets[span.last]) or 0)
    if policy is None:
        _refuse(f"chain {span.name} has a policy that is neither ACCEPT nor DROP")
    counters = memoryview(blob.counters).cast("Q")
    return XtChain(span.name, span.hook, policy, rules, counters[2 * span.last], counters[2 * span.last + 1])


def _rules(blob: Blob, span: _Span, offsets: memoryview[int], starts: Mapping[int, str]) -> tuple[XtRule, ...]:
    """The rules of a chain. Written out flat, since it runs for each of thousands of entries."""
    data, layout, counters = blob.masked, LAYOUTS[blob.family], memoryview(blob.counters).cast("Q")
    conditions, sizes, entry = layout.conditions, layout.sizes, layout.entry
    unpack, rules = _SIZES.unpack_from, []
    for number in range(span.first, span.last):
        offset = offsets[number]
        size, step = unpack(data, offset + sizes)
        head = data[offset : offset + conditions] + data[offset + sizes : offset + sizes + 4]
        jump, plain, end = "", False, offset + step
        verdict = _verdict(blob, offset) if data[offset + size + 2] == 0 else None
        if verdict is None or verdict < 0:
            rest = data[offset + entry : end]
        elif verdict == end:
            rest = data[offset + entry : offset + size + _TARGET] + _TO_NEXT
        else:
            if verdict not in starts:
                _refuse(f"the rule at {offset} jumps to {verdict}, where no chain begins")
            jump = starts[verdict]
            name = jump.encode("utf-8", "surrogateescape")
            rest = data[offset + entry : offset + size + _TARGET] + _TO_CHAIN + name
            plain = size == entry and not any(any(head[part]) for part in layout.unconditional)
        rules.append(XtRule(head + rest, counters[2 * number], counters[2 * number + 1], jump, plain))
    return tuple(rules)
