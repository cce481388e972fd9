"""The instance lock: one writer for each owner in each network namespace.

A second apply, a cron job or a CNI call waits for the first, boundedly. The lock is flock(2) on a file of its
own: the system frees it however its holder ends, and two threads of one process exclude each other too,
since each opens the file for itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple, TypeVar

from meshfw.errors import BackendError, LockError
from meshfw.kernel.netns import Namespace, refused

T = TypeVar("T")

_RUN = "/run/meshfw"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between two tries
_REMEDY = "name a lock directory that this user can write"


@contextmanager
def instance_lock(
    owner: str, namespace: Namespace, *, timeout: float, directory: str | None = None, spare: str | None = None
) -> Iterator[str]:
    """A block in which nobody else writes for ``owner`` in ``namespace``; gives the path of the lock file.

    Waits at most ``timeout`` seconds (0: one try), then raises LockError. All writers of one owner must agree
    on the directory: ``directory``, made when missing, or else /run/meshfw; where that can't be written (an
    unprivileged user namespace) $XDG_RUNTIME_DIR/meshfw, or a directory of this user alone under the
    temporary one. Where no lock file can be made at all, as in a container that may write nothing, ``spare`` is locked,
    a file that is there for all of them and needn't be written, such as the namespace's own; then all owners there
    wait for each other. BackendError or KernelError when there is none of these.
    """
    name = f"{place_name(owner, namespace)}.lock"
    with ExitStack() as stack:
        try:
            path = stack.enter_context(_lock_file(name, timeout=timeout, directory=directory))
        except BackendError:
            if spare is None:
                raise
            path = stack.enter_context(_whole_lock(spare, timeout=timeout))
        yield path


@contextmanager
def _lock_file(name: str, *, timeout: float, directory: str | None) -> Iterator[str]:
    """A block that holds a lock file of this name; gives its path."""
    place, folder = _lock_directory(directory)
    path = os.path.join(place, name)
    try:
        descriptor = _acquire(folder, name, path, timeout)
        try:
            yield path
        finally:
            _release(descriptor, folder, name)
    finally:
        os.close(folder)


@contextmanager
def _whole_lock(path: str, *, timeout: float) -> Iterator[str]:
    """A block that holds the lock of a file which is there already, for whoever may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise refused(error, f"open {path} to lock it", remedy=_REMEDY) from error
    try:
        _flock(descriptor, path, timeout)
        yield path
    finally:
        os.close(descriptor)


def place_name(owner: str, namespace: Namespace) -> str:
    """How the files of one owner in one network namespace begin, for as long as that namespace lives."""
    if "/" in owner or "\0" in owner:
        raise BackendError(f"{owner!r} can't be an owner")
    return f"{owner}-{namespace.device}-{namespace.inode}"


def runtime_directory() -> str:
    """Where running processes of one owner find each other: $RUNTIME_DIRECTORY (systemd.exec(5)), else as for locks."""
    named = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    place, folder = _lock_directory(named if os.path.isabs(named) else None)
    os.close(folder)
    return place


def _acquire(folder: int, name: str, path: str, timeout: float) -> int:
    """The descriptor that holds the lock, signed with our number."""

    def attempt(last: bool) -> int | None:
        descriptor = _open_file(folder, name, path)
        try:
            if _try_lock(descriptor, folder, name):
                _sign(descriptor)
                return descriptor
            if last:
                raise LockError(path, waited=timeout, holder=_holder(descriptor))
        except OSError as error:
            os.close(descriptor)
            raise refused(error, f"take the lock {path}", remedy=_REMEDY) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    return _polled(attempt, timeout)


def _polled(attempt: Callable[[bool], T | None], timeout: float) -> T:
    """What an attempt gives within so many seconds, since flock can't wait for a limited time.

    Each is told whether it's the last one, which then raises rather than give nothing.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        left = deadline - time.monotonic()
        taken = attempt(left <= 0)
        if taken is not None:
            return taken
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)


def _try_lock(descriptor: int, folder: int, name: str) -> bool:
    """Whether the lock is ours, and of the file that has the name now: the last holder may have taken it away."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False


def _release(descriptor: int, folder: int, name: str) -> None:
    """Free the lock; its file goes while it's still held, or files would pile up with short-lived namespaces."""
    try:
        with suppress(OSError):  # a file that stays does no harm
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Say who holds the lock, where there is room for it: it's held without."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _open_file(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        raise refused(error, f"open the lock file {path}", remedy=_REMEDY) from error


