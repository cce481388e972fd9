"""Other programs that keep rules of their own, run for real in rooms where meshfw keeps its own beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshfw.backend import Backend, Site
from meshfw.backends.iptables import iptables_legacy, iptables_nft
from meshfw.backends.nft import NftBackend
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import Completed, find, run
from meshfw.kernel.netlink import Nfnetlink
from meshfw.model import Attachment, Family, Hook, Place, Ruleset, Table
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import sample

LANGUAGE: Final = Language.of(builtin_extensions())
MODES: Final = ("legacy", "nft")
"""What Debian's alternatives may make of ``iptables``."""
MAKERS: Final[Mapping[str, Callable[[Site], Backend]]] = {
    "iptables-legacy": iptables_legacy,
    "iptables-nft": iptables_nft,
    "nft": NftBackend,
}
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "nft": {"isolated": True}
}  # so that both places are tried on nft too

PROGRAMS: Final = tuple(f"{tool}{end}" for tool in ("iptables", "ip6tables") for end in ("", "-save", "-restore"))
_SECONDS: Final = 60.0
_COUNTERS: Final = re.compile(r"\[\d+:\d+\]")
_TABLE: Final = re.compile(r"^\*.*?^COMMIT$", re.DOTALL | re.MULTILINE)
_NFT_TABLE: Final = re.compile(r"^table (\S+) (\S+) \{$.*?^\}$", re.DOTALL | re.MULTILINE)
_EMPTY: Final = re.compile(r":[A-Z]+ ACCEPT ")
_NO_EDIT: Final = re.compile(r"#|\*|-S |COMMIT|$")
JUMP: Final = re.compile(r"-[DIA] ([A-Z]+) -j \w+\.[a-z]+\.(?:first|last)$")
"""An edit of a jump to a dispatcher."""


def both_places(families: Sequence[Family] = tuple(Family)) -> Ruleset:
    """A ruleset of every kind of object, before and behind what others have on several hooks of several tables."""
    ruleset = sample(LANGUAGE, families)
    behind = (
        (Table.FILTER, Hook.INPUT, "peers"),
        (Table.FILTER, Hook.FORWARD, "rest"),
        (Table.NAT, Hook.POSTROUTING, "out"),
        (Table.NAT, Hook.PREROUTING, "in"),
        (Table.MANGLE, Hook.PREROUTING, "mark"),
    )
    more = [
        Attachment(family=family, table=table, hook=hook, chain=chain, place=Place.LAST)
        for family in families
        for table, hook, chain in behind
    ]
    return msgspec.structs.replace(ruleset, attachments=(*ruleset.attachments, *more))


