"""Commits to nf_tables as events for the agent: whose each was, and whether anything of the owner's was touched."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final

from meshfw.backend import Event
from meshfw.backends.layout import owned_iptables_chain
from meshfw.errors import KernelError
from meshfw.kernel.events import NfCommit, NfEvents, Scope
from meshfw.kernel.netlink import Nfnetlink
from meshfw.languages.nft import FAMILIES
from meshfw.model import Hook, Table

_REMEMBERED: Final = 1024
"""Commits of our own, beyond which those that nobody asked about are forgotten."""
_BUILT_IN: Final = frozenset(hook.value.upper() for hook in Hook)


def own_tables(owner: str) -> Scope:
    """What matters to the nft backend: the two tables of the owner. Base chains elsewhere are warned of at most."""
    return Scope(frozenset((word, owner) for word in FAMILIES.values()))


def own_chains(owner: str) -> Scope:
    """What matters to iptables-nft: in iptables' tables the owner's chains, and the built-in ones that lead there."""
    tables = frozenset((word, table.value) for word in FAMILIES.values() for table in Table)
    return Scope(tables, lambda chain: chain in _BUILT_IN or owned_iptables_chain(owner, chain))


class OwnCommit:
    """A commit of ours, in the generations after ``before`` up to ``after``; how many it ``made``, where that is known.

    Where it made them all, they are ours. Where somebody wrote in between, the kernel's word on each writer decides.
    """

    __slots__ = ("after", "before", "made", "thread")

    def __init__(self, before: int = 0) -> None:
        self.before = before
        self.after = before
        self.made: int | None = None
        self.thread = threading.get_native_id()

    def has(self, generation: int) -> bool:
        """Whether the generation is one of those."""
        return self.before < generation <= self.after

    @property
    def alone(self) -> bool:
        """Whether nobody else wrote meanwhile."""
        return self.made is not None and self.after - self.before == self.made


class NftWatch:
    """The commits to nf_tables in a socket's network namespace, as far as they are of use to a backend.

    ``started`` are the processes that the backend has started, in which its commits are made; None where this one
    makes them itself. To be asked by the thread that commits. Listening costs this process nothing until it reads,
    then 0.8 µs for each rule that others wrote.
    """

    def __init__(self, scope: Scope, netlink: Nfnetlink, *, started: Collection[int] | None = None) -> None:
        self._netlink = netlink
        self._started = started
        self._commits: deque[OwnCommit] = deque(maxlen=_REMEMBERED)
        self._ports = {netlink.port}
        with netlink.entered():
            self._events = NfEvents(scope)
        self._learn()

    def fileno(self) -> int:
        """The descriptor that becomes readable; -1 once the backend is closed."""
        return self._events.fileno()

    def close(self) -> None:
        """Listen no longer; a second call does nothing."""
        self._events.close()

    def events(self) -> tuple[Event, ...]:
        """One event for each commit since the last call, and one that knows nothing where commits may be lost.

        ``pid`` is the writer's process, where this process can look it up, else its thread as the host numbers it.
        """
        commits = self._events.commits()
        if any(commit.lost for commit in commits):
            self._learn()
        return tuple(self._event(commit) for commit in commits)

    def _learn(self) -> None:
        """Know whose chains are there; where nobody can tell now, one of ours that gets another name may be missed."""
        with suppress(KernelError):
            self._events.learn(self._netlink.chains())

    def _event(self, commit: NfCommit) -> Event:
        if commit.lost:
            return Event()
        own = self._is_own(commit)
        pid, command = (commit.pid, commit.command) if own else _process(commit.pid, commit.command)
        return Event(pid, command, own, commit.touched, commit.generation)

    @contextmanager
    def noting(self) -> Iterator[OwnCommit]:
        """A block in which the backend commits; it says how often it did, where it knows."""
        commit = OwnCommit(self._netlink.generation())
        try:
            yield commit
        finally:
            commit.after = self._netlink.generation()
            if commit.after != commit.before:
                self._commits.append(commit)

    def _is_own(self, told: NfCommit) -> bool:
        while self._commits and self._commits[0].after < told.generation:
            self._commits.popleft()
        held = next((commit for commit in self._commits if commit.has(told.generation)), None)
        if held is None:
            return False
        if held.alone:
            if self._started is None:
                self._ports.add(told.port)  # that of libnftables' socket
            return True
        writers = {held.thread} if self._started is None else self._started
        # A socket's port is the number of its process as that one's own namespace has it, where it was free.
        return told.port in self._ports or told.pid in writers or (told.port in writers and self._started is not None)


def noted(watch: NftWatch | None) -> AbstractContextManager[OwnCommit]:
    """A block in which a backend commits, for its watch; without one nothing is asked."""
    return nullcontext(OwnCommit()) if watch is None else watch.noting()


def _process(thread: int, command: str) -> tuple[int, str]:
    """The process of a thread and its name; as they are where it is gone, or where our /proc numbers otherwise."""
    try:
        if _read(f"/proc/{thread}/comm") != command:
            return thread, command
        status = _read(f"/proc/{thread}/status")
        pid = next(int(line.split()[1]) for line in status.split("\n") if line.startswith("Tgid:"))
        return pid, _read(f"/proc/{pid}/comm") if pid != thread else command
    except (OSError, StopIteration):
        return thread, command


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().removesuffix("\n")
