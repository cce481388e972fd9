"""What is measured: backends by name, each with the plain tool that would do the same work."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from benchmarks.bare import BareGeneration, BareRead
from meshfw.backend import Backend, Site
from meshfw.plugins import Plugins


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and its plain counterpart.

    ``name`` is that of an installed backend plugin, unless ``factory`` (``module:name``) says where else a backend
    comes from. The plain tool, whose programs are ``tools``, makes a change by running the commands of the very
    transaction that the backend compiles; ``reads`` are the commands by which a script would find out that nothing
    changed. ``per_family`` is the number of processes that the backend may take to read, or to write, one family.
    ``bare`` opens, in the calling thread's namespace, the question that is the least that an idle apply can cost.
    """

    name: str
    tools: tuple[str, ...]
    factory: str = ""
    reads: tuple[tuple[str, ...], ...]
    per_family: int = 0
    bare: Callable[[], AbstractContextManager[Callable[[], None]]] | None = None

    @property
    def plain(self) -> str:
        """What the plain tool is called."""
        return self.tools[0]

    def backend(self, site: Site) -> Backend:
        """A new instance of the backend."""
        factory: Callable[[Site], Backend]
        factory = pkgutil.resolve_name(self.factory) if self.factory else Plugins().backend(self.name).factory
        return factory(site)


SUBJECTS: Final[Mapping[str, Subject]] = {
    subject.name: subject
    for subject in (
        Subject(
            name="nft",
            tools=("nft",),
            reads=(("nft", "list", "ruleset"),),
            bare=BareGeneration,
        ),
        Subject(
            name="iptables-nft",
            tools=("iptables-nft-restore", "ip6tables-nft-restore"),
            reads=(("iptables-nft-save",), ("ip6tables-nft-save",)),
            per_family=1,
            bare=BareGeneration,
        ),
        Subject(
            name="iptables-legacy",
            tools=("iptables-legacy-restore", "ip6tables-legacy-restore"),
            reads=(("iptables-legacy-save",), ("ip6tables-legacy-save",)),
            per_family=1,
            bare=BareRead,
        ),
    )
}
"""The subjects, by name."""
