"""What is measured: backends by name, each with the plain tool that would do the same work."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from benchmarks.scenarios import Cost
from meshfw.backend import Backend, Site
from meshfw.plugins import Plugins


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and its plain counterpart.

    ``name`` is that of an installed backend plugin, unless ``factory`` (``module:name``) says where else a backend
    comes from. The plain tool makes a change by running the commands of the very transaction that the backend
    compiles; ``reads`` are the commands by which a script would find out that nothing changed. ``most`` is the number
    of processes that each kind of scenario may take, none where it isn't named.
    """

    name: str
    plain: str
    factory: str = ""
    reads: tuple[tuple[str, ...], ...]
    most: Mapping[Cost, int] = {}

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
            plain="nft",
            reads=(("nft", "list", "ruleset"),),
        ),
    )
}
"""The subjects, by name."""
