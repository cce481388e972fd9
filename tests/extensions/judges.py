"""The kernel's own tools as judges of rules: what each of iptables, save, translate and nft makes of many at once.

Many rules are one restore, so that hundreds cost a few processes; each stands in a chain that no packet comes to, in a
table where it may stand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from meshfw.backends.iptables_losses import Losses
from meshfw.errors import MeshfwError
from meshfw.extensions.extension import NftObject
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family, Rule, Table, table_problem
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import IPSETS, PREPARATIONS
from tests.extensions.rules import rules

K = TypeVar("K")
T = TypeVar("T")

TOOLS: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
TABLES: Final = (Table.MANGLE, Table.FILTER, Table.NAT, Table.RAW, Table.SECURITY)
"""All, those first that most rules may stand in."""
BATCH: Final = 500
"""The most rules of one restore."""


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """So many values, each drawn by itself: what is wrong with one is shown by itself, and none spoils another."""
    found: list[T] = []

    @settings(max_examples=count, phases=(Phase.generate,), database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


COUNT: Final = settings().max_examples * 6
"""Rules of each family: 12,000 in the full profile."""


@cache
def sample(family: Family) -> Sequence[Rule]:
    """The rules of a family that every judge judges."""
    return drawn(rules(family).filter(lambda rule: any(table_problem(rule, table) is None for table in TABLES)), COUNT)


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in parts that a tool takes at once."""
    for at in range(0, len(items), BATCH):
        yield items[at : at + BATCH]


def canonical(rule: Rule, family: Family) -> str:
    """The rule's text as we print it."""
    return format_rule(rule, family=family, language=LANGUAGE)


def home(rule: Rule) -> Table:
    """A table where the rule may stand."""
    return next(table for table in TABLES if table_problem(rule, table) is None)


class Line(NamedTuple):
    """The text of a rule, and where it is to stand."""

    table: Table
    text: str


def line(rule: Rule, family: Family) -> Line:
    """The rule's canonical text, in a table where it may stand."""
    return Line(home(rule), canonical(rule, family))


_RE1: Final = "-j RATEEST --rateest-name RE1 --rateest-interval 1s --rateest-ewmalog 4s"
ESTIMATOR: Final = (
    "*raw",
    ":est - [0:0]",
    "-A est -j RATEEST --rateest-name RE1 --rateest-interval 1s --rateest-ewmalog 4s",
)
"""What every restore begins with: -m rateest is taken only where a target made what it compares."""


def furnish(room: Netns) -> None:
    """Make in a namespace what rules name: sets, objects that count, and an estimator of a rate."""
    with room.entered():
        subprocess.run(["ipset", "restore"], input="\n".join(IPSETS), text=True, check=True)
        for prepare in PREPARATIONS:
            prepare()
        for tool in TOOLS.values():
            script = "\n".join([*ESTIMATOR, "COMMIT", ""])
            subprocess.run([f"{tool}-legacy-restore"], input=script, text=True, check=True)


def restore_input(lines: Mapping[int, Line]) -> str:
    """What iptables-restore is given: the rule of each number in a chain with that number."""
    script: list[str] = []
    for table in sorted(TABLES, key=Table.RAW.__ne__):  # every one, so that nothing is left of what was there
        mine = {index: held.text for index, held in lines.items() if held.table is table}
        script += [*(ESTIMATOR if table is Table.RAW else (f"*{table}",)), *(f":c{index} - [0:0]" for index in mine)]
        script += [f"-A c{index} {text}".rstrip() for index, text in mine.items()]
        script.append("COMMIT")
    return "\n".join([*script, ""])


class Trap(NamedTuple):
    """Texts of rules of which a tool is wrong, with the reason."""

    pattern: str
    reason: str
    only: Callable[[re.Match[str]], bool] = bool
    """What must be true of the place as well."""

    def holds(self, text: str) -> bool:
        """Whether it is about such a rule."""
        return any(self.only(found) for found in re.finditer(self.pattern, text))


def beyond_mask(found: re.Match[str]) -> bool:
    """Whether a value has bits outside its mask."""
    value, mask = (int(number, 16) for number in found.groups())
    return bool(value & ~mask)


def lost(rule: Rule, variant: str) -> bool:
    """Whether we say that iptables of this variant, or nft itself (``native``), would store another rule."""
    if variant == "native":
        return any(variant in loss.variants for loss in rule.losses())
    return any(Losses(variant, LANGUAGE).of_rule(rule))


ABSENT: Final = (
    Trap(r"-m set |-j SET ", "a set of ipset(8) must be there"),
    Trap(r"-m cgroup (?:! )?--path", "a kernel takes the path of none but a control group that is there"),
    Trap(r"-j NFQUEUE", "nft's queue statement is a module of its own (CONFIG_NFT_QUEUE), which a kernel may lack"),
)
"""Rules that a kernel takes only where it finds something else."""


