"""A backend for iptables-legacy that works in process, through python-iptables."""

from __future__ import annotations

import os
from collections.abc import Iterable

from meshfw import Backend, BackendPlugin, Presence, Site, hookimpl


@hookimpl
def meshfw_backends() -> Iterable[BackendPlugin]:
    """The one backend; it's used where it is named, and ``auto`` never chooses it."""
    return (
        BackendPlugin(
            name="iptc",
            factory=_made,
            summary="iptables' own tables in process through python-iptables: for tests and study, see its limits",
            unavailable=_unavailable,
            presence=_presence,
            place="iptables-legacy",
        ),
    )


def _made(site: Site) -> Backend:
    from meshfw_iptc.backend import IptcBackend

    return IptcBackend(site)


def _unavailable() -> str | None:
    from meshfw.iptables import has_net_admin
    from meshfw_iptc.libraries import unavailable

    missing = unavailable()
    if missing is not None:
        return missing
    if not has_net_admin():
        return "CAP_NET_ADMIN is missing (run as root, or inside `unshare -rn`)"
    if not os.path.exists("/proc/thread-self/net/ip_tables_names"):
        return (
            "the kernel's legacy tables are not loaded (modprobe ip_tables ip6_tables), and no process is started here"
        )
    return None


def _presence(site: Site) -> Presence:
    from meshfw.iptables import iptables_legacy_presence

    return iptables_legacy_presence(site)
