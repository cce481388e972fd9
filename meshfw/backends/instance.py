"""What a host answers before a backend is made: whether this is the only writer, and what can be used here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshfw.backend import Site
from meshfw.errors import BackendError
from meshfw.kernel.lock import instance_lock
from meshfw.kernel.netns import HeldNamespace, entered, ipv6_available
from meshfw.model import Family


@contextmanager
def only_writer(site: Site, *, timeout: float) -> Iterator[None]:
    """A block in which no other meshfw writes for the place's owner in its network namespace.

    Waits at most ``timeout`` seconds, then raises LockError; BackendError when there is no such namespace.
    """
    with (
        HeldNamespace(site.netns) as namespace,
        instance_lock(site.owner, namespace.identity, timeout=timeout),
    ):
        yield


def host_families(netns: str | None = None) -> frozenset[Family]:
    """The families whose packets can be met in a network namespace."""
    with entered(netns):
        return frozenset(Family) if ipv6_available() else frozenset({Family.IPV4})


def nft_unavailable() -> str | None:
    """Why the nft backend can't be used here (no libnftables, no privilege, no nf_tables); None where it can."""
    from meshfw.kernel.libnftables import Libnftables

    try:
        Libnftables().close()
    except BackendError as error:
        return str(error)
    return None
