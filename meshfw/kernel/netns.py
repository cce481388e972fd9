"""Network namespaces: which one a thread is in, going into another and back, and what a process may do there.

A libnftables context and a netlink socket stay in the namespace in which they were made, so a thread
goes there for a moment (14 µs there and back) and nothing has to be spawned. ``setns`` moves the
*calling thread* only (setns(2)); that is why everything here reads ``/proc/thread-self`` and never
``/proc/self``, which shows the main thread's namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import msgspec

from meshfw.errors import BackendError, KernelError

CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h: _IO(0xb7, 0x3)
_CAP_NET_ADMIN = 12  # linux/capability.h

_NAMED = "/run/netns"  # ip-netns(8)
_THREAD_NAMESPACE = "/proc/thread-self/ns/net"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

NET_ADMIN_REMEDY = "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"
_SYS_ADMIN_REMEDY = "run as root, or start the program inside the namespace"


def refused(error: OSError, doing: str, *, remedy: str = "") -> KernelError:
    """The KernelError for a system call that failed: what was tried, the system's own words, its errno."""
    number = error.errno or 0
    return KernelError(f"{doing}: {error.strerror or error}", errno=number, remedy=remedy)


class Namespace(msgspec.Struct, frozen=True):
    """The identity of a network namespace: the device and inode of its nsfs file, and the boot it belongs to.

    The boot is part of it because inode numbers and nf_tables generations both start again at every boot.
    """

    device: int
    inode: int
    boot_id: str

    @classmethod
    def current(cls) -> Namespace:
        """The namespace of the calling thread; KernelError when /proc can't be read."""
        return cls.of(_THREAD_NAMESPACE)

    @classmethod
    def of(cls, target: str | int) -> Namespace:
        """The namespace behind a path or an open file descriptor; KernelError when it can't be read."""
        try:
            status = os.stat(target)
            with open(_BOOT_ID, encoding="ascii") as file:
                return cls(status.st_dev, status.st_ino, file.read().strip())
        except OSError as error:
            raise refused(error, f"identify the network namespace {target}") from error


class HeldNamespace:
    """A network namespace kept open, so that any thread can go there again whatever happens to its name.

    ``where`` is a name (``/run/netns/NAME``, ip-netns(8)), a path (anything with a slash), or None for the
    namespace of the calling thread. Raises BackendError when there is no such namespace, KernelError when
    the system refuses it.
    """

    def __init__(self, where: str | None = None) -> None:
        self.path = namespace_path(where)
        self._descriptor = _open_namespace(self.path)
        self._setns = _setns_function()
        self._way_back: tuple[int, int] | None = None
        try:
            self.identity = Namespace.of(self._descriptor)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> HeldNamespace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the namespace go; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def file(self) -> str:
        """A path of the namespace while it is held, good for whatever in this process wants one."""
        return f"/proc/self/fd/{self._descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A block that the calling thread spends in this namespace; free when it's there already.

        A thread that couldn't come back (its own namespace belongs to a user namespace in which it may
        do nothing) doesn't leave: KernelError with EPERM before the block.
        """
        status = os.stat(_THREAD_NAMESPACE)
        here = (status.st_dev, status.st_ino)
        if here == (self.identity.device, self.identity.inode):
            yield
            return
        home = os.open(_THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._way_back != here:
                self._move(home, "make sure to come back before entering")
                self._way_back = here
            self._move(self._descriptor, "enter")
            try:
                yield
            finally:
                self._move(home, "come back from")
        finally:
            os.close(home)

    def _move(self, descriptor: int, doing: str) -> None:
        try:
            self._setns(descriptor, CLONE_NEWNET)
        except OSError as error:
            remedy = _SYS_ADMIN_REMEDY if error.errno == errno.EPERM else ""
            raise refused(error, f"{doing} the network namespace {self.path}", remedy=remedy) from error


@contextmanager
def entered(where: str | None) -> Iterator[None]:
    """A block that the calling thread spends in a namespace given by name or path; None stays where it is.

    Everything opened inside (sockets, processes) belongs to that namespace for good. Not for coroutines:
    the thread moves, and whatever else runs on it meanwhile moves along.
    """
    if where is None:
        yield
        return
    with HeldNamespace(where) as namespace, namespace.entered():
        yield


def fresh_namespace() -> HeldNamespace:
    """A network namespace of one's own, empty and without a name: gone when it's closed and nothing works there.

    KernelError where the system refuses, with EPERM without CAP_SYS_ADMIN (unshare(2)).
    """
    made: list[HeldNamespace | BackendError] = []

    def make() -> None:  # in a thread of its own, so that no other one is moved
        try:
            _unshare_function()(CLONE_NEWNET)
            made.append(HeldNamespace())
        except OSError as error:
            made.append(refused(error, "make a network namespace", remedy=_SYS_ADMIN_REMEDY))
        except BackendError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="meshfw-namespace")
    try:
        thread.start()
    except RuntimeError as error:  # pthread_create(3): too many tasks, as a cgroup counts them
        raise KernelError(f"make a network namespace: {error}", errno=errno.EAGAIN) from error
    thread.join()
    (found,) = made
    if isinstance(found, BackendError):
        raise found
    return found


def namespace_path(where: str | None) -> str:
    """The nsfs file of a namespace given by name, by path, or None for the calling thread's."""
    if where is None:
        return _THREAD_NAMESPACE
    if "\0" in where or where in {"", ".", ".."}:
        raise BackendError(f"{where!r} can't be the name of a network namespace", remedy="'ip netns list' shows them")
    return where if "/" in where else f"{_NAMED}/{where}"


