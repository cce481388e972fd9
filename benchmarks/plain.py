"""The plain tools: the commands of a transaction as a script would run them, and how they are run here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator, Sequence

import msgspec

from meshfw.backend import Step, Transaction
from meshfw.errors import CommandError
from meshfw.kernel.command import find


def verbatim_steps(transaction: Transaction, tools: Collection[str]) -> tuple[Step, ...]:
    """The steps that ``tools`` take, word for word.

    iptables-nft's backend takes away empty tables by itself, in a step that only bears the name of another command.
    """
    return tuple(step for step in transaction.steps if step.command[0] in tools)


def plain_steps(transaction: Transaction, tools: Collection[str]) -> tuple[Step, ...]:
    """What a script would run to make the same rules: the same steps, without the questions that prove them."""
    return tuple(
        msgspec.structs.replace(step, input=without_questions(step.input))
        for step in verbatim_steps(transaction, tools)
    )


def without_questions(text: str) -> str:
    """Input of iptables-restore without the blocks that change nothing, which have chains printed: ``-S`` lines alone.

    Text of another language, which has no such blocks, stays as it is.
    """
    return "".join(block for block in _blocks(text) if not _is_question(block))


def _blocks(text: str) -> Iterator[str]:
    """The text in pieces, each up to its COMMIT."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        lines.append(line)
        if line == "COMMIT\n":
            yield "".join(lines)
            lines = []
    yield "".join(lines)


def _is_question(block: str) -> bool:
    table, *lines = block.split("\n")
    return table.startswith("*") and lines[-2:] == ["COMMIT", ""] and all(line[:3] == "-S " for line in lines[:-2])


class Prepared:
    """A command of the plain tool with its input in a file: nothing of Python's is in its way but the spawning."""

    def __init__(self, step: Step) -> None:
        tool, *words = step.command
        self.command = (find(tool) or tool, *words)
        self._text = step.input.encode()

    def __enter__(self) -> Prepared:
        self._files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("input", "output", "errors")]
        with open(self._files[0], "wb", closefd=False) as file:
            file.write(self._text)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files:
            os.close(descriptor)

    def run(self, *before: str) -> str:
        """What the command, behind the words of ``before``, says on standard error; CommandError when it fails."""
        return self.wait(self.start(*before))

    def start(self, *before: str) -> subprocess.Popen[bytes]:
        """The process of the command, behind the words of ``before``."""
        stdin, stdout, stderr = self._files
        os.lseek(stdin, 0, os.SEEK_SET)
        for descriptor in (stdout, stderr):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
        return subprocess.Popen((*before, *self.command), stdin=stdin, stdout=stdout, stderr=stderr)

    def wait(self, process: subprocess.Popen[bytes]) -> str:
        """What a started process says on standard error by its end; CommandError when it fails."""
        # Without a time limit: with one, subprocess looks for the end after 0.5 ms, 1, 2, 4, 8 ... (the cell has one).
        with process:
            returncode = process.wait()
        said = self._written(self._files[2])
        if returncode != 0:
            raise CommandError(self.command, returncode=returncode, stderr=said)
        return said

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._written(self._files[1])

    @staticmethod
    def _written(descriptor: int) -> str:
        with open(descriptor, encoding="utf-8", errors="replace", closefd=False) as file:
            file.seek(0)
            return file.read()


def run_all(commands: Sequence[Prepared]) -> None:
    """The plain tool's work."""
    for command in commands:
        command.run()
