"""Rules from etcd: a source that follows the store, and the roll-out to a fleet of nodes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from meshfw import CommandPlugin, Declaration, RuleSource, SourcePlugin, hookimpl


def _source(declaration: Declaration) -> RuleSource:
    from meshfw_etcd.source import EtcdSource

    return EtcdSource(declaration)


@hookimpl
def meshfw_sources() -> Iterable[SourcePlugin]:
    """The source ``etcd``."""
    summary = "what an etcd v3 store has for this node: a common release, a trial, rules of its own"
    return [SourcePlugin(name="etcd", factory=_source, summary=summary, api_version=1)]


def _run(arguments: Namespace) -> int:
    from meshfw_etcd.command import run

    return run(arguments)


def _add_arguments(parser: ArgumentParser) -> None:
    from meshfw_etcd.arguments import add_arguments

    add_arguments(parser)


@hookimpl
def meshfw_commands() -> Iterable[CommandPlugin]:
    """The verb ``fleet``."""
    summary = "push rules to all nodes of a store, canaries first, and look at what they hold"
    return [CommandPlugin(name="fleet", run=_run, add_arguments=_add_arguments, summary=summary, api_version=1)]
