"""What iptables prints of our chains, and what a raw reading and these texts mean together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.backends.iptables_raw import RawRule, RawTable
from meshfw.backends.iptables_text import Standing
from meshfw.backends.layout import LEFT_OVER, MARK, TableKey, iptables_chain, iptables_dispatcher, iptables_marker
from meshfw.errors import ParseError
from meshfw.languages.lexer import split
from meshfw.model import ChainKey, DispatcherKey, Hook, Place, Policy, Rule
from meshfw.snapshot import ListKey, ObservedList, ObservedRule

_POLICIES: Final = {"-j ACCEPT": Policy.ACCEPT, "-j DROP": Policy.DROP}
_UNTOLD: Final = "a rule that iptables can't tell"
_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)


def printed_rules(output: str, asked: Sequence[str]) -> list[list[str]]:
    """The rules that ``-S CHAIN`` lines printed, without ``-A CHAIN``, for each chain asked for as far as it goes.

    A comment with a line's end in it is put together again. What is no rule of the chain asked for is left out, and so
    is a last line without its end: it was cut off.
    """
    found: list[list[str]] = []
    rules: list[str] = []
    name, is_open = "", False
    for line in output.split("\n")[:-1]:
        if is_open:
            rules[-1] += f"\n{line}"
        elif line.startswith("-N "):
            rules, name = [], line[3:]
            if len(found) < len(asked) and name == asked[len(found)]:
                found.append(rules)
            continue
        elif line == f"-A {name}" or line.startswith(f"-A {name} "):
            rules.append(line[len(name) + 4 :])
        else:
            continue
        is_open = '"' in rules[-1] and _ESCAPED.sub("", rules[-1]).count('"') % 2 == 1
    return found


def matched(told: Sequence[bool], texts: Sequence[str]) -> list[str | None] | None:
    """For each rule of a chain its text, None where that isn't sure; None where the texts can't be those of the chain.

    Of a rule that it can't tell (``told`` is False) iptables lists a part, or nothing. Which of several it has left out
    isn't known, and then only what stands before the first of them and behind the last is sure.
    """
    missing, untold = len(told) - len(texts), told.count(False)
    if not 0 <= missing <= untold:
        return None
    if missing == 0:
        return [text if sure else None for sure, text in zip(told, texts, strict=True)]
    if missing == untold:
        left = iter(texts)
        return [next(left) if sure else None for sure in told]
    before, behind = told.index(False), told[::-1].index(False)
    unsure = [None] * (len(told) - before - behind)
    return [*texts[:before], *unsure, *texts[len(texts) - behind :]]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a table's bytes are read.

    ``text`` gives the text of a rule, None where it isn't known, and ``jump`` the chain it leads to; ``rules`` what
    texts in a list mean, None for one that is no typed rule; ``named`` is told beforehand whose chain a name is.
    """

    owner: str
    adopt: bool
    text: Callable[[RawRule], str | None]
    jump: Callable[[RawRule], str]
    named: Callable[[str, ListKey], None]
    rules: Callable[[ListKey, Sequence[str | None]], Sequence[Rule | None]]


def observed_lists(
    table: TableKey, raw: RawTable, reading: Reading, *, only: Collection[str] | None = None
) -> tuple[dict[ListKey, ObservedList], dict[ListKey, str]]:
    """The owner's lists in one table, or ``only`` some chains, and where chains of its name are somebody else's."""
    markers = {name: _marker(rules, reading) for name, rules in raw.chains.items()}
    ours = _ours(raw, {name for name, held in markers.items() if held is not None}, reading.jump)
    keys = {name: _key(table, name, markers[name], reading.owner) for name in raw.chains}
    keys.update(_mismarked(table, raw, keys, reading))
    for name, key in keys.items():
        reading.named(name, key)
    lists: dict[ListKey, ObservedList] = {}
    strangers: dict[ListKey, str] = {}
    for name, rules in raw.chains.items():
        if only is not None and name not in only:
            continue
        key = keys[name]
        if name in ours or reading.adopt:
            texts = [reading.text(rule) for rule in rules]
            lists[key] = _list(key, name, rules, texts, raw=raw, reading=reading)
        else:
            strangers[key] = f"{table[0]} {table[1]} chain {name}"
    for name in raw.taken:
        strangers[_key(table, name, None, reading.owner)] = f"{table[0]} {table[1]} chain {name}"
    return lists, strangers


# --- whose chain it is -------------------------------------------------------------------------------------


def _marker(rules: Sequence[RawRule], reading: Reading) -> str | None:
    """The logical name that a chain's first marker gives it; None without one."""
    for rule in rules:
        text = reading.text(rule)
        name = None if text is None else marked_name(text, reading.owner)
        if name is not None:
            return name
    return None


def marked_name(text: str, owner: str) -> str | None:
    """The logical name that a rule's text marks its chain with; None where it is no marker of the owner."""
    if not text.startswith("-m comment --comment ") or MARK not in text:
        return None
    try:
        words = [word.text for word in split(text)]
    except ParseError:
        return None
    start = f"{MARK}:{owner}:"
    return words[3].removeprefix(start) if len(words) == 4 and words[3].startswith(start) else None


def _ours(raw: RawTable, marked: set[str], jump: Callable[[RawRule], str]) -> set[str]:
    """The chains that are the owner's: marked or empty ones, dispatchers, and those to which a marked one leads.

    A flush or a vandal takes the marker along with the rules; but no marked chain leads to somebody else's.
    """
    unmarked = [name for name, rules in raw.chains.items() if name not in marked and rules]
    if not unmarked:
        return set(raw.chains)
    tied = {jump(rule) for name in marked for rule in raw.chains[name]}
    return set(raw.chains) - {name for name in unmarked if name not in tied and iptables_dispatcher(name) is None}


