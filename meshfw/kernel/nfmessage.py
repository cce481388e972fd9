"""The netlink messages of nf_tables: what a dump asks for, and the values that its answers become.

The layout is that of linux/netfilter/nf_tables.h over nfnetlink (linux/netfilter/nfnetlink.h) and netlink(7):
headers are in native byte order, numbers inside attributes are big-endian. Whatever doesn't fit raises OSError with
EPROTO, never an endless loop.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from meshfw.errors import BackendError

T = TypeVar("T")

# linux/netlink.h
NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x10, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
_NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

# NFNL_SUBSYS_NFTABLES << 8 | enum nf_tables_msg_types
_NFTABLES = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE = _NFTABLES | 0, _NFTABLES | 1, _NFTABLES | 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = _NFTABLES | 3, _NFTABLES | 4, _NFTABLES | 5
NEWRULE, _GETRULE, _DELRULE = _NFTABLES | 6, _NFTABLES | 7, _NFTABLES | 8
NEWGEN, GETGEN = _NFTABLES | 15, _NFTABLES | 16

# enum nft_*_attributes
GEN_ID = 1
_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE, _TABLE_HANDLE, _TABLE_USERDATA, _TABLE_OWNER = 1, 2, 3, 4, 6, 7
_CHAIN_TABLE, _CHAIN_HANDLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 1, 2, 3, 4, 5, 6, 7
_CHAIN_FLAGS, _CHAIN_USERDATA = 10, 12
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_POSITION, _RULE_USERDATA = 1, 2, 3, 4, 6, 7

TABLE_DORMANT = 0x1  # enum nft_table_flags: its chains are not hooked in
TABLE_OWNED = 0x2  # it vanishes with the netlink port that made it, without a new generation

_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}  # linux/netfilter.h: NFPROTO_*
_FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")  # enum nf_inet_hooks
_HOOKS_OF = {
    "arp": ("input", "output", "forward"),  # linux/netfilter_arp.h
    "netdev": ("ingress", "egress"),  # enum nf_dev_hooks
}
_POLICIES = {0: "drop", 1: "accept"}  # NF_DROP, NF_ACCEPT

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
REQUEST = struct.Struct("=IHHIIBBH")  # ... and struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_CODE = struct.Struct("=i")


class NfTable(msgspec.Struct, frozen=True):
    """A table: ``flags`` is TABLE_*, ``owner`` the netlink port that owns it (0: nobody), ``use`` its objects."""

    family: str
    name: str
    handle: int
    flags: int
    use: int
    owner: int
    userdata: bytes


class NfChain(msgspec.Struct, frozen=True):
    """A chain; hook, priority, policy and type are None in a regular chain, which packets reach by jumps alone.

    ``hook_name`` is nft's word for the number, which means something else in each family; ``use`` counts the
    rules in it and the references to it; ``devices`` are the interfaces of an ingress or egress chain.
    """

    family: str
    table: str
    name: str
    handle: int
    use: int
    flags: int
    hook: int | None
    hook_name: str | None
    priority: int | None
    policy: str | None
    type: str | None
    devices: tuple[str, ...]
    userdata: bytes


class NfRule(msgspec.Struct, frozen=True):
    """A rule, not decoded: ``expressions`` is NFTA_RULE_EXPRESSIONS as it is, counter values included.

    ``position`` is the handle of the rule before it in its chain, 0 for the first.
    """

    handle: int
    position: int
    chain: str
    expressions: bytes
    userdata: bytes


class Dump(msgspec.Struct, Generic[T], frozen=True):
    """A dump to ask for: its message types, the attributes that narrow it, how to read an answer and check them all."""

    ask: int
    reply: int
    parse: Callable[[bytes, int, int], T]  # data, where the attributes of one message begin, where they end
    attributes: bytes = b""
    intact: Callable[[list[T]], bool] | None = None


def tables_dump() -> Dump[NfTable]:
    """The dump of tables."""
    return Dump(_GETTABLE, _NEWTABLE, _table)


def chains_dump() -> Dump[NfChain]:
    """The dump of chains, over all tables, without rules."""
    return Dump(_GETCHAIN, _NEWCHAIN, _chain)


def rules_dump(table: str, chain: str | None) -> Dump[NfRule]:
    """The dump of the rules of a table, or of one chain of it."""
    wanted = string_attribute(_RULE_TABLE, table) + (b"" if chain is None else string_attribute(_RULE_CHAIN, chain))
    return Dump(_GETRULE, NEWRULE, _rule_parser(wanted, chain or ""), wanted, linked)


class NfObject(msgspec.Struct, frozen=True):
    """A chain, or with a handle a rule of it."""

    family: str
    table: str
    chain: str
    handle: int | None = None


def delete_table(family: str, name: str, *, sequence: int) -> bytes:
    """The message of a batch that takes a table away with all that is in it (NFT_MSG_DELTABLE)."""
    return _message(_DELTABLE, family, string_attribute(_TABLE_NAME, name), sequence)


def delete_objects(objects: Iterable[NfObject], sequence: int) -> bytes:
    """The messages of a batch that take away chains and rules, in order (NFT_MSG_DELCHAIN, NFT_MSG_DELRULE)."""
    return b"".join(_delete(item, sequence) for item in objects)


def _delete(item: NfObject, sequence: int) -> bytes:
    if item.handle is None:
        names = string_attribute(_CHAIN_TABLE, item.table) + string_attribute(_CHAIN_NAME, item.chain)
        return _message(_DELCHAIN, item.family, names, sequence)
    return _message(_DELRULE, item.family, names_rule(item), sequence)


def names_rule(item: NfObject) -> bytes:
    """The attributes that name a rule: its table, its chain and, where it's given, its handle."""
    names = string_attribute(_RULE_TABLE, item.table) + string_attribute(_RULE_CHAIN, item.chain)
    if item.handle is None:
        return names
    return names + _ATTRIBUTE.pack(12, _RULE_HANDLE) + item.handle.to_bytes(8, "big")