class Street:
    """A room in which ``iptables`` is that of one mode; whoever keeps rules there is seen with and without meshfw's."""

    def __init__(self, room: Netns, directory: Path, mode: str) -> None:
        self.room = room
        self.directory = directory
        self.mode = mode
        directory.mkdir()
        self.programs = directory / "bin"
        self.programs.mkdir()
        for program in PROGRAMS:
            tool, dash, end = program.partition("-")
            (self.programs / program).symlink_to(find(f"{tool}-{mode}{dash}{end}") or "missing")
        self.environment = {"PATH": f"{self.programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        self._opened: list[Backend] = []
        self._netlink = Nfnetlink(room.path)

    def close(self) -> None:
        """Let go of the backends; the rules go with the room."""
        for backend in self._opened:
            backend.close()
        self._netlink.close()

    def backend(self, name: str, owner: str = "meshfw", language: Language = LANGUAGE) -> Backend:
        """A fresh instance of a backend on the room."""
        site = Site(owner=owner, language=language, netns=self.room.path, options=OPTIONS.get(name, {}))
        made = MAKERS[name](site)
        self._opened.append(made)
        return made

    def run(self, *argv: str, text: str = "", env: Mapping[str, str] | None = None, check: bool = True) -> Completed:
        """What a program in the room left."""
        environment = {**self.environment, **(env or {})}
        with self.room.entered():
            return run(argv, timeout=_SECONDS, input=text.encode(), env=environment, check=check)

    # --- what stands there ---

    def without(self, *owners: str) -> str:
        """All rules of everybody but some owners of meshfw's, by iptables of both modes and nft, without counters."""
        ours = re.compile("|".join(rf"\b{owner}[-.]" for owner in owners) or r"\Z.")
        found = ""
        for mode in MODES:
            for tool in ("iptables", "ip6tables"):
                text = self.run(f"{tool}-{mode}-save").stdout
                found += saved(text, lambda line: not ours.search(line), name=f"{tool}-{mode}")
        for table in _NFT_TABLE.finditer(self.run("nft", "-s", "list", "ruleset").stdout):
            family, name = table.groups()
            of_iptables = family in {"ip", "ip6"} and name in set(Table)
            if name not in owners and not of_iptables:
                found += f"{table[0]}\n"
        return found

    def generation(self) -> int:
        """The number of commits to nf_tables, whoever's."""
        return self._netlink.settled()

    def rules(self, mode: str, family: Family, table: Table, hook: Hook) -> list[str]:
        """The rules of a built-in chain of iptables in a mode, without ``-A CHAIN``."""
        tool = "iptables" if family is Family.IPV4 else "ip6tables"
        chain = hook.upper()
        lines = self.run(f"{tool}-{mode}", "-w", "-t", table.value, "-S", chain).stdout.splitlines()
        return [line.removeprefix(f"-A {chain} ") for line in lines if line.startswith("-A")]


def saved(text: str, keep: Callable[[str], bool] = lambda line: True, *, name: str = "") -> str:
    """What a save printed of tables in which anything is left of the lines to keep, without counters."""
    found = ""
    for table in sorted(_TABLE.findall(text)):  # their order is that of their making
        lines = [_COUNTERS.sub("", line) for line in table.splitlines() if keep(line)]
        lines = [line for line in lines if not _EMPTY.match(line)]  # a built-in chain that somebody asked for
        if any(line[0] not in "*C" for line in lines):
            found += "\n".join([name, *lines, ""])
    return found


@contextmanager
def streets(make_room: Callable[[], Netns], directory: Path) -> Iterator[Callable[[str], Street]]:
    """The maker of rooms by their mode of iptables; they end with the block, in which the legacy lock is a private one.

    Our own process takes that lock as well, so the environment names it for all of the block.
    """
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", str(directory / "xtables.lock"))
        made: list[Street] = []

        def make(mode: str) -> Street:
            street = Street(stack.enter_context(make_room()), directory / f"street{len(made)}", mode)
            stack.callback(street.close)
            made.append(street)
            return street

        yield make


# --- ours --------------------------------------------------------------------------------------------------


class Ours:
    """What meshfw keeps in a street, by one backend as one owner, and the laws of keeping it beside others."""

    def __init__(
        self, street: Street, name: str, ruleset: Ruleset, *, owner: str = "meshfw", language: Language = LANGUAGE
    ) -> None:
        self.street = street
        self.name = name
        self.owner = owner
        self.language = language
        self.ruleset = ruleset
        self.backend = self.fresh()

    def fresh(self) -> Backend:
        """Another instance, which knows nothing."""
        return self.street.backend(self.name, self.owner, self.language)

    def edits(self, backend: Backend | None = None) -> list[str]:
        """The lines that an apply would write now, without the questions of its proof."""
        instance = backend or self.backend
        todo = plan(instance, self.ruleset)
        lines = str(instance.compile(todo)).splitlines() if todo else []
        return [line for line in lines if not _NO_EDIT.match(line)]

    def put_right(self) -> list[str]:
        """What one apply wrote after somebody else's doing: it leaves theirs alone, and another has nothing to do."""
        theirs = self.street.without(self.owner)
        written = self.edits()
        report = apply(self.backend, self.ruleset)
        assert self.street.without(self.owner) == theirs, "an apply changed what is somebody else's"
        assert report.commits == bool(written)
        self.assert_settled()
        return written

    def assert_settled(self) -> None:
        """Fail unless neither this instance nor a fresh one has anything to write."""
        generation = self.street.generation()
        for instance in (self.backend, self.fresh()):
            assert self.edits(instance) == []
            assert apply(instance, self.ruleset).commits == 0
        assert self.street.generation() == generation
        self.assert_in_place()

    def assert_in_place(self) -> None:
        """Fail unless our jumps stand at the ends of the built-in chains, where there are some, but for our peers'."""
        if self.name == "nft":
            return
        mode = self.name.removeprefix("iptables-")
        for attachment in self.ruleset.attachments:
            end = f"{attachment.hook}.{attachment.place}"
            rules = self.street.rules(mode, attachment.family, attachment.table, attachment.hook)
            if attachment.place is Place.LAST:
                rules.reverse()
            at_end = [*takewhile(re.compile(rf"-j \w+\.{end}$").match, rules)]
            assert f"-j {self.owner}.{end}" in at_end

    def clean(self) -> None:
        """Take all of ours away, by a fresh instance; everybody else's stays as it is."""
        theirs = self.street.without(self.owner)
        apply(self.fresh(), Ruleset())
        assert self.street.without(self.owner) == theirs
        assert self.street.without() == theirs, "something of ours is left"
