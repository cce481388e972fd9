"""Network namespaces of one's own for tests and demonstrations: made, used and deleted without a process.

As root a namespace gets a name, so that ``ip -n NAME`` and other tools find it (ip-netns(8)); inside
``unshare -rn`` nothing may be mounted, and it lives as long as it is held open, without a name.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType

from meshfw.errors import MeshfwError
from meshfw.kernel.netns import CLONE_NEWNET, HeldNamespace, Namespace, entered, refused

__all__ = ["Netns", "available"]

_NAMED = "/run/netns"
_THREAD_NAMESPACE = "/proc/thread-self/ns/net"

# sys/mount.h
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2

# linux/sockios.h, linux/if.h
_SIOCSIFFLAGS = 0x8914
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


class Netns:
    """A fresh network namespace with its loopback up, gone at the end of the ``with`` block.

    ``name`` is what ip-netns(8) calls it, None when it has no name; ``path`` is its file, good for setns(2)
    and for everything that takes a namespace here. Names are unique, so that many runs go side by side; a process
    killed outright leaves its names behind, ``PREFIX-PID-...``, for ``ip netns del``.
    Raises KernelError when the system refuses; ask ``available()`` first.
    """

    def __init__(self, prefix: str = "meshfw") -> None:
        self._prefix = prefix
        self._held: HeldNamespace | None = None
        self._descriptor = -1
        self.name: str | None = None
        self.path = ""

    def __enter__(self) -> Netns:
        try:
            _in_a_thread(self._make)
            self._held = HeldNamespace(self.path)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the namespace, or let it go as soon as the last process in it ends; a second call does nothing."""
        name, self.name = self.name, None
        descriptor, self._descriptor = self._descriptor, -1
        held, self._held = self._held, None
        if held is not None:
            held.close()
        if descriptor >= 0:
            os.close(descriptor)
        if name is not None:
            _unmount(f"{_NAMED}/{name}")

    @property
    def identity(self) -> Namespace:
        """The value by which caches and locks know this namespace."""
        return self._open().identity

    def entered(self) -> AbstractContextManager[None]:
        """A block that the calling thread spends in this namespace."""
        return self._open().entered()

    def _open(self) -> HeldNamespace:
        if self._held is None:
            raise RuntimeError("this network namespace isn't open: use it inside its 'with' block")
        return self._held

    def _make(self) -> None:
        """Run in a thread of its own, which leaves for a new namespace and ends there."""
        _unshare()
        _raise_loopback()
        self.name = _mount(self._prefix)
        if self.name is not None:
            self.path = f"{_NAMED}/{self.name}"
        else:
            self._descriptor = os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"


def available() -> str | None:
    """Why no namespace can be made and entered here, or None when it can; found out by trying."""
    try:
        with Netns("meshfw-probe") as namespace, entered(namespace.path):
            return None
    except (MeshfwError, OSError) as error:
        return str(error)


def _in_a_thread(work: Callable[[], None]) -> None:
    """Do something in a thread that is not needed afterwards, and raise here what it raised there."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread, whatever it is
            raised.append(error)

    thread = threading.Thread(target=body, name="meshfw-netns")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _unshare() -> None:
    try:
        if sys.version_info >= (3, 12):
            os.unshare(CLONE_NEWNET)
        else:
            libc = ctypes.CDLL(None, use_errno=True)
            _checked(libc.unshare(ctypes.c_int(CLONE_NEWNET)))
    except OSError as error:
        raise refused(error, "make a network namespace") from error


def _raise_loopback() -> None:
    request = struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING)  # struct ifreq
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, _SIOCSIFFLAGS, request)


def _mount(prefix: str) -> str | None:
    """The name under which the thread's namespace now is mounted; None where mounting is not allowed."""
    try:
        os.makedirs(_NAMED, mode=0o755, exist_ok=True)
        directory = os.open(_NAMED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # as ip-netns(8) does: two must not make it a mount point at once
        _share_names()
        name = f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"
        path = f"{_NAMED}/{name}"
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o000))
        try:
            _libc_mount(_THREAD_NAMESPACE, path, _MS_BIND)
        except BaseException:
            os.unlink(path)
            raise
        return name
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EACCES, errno.EROFS}:
            return None
        raise refused(error, f"mount a network namespace under {_NAMED}") from error
    finally:
        os.close(directory)


def _share_names() -> None:
    """Make the directory of names a shared mount, as ip-netns(8) does: deletions then reach all mount namespaces."""
    try:
        _libc_mount("", _NAMED, _MS_SHARED | _MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
            raise
        _libc_mount(_NAMED, _NAMED, _MS_BIND | _MS_REC)
        _libc_mount("", _NAMED, _MS_SHARED | _MS_REC)


def _unmount(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(path), ctypes.c_int(_MNT_DETACH))  # nothing to say when it's not mounted any more
    with suppress(FileNotFoundError):
        os.unlink(path)


def _libc_mount(source: str, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(
        libc.mount(os.fsencode(source), os.fsencode(target), ctypes.c_char_p(b"none"), ctypes.c_ulong(flags), None)
    )


def _checked(result: int) -> None:
    """Raise OSError for a C call that returned -1."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
