"""Rules of iptables beside their translation, on one hook: the same packets have to meet both equally often.

Both stand in the same gateway, without targets, so each packet passes all of them and nothing but the conditions
decides; connections, clock and order are the same for both. A rule that is met more or less often on one side is
counted again alone, with half of the packets, until one packet is left.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from meshfw.kernel.command import Completed, run
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family, Hook, Rule
from meshfw.testing.judge.frames import Probe
from meshfw.testing.judge.probing import Aim, ProbeMaker
from meshfw.testing.judge.road import Road
from meshfw.testing.judge.telling import told

_TOOLS: Final = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}
_TABLE: Final = "judged"
_SECONDS: Final = 60.0
_IPTABLES_LINE: Final = re.compile(r"line:? (\d+)")
_NFT_LINE: Final = re.compile(r"^\S+:(\d+):", re.MULTILINE)
_COUNTED: Final = re.compile(r"counter packets (\d+)")
_SAVED: Final = re.compile(r"^\[(\d+):\d+\] -A ", re.MULTILINE)


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """A rule's conditions in both languages: ``iptables`` as its tool saved them, ``nft`` as they were translated.

    ``rule`` is what meshfw reads in them, whose edges the probes are made for.
    """

    name: str
    family: Family
    hook: Hook
    rule: Rule
    iptables: str
    nft: str


class Difference(msgspec.Struct, frozen=True):
    """A packet that meets a rule on one side only, or so many packets of which none alone shows it."""

    pair: Translated
    packet: str
    on_iptables: int
    on_nft: int

    def __str__(self) -> str:
        counts = f"{self.on_iptables} times on iptables, {self.on_nft} times on nft"
        return (
            f"{self.pair.name} ({self.pair.family} {self.pair.hook})\n  iptables: {self.pair.iptables}\n"
            f"  nft:      {self.pair.nft}\n  packet:   {self.packet}\n  met:      {counts}"
        )


class Count(msgspec.Struct, kw_only=True):
    """What was counted: how many rules, which of them no packet met, what differs, and what a tool refused here."""

    compared: int = 0
    unmet: list[Translated] = []
    probes: int = 0
    differences: list[Difference] = []
    refused: list[tuple[Translated, str]] = []

    def add(self, other: Count) -> None:
        """Take in another count."""
        self.compared += other.compared
        self.unmet += other.unmet
        self.probes += other.probes
        self.differences += other.differences
        self.refused += other.refused


class Scales(Road):
    """A road on which translations are weighed against what they were translated from."""

    def weigh(self, pairs: Sequence[Translated], *, each: int, chance: random.Random, batch: int = 250) -> Count:
        """Count all pairs, a batch of one family and hook at a time, with so many probes for each of them."""
        found = Count()
        for place in sorted({_place(pair) for pair in pairs}):
            here = [pair for pair in pairs if _place(pair) == place]
            for at in range(0, len(here), batch):
                found.add(self._batch(here[at : at + batch], each, chance))
        return found

    def _batch(self, pairs: Sequence[Translated], each: int, chance: random.Random) -> Count:
        found = Count()
        family, hook = pairs[0].family, pairs[0].hook
        whole = all(pair.rule.fragment is None for pair in pairs)
        aims = [Aim(pair.rule, hook) for pair in pairs]
        maker = ProbeMaker(aims, family=family, sets={}, chance=chance, fragments=not whole, routed=False)
        probes = maker.make(each * len(pairs))
        kept = self._loadable(pairs, found)
        if not kept:
            return found
        counts = self._counts(kept, probes)
        found.compared, found.probes = len(kept), len(probes)
        for pair, (one, other) in zip(kept, counts, strict=True):
            if not one:
                found.unmet.append(pair)
            if one != other:
                found.differences.extend(self._narrowed(pair, probes))
        return found

    def _narrowed(self, pair: Translated, probes: Sequence[Probe]) -> Iterator[Difference]:
        """The difference with as few packets as halving leads to; none where it was of no probe's making.

        Both sides are loaded and read one after the other, so a packet of the gateway's own may meet one of them only.
        """
        left, (known, *_) = list(probes), self._counts([pair], probes)
        if known[0] == known[1]:
            return
        while len(left) > 1:
            middle = len(left) // 2
            for half in (left[:middle], left[middle:]):
                (again,) = self._counts([pair], half)
                if again[0] != again[1]:
                    left, known = half, again
                    break
            else:
                break
        packet = told(left[0]) if len(left) == 1 else f"{len(left)} packets together"
        yield Difference(pair, packet, *known)

    # --- the tools ---

    def _counts(self, pairs: Sequence[Translated], probes: Sequence[Probe]) -> list[tuple[int, int]]:
        """How many packets met each pair, on iptables and on nft."""
        self._clear(pairs[0].family)
        self.prepare(probes, tracked=pairs[0].rule.fragment is None)
        self._load(pairs)
        self.send(probes)
        family, hook = pairs[0].family, pairs[0].hook
        saved = self._run(f"{_TOOLS[family]}-save", "-c", "-t", "mangle").stdout
        listed = self._run("nft", "list", "chain", FAMILIES[family], _TABLE, hook).stdout
        ours, theirs = _COUNTED.findall(listed), _SAVED.findall(saved)
        return list(zip(map(int, theirs), map(int, ours), strict=True))

    def _clear(self, family: Family) -> None:
        self._run(f"{_TOOLS[family]}-restore", text="*mangle\nCOMMIT\n")
        table = f"table {FAMILIES[family]} {_TABLE}"
        self._run("nft", "-f", "-", text=f"add {table}\ndelete {table}\n")

    def _load(self, pairs: Sequence[Translated]) -> None:
        for tool, text in _scripts(pairs):
            self._run(*tool, text=text)

    def _loadable(self, pairs: Sequence[Translated], found: Count) -> list[Translated]:
        """The pairs that both tools take; the others are put down as refused."""
        kept = list(pairs)
        while kept and (refusal := self._refusal(kept)):
            wrong = refusal[0] if refusal[0] is not None else self._first_refused(kept)
            found.refused.append((kept.pop(wrong), refusal[1]))
        return kept

    def _refusal(self, pairs: Sequence[Translated]) -> tuple[int | None, str] | None:
        """What a tool says against the pairs, behind the first that it means, if it says so; None where all load."""
        self._clear(pairs[0].family)
        for (tool, text), lines in zip(_scripts(pairs), (_IPTABLES_LINE, _NFT_LINE), strict=True):
            done = self._run(*tool, text=text, check=False)
            if done.returncode:
                wrong = _wrong_rule(done, lines, len(pairs))
                return wrong, f"{tool[0]}: {done.stderr.strip()}"
        return None

    def _first_refused(self, pairs: Sequence[Translated]) -> int:
        """The index of the first pair without which those before it load: a kernel names no line when it commits."""
        good, bad = 0, len(pairs)  # so many from the beginning load, so many don't
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._refusal(pairs[:middle]):
                bad = middle
            else:
                good = middle
        return bad - 1

    def _run(self, *argv: str, text: str = "", check: bool = True) -> Completed:
        with self.topology.gateway.entered():
            return run(argv, timeout=_SECONDS, input=text.encode(), check=check)


def _place(pair: Translated) -> tuple[Family, Hook, bool]:
    """What a batch has in common; with connection tracking about, nobody sees a fragment."""
    return pair.family, pair.hook, pair.rule.fragment is not None


def _scripts(pairs: Sequence[Translated]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each tool with its input: one line for each pair, behind a head of as many lines as both have."""
    family, hook = pairs[0].family, pairs[0].hook
    rules = (f"-A {hook.upper()} {pair.iptables}" for pair in pairs)
    yield (f"{_TOOLS[family]}-restore",), _text(("*mangle", f":{hook.upper()} ACCEPT [0:0]", *rules, "COMMIT"))
    network = FAMILIES[family]
    head = (
        f"add table {network} {_TABLE}",
        f"add chain {network} {_TABLE} {hook} {{ type filter hook {hook} priority -150; }}",
    )
    yield ("nft", "-f", "-"), _text((*head, *(f"add rule {network} {_TABLE} {hook} {pair.nft}" for pair in pairs)))


_HEAD: Final = 2


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _wrong_rule(done: Completed, lines: re.Pattern[str], count: int) -> int | None:
    """The index of the first of so many rules that a tool complained about; None where it names none of them."""
    found = [int(number) - _HEAD - 1 for number in lines.findall(done.stderr)]
    return min((index for index in found if 0 <= index < count), default=None)
