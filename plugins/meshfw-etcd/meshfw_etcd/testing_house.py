"""A house for tests of roll-outs: a store that is empty at first, nodes that follow it, and ``meshfw fleet`` on it."""

from __future__ import annotations

import io
import json
import os
import time
from argparse import ArgumentParser, Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from meshfw import Language, builtin_extensions, host_tables
from meshfw_etcd.arguments import add_arguments
from meshfw_etcd.client import Client
from meshfw_etcd.command import run
from meshfw_etcd.documents import Node, read
from meshfw_etcd.fleet import Fleet, read_fleet
from meshfw_etcd.keys import Keys, behind
from meshfw_etcd.messages import Delete
from meshfw_etcd.simulation import Crew, Opinion, content
from meshfw_etcd.testing import Server

RULES: Final = '[[chain]]\nname = "guests"\nattach = {{ hook = "input" }}\nrules = ["-s 10.0.0.{0} -j DROP"]\n'
"""The rules that a number makes."""
FAST: Final = ("--timeout", "5s", "--soak", "0.1s")
NAMES: Final = tuple(f"n{number}" for number in range(12))


def parsed(*argv: str) -> Namespace:
    """The arguments of ``meshfw fleet`` as the command line parses them; no configuration is read."""
    parser = ArgumentParser(prog="meshfw fleet")
    parser.set_defaults(config=os.devnull, verbose=False)
    add_arguments(parser)
    words = [word for word in argv if word != "--json"]
    return Namespace(**vars(parser.parse_args(words)), json="--json" in argv)


class House:
    """A store that is empty at first, and ``meshfw fleet`` on it."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.keys = Keys()
        self.directory = directory
        self._language = Language.of(builtin_extensions(), hosts=host_tables())
        self._crews = 0
        self.client = Client(server.access)
        self.client.txn([], [Delete("/", "0")])
        self.start = self.client.range("/").revision + 1

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def nodes(self, *names: str, opinion: Opinion = content) -> Crew:
        """Nodes of these names, or all; each in a house of its own, with no cache of an earlier one."""
        self._crews += 1
        directory = self.directory / f"crew{self._crews}"
        directory.mkdir()
        access, language = self.server.access, self._language
        return Crew(access, self.keys, names or NAMES, language=language, directory=directory, opinion=opinion)

    def rules(self, number: int, name: str = "rules.toml") -> str:
        """The path of a file with the rules that a number makes."""
        path = self.directory / name
        path.write_text(RULES.format(number), encoding="utf-8")
        return str(path)

    def call(self, *argv: str) -> tuple[int, Any]:
        """The exit code and the answer of a command, as data.

        Raises:
            MeshfwError: what the command line prints as one message.
        """
        out = io.StringIO()
        with redirect_stdout(out):
            code = run(parsed(*argv, "--endpoints", self.server.endpoint, "--json"))
        return code, json.loads(out.getvalue())

    def push(self, number: int, *options: str) -> tuple[int, Any]:
        """Push the rules that a number makes; times are short unless ``options`` say otherwise."""
        return self.call("push", self.rules(number), *FAST, *options)

    def fleet(self) -> Fleet:
        """What the store tells now."""
        return read_fleet(self.client, self.keys)

    def settled(self, names: tuple[str, ...], release: int) -> None:
        """Wait until some nodes hold a release."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            acks = self.fleet().acks
            if all(name in acks and acks[name].release == release for name in names):
                return
            time.sleep(0.05)
        raise AssertionError(f"not all hold {release}: {self.fleet().acks}")

    def trials(self) -> dict[str, set[int]]:
        """The releases that each node's key ever had on trial, read back from the store's own history."""
        found: dict[str, set[int]] = {}
        for pair in self.client.range(self.keys.nodes, behind(self.keys.nodes)).pairs:
            told = 0
            batches = iter(self.client.watch({pair.key.decode(): self.start}))
            while told < pair.mod_revision:
                for change in next(batches).changes:
                    told = change.pair.mod_revision
                    node = read(change.pair.value, Node, key=pair.key.decode())
                    if node.trial is not None:
                        found.setdefault(pair.key.decode().rpartition("/")[2], set()).add(node.trial.release)
        return found

    def holding(self) -> set[str]:
        """The nodes whose key has a trial now."""
        pairs = self.client.range(self.keys.nodes, behind(self.keys.nodes)).pairs
        return {
            pair.key.decode().rpartition("/")[2] for pair in pairs if read(pair.value, Node, key="").trial is not None
        }