def rule_question(item: NfObject, sequence: int) -> bytes:
    """The question for one rule, by its handle (NFT_MSG_GETRULE)."""
    return _message(_GETRULE, item.family, names_rule(item), sequence)


def _message(kind: int, family: str, body: bytes, sequence: int) -> bytes:
    size = REQUEST.size + len(body)
    return REQUEST.pack(size, kind, NLM_F_REQUEST, sequence, 0, family_number(family), 0, 0) + body


def family_number(family: str | None) -> int:
    """The kernel's number of a family in nft's words; 0 (all) for None. BackendError for an unknown one."""
    if family is None:
        return 0
    if family not in _FAMILIES:
        raise BackendError(f"{family!r} is no nf_tables family", remedy=f"one of {', '.join(_FAMILIES)}")
    return _FAMILIES[family]


def header(data: bytes | bytearray, offset: int = 0) -> tuple[int, int, int, int, int]:
    """The length, type, flags, sequence and port of the message at an offset."""
    found: tuple[int, int, int, int, int] = HEADER.unpack_from(data, offset)
    if found[0] < HEADER.size or offset + found[0] > len(data):
        raise OSError(errno.EPROTO, "netlink message with an impossible length")
    return found


def raise_code(data: bytes | bytearray, offset: int = 0) -> None:
    """Raise what an NLMSG_ERROR or NLMSG_DONE says: OSError for a negative errno, nothing for 0."""
    (code,) = _CODE.unpack_from(data, offset + HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def linked(rules: list[NfRule]) -> bool:
    """Whether each rule follows the one that it names as the rule before it.

    The kernel finds its place in the next part of a dump by counting, and counts rules that an unfinished
    transaction has put in already: one comes twice, or one is left out once such a transaction has failed.
    """
    chain, handle = "", 0
    for rule in rules:
        if rule.position != (handle if rule.chain == chain else 0):
            return False
        chain, handle = rule.chain, rule.handle
    return True


def is_unused(table: NfTable, chains: Sequence[NfChain]) -> bool:
    """Whether a table holds but these chains, base chains as iptables makes them: accepting, and without a rule."""
    return (table.use, table.flags, table.userdata) == (len(chains), 0, b"") and all(
        chain.use == 0 and chain.policy == "accept" and chain.name in _BUILT_IN and not chain.userdata
        for chain in chains
    )


_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})


def string_attribute(kind: int, text: str) -> bytes:
    """An attribute that holds a text and its final NUL."""
    data = text.encode("utf-8", "surrogateescape") + b"\0"
    return _ATTRIBUTE.pack(len(data) + 4, kind) + data + bytes(-len(data) & 3)


def attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The attributes between two offsets, each as its type and payload."""
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise OSError(errno.EPROTO, "netlink attribute with an impossible length")
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _family(data: bytes, offset: int) -> str:
    number = data[offset - 4]  # nfgen_family, the first byte of struct nfgenmsg
    return _FAMILY_NAMES.get(number, str(number))


def _required(found: dict[int, bytes], kind: int) -> str:
    if kind not in found:
        raise OSError(errno.EPROTO, f"netlink message without attribute {kind}")
    return _text(found[kind])


def _table(data: bytes, offset: int, end: int) -> NfTable:
    found = dict(attributes(data, offset, end))
    return NfTable(
        family=_family(data, offset),
        name=_required(found, _TABLE_NAME),
        handle=_number(found.get(_TABLE_HANDLE, b"")),
        flags=_number(found.get(_TABLE_FLAGS, b"")),
        use=_number(found.get(_TABLE_USE, b"")),
        owner=_number(found.get(_TABLE_OWNER, b"")),
        userdata=found.get(_TABLE_USERDATA, b""),
    )


def _chain(data: bytes, offset: int, end: int) -> NfChain:
    found = dict(attributes(data, offset, end))
    family = _family(data, offset)
    hook = found.get(_CHAIN_HOOK)
    parts = {} if hook is None else dict(attributes(hook, 0, len(hook)))
    number = None if hook is None else _number(parts.get(_HOOK_NUMBER, b""))
    policy, kind = found.get(_CHAIN_POLICY), found.get(_CHAIN_TYPE)
    return NfChain(
        family=family,
        table=_required(found, _CHAIN_TABLE),
        name=_required(found, _CHAIN_NAME),
        handle=_number(found.get(_CHAIN_HANDLE, b"")),
        use=_number(found.get(_CHAIN_USE, b"")),
        flags=_number(found.get(_CHAIN_FLAGS, b"")),
        hook=number,
        hook_name=None if number is None else _hook_name(family, number),
        priority=None if hook is None else int.from_bytes(parts.get(_HOOK_PRIORITY, b""), "big", signed=True),
        policy=None if policy is None else _POLICIES.get(_number(policy), str(_number(policy))),
        type=None if kind is None else _text(kind),
        devices=_devices(parts),
        userdata=found.get(_CHAIN_USERDATA, b""),
    )


def _hook_name(family: str, number: int) -> str:
    names = _HOOKS_OF.get(family, _HOOKS)
    return names[number] if number < len(names) else str(number)


def _devices(hook: dict[int, bytes]) -> tuple[str, ...]:
    if _HOOK_DEVICES in hook:  # all of them; beside it the kernel may give a single one once more
        several = hook[_HOOK_DEVICES]
        return tuple(_text(name) for _, name in attributes(several, 0, len(several)))
    return (_text(hook[_HOOK_DEVICE]),) if _HOOK_DEVICE in hook else ()


def _rule_parser(known: bytes, known_chain: str) -> Callable[[bytes, int, int], NfRule]:
    """A parser of rules that begin with the attributes that were asked for, as the kernel's do; others it reads too.

    Written out flat, and skipping what is known, since it runs for each of thousands of rules (under 2 µs).
    """
    unpack, skipped = _ATTRIBUTE.unpack_from, len(known)

    def parse(data: bytes, offset: int, end: int) -> NfRule:
        handle, position, chain, expressions, userdata = 0, 0, "", b"", b""
        if data.startswith(known, offset):
            offset, chain = offset + skipped, known_chain
        while offset + 4 <= end:
            length, kind = unpack(data, offset)
            if length < 4 or offset + length > end:
                raise OSError(errno.EPROTO, "netlink attribute with an impossible length")
            kind &= _NLA_TYPE_MASK
            if kind == _RULE_EXPRESSIONS:
                expressions = data[offset + 4 : offset + length]
            elif kind == _RULE_HANDLE:
                handle = int.from_bytes(data[offset + 4 : offset + length], "big")
            elif kind == _RULE_POSITION:
                position = int.from_bytes(data[offset + 4 : offset + length], "big")
            elif kind == _RULE_USERDATA:
                userdata = data[offset + 4 : offset + length]
            elif kind == _RULE_CHAIN:
                chain = _text(data[offset + 4 : offset + length])
            offset += length + 3 & ~3
        return NfRule(handle, position, chain, expressions, userdata)

    return parse
