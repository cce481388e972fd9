"""Few edits of standing chains and sets as a batch of our own, which costs the same whatever stands beside it.

The transaction is nft text like any other, and libnftables could run it: `insert rule ip meshfw filter-a handle 12 ...`
puts a rule before the one with that handle. But libnftables 1.0.6 loads all rules of all tables for it. So the same
edits are kept beside the text as messages to the kernel. What a rule does is compiled by libnftables, in a room of our
own (:mod:`meshfw.kernel.scratch`), or known from the kernel where a rule moves; where no such room can be made, or the
kernel doesn't take the batch, or anything else is touched than rules and elements, the text goes the usual way.

The kernel takes the batch only if nobody has written since the rules were read, and answers with every new rule and
its place, byte by byte what was meant. So all else stands as it was known, and nothing has to be read again.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshfw.backend import Step, Transaction
from meshfw.backends.layout import nft_chain, nft_set
from meshfw.backends.nft_text import Renderer, chain_name, element_lines, restart_note, set_type
from meshfw.errors import BackendError
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfbatch import ELEMENTS_MAX, Change, Elements, Filling, NewRule, NewSet, Written, rule_of, write
from meshfw.kernel.nfbody import Body, body_of, with_ids
from meshfw.kernel.nfexpr import without_counter
from meshfw.kernel.nfmessage import NfObject, NfRule
from meshfw.kernel.scratch import Scratch
from meshfw.languages.nft import FAMILIES, NftText
from meshfw.model import ElementType, Family, Goto, Jump, Set
from meshfw.plan import ListChange, Plan, SetChange
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot

_RULES_MAX: Final = 100
"""Rules put in or taken out beyond which libnftables is as fast: it compiles each once, here it's written twice."""
_ELEMENTS_MAX: Final = 2 * ELEMENTS_MAX
_BYTES_MAX: Final = 100_000
"""Of rules in one batch: half of what a socket takes that may not have a larger buffer (net.core.wmem_default)."""
_BODIES_MAX: Final = 4096
_SET: Final = re.compile(r"@(\S+)")


class Placed(msgspec.Struct, frozen=True):
    """A rule to write: where in the new list, before which handle (None: at the end), what, and with which counter."""

    index: int
    before: int | None
    text: NftText
    body: Body
    packets: int = 0
    bytes: int = 0


class ListEdit(msgspec.Struct, frozen=True):
    """The edits of one list: the rules that go, by handle, and those that come."""

    change: ListChange
    gone: tuple[int, ...]
    placed: tuple[Placed, ...]


class Prepared(msgspec.Struct, frozen=True):
    """A transaction's edits as they will be sent."""

    lists: tuple[ListEdit, ...]
    sets: tuple[SetChange, ...]


