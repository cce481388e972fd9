"""nf_tables as the kernel tells it over netlink: the generation in microseconds, and dumps without libnftables.

The generation is the cheap question of every tick (one send, one receive, about 4 µs); dumps of tables and
chains name what other tools have without loading a single rule of theirs, and a dump of one chain's rules costs
nothing for the rules of other chains. Messages are those of linux/netfilter/nf_tables.h over nfnetlink
(linux/netfilter/nfnetlink.h) and netlink(7); numbers inside attributes are big-endian, headers are native.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

import msgspec

from meshfw.errors import BackendError, KernelError
from meshfw.kernel.netns import NET_ADMIN_REMEDY, entered, refused

T = TypeVar("T")

# linux/netlink.h
NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 0x01
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

# linux/netfilter/nfnetlink.h and nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | enum nf_tables_msg_types
_NFTABLES = 10 << 8
_NEWTABLE, _GETTABLE = _NFTABLES | 0, _NFTABLES | 1
_NEWCHAIN, _GETCHAIN = _NFTABLES | 3, _NFTABLES | 4
_NEWRULE, _GETRULE = _NFTABLES | 6, _NFTABLES | 7
_NEWGEN, _GETGEN = _NFTABLES | 15, _NFTABLES | 16
_BATCH_BEGIN, _BATCH_END, _BATCH_GENID, _BATCH_NFTABLES = 0x10, 0x11, 1, socket.htons(10)

# enum nft_*_attributes
_GEN_ID = 1
_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE, _TABLE_HANDLE, _TABLE_USERDATA, _TABLE_OWNER = 1, 2, 3, 4, 6, 7
_CHAIN_TABLE, _CHAIN_HANDLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 1, 2, 3, 4, 5, 6, 7
_CHAIN_FLAGS, _CHAIN_USERDATA = 10, 12
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7

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

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=IHHIIBBH")  # ... and struct nfgenmsg: family, version, resource
_PAYLOAD = _REQUEST.size
_BATCH = struct.Struct("=IHHIIBBHHHIIHHIIBBH")  # two requests, the first with one attribute
_GENERATION = struct.Struct("=IHHII4xHHI")  # a whole reply to GETGEN as the kernel builds it: its number comes first
_ATTRIBUTE = struct.Struct("=HH")
_SEQUENCE = struct.Struct("=I")
_ERROR = struct.Struct("=i")

_RECEIVE_SIZE = 1 << 16  # the kernel fills at most 32 KiB per dump message for a reader of this size
_REPLY_SECONDS = 10
_ATTEMPTS = 32


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
    rules in it and the references to it; ``devices`` are the interfaces of a netdev chain.
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
    """A rule, not decoded: ``expressions`` is NFTA_RULE_EXPRESSIONS as it is, counter values included."""

    handle: int
    chain: str
    expressions: bytes
    userdata: bytes


class Nfnetlink:
    """An open netlink socket to nf_tables of one network namespace, safe to share between threads.

    Made in ``namespace`` (a name or a path; None: the calling thread's) and bound to it for good; nothing
    is reopened behind the caller's back. Raises KernelError where the system refuses, with EPERM when
    CAP_NET_ADMIN is missing.
    """

    def __init__(self, namespace: str | None = None) -> None:
        with entered(namespace):
            self._socket = _connected_socket()
        self._lock = threading.Lock()
        self._sequence = 0
        self._receive_size = _RECEIVE_SIZE
        self._question = bytearray(_REQUEST.pack(_PAYLOAD, _GETGEN, _NLM_F_REQUEST, 0, 0, 0, 0, 0))
        self._answer = bytearray(4096)

    def __enter__(self) -> Nfnetlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a second call does nothing, and any other call afterwards is a KernelError."""
        self._socket.close()

    def generation(self) -> int:
        """The number of the last committed transaction in this namespace, over all families and tables.

        It is 32 bits wide, starts at 1 in a fresh namespace, and moves by exactly one per commit.
        """
        with self._lock:
            try:
                return self._ask_generation()
            except OSError as error:
                raise _refusal(error, "ask for the nf_tables generation") from error

    def settled(self) -> int:
        """The generation, once the commit that it counts has wholly taken effect; what is read from then on is its.

        The kernel counts a commit a moment before it shows the new rules, and a writer can be stopped in between for
        milliseconds: who asks for the generation then and reads the rules after it takes old rules for new ones.
        So an empty transaction, which changes nothing, waits for the writers' mutex and says whether the number still
        holds (NFNL_BATCH_GENID, Linux 4.12). About 10 µs, more while somebody writes; ask ``generation`` on idle ticks.
        """
        with self._lock:
            try:
                return self._ask_settled()
            except OSError as error:
                raise _refusal(error, "wait for the nf_tables generation") from error

    def _ask_settled(self) -> int:
        for _ in range(_ATTEMPTS):
            generation = self._ask_generation()
            if self._wait_for_writers(generation):
                return generation
        raise OSError(errno.EINTR, "another writer committed each time")

    def _wait_for_writers(self, generation: int) -> bool:
        """Whether the generation was still this one when no writer was at work."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        self._socket.send(_BATCH.pack(
            28, _BATCH_BEGIN, _NLM_F_REQUEST, sequence, 0, 0, 0, _BATCH_NFTABLES, 8, _BATCH_GENID, socket.htonl(generation),
            _PAYLOAD, _BATCH_END, _NLM_F_REQUEST, sequence, 0, 0, 0, _BATCH_NFTABLES,
        ))
        try:  # no news is good news: everything has happened when send() returns, and only a refusal is answered
            while True:
                answer = self._socket.recv(self._receive_size, socket.MSG_DONTWAIT)
                _, kind, _, number, _ = _header(answer, 0)
                if kind == _NLMSG_ERROR and number == sequence:
                    _raise_code(answer, 0)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.ERESTART:
                return False
            raise

    def _ask_generation(self) -> int:
        question, answer, channel = self._question, self._answer, self._socket
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        _SEQUENCE.pack_into(question, 8, sequence)
        channel.send(question)
        for _ in range(_ATTEMPTS):
            size = channel.recv_into(answer)
            _, kind, _, number, _, _, attribute, value = _GENERATION.unpack_from(answer)
            if number == sequence:  # else it's left over from a call that was interrupted
                if kind == _NEWGEN and attribute == _GEN_ID and size >= _GENERATION.size:
                    return socket.ntohl(value)
                if kind == _NLMSG_ERROR:
                    _raise_code(answer, 0)
                raise OSError(errno.EPROTO, f"unexpected netlink message of type {kind:#x}")
        raise OSError(errno.EPROTO, "no answer")

    def tables(self, family: str | None = None) -> tuple[NfTable, ...]:
        """The tables of all families, or of one (``ip``, ``ip6``, ``inet``, ``arp``, ``bridge``, ``netdev``)."""
        return self._dump(_GETTABLE, _NEWTABLE, _table, family)

    def chains(self, family: str | None = None) -> tuple[NfChain, ...]:
        """The chains of all tables, or of one family's, without their rules."""
        return self._dump(_GETCHAIN, _NEWCHAIN, _chain, family)

    def rules(self, family: str, table: str, chain: str | None = None) -> tuple[NfRule, ...]:
        """The rules of one chain in order, or of a whole table, chain by chain; empty when there is none.

        The kernel's cost per rule grows with the rules of the table (3 µs at 1,000, 56 µs at 100,000)
        unless ``chain`` is given.
        """
        request = _string(_RULE_TABLE, table) + (b"" if chain is None else _string(_RULE_CHAIN, chain))
        return self._dump(_GETRULE, _NEWRULE, _rule_parser(request, chain or ""), family, request)

    def _dump(
        self, ask: int, reply: int, parse: Callable[[bytes, int, int], T], family: str | None, request: bytes = b""
    ) -> tuple[T, ...]:
        """A list that is one state: read again, boundedly, when there was a commit between its beginning and its end.

        The kernel's own mark (NLM_F_DUMP_INTR) misses a commit during the last part of a dump, which in a short dump
        is the only one, so the generation is compared as well; libnftables does the same.
        """
        if family is not None and family not in _FAMILIES:
            raise BackendError(f"{family!r} is no nf_tables family", remedy=f"one of {', '.join(_FAMILIES)}")
        number = _FAMILIES[family] if family else 0
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    before = self._ask_settled()
                    found = self._dump_once(ask, reply, parse, number, request)
                    if found is not None and self._ask_generation() == before:
                        return tuple(found)
                except OSError as error:
                    self._drain()
                    if error.errno not in {errno.ENOBUFS, errno.EBUSY}:
                        raise _refusal(error, "read from nf_tables") from error
                except BaseException:
                    self._drain()
                    raise
        raise KernelError(
            f"read from nf_tables: another writer changed the rules during each of {_ATTEMPTS} readings",
            errno=errno.EINTR,
        )

    def _dump_once(
        self, ask: int, reply: int, parse: Callable[[bytes, int, int], T], family: int, request: bytes
    ) -> list[T] | None:
        """The dump, or None when the kernel says that it isn't one state, or when a part of it didn't fit."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        self._socket.send(_REQUEST.pack(_PAYLOAD + len(request), ask, flags, sequence, 0, family, 0, 0) + request)
        found: list[T] = []
        whole = True
        while True:
            data = self._socket.recv(self._receive_size, socket.MSG_TRUNC)
            if len(data) > self._receive_size:  # with MSG_TRUNC the size is the message's, though the rest is lost
                self._receive_size = len(data)
                whole = False
                continue
            offset = 0
            while offset < len(data):
                length, kind, marks, number, _ = _header(data, offset)
                if number == sequence:
                    whole = whole and not marks & _NLM_F_DUMP_INTR
                    if kind == reply:
                        found.append(parse(data, offset + _PAYLOAD, offset + length))
                    elif kind in {_NLMSG_DONE, _NLMSG_ERROR}:
                        _raise_code(data, offset)
                        return found if whole else None
                offset += length + 3 & ~3

    def _drain(self) -> None:
        """Read an abandoned dump to its end, since the kernel takes no other one before."""
        try:
            while True:
                self._socket.recv(self._receive_size, socket.MSG_DONTWAIT)
        except OSError:
            return


def _connected_socket() -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        raise refused(error, "open a netfilter netlink socket", remedy="the kernel needs nf_tables") from error
    try:
        channel.connect((0, 0))  # to the kernel, and from nobody else
        # answers are there when send() returns; should one ever be lost, fail instead of waiting for ever
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _REPLY_SECONDS, 0))
    except OSError as error:
        channel.close()
        raise refused(error, "set up a netfilter netlink socket") from error
    return channel


def _refusal(error: OSError, doing: str) -> KernelError:
    return refused(error, doing, remedy=NET_ADMIN_REMEDY if error.errno == errno.EPERM else "")


def _header(data: bytes, offset: int) -> tuple[int, int, int, int, int]:
    header: tuple[int, int, int, int, int] = _HEADER.unpack_from(data, offset)
    if header[0] < _HEADER.size or offset + header[0] > len(data):
        raise OSError(errno.EPROTO, "netlink message with an impossible length")
    return header


def _raise_code(data: bytes | bytearray, offset: int) -> None:
    """Raise what the payload of an NLMSG_ERROR or NLMSG_DONE says: a negative errno, or 0."""
    (code,) = _ERROR.unpack_from(data, offset + _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))


def _string(kind: int, text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape") + b"\0"
    return _ATTRIBUTE.pack(len(data) + 4, kind) + data + b"\0" * (-len(data) & 3)


def _attributes(data: bytes | bytearray, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The attributes between two offsets, each as its type and where its payload begins and ends."""
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise OSError(errno.EPROTO, "netlink attribute with an impossible length")
        yield kind & _NLA_TYPE_MASK, offset + 4, offset + length
        offset += length + 3 & ~3


def _payloads(data: bytes, offset: int, end: int) -> dict[int, bytes]:
    return {kind: data[start:stop] for kind, start, stop in _attributes(data, offset, end)}


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _family(data: bytes, offset: int) -> str:
    number = data[offset - 4]  # nfgen_family, the first byte of struct nfgenmsg
    return _FAMILY_NAMES.get(number, str(number))


def _table(data: bytes, offset: int, end: int) -> NfTable:
    found = _payloads(data, offset, end)
    return NfTable(
        family=_family(data, offset),
        name=_text(found[_TABLE_NAME]),
        handle=_number(found.get(_TABLE_HANDLE, b"")),
        flags=_number(found.get(_TABLE_FLAGS, b"")),
        use=_number(found.get(_TABLE_USE, b"")),
        owner=_number(found.get(_TABLE_OWNER, b"")),
        userdata=found.get(_TABLE_USERDATA, b""),
    )


def _chain(data: bytes, offset: int, end: int) -> NfChain:
    found = _payloads(data, offset, end)
    family = _family(data, offset)
    hook = found.get(_CHAIN_HOOK)
    parts = {} if hook is None else _payloads(hook, 0, len(hook))
    number = None if hook is None else _number(parts.get(_HOOK_NUMBER, b""))
    devices = [parts[_HOOK_DEVICE]] if _HOOK_DEVICE in parts else []
    if _HOOK_DEVICES in parts:
        several = parts[_HOOK_DEVICES]
        devices = [several[start:stop] for _, start, stop in _attributes(several, 0, len(several))]
    policy, kind = found.get(_CHAIN_POLICY), found.get(_CHAIN_TYPE)
    return NfChain(
        family=family,
        table=_text(found[_CHAIN_TABLE]),
        name=_text(found[_CHAIN_NAME]),
        handle=_number(found.get(_CHAIN_HANDLE, b"")),
        use=_number(found.get(_CHAIN_USE, b"")),
        flags=_number(found.get(_CHAIN_FLAGS, b"")),
        hook=number,
        hook_name=None if number is None else _hook_name(family, number),
        priority=None if hook is None else int.from_bytes(parts.get(_HOOK_PRIORITY, b""), "big", signed=True),
        policy=None if policy is None else _POLICIES.get(_number(policy), str(_number(policy))),
        type=None if kind is None else _text(kind),
        devices=tuple(_text(device) for device in devices),
        userdata=found.get(_CHAIN_USERDATA, b""),
    )


def _hook_name(family: str, number: int) -> str:
    names = _HOOKS_OF.get(family, _HOOKS)
    return names[number] if number < len(names) else str(number)


def _rule_parser(known: bytes, known_chain: str) -> Callable[[bytes, int, int], NfRule]:
    """A parser of rules that begin with the attributes that were asked for, as the kernel's do; others it reads too.

    Written out flat, and skipping what is known, since it runs for each of thousands of rules (1.3 µs).
    """
    unpack, skipped = _ATTRIBUTE.unpack_from, len(known)

    def parse(data: bytes, offset: int, end: int) -> NfRule:
        handle, chain, expressions, userdata = 0, "", b"", b""
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
            elif kind == _RULE_USERDATA:
                userdata = data[offset + 4 : offset + length]
            elif kind == _RULE_CHAIN:
                chain = _text(data[offset + 4 : offset + length])
            offset += length + 3 & ~3
        return NfRule(handle, chain, expressions, userdata)

    return parse