def _holder(descriptor: int) -> int | None:
    """The process that holds the lock, as it signed; None when it hasn't yet."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _lock_directory(directory: str | None) -> tuple[str, int]:
    """The directory of the lock files and a descriptor of it: the one given, or the first that can be written."""
    if directory is not None:
        return directory, _open_directory(directory)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for candidate in (_RUN, f"{runtime}/meshfw" if os.path.isabs(runtime) else ""):
        try:
            folder = _open_directory(candidate)
        except BackendError:
            continue
        if os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
            return candidate, folder
        os.close(folder)
    return _private_directory()


def _private_directory() -> tuple[str, int]:
    """A directory of this user alone under the temporary one, where anybody may have put one of the same name."""
    import tempfile

    try:
        path = os.path.join(tempfile.gettempdir(), f"meshfw-{_outer_user()}")
    except FileNotFoundError:
        reason = f"neither {_RUN} nor any temporary directory can be written"
        raise BackendError(reason, remedy=f"mount a tmpfs at {_RUN}") from None
    folder = _open_directory(path)
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(folder)
        raise BackendError(f"{path} belongs to somebody else or is open to others", remedy=_REMEDY)
    return path, folder


def _outer_user() -> int:
    """The user's number outside its user namespace, in which everybody may be 0 (user_namespaces(7))."""
    user = os.geteuid()
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            if inside <= user < inside + count:
                return outside + user - inside
    return user


def _open_directory(path: str) -> int:
    try:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise refused(error, f"open the lock directory {path}", remedy=_REMEDY) from error


# --- the lock of iptables' legacy tables -------------------------------------------------------------------

XTABLES_LOCK: Final = "/run/xtables.lock"
"""What every iptables-legacy that writes holds, unless the environment names another (iptables(8), -w)."""
XTABLES_VARIABLE: Final = "XTABLES_LOCKFILE"


class XtablesLock(NamedTuple):
    """What a tool that is started under the lock needs: an environment, and a descriptor to hold the lock with."""

    environment: Mapping[str, str]
    descriptor: int


def xtables_lock_file() -> str:
    """The path of that lock's file, for us and for the tools that we start."""
    return os.environ.get(XTABLES_VARIABLE) or XTABLES_LOCK


def _open_lock(path: str) -> int:
    """The lock's file, open for writing where that is allowed: who listens to it tells us from the tools by that."""
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, mode | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if mode == os.O_RDONLY or error.errno not in {errno.EACCES, errno.EROFS}:
                raise
    raise AssertionError("unreachable")


@contextmanager
def xtables_lock(*, timeout: float) -> Iterator[XtablesLock]:
    """A block in which no iptables-legacy writes but those started with what it gives.

    The kernel has no compare-and-swap for these tables, so what is read, written and read again under this lock is one
    undisturbed whole as far as others take the lock. A tool started inside gets a lock file of its own, or it would
    wait for us; and it inherits the lock, so that the next writer waits for it even if we are killed meanwhile. Waits
    at most ``timeout`` seconds, then raises LockError, with the holder where the system tells.
    """
    path = xtables_lock_file()
    try:
        held = _open_lock(path)
    except OSError as error:
        raise refused(error, f"open the lock file {path}", remedy=f"{XTABLES_VARIABLE} names another one") from error
    try:
        _flock(held, path, timeout)
        spare = os.memfd_create("meshfw-xtables-lock", os.MFD_CLOEXEC)
        try:
            yield XtablesLock({XTABLES_VARIABLE: f"/proc/{os.getpid()}/fd/{spare}"}, held)
        finally:
            os.close(spare)
    finally:
        os.close(held)


def _flock(descriptor: int, path: str, timeout: float) -> None:
    """Take a lock within so many seconds."""

    def attempt(last: bool) -> int | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if last:
                raise LockError(path, waited=timeout, holder=_flock_holder(descriptor)) from None
            return None
        return descriptor

    _polled(attempt, timeout)


def _flock_holder(descriptor: int) -> int | None:
    """The process that holds a flock on the file, as /proc/locks has it; None where it doesn't tell."""
    try:
        with open(LOCKS, "rb") as file:
            return flock_holder(file.read(), os.fstat(descriptor))
    except OSError:
        return None


LOCKS: Final = "/proc/locks"


def flock_holder(locks: bytes, file: os.stat_result) -> int | None:
    """The process that holds a flock on a file, by the text of /proc/locks (proc(5)); None where it has none."""
    place = b"%02x:%02x:%d" % (os.major(file.st_dev), os.minor(file.st_dev), file.st_ino)
    if place not in locks:
        return None
    fields = [line.split() for line in locks.splitlines()]
    holders = [int(words[4]) for words in fields if len(words) > 5 and words[1] == b"FLOCK" and words[5] == place]
    return next((holder for holder in holders if holder > 0), None)
