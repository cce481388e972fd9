"""The bare limits: the questions to the kernel that no look at its tables can do without, and nothing around them."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Final

_NAMES: Final = "/proc/thread-self/net/{}_tables_names"
_GET_INFO, _GET_ENTRIES = 64, 65  # linux/netfilter_ipv4/ip_tables.h, IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES
_INFO: Final = struct.Struct("=32s48xI")  # struct ipt_getinfo: name; hooks and the number of entries; size
_QUESTION: Final = struct.Struct("=32sI4x")  # struct ipt_get_entries up to the entries
_FAMILIES: Final = (
    ("ip", socket.AF_INET, socket.IPPROTO_IP),
    ("ip6", socket.AF_INET6, socket.IPPROTO_IPV6),
)

_GETGEN: Final = 0xA10  # linux/netfilter/nf_tables.h, NFT_MSG_GETGEN in the subsystem NFNL_SUBSYS_NFTABLES
_QUESTION_GEN: Final = struct.pack("=IHHIIBBH", 20, _GETGEN, 1, 0, 0, 0, 0, 0)  # struct nlmsghdr and nfgenmsg
_GENERATION: Final = slice(24, 28)  # behind both headers and that of the first attribute, NFTA_GEN_ID
_NETLINK_NETFILTER: Final = 12  # linux/netlink.h


class BareGeneration:
    """The generation of nf_tables in the calling thread's namespace, all families at once; a call asks for it.

    One send and one receive on a kept socket, whose answer isn't looked at.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.connect((0, 0))
        self._answer = bytearray(4096)

    def __enter__(self) -> BareGeneration:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __call__(self) -> None:
        """Ask for it."""
        self._socket.send(_QUESTION_GEN)
        self._socket.recv_into(self._answer)

    def number(self) -> int:
        """The generation of now."""
        self()
        return int.from_bytes(self._answer[_GENERATION], "big")


class BareRead:
    """All legacy tables of the calling thread's namespace, in both families; a call reads each one into its buffer."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._sockets: list[socket.socket] = []
        self._tables = []
        for name, domain, level in _FAMILIES:
            opened = socket.socket(domain, socket.SOCK_DGRAM)
            self._sockets.append(opened)
            with open(_NAMES.format(name), encoding="ascii") as file:
                tables = file.read().split()
            for table in tables:
                info = ctypes.create_string_buffer(table.encode(), _INFO.size)
                self._ask(opened.fileno(), level, _GET_INFO, info)
                _, size = _INFO.unpack(info.raw)
                entries = ctypes.create_string_buffer(_QUESTION.size + size)
                _QUESTION.pack_into(entries, 0, table.encode(), size)
                self._tables.append((opened.fileno(), level, info, entries))

    def __enter__(self) -> BareRead:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets:
            opened.close()

    @property
    def size(self) -> int:
        """The bytes of all entries."""
        return sum(len(entries) - _QUESTION.size for *_, entries in self._tables)

    def shapes(self) -> bytes:
        """The shape of each table: its hooks, the number of its entries and their size, as the kernel tells it."""
        for descriptor, level, info, _ in self._tables:
            self._ask(descriptor, level, _GET_INFO, info)
        return b"".join(info.raw for _, _, info, _ in self._tables)

    def __call__(self) -> None:
        """Ask for the shape of each table, and for its entries."""
        for descriptor, level, info, entries in self._tables:
            self._ask(descriptor, level, _GET_INFO, info)
            self._ask(descriptor, level, _GET_ENTRIES, entries)

    def _ask(self, descriptor: int, level: int, option: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
        length = ctypes.c_uint(len(buffer))
        if self._libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