def _key(table: TableKey, name: str, marker: str | None, owner: str) -> ListKey:
    """The list whose chain has the name, by its marker or else by the name itself."""
    dispatcher = iptables_dispatcher(name)
    if dispatcher is not None and dispatcher[0] == owner:
        return DispatcherKey(*table, dispatcher[1], dispatcher[2])
    logical = marker if marker is not None else name.removeprefix(f"{owner}-")
    if iptables_chain(owner, logical) == name:
        return ChainKey(*table, logical)
    return ChainKey(*table, f"{name}{LEFT_OVER}")


def _mismarked(table: TableKey, raw: RawTable, keys: Mapping[str, ListKey], reading: Reading) -> dict[str, ListKey]:
    """The lists of chains that bear another's marker although a chain of ours leads to them: theirs was overwritten."""
    odd = [name for name, key in keys.items() if isinstance(key, ChainKey) and key.name.endswith(LEFT_OVER)]
    if not odd:
        return {}
    led_to = {reading.jump(rule) for name in keys.keys() - odd for rule in raw.chains[name]}
    by_name = {name: _key(table, name, None, reading.owner) for name in odd if name in led_to}
    return {name: key for name, key in by_name.items() if isinstance(key, ChainKey) and LEFT_OVER not in key.name}


# --- one list ----------------------------------------------------------------------------------------------


def _list(
    key: ListKey,
    name: str,
    rules: Sequence[RawRule],
    texts: Sequence[str | None],
    *,
    raw: RawTable,
    reading: Reading,
) -> ObservedList:
    first = texts[0] if texts else None
    marker = int(first is not None and _is_marker(first, key, reading.owner))
    last = texts[-1] if texts else None
    policy = Policy.RETURN
    if isinstance(key, DispatcherKey) and last is not None and len(texts) > marker:
        policy = _POLICIES.get(last, Policy.RETURN)
    end = len(texts) - (policy is not Policy.RETURN)
    jumps = {hook: held.count(name) for hook, held in raw.jumps.items() if name in held}
    placed = isinstance(key, DispatcherKey) and is_placed(key, name, raw.jumps.get(key.hook, ()))
    standing = Standing(
        chain=name,
        length=len(rules),
        marker=marker,
        policy=len(texts) if policy is not Policy.RETURN else 0,
        jumps=jumps,
        hidden={hook: handles for (chain, hook), handles in raw.hidden.items() if chain == name},
        placed=placed,
        lines=tuple(
            f"-c {held.packets} {held.bytes} {text}"
            for held, text in zip(rules, texts, strict=True)
            if text is not None
        ),
        bodies=tuple(held.body for held in rules),
    )
    return ObservedList(
        key,
        tuple(_rules(key, rules, texts, within=range(marker, end), reading=reading)),
        frozenset({policy}) if isinstance(key, DispatcherKey) else frozenset(),
        None,
        tuple(_faults(key, standing, raw.jumps)),
        standing,
    )


def _is_marker(text: str, key: ListKey, owner: str) -> bool:
    """Whether a text is the marker of this list, not another's."""
    name = marked_name(text, owner)
    if name is None or isinstance(key, DispatcherKey):
        return name is not None and f"{MARK}:{owner}:{name}" == iptables_marker(owner, key)
    return name == key.name or key.name.endswith(LEFT_OVER)


def _rules(
    key: ListKey, rules: Sequence[RawRule], texts: Sequence[str | None], *, within: range, reading: Reading
) -> Iterator[ObservedRule]:
    """The rules between marker and policy, each with its position as its handle."""
    meanings = reading.rules(key, texts[within.start : within.stop])
    for index, rule in zip(within, meanings, strict=True):
        text, held = texts[index], rules[index]
        yield ObservedRule(rule, _UNTOLD if text is None else text, held.packets, held.bytes, index + 1)


def is_placed(key: DispatcherKey, name: str, jumps: Sequence[str]) -> bool:
    """Whether its jump stands where it should: before or behind it only jumps to other owners' dispatchers."""
    if name not in jumps:
        return False
    held = jumps if key.place is Place.FIRST else jumps[::-1]
    return all(_is_peer(chain, key) for chain in held[: held.index(name)])


def _is_peer(chain: str, key: DispatcherKey) -> bool:
    found = iptables_dispatcher(chain)
    return found is not None and found[1:] == (key.hook, key.place)


def _faults(key: ListKey, standing: Standing, jumps: Mapping[Hook, Sequence[str]]) -> Iterator[str]:
    """What isn't as it should be beside the rules, for people."""
    if not standing.marker:
        yield "its marker is missing"
    if not isinstance(key, DispatcherKey):
        return
    builtin = key.hook.upper()
    count = standing.jumps.get(key.hook, 0)
    if count == 0:
        yield f"no jump leads to it from {builtin}"
    elif count > 1:
        yield f"{count} jumps lead to it from {builtin}"
    if count and not standing.placed:
        held = jumps[key.hook] if key.place is Place.FIRST else jumps[key.hook][::-1]
        where = "behind" if key.place is Place.FIRST else "before"
        others = held.index(standing.chain)
        yield f"its jump stands {where} {others} other rule{'' if others == 1 else 's'} in {builtin}"
    yield from (f"a jump leads to it from {hook.upper()}" for hook in standing.jumps if hook is not key.hook)
