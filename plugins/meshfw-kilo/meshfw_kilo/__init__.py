"""The firewall of a Kilo mesh node, made out of the mesh's own state."""

from __future__ import annotations

from collections.abc import Iterable

from meshfw import Declaration, RuleSource, SourcePlugin, hookimpl


@hookimpl
def meshfw_sources() -> Iterable[SourcePlugin]:
    """The source ``kilo``."""
    return [SourcePlugin(name="kilo", factory=_kilo, summary="a Kilo mesh node's rules, from the mesh's own state")]


def _kilo(declaration: Declaration) -> RuleSource:
    from meshfw_kilo.source import KiloSource

    return KiloSource(declaration)
