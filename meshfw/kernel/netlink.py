"""nf_tables as the kernel tells it over netlink: the generation in microseconds, and dumps without libnftables.

The generation is the cheap question of every tick (one send, one receive, about 4 µs); dumps of tables and
chains name what other tools have without loading a single rule of theirs, and a dump of one chain's rules costs
nothing for the rules of other chains.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TypeVar

from meshfw.errors import KernelError
from meshfw.kernel.netns import NET_ADMIN_REMEDY, entered, refused
from meshfw.kernel.nfmessage import (
    GEN_ID,
    GETGEN,
    NETLINK_NETFILTER,
    NEWGEN,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    REQUEST,
    TABLE_DORMANT,
    TABLE_OWNED,
    Dump,
    NfChain,
    NfObject,
    NfRule,
    NfTable,
    chains_dump,
    delete_objects,
    delete_table,
    family_number,
    header,
    is_unused,
    raise_code,
    rules_dump,
    tables_dump,
)

__all__ = ["TABLE_DORMANT", "TABLE_OWNED", "NfChain", "NfObject", "NfRule", "NfTable", "Nfnetlink"]

T = TypeVar("T")

_SEQUENCE = struct.Struct("=I")
_SEQUENCE_OFFSET = 8  # in struct nlmsghdr
_GENERATION = struct.Struct("=IHHII4xHHI")  # a reply to GETGEN as the kernel builds it: NFTA_GEN_ID comes first

# linux/netfilter/nfnetlink.h: a batch is BEGIN, with the generation that it's for, and END
_BATCH = struct.Struct("=IHHIIBBHHHIIHHIIBBH")
_BATCH_BEGIN, _BATCH_END, _BATCH_GENID, _NFTABLES = 0x10, 0x11, 1, socket.htons(10)
_GENID = struct.Struct("=HHI")
_BEGIN_SIZE = REQUEST.size + 8

_SIOCGSKNS = 0x894C  # linux/sockios.h, Linux 4.10
_RECEIVE_SIZE = 1 << 16  # the kernel fills at most 32 KiB per dump message for a reader of this size
_REPLY_SECONDS = 10
_ATTEMPTS = 32


class Nfnetlink:
    """An open netlink socket to nf_tables of one network namespace, safe to share between threads.

    Made in ``namespace`` (a name or a path; None: the calling thread's) and bound to it for good; nothing
    is reopened behind the caller's back. Raises KernelError where the system refuses, with EPERM when
    CAP_NET_ADMIN is missing, with EINTR when other writers never let a whole reading happen.
    """

    def __init__(self, namespace: str | None = None) -> None:
        with entered(namespace):
            self._socket = _connected_socket()
        self._lock = threading.Lock()
        self._sequence = 0
        self._receive_size = _RECEIVE_SIZE
        self._question = bytearray(REQUEST.pack(REQUEST.size, GETGEN, NLM_F_REQUEST, 0, 0, 0, 0, 0))
        self._answer = bytearray(4096)
        self._part = bytearray()

    def __enter__(self) -> Nfnetlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a second call does nothing, and any other call afterwards is a KernelError."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The netlink port of the socket, by which the kernel names its commits; 0 once it is closed."""
        return int(self._socket.getsockname()[0]) if self._socket.fileno() >= 0 else 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A block that the calling thread spends in the socket's namespace, whatever has its name now."""
        try:
            descriptor = fcntl.ioctl(self._socket, _SIOCGSKNS)
        except OSError as error:
            raise _refusal(error, "find the namespace of a socket") from error
        try:
            with entered(f"/proc/self/fd/{descriptor}"):
                yield
        finally:
            os.close(descriptor)

    def generation(self) -> int:
        """The number of the last committed transaction in this namespace, over all families and tables.

        It is 32 bits wide, starts at 1 in a fresh namespace, and moves by exactly one per commit. Good to learn that
        nothing happened (about 4 µs); before reading rules that it shall stand for, ask ``settled``.
        """
        with self._lock:
            try:
                return self._ask_generation()
            except OSError as error:
                raise _refusal(error, "ask for the nf_tables generation") from error

    def settled(self) -> int:
        """The generation, once the commit that it counts has wholly taken effect: rules read from now on are its.

        The kernel counts a commit a moment before it shows the new rules, and a writer can be stopped in between:
        who asks for the plain generation then, and reads the rules after it, takes old rules for new ones and never
        looks again. So an empty transaction, which changes nothing, waits for the writers' mutex and says whether
        the number still holds (NFNL_BATCH_GENID, Linux 4.12). About 8 µs, longer while somebody writes.
        """
        with self._lock:
            try:
                return self._ask_settled()
            except OSError as error:
                raise _refusal(error, "wait for the nf_tables generation") from error

    def tables(self, family: str | None = None) -> tuple[NfTable, ...]:
        """The tables of all families, or of one (``ip``, ``ip6``, ``inet``, ``arp``, ``bridge``, ``netdev``)."""
        return self._whole(tables_dump(), family_number(family))

    def chains(self, family: str | None = None) -> tuple[NfChain, ...]:
        """The chains of all tables, or of one family's, without their rules."""
        return self._whole(chains_dump(), family_number(family))

    def rules(self, family: str, table: str, chain: str | None = None) -> tuple[NfRule, ...]:
        """The rules of one chain in order, or of a whole table, chain by chain; empty when there is none.

        The kernel's cost per rule grows with the rules of the table (3 µs at 1,000, 56 µs at 100,000)
        unless ``chain`` is given.
        """
        return self._whole(rules_dump(table, chain), family_number(family))

    def datagrams(self, ask: int, attributes: bytes, *, family: str, take: Callable[[bytearray, int], bool]) -> bool:
        """Hand the answer to a dump over as it comes: each datagram's buffer and size, until ``take`` says it was all.

        ``take`` may write into the buffer, which is used again. Nothing is checked here but that it's all there, False
        where it isn't; what is read is of one moment where ``settled`` gives the same number before and after.
        """
        with self._lock:
            try:
                return self._stream(ask, attributes, family_number(family), take)
            except OSError as error:
                self._drain()
                if error.errno in {errno.ENOBUFS, errno.EBUSY}:
                    return False
                raise _refusal(error, "read from nf_tables") from error
            except BaseException:
                self._drain()
                raise

    def remove_unused(self, family: str, name: str) -> bool:
        """Take away a table of iptables in which nothing stands; whether it was there, unused, and is gone.

        Unused is one that holds nothing but base chains named as iptables names them, accepting and without a rule. It
        goes only if nobody has written since it was looked at (NFNL_BATCH_GENID); who writes meanwhile may keep it.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    before = self._ask_settled()
                    if not self._is_unused(family, name):
                        return False
                    if self._committed(before, lambda number: delete_table(family, name, sequence=number)):
                        return True
                except OSError as error:
                    self._drain()
                    raise _refusal(error, f"take away the unused table {family} {name}") from error
        return False

    def delete(self, objects: Sequence[NfObject]) -> None:
        """Take away rules, by their handles, and chains: all of them or, with a KernelError, none."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    if self._committed(self._ask_settled(), partial(delete_objects, objects)):
                        return
                except OSError as error:
                    self._drain()
                    raise _refusal(error, "take away rules and chains") from error
        raise KernelError("take away rules and chains: other writers never paused", errno=errno.EINTR)

    def exchange(self, messages: Callable[[int], bytes], count: int) -> tuple[int, list[bytes], bool]:
        """Send messages of so many numbers: the first one, what is answered at once, and whether some of it is lost."""
        with self._lock:
            first = self._sequence + 1 & 0x7FFFFFFF
            self._sequence = first + count - 1
            answers: list[bytes] = []  # those to transactions and about one object are there when send() returns
            lost = False
            try:
                self._socket.send(messages(first))
                while True:
                    try:
                        answers.append(self._socket.recv(self._receive_size, socket.MSG_DONTWAIT))
                    except BlockingIOError:
                        return first, answers, lost
                    except OSError as error:
                        if error.errno != errno.ENOBUFS:
                            raise
                        lost = True
            except OSError as error:
                self._drain()
                raise _refusal(error, "send nf_tables a message") from error

    def _is_unused(self, family: str, name: str) -> bool:
        number = family_number(family)
        tables = [table for table in self._dump(tables_dump(), number) or () if table.name == name]
        chains = [chain for chain in self._dump(chains_dump(), number) or () if chain.table == name]
        return len(tables) == 1 and is_unused(tables[0], chains)

    def _committed(self, generation: int, messages: Callable[[int], bytes]) -> bool:
        """Commit messages, made for a sequence number, if the generation still holds; False where it doesn't."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        begin = REQUEST.pack(_BEGIN_SIZE, _BATCH_BEGIN, NLM_F_REQUEST, sequence, 0, 0, 0, _NFTABLES)
        held = _GENID.pack(8, _BATCH_GENID, socket.htonl(generation))
        end = REQUEST.pack(REQUEST.size, _BATCH_END, NLM_F_REQUEST, sequence, 0, 0, 0, _NFTABLES)
        self._socket.send(begin + held + messages(sequence) + end)
        return self._accepted()

    def _ask_generation(self) -> int:
        question, answer, channel = self._question, self._answer, self._socket
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        _SEQUENCE.pack_into(question, _SEQUENCE_OFFSET, sequence)
        channel.send(question)
        for _ in range(_ATTEMPTS):
            size = channel.recv_into(answer)
            _, kind, _, number, _, _, attribute, value = _GENERATION.unpack_from(answer)
            if number == sequence:  # else it's left over from a call that was interrupted
                if kind == NEWGEN and attribute == GEN_ID and size >= _GENERATION.size:
                    return socket.ntohl(value)
                if kind == NLMSG_ERROR:
                    raise_code(answer)
                raise OSError(errno.EPROTO, f"unexpected netlink message of type {kind:#x}")
        raise OSError(errno.EPROTO, "no answer")

    def _ask_settled(self) -> int:
        for _ in range(_ATTEMPTS):
            generation = self._ask_generation()
            if self._nobody_wrote_since(generation):
                return generation
        raise OSError(errno.EINTR, "other writers never paused")

    def _nobody_wrote_since(self, generation: int) -> bool:
        """Whether the generation is this one still when no writer is at work; waits until none is."""
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        begin = (_BEGIN_SIZE, _BATCH_BEGIN, NLM_F_REQUEST, sequence, 0, 0, 0, _NFTABLES)
        end = (REQUEST.size, _BATCH_END, NLM_F_REQUEST, sequence, 0, 0, 0, _NFTABLES)
        self._socket.send(_BATCH.pack(*begin, 8, _BATCH_GENID, socket.htonl(generation), *end))
        return self._accepted()

    def _accepted(self) -> bool:
        """Whether the batch just sent was taken; False where the generation had moved.

        No news is good news: all has happened when send() returns, and only a refusal is answered.
        """
        try:
            while True:
                answer = self._socket.recv(self._receive_size, socket.MSG_DONTWAIT)
                _, kind, _, number, _ = header(answer)
                if kind == NLMSG_ERROR and number == self._sequence:
                    raise_code(answer)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.ERESTART:
                raise
            return False

    def _whole(self, dump: Dump[T], family: int) -> tuple[T, ...]:
        """A list that is one state: read again, boundedly, when somebody wrote between its beginning and its end.

        The kernel's own mark (NLM_F_DUMP_INTR) misses a commit during the last part of a dump, which in a short dump
        is the only one, and rules that a transaction under way has put in shift the places where parts begin.
        So the writers are waited for before and after, and the links between rules are checked. What no sign tells
        of: rules missing at a chain's very end, because a transaction on that same chain failed during the dump.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    before = self._ask_settled()
                    found = self._dump(dump, family)
                    intact = found is not None and (dump.intact is None or dump.intact(found))
                    if found is not None and intact and self._nobody_wrote_since(before):
                        return tuple(found)
                except OSError as error:
                    self._drain()
                    if error.errno not in {errno.ENOBUFS, errno.EBUSY}:
                        raise _refusal(error, "read from nf_tables") from error
                except BaseException:
                    self._drain()
                    raise
        raise KernelError(
            f"read from nf_tables: other writers changed the rules during each of {_ATTEMPTS} readings",
            errno=errno.EINTR,
        )

    def _dump(self, dump: Dump[T], family: int) -> list[T] | None:
        """One dump, or None when the kernel says that it isn't one state, or when a part of it didn't fit."""
        sequence = self._ask_dump(dump.ask, dump.attributes, family)
        found: list[T] = []
        parse, whole = dump.parse, True
        while True:
            data = self._socket.recv(self._receive_size, socket.MSG_TRUNC)
            if len(data) > self._receive_size:  # with MSG_TRUNC the size is the message's, though the rest is lost
                self._receive_size = len(data)
                whole = False
                continue
            offset = 0
            while offset < len(data):
                length, kind, marks, number, _ = header(data, offset)
                if number == sequence:
                    whole = whole and not marks & NLM_F_DUMP_INTR
                    if kind == dump.reply:
                        found.append(parse(data, offset + REQUEST.size, offset + length))
                    elif kind in {NLMSG_DONE, NLMSG_ERROR}:
                        raise_code(data, offset)
                        return found if whole else None
                offset += length + 3 & ~3

    def _ask_dump(self, ask: int, attributes: bytes, family: int) -> int:
        self._sequence = sequence = self._sequence + 1 & 0xFFFFFFFF
        size, flags = REQUEST.size + len(attributes), NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(REQUEST.pack(size, ask, flags, sequence, 0, family, 0, 0) + attributes)
        return sequence

    def _stream(self, ask: int, attributes: bytes, family: int, take: Callable[[bytearray, int], bool]) -> bool:
        sequence = self._ask_dump(ask, attributes, family)
        if len(self._part) < self._receive_size:
            self._part = bytearray(self._receive_size)
        part, receive, number = self._part, self._socket.recv_into, _SEQUENCE.unpack_from
        while True:
            size = receive(part, 0, socket.MSG_TRUNC)
            if size > len(part):  # with MSG_TRUNC the size is the datagram's, though the rest is lost
                self._receive_size = size
                self._drain()
                return False
            if number(part, _SEQUENCE_OFFSET)[0] == sequence and take(part, size):
                return True

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
