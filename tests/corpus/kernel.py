"""The figures that a kernel and its tools decide: what nft takes and lists, and which dumps come back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec

from meshfw.errors import InexpressibleError, MeshfwError
from meshfw.extensions.log import GROUP_PREFIX_BYTES, NfLog
from meshfw.languages.dump import format_dump, parse_dump
from meshfw.languages.nft import FAMILIES, SPOKEN_NAMES, NftText, UnreadableError, read_rule, render_rule
from meshfw.languages.nft.names import unspoken_name
from meshfw.model import HOOKS, Family, Rule, Table
from meshfw.testing.netns import Netns
from tests.corpus import Figure, Vector, counted, language, parsed, typed, vectors
from tests.corpus.differences import translation_difference

_RANGE = re.compile(r"port (\d+)-(\d+)")
_JUMP = re.compile(r"\b(?:jump|goto) (\S+)")

Listed = list[dict[str, Any]]


class Translation(msgspec.Struct):
    """A vector's rule in nft's language, and what nft made of it: its listing, or why it refused."""

    vector: Vector
    rule: Rule
    text: NftText
    listed: Listed | None = None
    error: str = ""


class Nft:
    """The nft tool in a namespace of its own."""

    def __init__(self, room: Netns) -> None:
        self._room = room

    def run(self, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
        with self._room.entered():
            return subprocess.run(["nft", *arguments], input=script, capture_output=True, text=True, check=False)

    @cached_property
    def queues(self) -> bool:
        """Whether the kernel has nft's queue statement (CONFIG_NFT_QUEUE)."""
        script = "add table ip t\nadd chain ip t c\nadd rule ip t c queue to 0\n"
        return not self.run("-c", "-f", "-", script=script).returncode

    def load(self, held: Sequence[Translation]) -> None:
        """Load rules, each in a chain of its own; those that nft refuses are found by halves."""
        refusal = self._load_all(held)
        if refusal and len(held) > 1:
            middle = len(held) // 2
            self.load(held[:middle])
            self.load(held[middle:])
        elif refusal:
            held[0].error = refusal
        else:
            found = json.loads(self.run("-j", "-s", "list", "ruleset").stdout)["nftables"]
            rules = {item["rule"]["chain"]: item["rule"]["expr"] for item in found if "rule" in item}
            for index, item in enumerate(held):
                item.listed = rules[f"c{index}"]

    def _load_all(self, held: Sequence[Translation]) -> str:
        lines = ["flush ruleset"]
        for family, name in FAMILIES.items():
            mine = [(index, item) for index, item in enumerate(held) if item.vector["family"] == family]
            others = {found for _, item in mine for found in _JUMP.findall(item.text.tail)}
            metered = [f"t{index}" for index, item in mine if "meter " in item.text.head]  # a table has one of a name
            for table in ("t", *metered):
                lines.append(f"add table {name} {table}")
                lines += [f"add chain {name} {table} {other}" for other in sorted(others)]
            for index, item in mine:
                table = f"t{index}" if f"t{index}" in metered else "t"
                lines += [thing.command(name, table) for thing in item.text.objects]
                lines += [f"add chain {name} {table} c{index}", f"add rule {name} {table} c{index} {item.text}"]
        done = self.run("-f", "-", script="\n".join([*lines, ""]))
        return done.stderr.strip() or "refused" if done.returncode else ""


def translated(name: str, chosen: Callable[[Vector], bool]) -> tuple[list[Translation], list[tuple[Vector, str]]]:
    """The rules of one file that iptables loads, in nft's language, and those that can't be said, with the reason."""
    held, unsaid = [], []
    for vector in vectors(name):
        if not (vector.get("legacy_ok") or vector.get("nft_ok")) or not chosen(vector):
            continue
        family = Family(vector["family"])
        try:
            rule = parsed(vector["argv"], family)
        except MeshfwError as error:
            unsaid.append((vector, f"not parsed: {error}"))
            continue
        try:
            text = render_rule(rule, family=family, language=language(), names=SPOKEN_NAMES)
        except InexpressibleError as error:
            unsaid.append((vector, error.reason if typed(rule) else f"not typed: {error.reason}"))
        else:
            held.append(Translation(vector, rule, text))
    return held, unsaid


def translate_figures(nft: Nft, name: str, chosen: Callable[[Vector], bool]) -> Iterator[Figure]:
    """What of one file can be said in nft, loads, reads back, and lists as iptables' own rule does."""
    held, unsaid = translated(name, chosen)
    nft.load(held)
    short = name.removesuffix(".jsonl")
    by_reason = sorted(f"{reason}: {vector['id']} {vector['argv']}" for vector, reason in unsaid)
    yield Figure(f"{short}: can be said in nft", len(held), len(held) + len(unsaid), 0.9, tuple(by_reason))
    yield counted(
        f"{short}: what is said loads",
        1.0,
        (
            (item.listed is not None, f"{item.vector['id']} {item.text}: {item.error}")
            for item in held
            if nft.queues or " queue " not in item.text.tail
        ),
    )
    yield counted(f"{short}: what is loaded reads back as the rule", 1.0, read_back(held))
    yield counted(f"{short}: listed as iptables' own, where that is native", 1.0, compared(held, name))


def read_back(held: Sequence[Translation]) -> Iterator[tuple[bool, str]]:
    """Whether each listing means its rule."""
    for item in held:
        if item.listed is None or lost(item, "native"):
            continue
        family = Family(item.vector["family"])
        comment = item.rule.comment
        try:
            again = read_rule(item.listed, family=family, language=language(), names=SPOKEN_NAMES, comment=comment)
        except UnreadableError as error:
            yield False, f"{item.vector['id']} {item.text}: {error}"
        else:
            yield again == item.rule, f"{item.vector['id']} {item.text}"


