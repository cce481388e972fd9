"""Whoever else writes rules beside meshfw: what they run, by backend, and what they have in the kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from benchmarks.plain import Prepared
from benchmarks.scenarios import edited_chain
from benchmarks.subjects import Subject
from benchmarks.trials.agent import OWNER
from meshfw.backend import Step
from meshfw.backends.layout import iptables_chain, nft_chain
from meshfw.model import Ruleset
from meshfw.testing.netns import Netns

_ADDRESS: Final = "198.51.100.99"
"""The address in the rival's rule, by which it's known again."""
RATE: Final = 10
"""Writes a second."""
FOREIGN_RULES: Final = 20
_COUNTERS: Final = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+")


class Outsider(msgspec.Struct, frozen=True, kw_only=True):
    """Another user of a backend's tables, by the commands that he runs.

    ``settle`` gives him rules of his own, ``write`` is one commit to them and one that takes it back; ``flush`` takes
    all rules of the owner's tables away, its steps at once. ``look`` prints the owner's chain into which ``insert``
    puts a rule.
    """

    settle: tuple[Step, ...]
    write: tuple[Step, Step]
    flush: tuple[Step, ...]
    look: Step
    insert: Step


def outsider(subject: Subject, mesh: Ruleset) -> Outsider:
    """The outsider who uses the tools of a subject beside a mesh ruleset."""
    chain = edited_chain(mesh)
    if subject.name == "nft":
        return _of_nft(nft_chain(chain.table, chain.name))
    return _of_iptables(subject.tools, iptables_chain(OWNER, chain.key))


def _of_nft(chain: str) -> Outsider:
    def nft(text: str) -> Step:
        return Step(("nft", "-f", "-"), text)

    rules = "".join(f"add rule inet foreign input ip saddr 198.51.100.{n} accept\n" for n in range(FOREIGN_RULES))
    hook = "add chain inet foreign input { type filter hook input priority 10; }\n"
    return Outsider(
        settle=(nft(f"add table inet foreign\n{hook}add chain inet foreign own\n{rules}"),),
        write=(nft("add rule inet foreign own ip saddr 203.0.113.7 accept\n"), nft("flush chain inet foreign own\n")),
        flush=(nft(f"flush table ip {OWNER}\nflush table ip6 {OWNER}\n"),),
        look=Step(("nft", "list", "chain", "ip", OWNER, chain)),
        insert=Step(("nft", "insert", "rule", "ip", OWNER, chain, "ip", "saddr", _ADDRESS, "drop")),
    )


def _of_iptables(tools: Sequence[str], chain: str) -> Outsider:
    tool = tools[0].removesuffix("-restore")

    def run(*words: str) -> Step:
        return Step((tool, "-w", *words))

    rules = "".join(f"-A FOREIGN -s 198.51.100.{n} -j ACCEPT\n" for n in range(FOREIGN_RULES))
    text = f"*filter\n:FOREIGN - [0:0]\n:FOREIGN-OWN - [0:0]\n{rules}-A INPUT -j FOREIGN\nCOMMIT\n"
    rule = ("FOREIGN-OWN", "-s", "203.0.113.7", "-j", "ACCEPT")
    return Outsider(
        settle=(Step((tools[0], "-w", "--noflush"), text),),
        write=(run("-A", *rule), run("-D", *rule)),
        flush=tuple(Step((each, "-w", "--noflush"), "*filter\n-F\nCOMMIT\n*nat\n-F\nCOMMIT\n") for each in tools),
        look=run("-S", chain),
        insert=run("-I", chain, "-s", _ADDRESS, "-j", "DROP"),
    )


@contextmanager
def started(steps: Sequence[Step], room: Netns) -> Iterator[None]:
    """A block that begins when commands have been started in a namespace, all at once, and ends when they have."""
    with ExitStack() as stack:
        prepared = [stack.enter_context(Prepared(step)) for step in steps]
        with room.entered():
            processes = [command.start() for command in prepared]
        try:
            yield
        finally:
            for command, process in zip(prepared, processes, strict=True):
                command.wait(process)


def run_steps(steps: Sequence[Step], room: Netns) -> None:
    """Run commands in a namespace, all at once, and wait for them."""
    with started(steps, room):
        pass


def printed(subject: Subject, room: Netns, *, foreign: bool = False) -> tuple[str, ...]:
    """The lines that a subject's reading tools print, without counters; ``foreign``: without the owner's."""
    with ExitStack() as stack:
        commands = [stack.enter_context(Prepared(Step(read))) for read in subject.reads]
        stack.enter_context(room.entered())
        for command in commands:
            command.run()
        text = "".join(command.output for command in commands)
    lines = [_COUNTERS.sub("", line) for line in text.splitlines() if not line.startswith("#")]
    return tuple(_foreign(lines) if foreign else lines)


def _foreign(lines: Sequence[str]) -> list[str]:
    """The lines that tell neither of the owner's nft tables, nor of his chains of iptables and the jumps to them."""
    found, ours = [], False
    for line in lines:
        if line.startswith("table "):
            ours = line.split()[2] == OWNER
        if not ours and OWNER not in line:
            found.append(line)
    return found


class Pace:
    """Something done ten times a second for some time: iterating gives the number of each time, when it's due."""

    def __init__(self, seconds: float) -> None:
        self._times = max(1, round(seconds * RATE))

    def __iter__(self) -> Pace:
        self._number, self._start = 0, time.monotonic()
        return self

    def __next__(self) -> int:
        due = self._start + self._number / RATE
        if self._number >= self._times:
            raise StopIteration
        time.sleep(max(0.0, due - time.monotonic()))
        self._number += 1
        return self._number - 1


class Rival:
    """Somebody who wants a rule of his at the head of the owner's chain, and puts it there whenever it's missing."""

    def __init__(self, outsider: Outsider, room: Netns) -> None:
        self._outsider = outsider
        self._room = room
        self.inserts = 0

    def insist(self) -> None:
        """Look, and put it there if it's missing."""
        if not self.there():
            with Prepared(self._outsider.insert) as command, self._room.entered():
                command.run()
            self.inserts += 1

    def there(self) -> bool:
        """Whether his rule stands."""
        with Prepared(self._outsider.look) as command, self._room.entered():
            command.run()
            return _ADDRESS in command.output


__all__ = ["FOREIGN_RULES", "RATE", "Outsider", "Pace", "Rival", "outsider", "printed", "run_steps", "started"]
