"""iptables-restore and ip6tables-restore of one variant: how they are run in a namespace, and what they refuse."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from meshfw.backend import Costs
from meshfw.backends.iptables_listing import printed_rules
from meshfw.backends.iptables_raw import RawRule
from meshfw.backends.iptables_text import question_text
from meshfw.backends.layout import TableKey
from meshfw.errors import CommandError
from meshfw.kernel.command import Completed, find, run
from meshfw.kernel.lock import XTABLES_VARIABLE, XtablesLock
from meshfw.kernel.netns import HeldNamespace
from meshfw.model import Family

_SECONDS: Final = 120.0
"""How long one process may take beside waiting for the lock: 100,000 rules on a busy host."""
_REMEMBERED: Final = 16
_ELF: Final = b"\x7fELF"
_BUSY: Final = 4  # iptables, xshared.h: RESOURCE_PROBLEM
_UNREADABLE: Final = "Parsing nftables rule failed"
_REFUSED: Final = re.compile(r"line:? (\d+)")
_INVALID: Final = "(Invalid argument)"
_BLOCKED: Final = re.compile(r"CHAIN_\w+ failed \((?:Operation not supported|File exists)\)")
_INCOMPATIBLE: Final = re.compile(r"chain `([^']+)' in table `([^']+)' is incompatible")


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """What sets the two iptables apart: the backend's name, the programs, and which kernel they speak to."""

    name: str
    programs: Mapping[Family, str]
    legacy: bool
    counters_move: frozenset[Family] = frozenset(Family)


NFT: Final = Variant(
    name="iptables-nft",
    programs={Family.IPV4: "iptables-nft-restore", Family.IPV6: "ip6tables-nft-restore"},
    legacy=False,
    counters_move=frozenset({Family.IPV4}),  # ip6tables-nft 1.8.9 takes counters, says nothing, and writes zeros
)
LEGACY: Final = Variant(
    name="iptables-legacy",
    programs={Family.IPV4: "iptables-legacy-restore", Family.IPV6: "ip6tables-legacy-restore"},
    legacy=True,
)


class ChainRules(NamedTuple):
    """A chain of ours and its rules as the kernel has them."""

    table: TableKey
    chain: str
    rules: tuple[RawRule, ...]
    told: tuple[bool, ...]
    """For each rule whether iptables lists all that it does."""


class Tool:
    """The programs of one variant, run in ``home``; each waits ``wait`` seconds for the lock of the legacy tables.

    Every run is counted among the ``costs``.
    """

    def __init__(self, variant: Variant, home: HeldNamespace, *, wait: int, costs: Costs) -> None:
        self.variant = variant
        self._costs = costs
        self._home = home
        self._wait = wait
        self.started: deque[int] = deque(maxlen=_REMEMBERED)
        """The numbers of the last processes."""

    def command(self, family: Family) -> tuple[str, ...]:
        """The argument list that leaves alone what the input doesn't name."""
        return (self.variant.programs[family], "--noflush", "-w", str(self._wait))

    def family(self, command: Sequence[str]) -> Family | None:
        """The family that a command is for; None for a command of something else."""
        return next((family for family in Family if tuple(command) == self.command(family)), None)

    @property
    def files(self) -> tuple[str | None, ...]:
        """The programs' files; None for one that isn't installed."""
        return tuple(find(program) for program in self.variant.programs.values())

    @cached_property
    def takes_lock_file(self) -> bool:
        """Whether the legacy programs take the lock file that the environment names (iptables 1.8.6).

        A program that doesn't would wait for the lock that its caller holds, so then nobody holds it for it.
        """
        path = find(self.variant.programs[Family.IPV4])
        if path is None:
            return True  # its absence is said by the one who starts it
        with open(path, "rb") as file:
            head = file.read(4)
            return head != _ELF or XTABLES_VARIABLE.encode() in file.read()

    def restore(self, family: Family, text: str, *, lock: XtablesLock | None = None) -> str:
        """What it printed; CommandError where it failed."""
        done = self._run(family, text, lock)
        if done.returncode != 0:
            raise self._failure(family, done, text)
        return done.stdout

    def printed(
        self, family: Family, chains: Sequence[ChainRules], *, lock: XtablesLock | None = None
    ) -> list[tuple[ChainRules, list[str] | None]]:
        """What is listed of some chains, all by one process; None for a chain that iptables refuses to list.

        It names such a chain, or none: then all are left out that hold a rule of which it can't tell everything.
        """
        left = list(chains)
        refused: list[tuple[ChainRules, list[str] | None]] = []
        while left:
            text = "".join(question_text(item.table[1], [item.chain]) for item in left)
            done = self._run(family, text, lock)
            if done.returncode == 0:
                return [*refused, *zip(left, printed_rules(done.stdout, [item.chain for item in left]), strict=False)]
            named = _INCOMPATIBLE.search(done.stderr)
            kept = left
            if named and not refused:
                kept = [item for item in left if (item.chain, item.table[1]) != (named[1], named[2])]
            elif named or _UNREADABLE in done.stderr:
                kept = [item for item in left if all(item.told)]
            if len(kept) == len(left):
                raise self._failure(family, done, text)
            refused.extend((item, None) for item in left if item not in kept)
            left = kept
        return refused

    def _run(self, family: Family, text: str, lock: XtablesLock | None) -> Completed:
        data = text.encode(errors="surrogateescape")
        self._costs.processes += 1
        with self._home.entered():
            done = run(
                self.command(family),
                timeout=_SECONDS + self._wait,
                input=data,
                env=lock.environment if lock is not None else None,
                inherit=(lock.descriptor,) if lock is not None else (),
                check=False,
            )
        self.started.append(done.pid)
        return done

    def _failure(self, family: Family, done: Completed, text: str) -> CommandError:
        """The error of a failed process; it shows the line that was refused, since the legacy tools only count it."""
        found = _REFUSED.search(done.stderr)
        line = "".join(text.split("\n")[int(found[1]) - 1 : int(found[1])]) if found else ""
        remedy = f"that line is {line}" if line else ""
        if line.startswith("-X ") and "No chain" not in done.stderr:
            remedy = f"a rule of somebody else leads to chain {line.removeprefix('-X ')}, which is to go: remove it"
        elif _UNREADABLE in done.stderr:
            remedy = "a rule that nft made stands where iptables looks for one of ours, and it can't read it: move it"
        elif _BLOCKED.search(done.stderr):
            remedy = "a chain that nft made stands where iptables wants to make one: move it"
        elif _INVALID in done.stderr or line == "COMMIT":
            remedy = (
                "the kernel refuses a rule of that table, perhaps on a hook that it's met from: dmesg may say which"
            )
        elif done.returncode == _BUSY:
            remedy = "others wrote at the same moment, or memory was short: try again"
        return CommandError(self.command(family), returncode=done.returncode, stderr=done.stderr, remedy=remedy)