def lost(item: Translation, variant: str) -> bool:
    """Whether what is stored there is another rule, as the rule's values say."""
    return any(variant in loss.variants for loss in item.rule.losses())


def plain(listed: Any) -> Any:
    """A listing for comparison: sets without order, and counters without numbers."""
    if isinstance(listed, dict):
        if "counter" in listed:
            return "counter"
        if "dir" in listed and listed.get("key") in ("saddr", "daddr"):
            return {**listed, "key": "ip " + listed["key"]}  # the older words for the same
        if "set" in listed:
            return {"set": sorted(json.dumps(plain(item), sort_keys=True) for item in listed["set"])}
        return {key: unspoken_name(value) if key == "target" else plain(value) for key, value in listed.items()}
    return [plain(item) for item in listed] if isinstance(listed, list) else listed


def cut_prefix(rule: Rule) -> bool:
    """Whether iptables-legacy cuts the rule's prefix, as our text does, and iptables-nft keeps it."""
    return isinstance(rule.target, NfLog) and len(rule.target.prefix.encode()) == GROUP_PREFIX_BYTES


def compared(held: Sequence[Translation], name: str) -> Iterator[tuple[bool, str]]:
    """Whether the kernel lists our rule as that of iptables-nft, where that one holds no xt expression."""
    for item in held:
        vector = item.vector
        if item.listed is None or lost(item, "nft") or not vector.get("nft_ok") or vector.get("compat_xt") != []:
            continue
        if not vector.get("compat_json") or cut_prefix(item.rule) or item.rule.losses():
            continue
        if any(int(low) > int(high) for low, high in _RANGE.findall(vector["compat_text"][0])):
            continue  # a range that falls, which nft lists and doesn't read: no text says it
        theirs = vector["compat_json"][0]["expr"]
        same = plain(item.listed) == plain(theirs)
        yield same, f"{vector['id']} {item.text}\n    theirs {vector['compat_text']}"


def txlate_results(nft: Nft, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether our translation is what upstream expects, as far as that loads, statement by statement or in meaning."""
    held, unsaid = translated("txlate.jsonl", lambda vector: bool(vector.get("expected_nft_ok")) and chosen(vector))
    for vector, reason in unsaid:
        explained = translation_difference(vector["argv"]) is not None
        yield explained, f"{vector['id']} {vector['argv']}: {reason}; upstream {vector['expected_nft_text']}"
    nft.load(held)
    for item in held:
        vector = item.vector
        if not vector.get("expected_nft_json"):
            continue
        theirs = vector["expected_nft_json"][0]["expr"]
        same = item.listed is not None and (plain(item.listed) == plain(theirs) or _means(theirs, item))
        yield (
            same or translation_difference(vector["argv"]) is not None,
            f"{vector['id']} {item.text}\n    theirs {vector['expected_nft_text']} {item.error}",
        )


def _means(theirs: Listed, item: Translation) -> bool:
    try:
        rule = read_rule(
            theirs,
            family=Family(item.vector["family"]),
            language=language(),
            names=SPOKEN_NAMES,
            comment=item.rule.comment,
        )
    except UnreadableError:
        return False
    return rule == item.rule


def dump_results(room: Netns, variant: str, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether each dump parses, and what is printed of it loads and is saved as the dump itself was."""
    for vector in vectors("dumps.jsonl"):
        if not vector[f"{variant}_ok"]:
            continue
        family = Family(vector["family"])
        tool = f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{variant}"
        try:
            text = format_dump(parse_dump(vector["text"], family=family, language=language()), language=language())
        except MeshfwError as error:
            yield False, f"{vector['id']} {error}"
            continue
        with room.entered():
            subprocess.run([f"{tool}-restore"], input=_EMPTY, text=True, check=True)
            done = subprocess.run([f"{tool}-restore"], input=text, text=True, check=False, capture_output=True)
            found = subprocess.run([f"{tool}-save"], text=True, check=False, capture_output=True).stdout
        wanted, got = _tables(vector[f"{variant}_save"]), _tables(found)
        same = not done.returncode and all(got.get(table) == rules for table, rules in wanted.items())
        yield same, f"{vector['id']} {done.stderr.strip()[:200]}"


_EMPTY = "".join(
    f"*{table}\n{''.join(f':{hook.upper()} ACCEPT [0:0]' + chr(10) for hook in sorted(HOOKS[table]))}COMMIT\n"
    for table in Table
)
"""Tables as they are before anybody has written: without rules, and every policy at accept."""


def _tables(text: str) -> dict[str, list[str]]:
    """The chains and rules of each table of a dump, without counters."""
    found: dict[str, list[str]] = {}
    held: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            held = found.setdefault(line, [])
        elif line[:1] in (":", "-"):
            held.append(re.sub(r"\[\d+:\d+\]", "", line).strip())
    return found


def kernel_figures(chosen: Callable[[Vector], bool] = lambda vector: True) -> Iterator[Figure]:
    """The figures of nft's language and of whole dumps."""
    with Netns() as room:
        nft = Nft(room)
        yield from translate_figures(nft, "realworld.jsonl", chosen)
        yield from translate_figures(nft, "iptables_t.jsonl", chosen)
        yield counted("txlate: as upstream expects", 1.0, txlate_results(nft, chosen))
        nft.run("flush", "ruleset")
        for variant in ("legacy", "nft"):
            yield counted(f"dumps: back from iptables-{variant} as they were", 1.0, dump_results(room, variant, chosen))