class Edits:
    """What compiles, writes and proves few edits of one owner's tables."""

    def __init__(self, owner: str, netlink: Nfnetlink, render: Renderer) -> None:
        self._owner = owner
        self._netlink = netlink
        self._render = render
        self._bodies: dict[tuple[Family, str], Body] = {}
        self._scratch: Scratch | None = None
        self._works = True
        self._last: tuple[weakref.ref[Transaction], Prepared] | None = None

    def close(self) -> None:
        """Let the room for compiling go."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def distrust(self) -> None:
        """Never write a batch again: what libnftables can do by the same text is done by it from now on."""
        self._works = False
        self.close()

    # --- compiling ---

    def transaction(self, name: str, plan: Plan) -> Transaction | None:
        """The transaction of a plan that is nothing but few edits; None for any other, or where it can't be made."""
        self._last = None
        if not self._works or not is_few(plan):
            return None
        texts = {
            change.key: {index: self._render(change.key, change.rules[index]) for index in change.written}
            for change in plan.lists
        }
        if not all(self._compile(family, plan, texts) for family in Family):
            return None
        found = [self._list_edit(change, texts[change.key]) for change in plan.lists]
        edits = tuple(edit for edit in found if edit is not None)
        size = sum(placed.body.size for edit in edits for placed in edit.placed)
        if len(edits) != len(found) or size > _BYTES_MAX:
            return None
        prepared = Prepared(edits, plan.sets)
        step = Step(("nft", "-f", "-"), "".join(self._lines(prepared)))
        made = Transaction(name, (step,), plan, notes=tuple(note for edit in edits for note in _notes(edit)))
        self._last = weakref.ref(made), prepared
        return made

    def prepared(self, transaction: Transaction) -> Prepared | None:
        """What was prepared for this very transaction."""
        if self._last is not None and self._last[0]() is transaction:
            return self._last[1]
        return None

    def _compile(self, family: Family, plan: Plan, texts: Mapping[ListKey, Mapping[int, NftText]]) -> bool:
        """Get to know the bodies of rules that the kernel doesn't have yet; False where they can't be compiled."""
        missing: list[str] = []
        chains: set[str] = set()
        for change in plan.lists:
            for index, text in texts[change.key].items():
                key = (family, str(text))
                if change.key.family is family and change.source[index] < 0 and key not in self._bodies:
                    missing.append(key[1])
                    target = change.rules[index].target
                    if isinstance(target, Jump | Goto):
                        chains.add(nft_chain(change.key.table, target.chain))
        if not missing:
            return True
        names = {name for text in missing for name in _SET.findall(text)}
        wanted = [entry for entry in (plan.desired.sets if names else ()) if entry.family is family]
        sets = {nft_set(entry.name): _declaration(entry) for entry in wanted if nft_set(entry.name) in names}
        try:
            if self._scratch is None:
                self._scratch = Scratch()
            found = self._scratch.bodies(FAMILIES[family], missing, chains=sorted(chains), sets=sets)
        except BackendError:  # no such room here, or a rule that only the kernel's own refusal should speak of
            if self._scratch is None:
                self.distrust()
            return False
        if len(self._bodies) > _BODIES_MAX:
            self._bodies.clear()
        self._bodies.update(((family, text), body) for text, body in zip(missing, found, strict=True) if body)
        return True

    def _list_edit(self, change: ListChange, texts: Mapping[int, NftText]) -> ListEdit | None:
        held = () if change.old is None else change.old.rules
        placed = []
        for index, before in _places(change):
            text, source = texts[index], change.source[index]
            packets = octets = 0
            if source < 0:
                body = self._bodies.get((change.key.family, str(text)))
            else:
                body, packets, octets = self._standing(change.key, held[source].handle)
            if body is None:
                return None
            placed.append(Placed(index, before, text, body, packets, octets))
        return ListEdit(change, tuple(held[index].handle for index in change.dropped), tuple(placed))

    def _standing(self, key: ListKey, handle: int) -> tuple[Body | None, int, int]:
        """The body of a rule in the kernel, its counter as it is by now; None where somebody took the rule away."""
        rule = rule_of(self._netlink, self._place(key, handle))
        if rule is None:
            return None, 0, 0
        _, packets, octets = without_counter(rule.expressions)
        return body_of(self._netlink, FAMILIES[key.family], self._owner, rule), packets, octets

    def _place(self, key: ListKey, handle: int | None = None) -> NfObject:
        return NfObject(FAMILIES[key.family], self._owner, chain_name(key), handle)

    def _lines(self, prepared: Prepared) -> Iterator[str]:
        """The text of the same edits, in the same order."""
        for change in prepared.sets:
            yield from element_lines(f"{FAMILIES[change.key[0]]} {self._owner}", change)
        chains = {
            edit.change.key: f"{FAMILIES[edit.change.key.family]} {self._owner} {chain_name(edit.change.key)}"
            for edit in prepared.lists
        }
        for edit in prepared.lists:  # all that goes first: a meter may be that of a new rule elsewhere
            yield from (f"delete rule {chains[edit.change.key]} handle {handle}\n" for handle in edit.gone)
        for edit in prepared.lists:
            chain = chains[edit.change.key]
            for placed in edit.placed:
                where = f"add rule {chain}" if placed.before is None else f"insert rule {chain} handle {placed.before}"
                text = placed.text.counting_from(placed.packets, placed.bytes) if placed.packets else str(placed.text)
                yield f"{where} {text}\n"

    # --- writing ---

    def commit(self, prepared: Prepared, generation: int | None) -> Written:
        """Send the batch, based on a generation or, with None, on whatever stands."""
        return write(self._netlink, list(self._changes(prepared)), generation)

    def _changes(self, prepared: Prepared) -> Iterator[Change]:
        for change in prepared.sets:
            yield from self._elements(change)
        for edit in prepared.lists:
            yield from (self._place(edit.change.key, handle) for handle in edit.gone)
        number = 0
        for edit in prepared.lists:
            place = self._place(edit.change.key)
            for placed in edit.placed:
                body, ids = placed.body, {}
                for held in body.sets:
                    number += 1
                    ids[held.name] = number
                    yield NewSet(place.family, place.table, number, held.attributes)
                    yield Filling(place.family, place.table, number, held.elements)
                expressions = with_ids(body.expressions, ids)
                yield NewRule(place.family, place.table, place.chain, expressions, body.userdata, before=placed.before)

    def _elements(self, change: SetChange) -> Iterator[Elements]:
        entry = change.new
        if entry is None:
            return
        size = 2 if entry.type is ElementType.PORT else entry.family.bits // 8
        for elements, gone in ((change.removed, True), (change.added, False)):
            keys = tuple(low.to_bytes(size, "big") for low, _ in elements)
            for at in range(0, len(keys), ELEMENTS_MAX):
                part = keys[at : at + ELEMENTS_MAX]
                yield Elements(FAMILIES[entry.family], self._owner, nft_set(entry.name), part, gone=gone)

    def outcome(self, prepared: Prepared, written: Written) -> Snapshot | None:
        """The lists and sets as they stand now; None where a new rule isn't what was meant, where it was meant."""
        left = iter(written.rules)
        lists: dict[ListKey, ObservedList] = {}
        for edit in prepared.lists:
            held = _after(edit, left)
            if held is None:
                return None
            lists[held.key] = held
        return Snapshot(lists, {change.key: change.new for change in prepared.sets if change.new is not None})


