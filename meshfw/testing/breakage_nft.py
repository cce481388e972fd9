"""Somebody else with ``nft`` in hand: breaks the rules of the nft backend, and has tables of his own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from meshfw.kernel.command import run
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


class NftTool:
    """The ``nft`` program in the hands of somebody else, in one namespace, against the tables of one owner.

    Every call spawns a process. Raises BackendError where the program is missing, CommandError where it refuses.
    """

    def __init__(self, netns: Netns, owner: str) -> None:
        self._netns = netns
        self._owner = owner
        self.breakages: Mapping[str, Callable[[], Iterable[str]]] = {
            "deletes a rule in the middle of a chain": self._delete,
            "moves a rule to the end of its chain": self._move,
            "opens a rule for everybody, in place": self._open,
            "flushes a chain": lambda: [self._do("flush chain", "filter-site-lisbon")],
            "empties a set": lambda: [self._do("flush set", "set-blocked")],
            "restarts nftables, which flushes everything first": self._restart,
        }

    def move_in(self) -> Sequence[str]:
        """Others' tables come to stand beside ours."""
        self._run("nft", "-f", "-", text=FOREIGN)
        return ("nft -f others.nft",)

    def foreign(self) -> str:
        """The tables that aren't the owner's, to the last byte."""
        return "".join(self._run("nft", "-a", "list", "table", *table.split()) for table in FOREIGN_TABLES)

    def leftovers(self) -> Sequence[str]:
        """The owner's tables that still stand."""
        tables = self._run("nft", "list", "tables").splitlines()
        return tuple(line for line in tables if line.split()[-1] == self._owner)

    # --- breakages ---

    def _delete(self) -> Iterable[str]:
        _, handle = self._rule("filter-forward", "filter-site-lisbon")
        yield self._do("delete rule", "filter-forward", f"handle {handle}")

    def _move(self) -> Iterable[str]:
        text, handle = self._rule("filter-site-quito", "guests stay outside")
        yield self._do("delete rule", "filter-site-quito", f"handle {handle}")
        yield self._do("add rule", "filter-site-quito", text)

    def _open(self) -> Iterable[str]:
        _, handle = self._rule("filter-input", "tcp dport 22 ")
        yield self._do("replace rule", "filter-input", f"handle {handle} tcp dport 22 counter accept")

    def _restart(self) -> Iterable[str]:
        self._run("nft", "-f", "-", text=f"flush ruleset\n{FOREIGN}")
        yield "systemctl restart nftables"

    # --- the program ---

    def _run(self, *argv: str, text: str = "") -> str:
        """What one run of the program printed; ``text`` is its standard input."""
        with self._netns.entered():
            return run(argv, timeout=_SECONDS, input=text.encode()).stdout

    def _words(self, verb: str, name: str, rest: str = "") -> tuple[str, str]:
        """The argument list of a command on a chain or set of the owner's; one word, as quotes in it suggest."""
        return ("nft", f"{verb} ip {self._owner} {name} {rest}".rstrip())

    def _do(self, verb: str, name: str, rest: str = "") -> str:
        """Run a command on a chain or set of the owner's; the line that a shell would get."""
        argv = self._words(verb, name, rest)
        self._run(*argv)
        return shlex.join(argv)

    def _rule(self, chain: str, part: str) -> tuple[str, str]:
        """Text and handle of the rule of a chain that holds a text, without counters."""
        _, command = self._words("list chain", chain)
        rules = _HANDLE.findall(self._run("nft", "--handle", "--stateless", command))
        return next((text, handle) for text, handle in rules if part in text)
