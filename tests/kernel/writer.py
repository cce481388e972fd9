"""A program that forks, for each line it reads, a process that writes one ruleset and the other until it's killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from meshfw.errors import MeshfwError
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.damage import ONE, OTHER, House


class _Held(Netns):
    """A room that somebody else made, by its path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


def _write(variant: str, path: str) -> NoReturn:
    with House(variant, _Held(path), Path()).backend() as backend:
        while True:
            for ruleset in (ONE, OTHER):
                try:
                    apply(backend, ruleset)
                except MeshfwError as error:  # its tool may be killed before it is
                    sys.stderr.write(f"{error}\n")


def main() -> None:
    """Lines ``VARIANT PATH`` in, for each the number of the process out, and ``gone`` once it has ended."""
    for line in sys.stdin:
        variant, path = line.split()
        child = os.fork()
        if child == 0:
            _write(variant, path)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
