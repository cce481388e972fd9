"""Commits to nf_tables as the kernel tells of them: who made each, and whether it touched what is watched for.

The multicast group NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h) gets, after each commit, what it changed, object by
object, and then one message NEWGEN with the new generation and its writer's process and name. Somebody else's commit
may hold 10,000 rules, so of each object only its table and chain are looked at, and not again for its neighbours of
the same chain. Messages that didn't fit into the socket's buffer are lost, and the kernel says so (ENOBUFS): then
anything may have happened.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from meshfw.kernel.netns import entered, refused
from meshfw.kernel.nfmessage import (
    GEN_ID,
    HEADER,
    NETLINK_NETFILTER,
    NEWGEN,
    NLMSG_ERROR,
    NfChain,
    attributes,
    family_number,
)

_SOL_NETLINK: Final = 270  # linux/socket.h
_NETLINK_ADD_MEMBERSHIP: Final = 1  # linux/netlink.h
_NFNLGRP_NFTABLES: Final = 7
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER: Final = 16 << 20  # a limit, which the kernel doubles, for some 19,000 rules (1.7 KB each, as it counts)
_RECEIVE_SIZE: Final = 1 << 16  # the kernel puts several messages into a datagram, up to a page or 8 KiB
_DATAGRAMS: Final = 65_536
_GEN_PID, _GEN_NAME = 2, 3  # enum nft_gen_attributes

# the message types of enum nf_tables_msg_types, without the subsystem
_NEWCHAIN, _DELCHAIN = 0x0A03, 0x0A05  # these two with it
_RULES: Final = frozenset({0x06, 0x08})
_OTHERS: Final = frozenset({0x09, 0x0B, 0x0C, 0x0E, 0x12, 0x14, 0x16, 0x18})  # sets, elements, objects, flow tables
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_FAMILY: Final = 16  # where struct nfgenmsg begins, with the family
_FIRST: Final = 20  # where the first attribute begins, which is the table's name in all of them
_CHAIN_HANDLE, _CHAIN_NAME = 2, 3  # NFTA_CHAIN_*
_RULE_CHAIN: Final = 2  # NFTA_RULE_CHAIN


class NfCommit(msgspec.Struct, frozen=True):
    """One commit: its generation, its writer's process, name and netlink port, and whether it touched the scope.

    ``pid`` is the number of the thread that wrote, in the first process namespace whatever ours is; ``command`` the
    name of that thread. ``lost``: messages were, so ``touched`` is only feared; all else is 0 and empty then.
    """

    generation: int = 0
    pid: int = 0
    command: str = ""
    port: int = 0
    touched: bool = True
    lost: bool = False


class Scope(msgspec.Struct, frozen=True):
    """What matters of nf_tables: some tables, each as its family's word and its name, with all that is in them.

    ``chains``: only the chains whose names it says yes to (and the tables themselves, as they come, go, or sleep).
    """

    tables: frozenset[tuple[str, str]]
    chains: Callable[[str], bool] | None = None


class NfEvents:
    """A socket that hears of every commit to nf_tables in one network namespace; nothing is asked of the kernel.

    Heard is what comes after it was made, in ``namespace`` (a name or a path; None: the calling thread's), which lives
    as long as it. Raises KernelError where the system refuses.
    """

    def __init__(self, scope: Scope, namespace: str | None = None) -> None:
        self._judge = _Judge(scope)
        self._touched = False
        self._feared = False
        self._losing = False
        with entered(namespace):
            self._socket = _listening_socket()

    def fileno(self) -> int:
        """The descriptor that becomes readable when somebody commits; -1 once it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back; a second call does nothing."""
        self._socket.close()

    def learn(self, chains: Iterable[NfChain]) -> None:
        """Know the chains that were there before it was made, or that came while messages were lost."""
        self._judge.learn(chains)

    def commits(self) -> tuple[NfCommit, ...]:
        """The commits since the last call; never blocks. It's bounded, so the rest of a flood stays for the next."""
        found: list[NfCommit] = []
        if self._socket.fileno() < 0:
            return ()
        receive = self._socket.recv
        for _ in range(_DATAGRAMS):
            try:
                data = receive(_RECEIVE_SIZE, socket.MSG_TRUNC)
            except BlockingIOError:
                self._recovered()
                break
            except OSError as error:
                self._losing = self._feared = True
                if error.errno != errno.ENOBUFS:
                    break
                continue
            if len(data) > _RECEIVE_SIZE:  # with MSG_TRUNC the size is the message's, though the rest is lost
                self._losing = self._feared = True
            try:
                self._take(data, found)
            except (OSError, struct.error):  # nothing that this kernel's header files know
                self._losing = self._feared = True
        if self._losing:
            self._losing = False
            found.append(NfCommit(lost=True))
        return tuple(found)

    def _recovered(self) -> None:
        """All is read, so from here on the kernel delivers again.

        Until then it went on dropping without another word. What it dropped may be the beginning of a commit whose
        end is still to come, so that one is feared for, too.
        """
        self._touched = self._touched or self._feared
        self._losing = self._losing or self._feared
        self._feared = False

    def _take(self, data: bytes, found: list[NfCommit]) -> None:
        """Note what the messages of a datagram touch, and the commits that end in it."""
        unpack, judge, offset, end = HEADER.unpack_from, self._judge, 0, min(len(data), _RECEIVE_SIZE)
        touched = self._touched
        while offset + HEADER.size <= end:
            length, kind, _, _, port = unpack(data, offset)
            if length < HEADER.size:
                raise OSError(errno.EPROTO, "netlink message with an impossible length")
            if kind == NEWGEN:
                found.append(self._commit(data[offset : offset + length], port, touched=touched))
                touched = False
            elif kind == _NEWCHAIN or not (touched or kind == NLMSG_ERROR):
                touched = judge.touches(data, offset, kind, offset + length) or touched
            offset += length + 3 & ~3
        self._touched = touched

    def _commit(self, message: bytes, port: int, *, touched: bool) -> NfCommit:
        told = dict(attributes(message, _FIRST, len(message)))
        return NfCommit(
            generation=int.from_bytes(told.get(GEN_ID, b""), "big"),
            pid=int.from_bytes(told.get(_GEN_PID, b""), "big"),
            command=os.fsdecode(told.get(_GEN_NAME, b"").rstrip(b"\0")),
            port=port,
            touched=touched or self._feared,
        )


class _Judge:
    """Whether a message is about what is in a scope; messages that begin like the last one are like it."""

    def __init__(self, scope: Scope) -> None:
        self._tables = frozenset((family_number(family), os.fsencode(name)) for family, name in scope.tables)
        self._chains = scope.chains
        self._last, self._last_kind = b"\0", -1
        self._handles: set[tuple[bytes, int]] = set()

    def learn(self, chains: Iterable[NfChain]) -> None:
        """Know chains that are there: when one gets another name, the kernel tells the new name and the handle."""
        for chain in chains:
            number, table = family_number(chain.family), os.fsencode(chain.table)
            if self._chains is not None and (number, table) in self._tables and self._chains(chain.name):
                self._handles.add((bytes((number,)) + table, chain.handle))

    def _chain_touches(
        self, table: bytes, told: dict[int, bytes], chains: Callable[[str], bool], *, gone: bool
    ) -> bool:
        key = table, int.from_bytes(told.get(_CHAIN_HANDLE, b""), "big")
        wanted = chains(os.fsdecode(told.get(_CHAIN_NAME, b"").rstrip(b"\0")))
        touches = wanted or key in self._handles
        (self._handles.add if wanted and not gone else self._handles.discard)(key)
        return touches

    def touches(self, data: bytes, offset: int, kind: int, end: int) -> bool:
        """Whether the message between the offsets touches the scope."""
        if kind == self._last_kind and data.startswith(self._last, offset + _FAMILY):
            return False  # a message that touched would have ended the questions for its commit
        size, _ = _ATTRIBUTE.unpack_from(data, offset + _FIRST)
        table = data[offset + _FIRST + 4 : offset + _FIRST + size].rstrip(b"\0")
        known = offset + _FIRST + (size + 3 & ~3)
        if (data[offset + _FAMILY], table) in self._tables:
            chains, what = self._chains, kind & 0xFF
            if chains is None or what in _OTHERS:
                return chains is None
            if kind in (_NEWCHAIN, _DELCHAIN):
                key = data[offset + _FAMILY : offset + _FAMILY + 1] + table
                return self._chain_touches(key, dict(attributes(data, known, end)), chains, gone=kind == _DELCHAIN)
            if what not in _RULES:
                return True
            size, number = _ATTRIBUTE.unpack_from(data, known)
            if number != _RULE_CHAIN or chains(os.fsdecode(data[known + 4 : known + size].rstrip(b"\0"))):
                return True
            known += size
        self._last, self._last_kind = data[offset + _FAMILY : known], kind
        return False


def _listening_socket() -> socket.socket:
    try:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        channel = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    except OSError as error:
        raise refused(error, "open a netfilter netlink socket", remedy="the kernel needs nf_tables") from error
    try:
        try:
            channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except OSError:  # no CAP_NET_ADMIN in the first user namespace: up to net.core.rmem_max
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        channel.bind((0, 0))
        channel.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
    except OSError as error:
        channel.close()
        raise refused(error, "listen to what is committed to nf_tables") from error
    return channel
