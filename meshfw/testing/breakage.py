"""Somebody else who works on the host's firewall with its own tool: breaks our rules, and has rules of his own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.errors import BackendError
from meshfw.kernel.command import run
from meshfw.model import Family
from meshfw.testing.netns import Netns

_SECONDS: Final = 20.0
_HANDLE: Final = re.compile(r"^\t\t(.*) # handle (\d+)$", re.MULTILINE)

FOREIGN: Final = """\
table ip nat {
	chain DOCKER {
		iifname "docker0" counter return
		iifname != "docker0" tcp dport 5000 counter dnat to 172.17.0.2:5000
	}

	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump DOCKER
	}

	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
	}
}
table inet foreign {
	set banned {
		type ipv4_addr
		flags interval
		elements = { 198.18.0.0/15 }
	}

	counter seen {
	}

	chain input {
		type filter hook input priority filter; policy accept;
		counter name "seen"
		ip saddr @banned drop comment "not ours"
	}
}
"""
"""Tables as Docker makes them, and some of a tool of nobody's, for ``nft -f``."""
FOREIGN_TABLES: Final = ("ip nat", "inet foreign")


class Breakage(msgspec.Struct, frozen=True):
    """One way to break our rules: what somebody does, and the commands, which may depend on what stands there."""

    title: str
    commands: Callable[[NftTool], Sequence[Sequence[str]]]


class NftTool:
    """The ``nft`` program in the hands of somebody else, in one namespace, against the tables of one owner.

    Every call spawns a process. Raises BackendError where the program is missing, CommandError where it refuses.
    """

    def __init__(self, netns: Netns, owner: str) -> None:
        self._netns = netns
        self.owner = owner

    def run(self, *argv: str, text: str = "") -> str:
        """What one run of the program printed; ``text`` is its standard input."""
        with self._netns.entered():
            return run(argv, timeout=_SECONDS, input=text.encode()).stdout

    def table(self, family: Family) -> str:
        """The owner's table of a family, as nft names it."""
        return f"{'ip' if family is Family.IPV4 else 'ip6'} {self.owner}"

    def command(self, verb: str, family: Family, chain: str, rest: str = "") -> tuple[str, str]:
        """The argument list of a command on a chain (or set) of the owner's; one word, as quotes in it suggest."""
        return ("nft", " ".join((verb, self.table(family), chain, rest)).rstrip())

    def rules(self, family: Family, chain: str) -> list[tuple[str, str]]:
        """Text and handle of each rule of a chain of the owner's, without counters."""
        _, command = self.command("list chain", family, chain)
        return _HANDLE.findall(self.run("nft", "--handle", "--stateless", command))

    def handle(self, family: Family, chain: str, part: str) -> tuple[str, str]:
        """Text and handle of the rule of a chain that holds a text."""
        return next((text, handle) for text, handle in self.rules(family, chain) if part in text)

    def foreign(self) -> str:
        """The tables that aren't the owner's, to the last byte."""
        return "".join(self.run("nft", "-a", "list", "table", *table.split()) for table in FOREIGN_TABLES)

    def leftovers(self) -> tuple[str, ...]:
        """The owner's tables that still stand."""
        tables = self.run("nft", "list", "tables").splitlines()
        return tuple(line for line in tables if line.split()[-1] == self.owner)

    def break_by(self, breakage: Breakage) -> list[str]:
        """Break something; the command lines that it took."""
        shown = []
        for argv in breakage.commands(self):
            reload = argv[-1] == "-"
            self.run(*argv, text=f"flush ruleset\n{FOREIGN}" if reload else "")
            shown.append("systemctl restart nftables" if reload else shlex.join(argv))
        return shown


def _delete(tool: NftTool) -> Sequence[Sequence[str]]:
    _, handle = tool.handle(Family.IPV4, "filter-forward", "filter-site-lisbon")
    return [tool.command("delete rule", Family.IPV4, "filter-forward", f"handle {handle}")]


def _move(tool: NftTool) -> Sequence[Sequence[str]]:
    text, handle = tool.handle(Family.IPV4, "filter-site-quito", "guests stay outside")
    return [
        tool.command("delete rule", Family.IPV4, "filter-site-quito", f"handle {handle}"),
        tool.command("add rule", Family.IPV4, "filter-site-quito", text),
    ]


def _open(tool: NftTool) -> Sequence[Sequence[str]]:
    _, handle = tool.handle(Family.IPV4, "filter-input", "tcp dport 22 ")
    return [tool.command("replace rule", Family.IPV4, "filter-input", f"handle {handle} tcp dport 22 counter accept")]


BREAKAGES: Final[tuple[Breakage, ...]] = (
    Breakage("deletes a rule in the middle of a chain", _delete),
    Breakage("moves a rule to the end of its chain", _move),
    Breakage("opens a rule for everybody, in place", _open),
    Breakage("flushes a chain", lambda tool: [tool.command("flush chain", Family.IPV4, "filter-site-lisbon")]),
    Breakage("empties a set", lambda tool: [tool.command("flush set", Family.IPV4, "set-blocked")]),
    Breakage("restarts nftables, which flushes everything first", lambda _tool: [("nft", "-f", "-")]),
)
"""Each undoes what some packet of :func:`meshfw.testing.gateway.journeys` meets."""

TOOLS: Final[Mapping[str, Callable[[Netns, str], NftTool]]] = {"nft": NftTool}
"""Who can break the rules of a backend, by the backend's name."""


def tool_against(backend: str, netns: Netns, owner: str) -> NftTool:
    """Somebody who can break what a backend keeps; BackendError where the demonstration knows nobody."""
    maker = TOOLS.get(backend)
    if maker is None:
        raise BackendError(f"nobody here knows how to break the rules of {backend}")
    return maker(netns, owner)
