"""The attachments that are to have rules: a file beside a lock, and the truth that the kernel has to follow.

It's written before the kernel, when rules come and when they go. So whoever is killed, wherever that is, leaves a file
that says what is wanted, and every later call (the DEL that a runtime sends after an ADD that failed, a GC, the ADD of
another pod) makes the kernel hold exactly that. A backend is listed before rules come into it and until none are left,
so that they are found even where no attachment says any more where they stood.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from meshfw_cni.problems import BAD_STATE, IO_FAILURE, TRY_AGAIN, CniError
from meshfw_cni.request import Key, Policy

_VERSION: Final = 1
_PAUSE: Final = 0.004  # seconds between two tries for the lock
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h: a number that no other namespace of this boot gets


class Attached(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One attachment: the addresses with their prefix lengths, the host's interface that leads to it, and its rules."""

    key: Key
    backend: str
    addresses: tuple[str, ...] = ()
    bridge: str = ""
    masquerade: bool = False
    policy: Policy = Policy.ACCEPT
    pod_networks: tuple[str, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All attachments of all networks, and the backends in which rules may stand, the one used last at the end."""

    version: int = _VERSION
    backends: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()

    def find(self, key: Key) -> Attached | None:
        """The attachment of that name."""
        return next((entry for entry in self.attached if entry.key == key), None)

    def of(self, backend: str) -> tuple[Attached, ...]:
        """The attachments whose rules stand in a backend."""
        return tuple(entry for entry in self.attached if entry.backend == backend)

    def having(self, new: Attached) -> State:
        """This state and an attachment, in place of one of the same name."""
        others = tuple(name for name in self.backends if name != new.backend)
        known = any(entry.key == new.key for entry in self.attached)
        attached = [new if entry.key == new.key else entry for entry in self.attached]
        return State(backends=(*others, new.backend), attached=(*attached, *(() if known else (new,))))

    def without(self, gone: frozenset[Key]) -> State:
        """This state without some attachments; where their rules stood stays listed."""
        kept = tuple(entry for entry in self.attached if entry.key not in gone)
        return State(backends=self.backends, attached=kept)

    def settled(self) -> State:
        """This state when the kernel holds it: no backend has rules but those with attachments."""
        used = {entry.backend for entry in self.attached}
        return State(backends=tuple(name for name in self.backends if name in used), attached=self.attached)


class Store:
    """The file of a state in a directory, for this network namespace.

    The system's own namespace has ``state.json``. Any other one has a file that no later one can take for its own.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, _file_name())

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """A block in which no other call reads or writes; the lock is flock(2) on a file of its own.

        Raises:
            CniError: another call holds it for longer than so many seconds (11), or it can't be had (5).
        """
        path = os.path.join(self.directory, "lock")
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _failed(path, error) from error
        try:
            end = time.monotonic() + timeout
            while not _taken(descriptor):
                if time.monotonic() >= end:
                    raise CniError(TRY_AGAIN, f"other calls hold {path} for more than {timeout:g} s")
                time.sleep(_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> State:
        """The state; an empty one where there is no file.

        Raises:
            CniError: it can't be read (5), or is damaged (102).
        """
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise _failed(self.path, error) from error
        try:
            state = msgspec.json.decode(content, type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(self.path, str(error)) from None
        if state.version != _VERSION:
            raise _damaged(self.path, f"it's of version {state.version}, and this plugin knows {_VERSION}")
        return state

    def save(self, state: State) -> None:
        """Put a state in place of the old one, in a single step that outlasts a crash; an empty one needs no file.

        Raises:
            CniError: it can't be written (5).
        """
        new = f"{self.path}.new"  # the lock's holder alone writes here
        try:
            if not state.attached and not state.backends:
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
                return
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(descriptor)
            os.replace(new, self.path)
        except OSError as error:
            raise _failed(self.path, error) from error


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failed(path: str, error: OSError) -> CniError:
    return CniError(IO_FAILURE, f"{path}: {error.strerror or error}")


def _damaged(path: str, reason: str) -> CniError:
    return CniError(
        BAD_STATE,
        f"{path} is damaged: {reason}",
        "when it's taken away the next call also takes away the rules of every pod that isn't added again",
    )


def _file_name() -> str:
    """The name of the state's file in this network namespace."""
    if _is_the_systems():
        return "state.json"
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
            cookie = int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError as error:
        raise CniError(IO_FAILURE, f"it can't be told which network namespace this is: {error}") from error
    return f"state-{boot}-{cookie}.json"


def _is_the_systems() -> bool:
    """Whether this is the network namespace of process 1, which in a container is the container's own."""
    # The first takes the right to trace process 1 (ptrace(2)), the second none.
    for witness in ("ns/net", "net/dev"):
        with suppress(OSError):
            return os.path.samestat(os.stat(f"/proc/thread-self/{witness}"), os.stat(f"/proc/1/{witness}"))
    return False
