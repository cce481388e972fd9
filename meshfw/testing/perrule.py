"""Rules kept one by one, as controllers began that call iptables: a process asks for each rule, another writes it.

It is the measure of what a reconcile in bulk saves, and does what such a client does, no more: chains are made whether
or not they stand, a rule counts as there when ``iptables -C`` says so, whatever its place, and nothing is ever taken
away.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from meshfw.backend import Step
from meshfw.errors import CommandError
from meshfw.kernel.command import run
from meshfw.testing.netns import Netns

_SECONDS: Final = 20.0
_NO: Final = 1
"""How iptables ends when a rule isn't there, or a chain is (iptables, xshared.h: OTHER_PROBLEM)."""
_RESTORE: Final = "-restore"


class Line(msgspec.Struct, frozen=True):
    """A chain (``letter`` N) or a rule (A, I), and the program that makes it, such as ``ip6tables-nft``."""

    program: str
    table: str
    letter: str
    chain: str
    words: tuple[str, ...] = ()

    def argv(self, letter: str = "") -> tuple[str, ...]:
        """The command line that makes it, or that does another letter's work."""
        return (self.program, "-w", "-t", self.table, f"-{letter or self.letter}", self.chain, *self.words)


def lines_of(steps: Iterable[Step]) -> tuple[Line, ...]:
    """The chains and rules that a transaction of the iptables backends writes into an empty kernel, in its order.

    Empty where the transaction is none of iptables-restore.
    """
    return tuple(
        line
        for step in steps
        if step.command[0].endswith(_RESTORE)
        for line in _lines(step.command[0].removesuffix(_RESTORE), step.input)
    )


def _lines(program: str, text: str) -> Iterator[Line]:
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-N "):
            yield Line(program, table, "N", line.removeprefix("-N "))
        elif line.startswith(("-A ", "-I ")):
            letter, chain, *words = shlex.split(line)
            yield Line(program, table, letter[1:], chain, tuple(words))


class PerRuleClient:
    """The client, at work in one namespace on chains and rules that are always the same."""

    def __init__(self, netns: Netns, lines: Sequence[Line]) -> None:
        self._netns = netns
        self._lines = lines

    def sync(self) -> int:
        """One pass over everything; the number of rules that it had to write.

        Raises:
            CommandError: iptables refused something.
        """
        written = 0
        with self._netns.entered():
            for line in self._lines:
                if line.letter == "N":
                    _succeeded(line.argv())
                elif not _succeeded(line.argv("C")):
                    run(line.argv(), timeout=_SECONDS)
                    written += 1
        return written


def _succeeded(argv: Sequence[str]) -> bool:
    done = run(argv, timeout=_SECONDS, check=False)
    if done.returncode not in (0, _NO):
        raise CommandError(argv, returncode=done.returncode, stderr=done.stderr)
    return done.returncode == 0
