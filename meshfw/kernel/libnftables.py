"""libnftables in process: nft text in, text or JSON out, without spawning anything (libnftables(3)).

An own loader of ``libnftables.so.1`` rather than the official ``nftables`` Python module: that module has the
same speed, but is invisible in virtual environments, is on no package index (the copies there lag behind and
know no dry run), and lacks what matters here:

1. *Threads.* A context that two threads use at once crashes the interpreter, and the library has state of its
   own beside its contexts (the list of interface names, libxtables' current family), so one lock covers every call.
2. *Namespaces.* A context's socket stays in the namespace in which it was made, but interface names are looked up
   in the calling thread's, and releases before 0.9.9 reopen the socket: each call runs in the context's namespace.
3. *Large transactions without privileges.* The library raises its send buffer in a way that needs CAP_NET_ADMIN
   in the first user namespace; in any other a transaction of some 450 rules ends with EMSGSIZE.
4. *No exit.* The library ends the whole process when it can't open its socket; here that is asked beforehand.

The transaction goes in as text, since errors then come with line and caret (of a text of several lines only
when it is read from a file, so it lies in one in memory); what is read back may be JSON.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from meshfw.errors import BackendError, KernelError
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import NET_ADMIN_REMEDY, HeldNamespace
from meshfw.kernel.nfmessage import NETLINK_NETFILTER

if TYPE_CHECKING:  # at run time it's imported where it's used, not by every start of the command line
    import ctypes

LIBRARY = "libnftables.so.1"

# nftables/libnftables.h: NFT_CTX_OUTPUT_*
_STATELESS, _HANDLE, _JSON, _ECHO, _TERSE = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 11

# Linux on every architecture that has libnftables packages but sparc and parisc (asm-generic/socket.h)
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_SELECTABLE = 1024  # sys/select.h, FD_SETSIZE: libnftables waits with select(2)
_BUFFER = 64 << 20  # a limit, not an allocation: room for some 130,000 rules in one transaction
_SHOWN_LINES, _SHOWN_COLUMNS = 24, 500
_OWN_FILES = b"/proc/self/fd/"
_PLACE = re.compile(r"^/proc/self/fd/\d+:(\d+):[\d-]+: ", re.MULTILINE)

# The state that it guards is not ours: libnftables keeps it per process, so the lock is per process too.
_LIBRARY_LOCK = threading.Lock()

_REMEDIES = {
    errno.EPERM: NET_ADMIN_REMEDY,
    errno.EMSGSIZE: "the transaction exceeds the socket's send buffer: raise the sysctl net.core.wmem_max",
}


class Numeric(enum.IntFlag):
    """What is printed as a number instead of a word; words depend on the release and on files under /etc."""

    NONE = 0
    PROTOCOL = 1 << 7
    PRIORITY = 1 << 8
    SYMBOL = 1 << 9
    TIME = 1 << 10
    ALL = PROTOCOL | PRIORITY | SYMBOL | TIME


class Libnftables:
    """A libnftables context of one network namespace, safe to share between threads.

    Made in ``namespace`` (a name or a path; None: the calling thread's) and working there for good. Raises
    BackendError when the library is missing, KernelError when the kernel refuses (EPERM: no CAP_NET_ADMIN).
    ``send_buffer`` is the size of its socket's buffer, in bytes: a transaction whose messages exceed it is refused.
    """

    def __init__(self, namespace: str | None = None, *, library: str = LIBRARY) -> None:
        self._library = _load(library)
        self._context: int | None = None
        self._namespace = HeldNamespace(namespace)
        try:
            with _LIBRARY_LOCK, self._namespace.entered():
                self._context, self.send_buffer = _new_context(self._library)
        except BaseException:
            self._namespace.close()
            raise

    def __enter__(self) -> Libnftables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the context; a second call does nothing, and ``run`` afterwards is a BackendError."""
        with _LIBRARY_LOCK:
            context, self._context = self._context, None
            if context is not None:
                self._library.nft_ctx_free(context)
                self._namespace.close()

    def run(
        self,
        text: str,
        *,
        json_output: bool = False,
        stateless: bool = False,
        handles: bool = True,
        terse: bool = False,
        echo: bool = False,
        numeric: Numeric = Numeric.ALL,
        dry_run: bool = False,
    ) -> str:
        """What nft prints for ``text``: one transaction, or the listings it asks for (nft(8)).

        ``stateless`` leaves out counter values, ``terse`` the elements of sets; ``echo`` prints what was added,
        with its handles; ``dry_run`` has the kernel check everything and commit nothing (8 to 16 ms, like a
        failure). A listing is one state for sure only between two equal answers of ``Nfnetlink.settled``: the
        library meets the same gaps in the kernel's dumps. Raises KernelError with errno when the kernel refuses,
        BackendError for a mistake in the text; both hold libnftables' own words, line and caret. Bytes that are
        not UTF-8 pass as surrogate escapes.
        """
        data = text.encode("utf-8", "surrogateescape")
        if b"\0" in data:
            raise BackendError("nft text can't hold a NUL: all that follows it would be left out")
        flags = int(numeric) | json_output * _JSON | stateless * _STATELESS | handles * _HANDLE
        flags |= terse * _TERSE | echo * _ECHO
        library = self._library
        with _LIBRARY_LOCK:
            context = self._open_context()
            with self._namespace.entered():
                library.nft_ctx_output_set_flags(context, flags)
                library.nft_ctx_set_dry_run(context, dry_run)
                failed = _execute(library, context, data) != 0
            # both buffers are the library's, reused by the next call: ctypes has copied them here
            output: bytes = library.nft_ctx_get_output_buffer(context) or b""
            said: bytes = library.nft_ctx_get_error_buffer(context) or b""
        if failed:
            raise _failure(said.decode("utf-8", "replace"))
        return output.decode("utf-8", "surrogateescape")

    def trim(self) -> None:
        """Give back the memory that a large listing leaves behind; worth it after thousands of rules.

        Three hold it: the library's cache of the kernel's rules, its output buffers, and the C library's heap.
        """
        library = self._library
        with _LIBRARY_LOCK:
            context = self._open_context()
            with self._namespace.entered():
                library.nft_ctx_set_dry_run(context, True)
                library.nft_run_cmd_from_buffer(context, b"")  # a dry run drops the cache; an empty one asks nothing
            for unbuffer, buffer in (
                (library.nft_ctx_unbuffer_output, library.nft_ctx_buffer_output),
                (library.nft_ctx_unbuffer_error, library.nft_ctx_buffer_error),
            ):
                unbuffer(context)
                if buffer(context) != 0:
                    raise BackendError("libnftables can't buffer its output: out of memory")
        release_memory()

    def _open_context(self) -> int:
        if self._context is None:
            raise BackendError("this libnftables context is closed")
        return self._context


def release_memory() -> bool:
    """Whether the C library gave free heap memory back to the system: malloc_trim(3), where it has one (glibc)."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim.argtypes = (ctypes.c_size_t,)
    trim.restype = ctypes.c_int
    return bool(trim(0))


def _load(name: str) -> ctypes.CDLL:
    """The library with the types of all that is called; loaded by its soname, since a search would spawn compilers."""
    import ctypes

    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise BackendError(f"{name} can't be loaded: {error}", remedy="apt-get install libnftables1") from error
    context, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("nft_ctx_new", context, (ctypes.c_uint32,)),
        ("nft_ctx_free", None, (context,)),
        ("nft_ctx_output_set_flags", None, (context, ctypes.c_uint)),
        ("nft_ctx_set_dry_run", None, (context, ctypes.c_bool)),
        ("nft_ctx_buffer_output", number, (context,)),
        ("nft_ctx_unbuffer_output", number, (context,)),
        ("nft_ctx_buffer_error", number, (context,)),
        ("nft_ctx_unbuffer_error", number, (context,)),
        ("nft_ctx_get_output_buffer", text, (context,)),
        ("nft_ctx_get_error_buffer", text, (context,)),
        ("nft_run_cmd_from_buffer", number, (context, text)),
        ("nft_run_cmd_from_filename", number, (context, text)),
    )
    try:
        for function, result, arguments in signatures:
            symbol = getattr(library, function)
            symbol.restype, symbol.argtypes = result, arguments
    except AttributeError as error:
        raise BackendError(f"{name} is not libnftables: {error}", remedy="apt-get install libnftables1") from error
    return library


def _new_context(library: ctypes.CDLL) -> tuple[int, int]:
    """A context, and the size of its socket's send buffer."""
    with Nfnetlink() as probe:
        probe.generation()  # fails here with an error where the library would end the process or print by itself
    known = _netfilter_sockets()
    context: int | None = library.nft_ctx_new(0)
    if not context:
        raise BackendError("libnftables can't make a context: out of memory")
    sockets = _netfilter_sockets() - known
    if any(descriptor >= _SELECTABLE for descriptor, _ in sockets):
        library.nft_ctx_free(context)
        raise BackendError(
            f"libnftables' socket got a descriptor beyond {_SELECTABLE - 1}, with which it would abort the process",
            remedy="open the backend before other files and sockets, or close some",
        )
    buffer = _enlarge_buffers(sockets)
    if library.nft_ctx_buffer_output(context) != 0 or library.nft_ctx_buffer_error(context) != 0:
        library.nft_ctx_free(context)
        raise BackendError("libnftables can't buffer its output: out of memory")
    return context, buffer


def _execute(library: ctypes.CDLL, context: int, data: bytes) -> int:
    """The library's return code for a text: 0 when all went well."""
    if b"\n" not in data:
        return int(library.nft_run_cmd_from_buffer(context, data))
    with open(os.memfd_create("nft", os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        return int(library.nft_run_cmd_from_filename(context, b"%s%d" % (_OWN_FILES, file.fileno())))


def _netfilter_sockets() -> set[tuple[int, int]]:
    """The netfilter netlink sockets of this process, each as its descriptor and inode.

    The inode tells a new socket from an old one whose number another thread freed meanwhile. Another thread's
    new socket may be among them: it gets a larger limit, which does no harm.
    """
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with _duplicate(int(name)) as channel:
                    domain = channel.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
                    protocol = channel.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
                    if (domain, protocol) == (socket.AF_NETLINK, NETLINK_NETFILTER):
                        found.add((int(name), os.fstat(channel.fileno()).st_ino))
        except OSError:
            continue  # closed by another thread meanwhile
    return found


def _duplicate(descriptor: int) -> socket.socket:
    # family and type are given so that Python doesn't ask: it only needs them to print the object
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0, fileno=os.dup(descriptor))


def _enlarge_buffers(sockets: set[tuple[int, int]]) -> int:
    """Raise the limits of the context's socket as far as the system lets us (socket(7)); the size to send then."""
    sizes = []
    for descriptor, _ in sockets:
        try:
            with _duplicate(descriptor) as channel:
                for force, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
                    try:
                        channel.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
                    except OSError:  # no CAP_NET_ADMIN in the first user namespace: up to net.core.[wr]mem_max
                        channel.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
                sizes.append(channel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        except OSError:
            continue  # another thread's, closed meanwhile; a too small buffer is told by EMSGSIZE later
    return min(sizes, default=_BUFFER)


def _failure(said: str) -> BackendError:
    """The error in libnftables' own words, shortened when there are hundreds, with the errno it names, if any."""
    lines = _PLACE.sub(r"line \1: ", said.rstrip()).split("\n") if said.strip() else ["libnftables said nothing"]
    lines = [line if len(line) <= _SHOWN_COLUMNS else f"{line[:_SHOWN_COLUMNS]}..." for line in lines]
    if len(lines) > _SHOWN_LINES:
        lines[_SHOWN_LINES:] = [f"... and {len(lines) - _SHOWN_LINES} more lines"]
    reason = "\n".join(lines)
    first = next((line for line in lines if "Error: " in line), "")
    number = _errno_named(first.rpartition("Error: ")[2])
    if number:
        return KernelError(reason, errno=number, remedy=_REMEDIES.get(number, ""))
    return BackendError(reason)


def _errno_named(words: str) -> int:
    """The errno whose text (strerror(3)) is the last part of a message, hints left out; 0 for none."""
    text = re.split(r"; did you mean ", words, maxsplit=1)[0].rpartition(": ")[2].strip()
    return next((number for number in errno.errorcode if os.strerror(number) == text), 0)
