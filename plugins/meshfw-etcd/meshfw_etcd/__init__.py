"""Rules from etcd: a source that follows the store, and the roll-out to a fleet of nodes."""

from __future__ import annotations

from collections.abc import Iterable

from meshfw import Declaration, RuleSource, SourcePlugin, hookimpl


def _source(declaration: Declaration) -> RuleSource:
    from meshfw_etcd.source import EtcdSource

    return EtcdSource(declaration)


@hookimpl
def meshfw_sources() -> Iterable[SourcePlugin]:
    """The source ``etcd``."""
    summary = "what an etcd v3 store has for this node: a common release, a trial, rules of its own"
    return [SourcePlugin(name="etcd", factory=_source, summary=summary, api_version=1)]
