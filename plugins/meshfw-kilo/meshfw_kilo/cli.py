"""The command ``meshfw-kilo``: what a mesh node needs beside its firewall."""

from __future__ import annotations

import argparse
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from meshfw_kilo.cni import CONFLIST

if TYPE_CHECKING:  # at run time imported where they're used: --help needs none of them
    from meshfw import Changes
    from meshfw_kilo.reader import Reader

_AGAIN: Final = 30.0
"""Seconds until all is looked at again, whether or not there is word of changes; so long is Kilo's resync period."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code: 0, or 1 after an error."""
    from meshfw import MeshfwError

    options = _parser().parse_args(arguments)
    try:
        return _cni(options)
    except MeshfwError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="meshfw-kilo", description="What a Kilo mesh node needs beside its firewall.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    cni = commands.add_parser(
        "cni",
        help="keep the node's pod networks in its CNI configuration",
        description="Put the node's pod networks into host-local's ranges of its CNI configuration, in one step and "
        "only where they differ.",
    )
    cni.add_argument("--node", required=True, metavar="NAME", help="this host's Node")
    source = cni.add_mutually_exclusive_group(required=True)
    source.add_argument("--objects", metavar="FILE", help="YAML or JSON with the cluster's Nodes")
    source.add_argument("--kubernetes", action="store_true", help="ask the API")
    cni.add_argument("--conflist", metavar="FILE", default=CONFLIST, help=f"a .conflist or .conf (default: {CONFLIST})")
    cni.add_argument("--watch", action="store_true", help="go on, and follow what changes")
    return parser


def _cni(options: argparse.Namespace) -> int:
    from meshfw import MeshfwError, Settings
    from meshfw_kilo.source import open_reader

    told = {"kubernetes": True} if options.kubernetes else {"objects": options.objects}
    reader = open_reader(Settings(told))
    try:
        if not options.watch:
            _put(options, reader)
            return 0
        said = ""
        with _Ears(reader, options.conflist) as ears:
            while True:
                try:
                    _put(options, reader)
                    said = ""
                except MeshfwError as error:  # told once; a change may mend it
                    if str(error) != said:
                        said = str(error)
                        _say(f"error: {error}")
                ears.wait()
    finally:
        reader.close()


def _put(options: argparse.Namespace, reader: Reader) -> None:
    """Bring the configuration up to date, and say so if it was changed, or if nothing more will come."""
    from meshfw import ConfigError
    from meshfw_kilo.cni import keep_pod_cidrs
    from meshfw_kilo.objects import parse_objects

    nodes = parse_objects(reader.read()).nodes
    node = next((node for node in nodes if node.name == options.node), None)
    if node is None:
        raise ConfigError(f"there is no Node {options.node}", file=reader.name, expected="--node NAME of one that is")
    if not node.pod_cidrs:
        raise ConfigError(
            f"Node {node.name} has no pod network yet", file=reader.name, key="spec.podCIDR", expected="a network"
        )
    written = keep_pod_cidrs(options.conflist, node.pod_cidrs)
    if written or not options.watch:
        networks = ", ".join(map(str, node.pod_cidrs))
        sys.stdout.write(f"{options.conflist}: {networks} {'written' if written else 'stands there already'}\n")
        sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"meshfw-kilo: {text}\n")
    sys.stderr.flush()


class _Ears:
    """What wakes the watching: word of the objects and of the configuration, and the time."""

    def __init__(self, reader: Reader, conflist: str) -> None:
        from meshfw import FileChanges

        self._files: FileChanges | None = None
        with suppress(OSError):
            self._files = FileChanges([conflist])
        told = reader.changes()
        self._heard: list[Changes] = [changes for changes in (told, self._files) if changes is not None]

    def __enter__(self) -> _Ears:
        return self

    def __exit__(self, *_: object) -> None:
        if self._files is not None:
            self._files.close()

    def wait(self) -> None:
        """Return when there is word, or after a while."""
        for changes in select.select(self._heard, [], [], _AGAIN)[0]:
            changes.drain()
