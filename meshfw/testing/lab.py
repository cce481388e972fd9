"""A lab: one backend under test with what its kernel offers to a witness; and what a law of the book is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from meshfw.backend import Backend, Capabilities, Narrowing, Provable
from meshfw.errors import MeshfwError
from meshfw.expansion import Expansion, expand
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.model import Chain, Dispatcher, Family, Goto, Jump, Policy, Rule, Ruleset, Table, set_references
from meshfw.plan import Plan
from meshfw.reconcile import apply, plan
from meshfw.snapshot import ListKey, ObservedList, Snapshot
from meshfw.testing.loopback import delivers
from meshfw.testing.rulesets import CATALOGUE, may_stand, of_families, parsed, sample

__all__ = [
    "NEIGHBOUR",
    "OWNER",
    "Case",
    "Foreign",
    "Lab",
    "Law",
    "MakeBackend",
    "Need",
    "differences",
    "law",
    "meaning",
    "refused",
]

OWNER: Final = "meshfw"
NEIGHBOUR: Final = "neighbour"
"""The second owner, of the laws about two."""

T = TypeVar("T")

MakeBackend = Callable[[str], Backend]
"""Makes a fresh instance for an owner; all of them work on one and the same kernel."""


class Foreign(msgspec.Struct, frozen=True):
    """Rules of others: ``setup`` writes some, ``dump`` gives their text without counters, ``remove`` ends them."""

    setup: Callable[[], None]
    dump: Callable[[], str]
    remove: Callable[[], None]


class Lab:
    """A backend under test: fresh instances of it, and witnesses of what they do.

    Only ``make`` has to be given. ``namespace`` is the network namespace whose packets meet the backend's rules;
    ``count`` lets every rule count one packet where there are none; ``dump`` gives the text of all that the kernel
    holds, anybody's, without counters; ``wipe`` takes it all away by the kernel's own means, for a backend that refuses
    what has lost its mark; ``foreign`` are rules of others; ``tamperings`` change the owner's rules, those
    of ``sample``, by the kernel's own means. What is left out narrows the laws that need it. ``most`` is how
    many of the kinds of edit, or lines of a transaction, are tried by a law that goes through them; None: all.
    """

    def __init__(
        self,
        make: MakeBackend,
        *,
        language: Language | None = None,
        namespace: str | None = None,
        count: Callable[[], None] | None = None,
        dump: Callable[[], str] | None = None,
        wipe: Callable[[], None] | None = None,
        foreign: Foreign | None = None,
        tamperings: Mapping[str, Callable[[], None]] | None = None,
        most: int | None = None,
    ) -> None:
        self._make = make
        self._opened: list[Backend] = []
        self.language = language or Language.of(builtin_extensions())
        self.namespace = namespace
        self.count = count
        self.dump = dump
        self.wipe = wipe
        self.foreign = foreign
        self.tamperings = tamperings or {}
        self.most = most
        self.tried = 0
        """Cases that laws were tried on in this lab."""
        self._probe = make(OWNER)
        self.capabilities: Capabilities = self._probe.capabilities
        self.has_fingerprint = self._probe.fingerprint() is not None
        self.has_digest = isinstance(self._probe, Provable) and self._probe.digest() is not None
        self.narrows = isinstance(self._probe, Narrowing) and self.has_fingerprint
        self.has_watch = self._probe.watch() is not None
        self._expansion: Expansion | None = None
        self.left_out = tuple(text for text in CATALOGUE if not self._known(text))
        self.sample = self._supported(sample(self.language, self.families))

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that the backend has."""
        return tuple(family for family in Family if family in self.capabilities.families)

    def backend(self, owner: str = OWNER) -> Backend:
        """A fresh instance on the kernel; the next reset closes it."""
        made = self._make(owner)
        self._opened.append(made)
        return made

    @contextmanager
    def instance(self, owner: str = OWNER) -> Iterator[Backend]:
        """A fresh instance, closed at the end of the block: open ones hold descriptors, of which there are few."""
        made = self._make(owner)
        try:
            yield made
        finally:
            made.close()

    def reset(self) -> None:
        """Take the rules of both owners away and close every instance."""
        opened, self._opened = self._opened, []
        for held in opened:
            held.close()
        for owner in (OWNER, NEIGHBOUR):
            with self.instance(owner) as cleaner:
                apply(cleaner, Ruleset())

    def close(self) -> None:
        """Take everything away for good."""
        try:
            self.reset()
        finally:
            self._probe.close()

    def some(self, things: Iterable[T]) -> list[T]:
        """The things that a law is to go through: all, or ``most`` of them, spread evenly."""
        known = list(things)
        if self.most is None or len(known) <= self.most:
            return known
        return [known[(len(known) - 1) * part // max(self.most - 1, 1)] for part in range(self.most)]

    # --- what the backend can hold ---

    def accepts(self, rule: Rule, family: Family, table: Table) -> bool:
        """Whether the backend says that it can hold the rule in the table."""
        ruleset = Ruleset(chains=(Chain(family=family, table=table, name="one", rules=(rule,)),))
        return not any(finding.refuses for finding in self._probe.check(ruleset))

    def _known(self, text: str) -> bool:
        """Whether the backend holds a rule of the catalogue in some family and table."""
        rules = ((parsed(text, family=family, language=self.language), family) for family in self.families)
        return any(
            rule is not None
            and any(may_stand(rule, table, ()) and self.accepts(rule, family, table) for table in Table)
            for rule, family in rules
        )

    def _supported(self, ruleset: Ruleset) -> Ruleset:
        """The ruleset without the rules that the backend refuses one by one."""

        def stays(rule: Rule, chain: Chain) -> bool:
            refers = isinstance(rule.target, Jump | Goto) or any(True for _ in set_references(rule))
            return refers or self.accepts(rule, chain.family, chain.table)

        chains = tuple(
            msgspec.structs.replace(chain, rules=tuple(rule for rule in chain.rules if stays(rule, chain)))
            for chain in ruleset.chains
        )
        return of_families(msgspec.structs.replace(ruleset, chains=chains), self.families)

    def meant(self, ruleset: Ruleset) -> Ruleset:
        """What the backend is to hold of a declared ruleset: itself, or without its sets where it has none."""
        if self.capabilities.native_sets:
            return ruleset
        self._expansion = expand(ruleset, self._expansion)
        assert not self._expansion.problems, f"a law is tried on what has no expansion: {self._expansion.problems}"
        return self._expansion.ruleset

    def differ(self, one: Ruleset, other: Ruleset) -> bool:
        """Whether going from one to another changes anything in the kernel; a set that no rule names may be nothing."""
        return self.meant(one) != self.meant(other)

    # --- witnesses ---

    def text(self) -> str:
        """All that the kernel holds, as a witness beside the backend dumps it; empty where there is none."""
        return self.dump() if self.dump is not None else ""

    def held(self, owner: str = OWNER) -> Snapshot:
        """What a fresh instance reads."""
        with self.instance(owner) as backend:
            return backend.observe().snapshot

    def planned(self, ruleset: Ruleset) -> Plan:
        """What a fresh instance would change."""
        with self.instance() as backend:
            return plan(backend, ruleset)

    def changed(self, ruleset: Ruleset) -> None:
        """Apply a ruleset by a fresh instance: what a vandal does to us, or another meshfw of the same owner."""
        with self.instance() as backend:
            apply(backend, ruleset)

    def assert_held(self, ruleset: Ruleset, owner: str = OWNER) -> Snapshot:
        """Fail unless a fresh instance reads exactly the ruleset: every chain, rule, order, policy and set."""
        held = self.held(owner)
        found = list(differences(held, self.meant(ruleset)))
        assert not found, f"what is held is not what was declared for {owner}:\n" + "\n".join(found)
        return held

    def described(self, found: Plan) -> str:
        """A plan as a person reads it."""
        return found.text(lambda rule, family: format_rule(rule, family=family, language=self.language))

    def meet_packets(self) -> None:
        """Let packets of every family meet the rules, or as good as."""
        if self.namespace is None:
            assert self.count is not None, "neither packets nor counts"
            self.count()
            return
        for family in self.families:
            delivers(self.namespace, family)


def differences(snapshot: Snapshot, ruleset: Ruleset) -> Iterator[str]:
    """What of a snapshot isn't exactly a ruleset, a line each; plain comparison, without the plan's alignment."""
    yield from (f"{family} is broken: {reason}" for family, reason in snapshot.broken.items())
    wanted: dict[ListKey, Chain | Dispatcher] = {chain.key: chain for chain in ruleset.chains}
    wanted.update((dispatcher.key, dispatcher) for dispatcher in ruleset.dispatchers())
    yield from (f"{key} is there and shouldn't be" for key in snapshot.lists if key not in wanted)
    for key, new in wanted.items():
        old = snapshot.lists.get(key)
        if old is None:
            yield f"{key} is missing"
        else:
            yield from _list_differences(old, new)
    sets = {(entry.family, entry.name): entry for entry in ruleset.sets}
    for set_key in {**sets, **snapshot.sets}:
        if sets.get(set_key) != snapshot.sets.get(set_key):
            yield f"set {set_key} is {snapshot.sets.get(set_key)}, not {sets.get(set_key)}"


def _list_differences(old: ObservedList, new: Chain | Dispatcher) -> Iterator[str]:
    held = [rule.rule for rule in old.rules]
    if held != list(new.rules):
        yield f"{old.key} holds {len(held)} rules, {len(new.rules)} were declared"
        pairs = zip(held, new.rules, strict=False)
        yield from (f"  {at}: {one}, not {other}" for at, (one, other) in enumerate(pairs, 1) if one != other)
    if isinstance(new, Dispatcher):
        if new.policy not in old.policies:
            yield f"{old.key} has policy {'/'.join(sorted(old.policies))}, not {new.policy}"
        if {Policy.ACCEPT, Policy.DROP} <= old.policies:
            yield f"{old.key}: its policy can't be told, accept from drop"


def meaning(snapshot: Snapshot) -> tuple[object, ...]:
    """What a snapshot says, without texts, handles and counters."""
    lists = {key: ([rule.rule for rule in held.rules], held.policies) for key, held in snapshot.lists.items()}
    return lists, dict(snapshot.sets), dict(snapshot.broken)


def refused(call: Callable[[], object]) -> MeshfwError | None:
    """The error with which a call failed, of those that meshfw's callers know; None when it didn't."""
    try:
        call()
    except MeshfwError as error:
        return error
    return None


# --- laws --------------------------------------------------------------------------------------------------


_SHOWN: Final = 4000
"""Characters of a ruleset beyond which a case shows what it consists of instead: it was not shrunk yet."""


class Case(msgspec.Struct, frozen=True):
    """What a law is tried on: a ruleset, and what it becomes."""

    one: Ruleset
    other: Ruleset

    def __repr__(self) -> str:
        return f"Case(one={_shown(self.one)}, other={_shown(self.other)})"


def _shown(ruleset: Ruleset) -> str:
    text = repr(ruleset)
    if len(text) <= _SHOWN:
        return text
    parts = [f"{chain.key} of {len(chain.rules)} rules" for chain in ruleset.chains]
    parts += [f"{entry.family} set {entry.name} of {len(entry.elements)}" for entry in ruleset.sets]
    return f"<{', '.join(parts)}; {len(ruleset.attachments)} attachments>"


Need = Callable[[Lab], str | None]
"""What a law asks of a lab: the reason why it can't hold there, or can't be tried; None where it can."""


class Law(msgspec.Struct, frozen=True):
    """One law of the book: ``run`` raises where a backend breaks it.

    ``name`` is what a test of it is called, ``says`` its sentence, ``needs`` narrows it, ``eases`` are why it asks for
    less, and ``generated`` laws are tried on drawn cases as well as on the fixed ones.
    """

    name: str
    says: str
    run: Callable[[Lab, Case], None]
    generated: bool = False
    needs: tuple[Need, ...] = ()
    eases: tuple[Need, ...] = ()

    def eased(self, lab: Lab) -> tuple[str, ...]:
        """Why it asks for less in this lab than it could; empty where it's the whole law."""
        return tuple(reason for need in self.eases if (reason := need(lab)))

    def narrowed(self, lab: Lab) -> str | None:
        """Why it isn't run in this lab; None where it is."""
        return next((reason for need in self.needs if (reason := need(lab))), None)


def law(
    *needs: Need, generated: bool = False, eases: Iterable[Need] = ()
) -> Callable[[Callable[[Lab, Case], None]], Law]:
    """Makes a law of a function whose docstring is its sentence."""

    def made(run: Callable[[Lab, Case], None]) -> Law:
        return Law(run.__name__, (run.__doc__ or "").strip(), run, generated, needs, tuple(eases))

    return made


def without_fingerprint(lab: Lab) -> str | None:
    """For laws that let a backend without a fingerprint read more, and know less."""
    return None if lab.has_fingerprint else "it has no fingerprint, so it may read each time and be told nothing"


def not_all(lab: Lab) -> str | None:
    """For laws that go through many things one by one."""
    return None if lab.most is None else f"with {lab.most} of what it goes through at most"


def needs_narrowing(lab: Lab) -> str | None:
    """For laws about reading what others changed, and no more."""
    return None if lab.narrows else "the backend can't tell which lists others changed"


def needs_digest(lab: Lab) -> str | None:
    """For laws about what is told to later processes."""
    return None if lab.has_digest else "the backend tells later processes nothing"


def needs_fingerprint(lab: Lab) -> str | None:
    """For laws about a fingerprint that can tell."""
    return None if lab.has_fingerprint else "the backend has no fingerprint here"
