"""An iptables backend in a room of its own whose tools can be damaged, and what then stands in the kernel."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.backend import Site
from meshfw.backends.iptables import IptablesBackend, iptables_legacy, iptables_nft
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import find, run
from meshfw.languages.iptables import format_rule
from meshfw.model import Attachment, Chain, Family, Hook, Place, Policy, Ruleset, Table
from meshfw.plan import Plan
from meshfw.reconcile import plan
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import rules_of

LANGUAGE: Final = Language.of(builtin_extensions())
VARIANTS: Final = ("legacy", "nft")
STEMS: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
_MAKERS: Final = {"legacy": iptables_legacy, "nft": iptables_nft}
_COUNTERS: Final = re.compile(r"\[\d+:\d+\]")
_TABLE: Final = re.compile(r"^\*(\w+)$(.*?)^COMMIT$", re.DOTALL | re.MULTILINE)
_EMPTY: Final = re.compile(r":[A-Z]+ ACCEPT ")
_SECONDS: Final = 60.0

FOREIGN: Final = """\
*filter
:THEIRS - [0:0]
-A INPUT -i lo -m comment --comment "not ours" -j THEIRS
-A THEIRS -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
*nat
-A POSTROUTING -o eth9 -j MASQUERADE
COMMIT
"""

Spec = tuple[Table, str, Hook | None, tuple[str, ...]]
_ONE: Final[tuple[Spec, ...]] = (
    (
        Table.FILTER,
        "fw",
        Hook.INPUT,
        (
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-i lo -j ACCEPT",
            "-s {net} -j ACCEPT",
            '-p tcp -m tcp --dport 22 -m comment --comment "shell, for operators only" -j ACCEPT',
            "-j DROP",
        ),
    ),
    (Table.FILTER, "going", None, ("-p tcp -m tcp --dport 1 -j ACCEPT",)),
    (Table.NAT, "out", Hook.POSTROUTING, ("-s {net} ! -d {net} -j MASQUERADE", "-o wg0 -j RETURN")),
)
_OTHER: Final[tuple[Spec, ...]] = (
    (
        Table.FILTER,
        "fw",
        Hook.INPUT,
        (
            "-i lo -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-s {host} -j DROP",
            "-p udp -m udp --dport 51820 -j ACCEPT",
            '-p tcp -m tcp --dport 22 -m comment --comment "shell, for operators only" -j ACCEPT',
        ),
    ),
    (Table.FILTER, "coming", Hook.FORWARD, ("-p tcp -m tcp --dport 2 -j ACCEPT", "-j REJECT")),
    (Table.NAT, "out", Hook.POSTROUTING, ("-o wg0 -j RETURN", "-s {other} -j MASQUERADE")),
)


def ruleset(
    specs: Sequence[Spec], *, policy: Policy = Policy.RETURN, families: Sequence[Family] = tuple(Family)
) -> Ruleset:
    """Chains of both families, those with a hook attached to it."""
    chains: list[Chain] = []
    attachments: list[Attachment] = []
    for family in families:
        for table, name, hook, texts in specs:
            hooks = [hook] if hook else []
            rules = rules_of(texts, family=family, table=table, hooks=hooks, language=LANGUAGE)
            assert len(rules) == len(texts)
            chains.append(Chain(family=family, table=table, name=name, rules=rules))
            if hook:
                place = Place.LAST if hook is Hook.FORWARD else Place.FIRST
                kept = policy if table is Table.FILTER else Policy.RETURN
                attachments.append(
                    Attachment(family=family, table=table, hook=hook, chain=name, place=place, policy=kept)
                )
    return Ruleset(chains=tuple(chains), attachments=tuple(attachments))


ONE: Final = ruleset(_ONE)
OTHER: Final = ruleset(_OTHER, policy=Policy.DROP)
"""What :data:`ONE` becomes: in each of two tables of both families rules come, go and move; a chain, a jump too."""

Text = dict[tuple[Family, Table], tuple[str, ...]]
"""The lines of each table."""


class House:
    """A room with one variant of iptables, whose tools ``damage`` replaces for a while."""

    def __init__(self, variant: str, room: Netns, directory: Path) -> None:
        self.variant = variant
        self.room = room
        self._directory = directory

    @contextmanager
    def backend(self, owner: str = "meshfw", **options: Any) -> Iterator[IptablesBackend]:
        """A fresh instance."""
        site = Site(owner=owner, language=LANGUAGE, netns=self.room.path, options=options)
        made = _MAKERS[self.variant](site)
        try:
            yield made
        finally:
            made.close()

    def planned(self, wanted: Ruleset) -> Plan:
        """What somebody who knows nothing would change."""
        with self.backend() as witness:
            return plan(witness, wanted)

    def assert_held(self, wanted: Ruleset) -> None:
        """The kernel holds a ruleset."""
        todo = self.planned(wanted)
        assert not todo, todo.text(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))

    def run(self, *argv: str, text: str = "") -> str:
        """What a tool of the system printed, run in the room."""
        with self.room.entered():
            return run(argv, timeout=_SECONDS, input=text.encode()).stdout

    def tool(self, family: Family, end: str = "") -> str:
        """A program of the variant."""
        return f"{STEMS[family]}-{self.variant}{end}"

    def iptables(self, family: Family, *arguments: str) -> str:
        """What one run of iptables printed."""
        return self.run(self.tool(family), "-w", "10", *arguments)

    def restore(self, text: str, families: Sequence[Family] = tuple(Family)) -> None:
        """Somebody else's rules, put in as they are."""
        for family in families:
            self.run(self.tool(family, "-restore"), "--noflush", "-w", "10", text=text)

    def saved(self, keep: Callable[[str], bool] = lambda line: True) -> Text:
        """All tables that hold anything, as save prints them, counters left out."""
        found: Text = {}
        for family in Family:
            for name, body in _TABLE.findall(self.run(self.tool(family, "-save"))):
                lines = tuple(_COUNTERS.sub("", line) for line in body.strip().splitlines() if keep(line))
                if any(not _EMPTY.match(line) for line in lines):
                    found[family, Table(name)] = lines
        return found

    def own(self) -> Text:
        """The lines that name a chain of ours."""
        return self.saved(is_ours)

    def foreign(self) -> Text:
        """The lines that don't."""
        return self.saved(lambda line: not is_ours(line))

    def wipe(self) -> None:
        """Take everything away."""
        for family in Family:
            for table in self.saved():
                if table[0] is family:
                    self.iptables(family, "-t", table[1], "-F")
                    self.iptables(family, "-t", table[1], "-X")

    # --- damage ---

    @contextmanager
    def damage(self, patch: pytest.MonkeyPatch, scripts: dict[Family, str]) -> Iterator[None]:
        """A block in which restore runs a script for every input that changes something.

        The script finds the input in ``$input``, the real tool as ``real``, and in ``$call`` how many such inputs came,
        this one counted. Behind its end the real tool does its work.
        """
        directory = self._directory / "bin"
        directory.mkdir(exist_ok=True)
        for old in directory.iterdir():
            old.unlink()
        for family, script in scripts.items():
            name = self.tool(family, "-restore")
            path = directory / name
            path.write_text(
                _WRAPPER.format(real=find(name), script=script, arguments="--noflush -w 10", at=path), encoding="ascii"
            )
            path.chmod(stat.S_IRWXU)
        with patch.context() as inner:
            inner.setenv("PATH", f"{directory}:{os.environ['PATH']}")
            yield


def is_ours(line: str) -> bool:
    """Whether a line of save names one of our chains."""
    return "meshfw-" in line or "meshfw." in line


_WRAPPER: Final = """\
#!/bin/sh
real() {{ {real} {arguments}; }}
input={at}.input.$$
cat > "$input"
trap 'rm -f "$input"' EXIT
if grep -q '^-[ADIRFXNPE] \\|^:' "$input"; then
  echo >> {at}.calls
  call=$(wc -l < {at}.calls)
  {script}
fi
real < "$input"
"""


@contextmanager
def house(variant: str, kernel_room: Callable[[], Netns], directory: Path) -> Iterator[House]:
    """A house of one variant with foreign rules in it."""
    with pytest.MonkeyPatch.context() as patch, kernel_room() as room:
        patch.setenv("XTABLES_LOCKFILE", str(directory / "xtables.lock"))
        made = House(variant, room, directory)
        made.restore(FOREIGN)
        yield made