_MISSING: Final = re.compile(r"Extension (\S+) revision \d+ not supported, missing kernel module")


class Answers(NamedTuple):
    """What a tool made of each rule by its number, and what it said of those that it refused."""

    made: dict[int, str]
    refused: dict[int, str]


class Iptables:
    """The tools of one variant of iptables in a namespace of their own, with a lock of their own."""

    def __init__(self, room: Netns, variant: str, lock: Path) -> None:
        self.variant = variant
        self._room = room
        self._environment = {**os.environ, "XTABLES_LOCKFILE": str(lock)}

    def run(self, family: Family, verb: str, *options: str, script: str = "") -> subprocess.CompletedProcess[str]:
        """A tool that is given a script."""
        with self._room.entered():
            return subprocess.run(
                [f"{TOOLS[family]}-{self.variant}-{verb}", *options],
                input=script,
                capture_output=True,
                text=True,
                env=self._environment,
                check=False,
            )

    def saved(self, family: Family, lines: Sequence[Line]) -> Answers:
        """What each rule is saved as when it was loaded."""
        made: dict[int, str] = {}

        def load(part: Mapping[int, Line]) -> str:
            script = restore_input(part)
            for options in (("--test",), ()):
                done = self.run(family, "restore", *options, script=script)
                if done.returncode:
                    return f"{self.variant}-restore {' '.join(options)}: {_blamed(done.stderr, script)}"
            found = re.findall(r"^-A c(\d+)(?: (.*))?$", self.run(family, "save").stdout, re.MULTILINE)
            made.update({int(index): text for index, text in found})
            return ""

        refused = by_halves(load, dict(enumerate(lines)))
        return Answers({index: text for index, text in made.items() if index not in refused}, refused)


def by_halves(load: Callable[[Mapping[K, T]], str], items: Mapping[K, T]) -> dict[K, str]:
    """Loads all items that can be, and says of each other one why not: ``load`` takes all that it's given or none."""
    said = load(items)
    if not said:
        return {}
    if len(items) == 1:
        return dict.fromkeys(items, said)
    numbers = list(items)
    refused: dict[K, str] = {}
    for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
        refused |= by_halves(load, {number: items[number] for number in half})
    return refused


@cache
def loadable(family: Family, *, nft: bool = False) -> Sequence[Rule]:
    """The sample's rules but those of extensions that this kernel lacks, or that need what isn't there."""
    missing = missing_in_nf_tables() if nft else set()
    with Netns() as room, TemporaryDirectory() as directory:
        furnish(room)
        iptables = Iptables(room, "legacy", Path(directory) / "lock")

        def load(part: Mapping[str, Line]) -> str:
            done = iptables.run(family, "restore", "--test", script=restore_input(dict(enumerate(part.values()))))
            missing.update(_MISSING.findall(done.stderr))
            return done.stderr if done.returncode else ""

        by_halves(load, {name: line(rule, family) for rule in sample(family) for name in names(rule)})
    return [
        rule
        for rule in sample(family)
        if missing.isdisjoint(names(rule)) and not any(trap.holds(canonical(rule, family)) for trap in ABSENT)
    ]


NEEDED: Final = {"queue to 0": {"NFQUEUE", "QUEUE"}, 'osf name "Linux"': {"osf"}}
"""Statements of nft that a kernel may lack, and the extensions that are said by them."""


def missing_in_nf_tables() -> set[str]:
    """The extensions that this kernel's nf_tables has no statement for."""
    with Netns() as room:
        return {
            extension
            for statement, extensions in NEEDED.items()
            if listed(room, Family.IPV4, [statement])[1]
            for extension in extensions
        }


def names(rule: Rule) -> set[str]:
    """The names of the extensions that a rule uses."""
    values = (*rule.matches, rule.target)
    return {LANGUAGE.by_value[type(value)].name for value in values if type(value) in LANGUAGE.by_value}


def _blamed(said: str, script: str) -> str:
    named = re.search(r"line:? (\d+)", said)
    return f"{said.strip()} ({script.splitlines()[int(named[1]) - 1]})" if named else said.strip()


