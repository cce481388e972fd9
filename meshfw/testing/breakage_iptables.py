"""Somebody else with iptables in hand: breaks the rules of an iptables backend, and has rules of his own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from meshfw.kernel.command import run
from meshfw.kernel.netns import ipv6_available
from meshfw.model import Family
from meshfw.testing.netns import Netns

_SECONDS: Final = 20.0
_COUNTERS: Final = re.compile(r" \[\d+:\d+\]$")
_TABLES: Final = ("raw", "mangle", "nat", "filter")

FOREIGN: Final[Mapping[Family, str]] = {
    Family.IPV4: """\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 5000 -j DNAT --to-destination 172.17.0.2:5000
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -s 198.18.0.0/15 -m comment --comment "not ours" -j DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5000 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
""",
    Family.IPV6: """\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -s 2001:db8:bad::/48 -m comment --comment "not ours" -j DROP
COMMIT
""",
}
"""Rules as Docker makes them, and some of nobody's, as netfilter-persistent would keep them for iptables-restore."""


class IptablesTool:
    """The programs of one variant (``nft``, ``legacy``) in the hands of somebody else, in one namespace.

    They are turned against the chains of one owner. Every call spawns a process. Raises BackendError where a program
    is missing, CommandError where it refuses.
    """

    def __init__(self, netns: Netns, owner: str, *, variant: str) -> None:
        self._netns = netns
        self._owner = owner
        self._ours = re.compile(rf"^:{owner}[-.]|^-A {owner}[-.]| -j {owner}[.]")
        self._programs = {Family.IPV4: f"iptables-{variant}"}
        if ipv6_available():
            self._programs[Family.IPV6] = f"ip6tables-{variant}"
        self.breakages: Mapping[str, Callable[[], Iterable[str]]] = {
            "deletes a rule in the middle of a chain": self._delete,
            "moves a rule to the end of its chain": self._move,
            "opens a rule for everybody, in place": self._open,
            "flushes a chain": lambda: [self._do("filter", "-F", f"{owner}-site-lisbon")],
            "lets a blocked network in again": self._unblock,
            "puts a rule before our jump, which accepts what comes by wg0": self._go_before,
            "restarts netfilter-persistent, which flushes filter and nat first": self._restart,
        }

    def move_in(self) -> Sequence[str]:
        """Others' rules come to stand beside ours."""
        return [*self._restored("--noflush")]

    def foreign(self) -> str:
        """The rules and chains that aren't the owner's, as save prints them, without counters.

        A table of nothing but open built-in chains is no rule of anybody's: the tools make them and let them go.
        """
        return "".join(f"{program} {table}\n" + self._others(program, table) for program, table in self._places())

    def leftovers(self) -> Sequence[str]:
        """The owner's chains, rules and jumps that still stand."""
        return tuple(
            f"{program} -t {table}: {line}"
            for program, table in self._places()
            for line in self._saved(program, table)
            if self._ours.search(line)
        )

    # --- breakages ---

    def _delete(self) -> Iterable[str]:
        chain, _, words = self._rule("filter", "forward", "site-lisbon")
        yield self._do("filter", "-D", chain, *words)

    def _move(self) -> Iterable[str]:
        chain, _, words = self._rule("filter", "site-quito", "guests stay outside")
        yield self._do("filter", "-D", chain, *words)
        yield self._do("filter", "-A", chain, *words)

    def _open(self) -> Iterable[str]:
        chain, number, _ = self._rule("filter", "input", "--dport 22 ")
        yield self._do("filter", "-R", chain, str(number), "-p", "tcp", "--dport", "22", "-j", "ACCEPT")

    def _unblock(self) -> Iterable[str]:
        chain, _, words = self._rule("raw", "spoofed", "198.51.100.64/26")
        yield self._do("raw", "-D", chain, *words)

    def _go_before(self) -> Iterable[str]:
        yield self._do("filter", "-I", "FORWARD", "-i", "wg0", "-j", "ACCEPT")

    def _restart(self) -> Iterable[str]:
        for _ in self._restored():
            pass
        yield "systemctl restart netfilter-persistent"

    # --- the programs ---

    def _restored(self, *options: str) -> Iterable[str]:
        """Have restore read the rules of others; the lines that a shell would get."""
        for family, program in self._programs.items():
            argv = (f"{program}-restore", "-w", *options)
            self._run(*argv, text=FOREIGN[family])
            yield f"{shlex.join(argv)} < others.{'v4' if family is Family.IPV4 else 'v6'}"

    def _places(self) -> Iterable[tuple[str, str]]:
        return ((program, table) for program in self._programs.values() for table in _TABLES)

    def _saved(self, program: str, table: str) -> list[str]:
        text = self._run(f"{program}-save", "-t", table)
        return [_COUNTERS.sub("", line) for line in text.splitlines() if not line.startswith("#")]

    def _others(self, program: str, table: str) -> str:
        """What others have in a table."""
        lines = [line for line in self._saved(program, table) if not self._ours.search(line)]
        used = any(not re.match(r"\*|:[A-Z]+ ACCEPT|COMMIT", line) for line in lines)
        return "".join(f"{line}\n" for line in lines) if used else ""

    def _run(self, *argv: str, text: str = "") -> str:
        """What one run of a program printed; ``text`` is its standard input."""
        with self._netns.entered():
            return run(argv, timeout=_SECONDS, input=text.encode()).stdout

    def _do(self, table: str, *words: str) -> str:
        """Run a command on a table of IPv4; the line that a shell would get."""
        argv = (self._programs[Family.IPV4], "-w", "-t", table, *words)
        self._run(*argv)
        return shlex.join(argv)

    def _rule(self, table: str, name: str, part: str) -> tuple[str, int, list[str]]:
        """Of the rule of a chain of ours that holds a text: chain, number and words."""
        chain = f"{self._owner}-{name}"
        text = self._run(self._programs[Family.IPV4], "-w", "-t", table, "-S", chain)
        rules = [line for line in text.splitlines() if line.startswith("-A ")]
        return next((chain, at, shlex.split(line)[2:]) for at, line in enumerate(rules, 1) if part in line)
