"""What a host answers beside the backends: whether this is the only writer, what can be used here, which place it is.

It is also how those above, who don't talk to the kernel themselves, get processes and go into a network namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from meshfw.backend import Site
from meshfw.errors import BackendError, CommandError, KernelError
from meshfw.kernel.command import Completed, detach, run
from meshfw.kernel.lock import XtablesLock, instance_lock, place_name, runtime_directory, xtables_lock
from meshfw.kernel.netns import (
    NET_ADMIN_REMEDY,
    HeldNamespace,
    Namespace,
    entered,
    has_net_admin,
    ipv6_available,
    namespace_path,
)
from meshfw.model import Family


@contextmanager
def only_writer(site: Site, *, timeout: float) -> Iterator[None]:
    """A block in which no other meshfw writes for the place's owner in its network namespace.

    Waits at most ``timeout`` seconds, then raises LockError; BackendError when there is no such namespace.
    """
    with (
        HeldNamespace(site.netns) as namespace,
        instance_lock(site.owner, namespace.identity, timeout=timeout, spare=namespace.path),
    ):
        yield


def run_tool(
    argv: Sequence[str], *, netns: str | None = None, input: str = "", timeout: float = 30.0, check: bool = True
) -> Completed:
    """The result of one process in a network namespace, run to its end within so many seconds; there is no shell.

    Raises:
        CommandError: it ended with an error, and ``check`` is so, or was killed when its time was over.
        BackendError: the tool isn't installed, or there is no such namespace.
    """
    with entered(netns):
        return run(argv, timeout=timeout, input=input.encode("utf-8", "surrogateescape"), check=check)


def place_of(site: Site, backend: str) -> str:
    """What a backend at work for an owner in a network namespace is known by among others, while the system runs."""
    with HeldNamespace(site.netns) as namespace:
        return f"{backend} {site.owner} {namespace.identity.device}:{namespace.identity.inode}"


def runtime_file(owner: str, netns: str | None, kind: str) -> str:
    """The path of a file by which running processes of an owner find each other in a network namespace.

    ``kind`` ends its name. Its directory is made when it's missing. BackendError when there is no such namespace, or no
    directory that this user can write.
    """
    with HeldNamespace(netns) as namespace:
        return os.path.join(runtime_directory(), f"{place_name(owner, namespace.identity)}.{kind}")


def drawn(text: str) -> str:
    """The picture (SVG) that Graphviz draws of a graph in its language.

    Raises:
        BackendError: Graphviz isn't installed, or couldn't draw it.
    """
    from meshfw.kernel.command import run

    try:
        return run(["dot", "-Tsvg"], timeout=_DRAWING, input=text.encode()).stdout
    except CommandError as error:
        error.add_remedy("without --svg there is the text, for another of Graphviz's programs, such as sfdp")
        raise


_DRAWING: Final = 120.0
"""Seconds for a picture: some thousand chains take most of a minute."""


def host_families(netns: str | None = None) -> frozenset[Family]:
    """The families whose packets can be met in a network namespace."""
    with entered(netns):
        return frozenset(Family) if ipv6_available() else frozenset({Family.IPV4})


def only_root_of_users() -> bool:
    """Whether this process is in a user namespace, where root may read only what the namespace's users own."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as users:
            return users.read().split() != _EVERYBODY
    except OSError:
        return False


_EVERYBODY: Final = ["0", "0", str(2**32 - 1)]
"""The users of the host itself (user_namespaces(7)): all, each under its own number."""


def namespace_of(netns: str | None = None) -> Namespace:
    """What tells a network namespace from every other one, however it was named: BackendError where there is none."""
    with HeldNamespace(netns) as namespace:
        return namespace.identity


def require_namespace(netns: str | None) -> None:
    """Refuse a network namespace that isn't there, or that can't be entered: BackendError."""
    HeldNamespace(netns).close()


def namespace_identity(netns: str | None) -> object:
    """What tells a network namespace from every other one of this boot; None where there is no such namespace."""
    try:
        return Namespace.of(namespace_path(netns))
    except BackendError:
        return None


def nft_unavailable() -> str | None:
    """Why the nft backend can't be used here (no libnftables, no privilege, no nf_tables); None where it can."""
    from meshfw.kernel.libnftables import Libnftables

    try:
        Libnftables().close()
    except BackendError as error:
        return str(error)
    return None


def iptables_nft_unavailable() -> str | None:
    """Why iptables-nft can't be used here (no tools, no privilege, no nf_tables); None where it can."""
    from meshfw.kernel.netlink import Nfnetlink

    missing = _missing_tools("nft")
    if missing is not None:
        return missing
    try:
        with Nfnetlink() as netlink:
            netlink.generation()
    except KernelError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # nobody in the kernel hears such messages
            return "this kernel has no nf_tables"
        return str(error)
    return None


def iptables_legacy_unavailable() -> str | None:
    """Why iptables-legacy can't be used here (no tools, no privilege, no such kernel); None where it can.

    Its first use loads modules, so nothing is tried: it counts as usable as long as nothing speaks against it.
    """
    from meshfw.kernel.modules import out_of_reach

    missing = _missing_tools("legacy")
    if missing is not None:
        return missing
    if not has_net_admin():
        return f"CAP_NET_ADMIN is missing ({NET_ADMIN_REMEDY})"
    if not os.path.exists(_LEGACY) and out_of_reach("ip_tables"):
        return "this kernel has no legacy iptables (use nft or iptables-nft)"
    return None


_LEGACY: Final = "/proc/thread-self/net/ip_tables_names"
"""There as soon as the kernel has legacy iptables, in every network namespace."""


def _missing_tools(variant: str) -> str | None:
    """The tools of a variant of iptables that aren't installed, and what to do; None when they are."""
    from meshfw.kernel.command import find

    names = [f"{stem}-{variant}-restore" for stem in ("iptables", "ip6tables")]
    missing = [name for name in names if find(name) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed (apt-get install iptables)"


__all__ = [
    "Completed",
    "HeldNamespace",
    "Namespace",
    "XtablesLock",
    "detach",
    "entered",
    "has_net_admin",
    "host_families",
    "iptables_legacy_unavailable",
    "iptables_nft_unavailable",
    "namespace_identity",
    "namespace_of",
    "namespace_path",
    "nft_unavailable",
    "only_root_of_users",
    "only_writer",
    "require_namespace",
    "run",
    "run_tool",
    "xtables_lock",
]