def translated(family: Family, lines: Sequence[Line]) -> Answers:
    """What iptables-translate makes of each rule; refused is what it has no words for, or says only in part."""
    made: dict[int, str] = {}

    def load(part: Mapping[int, Line]) -> str:
        tool = f"{TOOLS[family]}-restore-translate"
        script = restore_input(part)
        done = subprocess.run([tool, "-f", "/dev/stdin"], input=script, capture_output=True, text=True, check=False)
        if done.returncode:
            return _blamed(done.stderr, script)
        found = re.findall(r"^add rule \S+ \S+ c(\d+) (.*)$", done.stdout, re.MULTILINE)
        made.update({int(index): text for index, text in found})
        return ""

    refused = by_halves(load, dict(enumerate(lines)))
    unsaid = {index: "has no words for it" for index in range(len(lines)) if index not in made}
    return Answers({index: text for index, text in made.items() if index not in refused}, unsaid | refused)


class Listed(NamedTuple):
    """What nft lists of a rule."""

    text: str
    statements: list[dict[str, Any]]
    comment: str


def listed(
    room: Netns, family: Family, texts: Sequence[str], objects: Iterable[NftObject] = ()
) -> tuple[dict[int, Listed], dict[int, str]]:
    """What nft lists of each rule, loaded in a chain of its own; and what it says of those that it doesn't take."""
    name = FAMILIES[family]
    found: dict[int, Listed] = {}
    declared = [held.command(name, "t") for held in sorted(set(objects))]

    def nft(*options: str, script: str = "") -> subprocess.CompletedProcess[str]:
        with room.entered():
            return subprocess.run(["nft", *options], input=script, capture_output=True, text=True, check=False)

    def load(part: Mapping[int, str]) -> str:
        script = ["flush ruleset", f"add table {name} t", *declared]
        for index, text in part.items():
            script += [f"add chain {name} t c{index}", f"add rule {name} t c{index} {text}"]
        done = nft("-f", "-", script="\n".join([*script, ""]))
        if done.returncode:
            return done.stderr.strip()
        items = json.loads(nft("-j", "-s", "-p", "list", "ruleset").stdout)["nftables"]
        for rule in (item["rule"] for item in items if "rule" in item):
            index = int(rule["chain"][1:])
            found[index] = Listed(part[index], rule["expr"], rule.get("comment", ""))
        return ""

    refused = by_halves(load, dict(enumerate(texts)))
    return found, refused


# --- disagreements -----------------------------------------------------------------------------------------


MOST: Final = 12
"""Rules that one failure shows."""


Judge = Callable[[Sequence[Rule]], Sequence[str]]
"""What somebody has to say against each of some rules; nothing is empty."""


def check(held: Sequence[Rule], family: Family, judge: Judge) -> None:
    """Fail where the judge says something, with those rules alone, each shrunk as far as there is something to say."""
    faults = [(rule, said) for part in batches(held) for rule, said in zip(part, judge(part), strict=True) if said]
    shown: dict[str, str] = {}
    for rule, said in faults:
        if len(shown) < MOST:
            least, why = _shrunk(rule, said, family, judge)
            shown.setdefault(f"{family} {home(least)}: {canonical(least, family)}", why)
    if shown:
        lines = [f"{len(faults)} of {len(held)} rules", *(f"{text}\n    {why}" for text, why in shown.items())]
        pytest.fail("\n".join(lines), pytrace=False)


def _shrunk(rule: Rule, said: str, family: Family, judge: Judge) -> tuple[Rule, str]:
    for less in smaller(rule, family):
        (words,) = judge([less])
        if words:
            return _shrunk(less, words, family, judge)
    return rule, said


def smaller(rule: Rule, family: Family) -> Iterator[Rule]:
    """The rule without one of its parts: a match, a base condition, its target, or what an extension's value states."""
    for at in range(len(rule.matches)):
        yield from _possible(rule, family, matches=rule.matches[:at] + rule.matches[at + 1 :])
    for field in Rule.__struct_fields__:
        if getattr(rule, field) is not None and field != "matches":
            yield from _possible(rule, family, **{field: None})
    for at, match in enumerate(rule.matches):
        for less in _lesser(match):
            yield from _possible(rule, family, matches=(*rule.matches[:at], less, *rule.matches[at + 1 :]))
    if rule.target is not None:
        for other in _lesser(rule.target):
            yield from _possible(rule, family, target=other)


def _lesser(value: Any) -> Iterator[Any]:
    """The value with one field as it is where nothing is said."""
    defaults = value.__struct_defaults__
    for field, default in zip(value.__struct_fields__[-len(defaults) :] if defaults else (), defaults, strict=True):
        if default is not msgspec.NODEFAULT and getattr(value, field) != default:
            with suppress(MeshfwError):
                less = msgspec.structs.replace(value, **{field: default})
                if less != value:  # some put another value in its place
                    yield less


def _possible(rule: Rule, family: Family, **changes: Any) -> Iterator[Rule]:
    less = msgspec.structs.replace(rule, **changes)
    if less.problem(family) is None and any(table_problem(less, table) is None for table in TABLES):
        yield less
