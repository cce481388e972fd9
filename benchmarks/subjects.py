"""What is measured: backends by name, each with the plain tool that would do the same work."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from benchmarks.bare import BareGeneration, BareRead
from meshfw.backend import Backend, Site, Step, Transaction
from meshfw.model import Family
from meshfw.plugins import Plugins


def as_it_is(transaction: Transaction) -> Transaction:
    """The transaction, whose commands are the plain tool's own."""
    return transaction


def for_legacy_restore(transaction: Transaction) -> Transaction:
    """The steps on single tables as iptables-legacy-restore takes them: one command for each family."""
    steps = []
    for family, tool in zip(Family, _LEGACY, strict=True):
        tables = [step for step in transaction.steps if step.command[1] == family]
        text = "".join(f"*{step.command[2]}\n{step.input}COMMIT\n" for step in tables)
        steps += [Step((tool, "--noflush", "-w"), text)] if text else []
    return msgspec.structs.replace(transaction, steps=tuple(steps))


_LEGACY: Final = ("iptables-legacy-restore", "ip6tables-legacy-restore")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and its plain counterpart.

    ``name`` is that of an installed backend plugin, unless ``factory`` (``module:name``) says where else a backend
    comes from. The plain tool, whose programs are ``tools``, makes a change by running the commands of the very
    transaction that the backend compiles, or what ``plainly`` makes of it; ``reads`` are the commands by which a script
    would find out that nothing changed. ``per_family`` is the number of processes that the backend may take to read, or
    to write, one family. ``bare`` opens, in the calling thread's namespace, the question that is the least that an idle
    apply can cost.
    """

    name: str
    tools: tuple[str, ...]
    factory: str = ""
    reads: tuple[tuple[str, ...], ...]
    per_family: int = 0
    bare: Callable[[], AbstractContextManager[Callable[[], None]]] | None = None
    plainly: Callable[[Transaction], Transaction] = as_it_is
    distribution: str = ""
    """What has to be installed, where the backend isn't meshfw's own."""

    @property
    def missing(self) -> str | None:
        """Why it can't be measured here; None where its backend is installed."""
        if self.distribution and not Plugins().has_backend(self.name):
            return f"{self.distribution} is not installed"
        return None

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
            tools=_LEGACY,
            reads=(("iptables-legacy-save",), ("ip6tables-legacy-save",)),
            per_family=1,
            bare=BareRead,
        ),
        Subject(
            name="iptc",
            tools=_LEGACY,
            reads=(("iptables-legacy-save",), ("ip6tables-legacy-save",)),
            bare=BareRead,
            plainly=for_legacy_restore,
            distribution="meshfw-iptc",
        ),
    )
}
"""The subjects, by name."""