def _open_namespace(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BackendError(
            f"there is no network namespace {path}", remedy="'ip netns list' shows the names that exist"
        ) from error
    except OSError as error:
        raise refused(error, f"open the network namespace {path}", remedy=_SYS_ADMIN_REMEDY) from error
    try:
        if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == CLONE_NEWNET:
            return descriptor
    except OSError:
        pass  # not a namespace file at all, such as the mount point that a killed 'ip netns add' leaves
    os.close(descriptor)
    raise BackendError(f"{path} is not a network namespace", remedy="'ip netns list' shows the names that exist")


def _setns_function() -> Callable[[int, int], object]:
    """setns(2), which Python has since 3.12; raises OSError."""
    if sys.version_info >= (3, 12):
        return os.setns
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
    libc.setns.restype = ctypes.c_int

    def setns(descriptor: int, kind: int) -> None:
        if libc.setns(descriptor, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return setns


def _unshare_function() -> Callable[[int], object]:
    """unshare(2), which Python has since 3.12; raises OSError."""
    if sys.version_info >= (3, 12):
        return os.unshare
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare.argtypes = (ctypes.c_int,)
    libc.unshare.restype = ctypes.c_int

    def unshare(kind: int) -> None:
        if libc.unshare(kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return unshare


def has_net_admin() -> bool:
    """Whether the calling thread's effective capabilities hold CAP_NET_ADMIN (capabilities(7)).

    Good for a clear message, no proof: the capability counts in the thread's own user namespace, and
    the network namespace may belong to another.
    """
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def ipv6_available() -> bool:
    """Whether this kernel runs an IPv6 stack, so that packets exist which IPv6 rules could meet.

    False after ``ipv6.disable=1`` or on a kernel built without IPv6, where ip6tables fails although nf_tables
    would still take a ``table ip6``. True where the sysctl ``disable_ipv6`` only keeps interfaces from having
    addresses: that can change at any moment, so rules matter. Wrongly False would leave IPv6 unguarded, so
    either witness is enough: the stack's own file, or a socket, which a service's sandbox
    (``RestrictAddressFamilies=``, systemd.exec(5)) may forbid although the stack is there.
    """
    if os.path.exists("/proc/thread-self/net/if_inet6"):
        return True
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True