def is_few(plan: Plan) -> bool:
    """Whether a plan is nothing but a few rules and elements put in and taken out."""
    if plan.rebuilt or not plan:
        return False
    rules = elements = 0
    for change in plan.lists:
        if change.old is None or change.new is None or change.policy is not None:
            return False
        rules += len(change.written) + len(change.dropped)
    for entry in plan.sets:
        if entry.old is None or entry.new is None or entry.new.intervals:
            return False  # how an interval is written depends on what stands beside it: libnftables knows
        elements += len(entry.added) + len(entry.removed)
    return rules <= _RULES_MAX and elements <= _ELEMENTS_MAX


def _declaration(entry: Set) -> str:
    return f"type {set_type(entry)}; flags interval;" if entry.intervals else f"type {set_type(entry)};"


def _places(change: ListChange) -> Iterator[tuple[int, int | None]]:
    """Each rule to write, in order, and the handle of the next one that stays."""
    held = () if change.old is None else change.old.rules
    found: dict[int, int | None] = {}
    for index in reversed(change.written):
        after = index + 1
        if after in found:
            found[index] = found[after]
        else:
            found[index] = held[change.kept[after]].handle if after < len(change.kept) else None
    return reversed(found.items())


def _notes(edit: ListEdit) -> Iterator[str]:
    change = edit.change
    again = [item.index for item in edit.placed if change.source[item.index] >= 0 and change.rules[item.index].stateful]
    if again:
        yield restart_note(change.key, again)


def _after(edit: ListEdit, written: Iterator[NfRule]) -> ObservedList | None:
    change = edit.change
    old = () if change.old is None else change.old.rules
    start, end = change.ends
    stop = len(change.kept) - end
    middle = [old[kept] for kept in change.kept[start:stop]] if old else [_NOBODY] * (stop - start)
    for item in edit.placed:  # in order, so what stands before each is known
        at = item.index - start
        before = middle[at - 1].handle if at else old[start - 1].handle if start else 0
        rule = next(written, None)
        if rule is None or not _is_meant(rule, item.body, before, last=item.index == len(change.kept) - 1):
            return None
        middle[at] = ObservedRule(change.rules[item.index], str(item.text), item.packets, item.bytes, rule.handle)
    policies = frozenset() if change.old is None else change.old.policies
    return ObservedList(change.key, old[:start] + tuple(middle) + old[len(old) - end :], policies, declared=change.new)


_NOBODY: Final = ObservedRule(None)


def _is_meant(rule: NfRule, body: Body, before: int, *, last: bool) -> bool:
    """Whether a rule is what was written, behind the rule that was meant; the kernel leaves that out for a last one."""
    return (
        (rule.position == before or (last and rule.position == 0))
        and rule.userdata == body.userdata
        and _compared(rule.expressions) == _compared(body.expressions)
    )


def _compared(expressions: bytes) -> bytes:
    """What must be equal: neither what was counted meanwhile, nor the number that a set of the rule's own got."""
    return without_counter(with_ids(expressions, {}))[0]
