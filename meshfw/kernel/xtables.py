"""Legacy iptables and ip6tables tables read in process: getsockopt(2) and one comparison of memory, no process.

The kernel keeps a table as one block of bytes and hands it out whole, of one moment. That the rules of a table are
what they were is thus a matter of comparing two blocks in which the counters are zeroed, 0.6 to 0.9 µs for each rule,
nine tenths of it the kernel's. Three things are minded:

1. *Asking makes tables.* Both GET_INFO and GET_ENTRIES make a table that isn't there (and GET_INFO loads its module),
   so only those that /proc/net/ip_tables_names lists are asked for.
2. *The kernel leaves holes.* It writes nothing behind the names of matches and targets, and what stood in the buffer
   stays there: so a buffer is fresh, or has held the same table only. (Before Linux 4.11 it put addresses there: a
   table written again without a change is a change then.)
3. *Python is slow.* Zeroing 10,000 pairs of counters one by one would take as long as reading them. readv(2) from
   /dev/zero does it 1,024 at a time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Final

from meshfw.errors import BackendError, KernelError
from meshfw.kernel.netns import NET_ADMIN_REMEDY, HeldNamespace, refused
from meshfw.kernel.xtblob import (
    COUNTERS_SIZE,
    INFO_SIZE,
    LAYOUTS,
    Blob,
    XtChain,
    XtInfo,
    XtRule,
    XtTable,
    answer_of,
    blob_of,
    info_of,
    parse,
)
from meshfw.model import Family, Table

__all__ = ["Blob", "XtChain", "XtInfo", "XtRule", "XtTable", "Xtables", "parse"]

_BITS: Final = struct.calcsize("P") * 8
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_*, IP6T_SO_GET_*
_SOCKETS: Final = {
    Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP),
    Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
_NET: Final = "/proc/thread-self/net"
_NAMES: Final = {Family.IPV4: f"{_NET}/ip_tables_names", Family.IPV6: f"{_NET}/ip6_tables_names"}
_NAME_SIZE: Final = 32  # linux/netfilter/x_tables.h, XT_TABLE_MAXNAMELEN
_QUESTION: Final = struct.Struct("=32sI4x")  # struct ipt_get_entries up to the entries
_IOV_MAX: Final = 1024  # linux/uio.h, UIO_MAXIOV
_IOV_SIZE: Final = 16  # struct iovec: an address and a length
_ATTEMPTS: Final = 32

_NAMES_REMEDY: Final = (
    "run as root, or with CAP_DAC_READ_SEARCH beside CAP_NET_ADMIN; without privileges `unshare -r unshare -n` makes a "
    "namespace in which the file can be read, `unshare -rn` one in which it can't"
)


class Xtables:
    """The legacy tables of one family in one network namespace, safe to share between threads.

    Made for ``namespace`` (a name or a path; None: the calling thread's) and bound to it for good. It writes nothing,
    makes no table and loads no module. Raises KernelError where the system refuses, with EPERM when CAP_NET_ADMIN is
    missing (for all but ``tables``), with EAGAIN when other writers never let a whole reading happen, with EPROTO for
    a table that can't be understood.
    """

    def __init__(self, family: Family, namespace: str | None = None) -> None:
        if _BITS != 64:
            raise BackendError("legacy tables can't be read by a 32-bit program", remedy="use a 64-bit Python")
        self.family = family
        self._domain, self._level = _SOCKETS[family]
        self._libc = _libc()
        self._lock = threading.Lock()
        self._open = True
        self._names = self._zeros = -1
        self._socket: socket.socket | None = None
        self._info = ctypes.create_string_buffer(_NAME_SIZE + INFO_SIZE)
        self._watches: dict[Table, _Watch] = {}
        self._namespace = HeldNamespace(namespace)

    def __enter__(self) -> Xtables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; a second call does nothing, and any other call afterwards is a KernelError."""
        with self._lock:
            self._open = False
            self._forget_names()
            zeros, self._zeros = self._zeros, -1
            if zeros >= 0:
                os.close(zeros)
            if self._socket is not None:
                self._socket.close()
            self._watches.clear()
            self._namespace.close()

    def tables(self) -> tuple[Table, ...]:
        """The tables that exist; none where the kernel has no legacy xtables, or nobody has used them yet.

        Raises KernelError with EACCES where the list is root's alone: in a user namespace whose network namespace was
        made before its users were mapped (``unshare -rn`` by an ordinary user), and for a service that has
        CAP_NET_ADMIN but not CAP_DAC_READ_SEARCH. Nothing else tells without making what it asks for.
        """
        with self._lock:
            return _tables_of(self._read_names())

    def info(self, table: Table) -> XtInfo:
        """The shape of a table (about 4 µs): it tells of rules added or removed, never of edits that keep the size.

        KernelError with ENOENT when the table doesn't exist. Where ``tables`` can't tell, the caller answers for it.
        """
        with self._lock:
            self._check(table)
            return self._ask_info(table)

    def read(self, table: Table) -> Blob:
        """A table, whole and of one moment; which tables may be asked for is as with ``info``."""
        with self._lock:
            self._check(table)
            return self._whole(table)

    def changed(self, table: Table, kept: Blob) -> Blob | None:
        """The table as it is now when it isn't what was kept; None when nothing but counters has changed.

        Made for every tick: it costs little more than the two questions to the kernel, and doesn't look first
        whether the table is still there (it goes only when its module is unloaded): ``tables`` tells.
        """
        with self._lock:
            if self._is_still(table, kept):
                return None
            fresh = self._whole(table)
        return None if fresh == kept else fresh

    def parse(self, blob: Blob, *, wanted: Callable[[str], bool] | None = None) -> XtTable:
        """The chains in a blob, with rules and counters, about 1 µs for each rule; user chains if they are wanted."""
        return parse(blob, wanted=wanted)

    def _is_still(self, table: Table, kept: Blob) -> bool:
        """Whether a table is what was kept, counters aside.

        The counters are zeroed where those of the kept entries stood. Were the entries laid out otherwise now, that
        would leave counters and zero other things, and yet never make different tables equal: the first entry's
        next_offset is at the same place in both, and no counters are zeroed there, since all that is zeroed lies
        within kept entries, behind that field. So equal bytes mean that the second entry begins at the same
        place too, and so on to the last: equal bytes mean an equal layout, of which exactly the counters were zeroed.

        The hooks' offsets are no part of the entries and matter: ACCEPT as the last rule of one built-in chain or as
        the first of the next is the same bytes. Should they move between the two questions, the next tick tells.
        """
        watch = self._watches.get(table)
        if watch is None or watch.kept is not kept:
            if (kept.family, kept.table) != (self.family, table):
                return False
            watch = self._watches[table] = _Watch(kept)
        if self._ask_shape(table) != watch.answer or not self._ask_entries(table, watch.buffer):
            return False
        self._zero(watch)
        if self._libc.memcmp(kept.masked, watch.entries, kept.info.size) == 0:
            return True
        del self._watches[table]  # its buffer has held something else now
        return False

    def _whole(self, table: Table) -> Blob:
        """A table of one moment: asked again, boundedly, while it changes between the questions.

        Should it change and change back between two of them, the shape is that of one moment and the entries are
        those of another; then it differs from what the next tick finds.
        """
        info = self._ask_info(table)
        for _ in range(_ATTEMPTS):
            buffer = _question(table, info.size)
            whole = self._ask_entries(table, buffer)
            before, info = info, self._ask_info(table)
            if whole and info == before:
                return blob_of(self.family, table, info, buffer.raw[_QUESTION.size :])
        raise KernelError(
            f"read table {table}: other writers changed it during each of {_ATTEMPTS} readings", errno=errno.EAGAIN
        )

    def _ask_info(self, table: Table) -> XtInfo:
        return info_of(self._ask_shape(table))

    def _ask_shape(self, table: Table) -> bytes:
        """The kernel's answer to GET_INFO."""
        self._info.value = table.encode()
        self._ask(_GET_INFO, self._info, table)
        return self._info.raw[_NAME_SIZE:]

    def _ask_entries(self, table: Table, buffer: ctypes.Array[ctypes.c_char]) -> bool:
        """Whether a table filled the buffer, behind the question; False when its size isn't the buffer's any more."""
        try:
            self._ask(_GET_ENTRIES, buffer, table)
        except KernelError as error:
            if error.errno != errno.EAGAIN:
                raise
            return False
        return True

    def _ask(self, option: int, buffer: ctypes.Array[ctypes.c_char], table: Table) -> None:
        if self._socket is None:
            self._socket = self._connect()
        length = ctypes.c_uint(len(buffer))
        if self._libc.getsockopt(self._socket.fileno(), self._level, option, buffer, ctypes.byref(length)) != 0:
            number = ctypes.get_errno()
            remedy = NET_ADMIN_REMEDY if number == errno.EPERM else ""
            raise refused(OSError(number, os.strerror(number)), f"read table {table}", remedy=remedy)

    def _connect(self) -> socket.socket:
        """A socket of the namespace, made when a table is there to be asked for: until then IPv6 may be missing."""
        self._check_open()
        try:
            with self._namespace.entered():
                return socket.socket(self._domain, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise refused(error, f"open a socket to read {self.family} tables") from error

    def _zero(self, watch: _Watch) -> None:
        """Zero what stands in a buffer where the counters of the kept table stood."""
        if self._zeros < 0:
            with suppress(OSError):  # a sandbox may hide it; then it's done one by one
                self._zeros = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
        done, count = 0, watch.kept.info.num_entries
        while done < count:
            some = min(_IOV_MAX, count - done)
            zeroed = self._libc.readv(self._zeros, watch.vector + done * _IOV_SIZE, some) // COUNTERS_SIZE
            if zeroed <= 0:  # no /dev/zero, or a signal
                watch.zero_slowly(done)
                return
            done += zeroed

    def _check(self, table: Table) -> None:
        """Refuse to ask for a table that isn't there, since asking would make it."""
        try:
            tables = _tables_of(self._read_names())
        except KernelError as error:
            if error.errno != errno.EACCES:
                raise
            return
        if table not in tables:
            raise KernelError(f"read table {table}: there is no such {self.family} table", errno=errno.ENOENT)

    def _check_open(self) -> None:
        if not self._open:
            raise KernelError(f"read {self.family} tables: closed already", errno=errno.EBADF)

    def _read_names(self) -> bytes:
        """The namespace's file of the tables' names, which is kept open: it stays that namespace's (1 µs)."""
        self._check_open()
        for last in (False, True):
            try:
                if self._names < 0:
                    self._names = self._open_names()
                return os.pread(self._names, 4096, 0)
            except FileNotFoundError as error:
                if os.path.isdir(_NET):
                    return b""  # the kernel has no legacy xtables, or not yet
                raise refused(error, f"read {_NAMES[self.family]}", remedy="mount /proc") from error
            except OSError as error:
                self._forget_names()  # it's dead once the module that made it is unloaded
                if last or error.errno == errno.EACCES:
                    remedy = _NAMES_REMEDY if error.errno == errno.EACCES else ""
                    raise refused(error, f"read {_NAMES[self.family]}", remedy=remedy) from error
        raise AssertionError("the second attempt returns or raises")

    def _open_names(self) -> int:
        with self._namespace.entered():
            return os.open(_NAMES[self.family], os.O_RDONLY | os.O_CLOEXEC)

    def _forget_names(self) -> None:
        names, self._names = self._names, -1
        if names >= 0:
            os.close(names)


@lru_cache(64)
def _tables_of(names: bytes) -> tuple[Table, ...]:
    """The tables that are listed, one on each line."""
    listed = names.decode("ascii", "replace").split()
    return tuple(table for table in Table if table in listed)


def _question(table: Table, size: int) -> ctypes.Array[ctypes.c_char]:
    """A buffer that asks GET_ENTRIES for a table of that size; the kernel writes behind the question only."""
    buffer = ctypes.create_string_buffer(_QUESTION.size + size)
    _QUESTION.pack_into(buffer, 0, table.encode(), size)
    return buffer


class _Watch:
    """What a kept table is compared with: the answer to GET_INFO, and a buffer for the answer to GET_ENTRIES.

    ``entries`` is the address of the entries in the buffer, ``vector`` that of their counters' places, one struct
    iovec for each, as readv(2) wants them.
    """

    def __init__(self, kept: Blob) -> None:
        self.kept = kept
        self.answer = answer_of(kept.info)
        self.buffer = _question(kept.table, kept.info.size)
        self.entries = ctypes.addressof(self.buffer) + _QUESTION.size
        first = self.entries + LAYOUTS[kept.family].counters
        offsets = memoryview(kept.offsets).cast("I")
        self._iovecs = array("Q", [COUNTERS_SIZE]) * (2 * len(offsets))
        self._iovecs[0::2] = array("Q", [first + offset for offset in offsets])
        self.vector = self._iovecs.buffer_info()[0]

    def zero_slowly(self, done: int) -> None:
        """Zero one by one, without those before ``done``."""
        for address in self._iovecs[2 * done :: 2]:
            ctypes.memset(address, 0, COUNTERS_SIZE)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    number, size, address = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    libc.getsockopt.argtypes = (number, number, number, address, address)
    libc.readv.argtypes = (number, address, number)
    libc.readv.restype = ctypes.c_ssize_t
    libc.memcmp.argtypes = (ctypes.c_char_p, address, size)
    return libc
