"""A meshfw plugin: the backend ``toy``, rules in nf_tables by the command nft(8)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from meshfw import Backend, BackendPlugin, Presence, Site, hookimpl


@hookimpl
def meshfw_backends() -> Iterable[BackendPlugin]:
    """The one backend; nothing of it is imported before it's chosen."""
    return (
        BackendPlugin(
            name="toy",
            factory=_made,
            summary="nf_tables by the command nft, a process for each look",
            api_version=1,
            unavailable=_unavailable,
            presence=_presence,
        ),
    )


def table_of(owner: str) -> str:
    """What an owner's table is called, in either family."""
    return f"{owner}-toy"


def _made(site: Site) -> Backend:
    from meshfw_toy.backend import ToyBackend

    return ToyBackend(site)


def _unavailable() -> str | None:
    return None if shutil.which("nft") else "nft is not installed (apt-get install nftables)"


def _presence(site: Site) -> Presence:
    """The owner's tables, by which meshfw knows that rules stand here; this look may start no process."""
    from meshfw import nft_tables

    ours = table_of(site.owner)
    found = (f"table {family} {name}" for family, name in nft_tables(site.netns) if name == ours)
    return Presence(own=", ".join(found))
