"""What the law book covers of a backend: each law with what narrows it or makes it ask for less, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from meshfw.backend import Capabilities
from meshfw.model import Family
from meshfw.testing.lab import Lab, Law

__all__ = ["Coverage", "Entry", "coverage"]


def scope(lab: Lab) -> Iterator[str]:
    """On what less than everything all laws are tried, since the backend holds no more."""
    if len(lab.families) < len(Family):
        yield f"in {lab.families[0]} alone"
    if not lab.capabilities.native_sets:
        yield "with sets turned into rules"
    if lab.left_out:
        yield f"without {len(lab.left_out)} rules of the catalogue, which it refuses"


class Entry(msgspec.Struct, frozen=True):
    """One line of a coverage: a law, what it says, why it isn't run (None: it is), and why it asks for less."""

    law: str
    says: str
    narrowed: str | None = None
    eased: tuple[str, ...] = ()


class Coverage(msgspec.Struct, frozen=True):
    """What the law book covers of a backend: its laws, and the rules of the catalogue that it was not tried on.

    ``differences`` name the capabilities by which it isn't what a backend is unless it says so: what the laws then ask.
    ``scope`` says on what less than everything all of them are tried.
    """

    backend: str
    laws: tuple[Entry, ...]
    left_out: tuple[str, ...]
    differences: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()


def coverage(lab: Lab, laws: Iterable[Law]) -> Coverage:
    """The coverage of a lab's backend by these laws."""
    entries = tuple(Entry(item.name, item.says, item.narrowed(lab), item.eased(lab)) for item in laws)
    with lab.instance() as backend:
        differences = tuple(_differences(backend.capabilities))
        return Coverage(backend.name, entries, lab.left_out, differences, tuple(scope(lab)))


def _differences(capabilities: Capabilities) -> Iterator[str]:
    """The capabilities that aren't what they are by default, in words."""
    usual = Capabilities()
    for name in usual.__struct_fields__:
        value = getattr(capabilities, name)
        if value != getattr(usual, name):
            shown = ", ".join(sorted(value)) or "none" if isinstance(value, frozenset) else value
            yield f"{name}: {shown}"
