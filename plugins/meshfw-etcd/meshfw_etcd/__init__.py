"""Rules from etcd: a source that follows the store, and the roll-out to a fleet of nodes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from meshfw import CommandPlugin, hookimpl


@hookimpl
def meshfw_commands() -> Iterable[CommandPlugin]:
    """The verb ``fleet``."""
    return (
        CommandPlugin(
            name="fleet",
            run=_run,
            add_arguments=_add_arguments,
            summary="push rules to all nodes of a store, canaries first, and look at what they hold",
            api_version=1,
        ),
    )


def _run(arguments: Namespace) -> int:
    from meshfw_etcd.command import run

    return run(arguments)


def _add_arguments(parser: ArgumentParser) -> None:
    from meshfw_etcd.options import add_arguments

    add_arguments(parser)
