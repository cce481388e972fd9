"""The law book, second part: what holds when others write: vandals, neighbours, and strangers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from meshfw.backend import Narrowing, Outcome, Provable
from meshfw.model import Ruleset
from meshfw.plan import diff
from meshfw.reconcile import apply
from meshfw.testing.edits import EDITS, all_edits, edited, middle
from meshfw.testing.lab import (
    NEIGHBOUR,
    OWNER,
    Case,
    Lab,
    law,
    meaning,
    needs_digest,
    needs_fingerprint,
    needs_narrowing,
    not_all,
)
from meshfw.testing.rulesets import at_first, small
from meshfw.testing.wrapping import Recording

TICKS: Final = 100
TICKS_OF_REST: Final = 3
"""Reconciles with nothing to do, in which a backend may look closer at what it holds."""


@law(generated=True)
def tampering_is_repaired(lab: Lab, case: Case) -> None:
    """Whatever a vandal made of our rules behind our back, the next apply puts it right."""
    backend = lab.backend()
    apply(backend, case.one)
    lab.changed(case.other)
    differs = bool(lab.planned(case.one))
    outcome = apply(backend, case.one).outcome
    assert (outcome is Outcome.CHANGED) == differs, f"after tampering apply was {outcome}"
    lab.assert_held(case.one)


@law(eases=(not_all,))
def every_kind_of_tampering_is_repaired(lab: Lab, case: Case) -> None:
    """Deleted, inserted, moved, doubled and edited rules, chains, sets, attachments and policies are put right."""
    backend = lab.backend()
    for name, tampered in lab.some(all_edits(case.one).items()):
        apply(backend, case.one)
        lab.changed(tampered)
        outcome = apply(backend, case.one).outcome
        assert (outcome is Outcome.CHANGED) == lab.differ(case.one, tampered), f"{name}: after it apply was {outcome}"
        found = lab.planned(case.one)
        assert not found, f"{name}: not repaired:\n{lab.described(found)}"
    lab.assert_held(case.one)


def _needs_tamperings(lab: Lab) -> str | None:
    return None if lab.tamperings else "no tampering by the kernel's own means was given"


@law(_needs_tamperings)
def native_tampering_is_repaired(lab: Lab, _case: Case) -> None:
    """What others do to our rules by the kernel's own means is put right."""
    for name, tamper in lab.tamperings.items():
        backend = lab.backend()
        apply(backend, lab.sample)
        tamper()
        assert apply(backend, lab.sample).outcome is Outcome.CHANGED, f"{name}: not noticed"
        lab.assert_held(lab.sample)
    lab.changed(Ruleset())
    assert not lab.held(), "something that was tampered with is left"


def _needs_foreign(lab: Lab) -> str | None:
    return None if lab.foreign is not None else "no rules of others were given"


@law(_needs_foreign)
def foreign_rules_stay(lab: Lab, case: Case) -> None:
    """Rules of others are the same, byte for byte, whatever is applied, repaired or taken away."""
    assert lab.foreign is not None
    lab.foreign.setup()
    try:
        before = lab.foreign.dump()
        assert before.strip(), "the rules of others dump as nothing: the law can't see"
        ours = at_first(case.one)
        backend = lab.backend()
        for ruleset in (ours, edited(ours, "delete a rule", middle) or ours, small(lab.families), ours, Ruleset()):
            apply(backend, ruleset)
            assert lab.foreign.dump() == before, f"rules of others changed:\n{lab.foreign.dump()}\nwas:\n{before}"
            lab.assert_held(ruleset)
    finally:
        lab.foreign.remove()


@law()
def two_owners_never_fight(lab: Lab, case: Case) -> None:
    """Two owners side by side, 100 ticks each: no write; and what one does leaves the other's rules alone."""
    rules = {OWNER: at_first(case.one), NEIGHBOUR: at_first(edited(case.one, "delete a rule", middle) or case.one)}
    recordings = {owner: Recording(lab.backend(owner)) for owner in rules}
    for owner, ruleset in (*rules.items(), *rules.items()):
        apply(recordings[owner], ruleset)
    witness = lab.backend()
    before = witness.fingerprint()
    for recording in recordings.values():
        recording.calls.clear()
    for _ in range(TICKS):
        for owner, ruleset in rules.items():
            apply(recordings[owner], ruleset)
    wrote = [owner for owner, recording in recordings.items() if "commit" in recording.calls]
    assert not wrote, f"{TICKS} ticks with nothing to do, and {wrote} wrote"
    assert witness.fingerprint() == before, f"{TICKS} ticks with nothing to do moved the fingerprint"
    apply(recordings[OWNER], Ruleset())
    lab.assert_held(rules[NEIGHBOUR], NEIGHBOUR)
    apply(recordings[OWNER], rules[OWNER])
    apply(recordings[NEIGHBOUR], Ruleset())
    lab.assert_held(rules[OWNER])


@law(needs_fingerprint)
def fingerprint_moves_with_every_write(lab: Lab, case: Case) -> None:
    """Every kind of change by another instance moves the fingerprint, and one that changes nothing there doesn't."""
    backend = lab.backend()
    for name in EDITS:
        tampered = edited(case.one, name, middle)
        if tampered is not None and tampered != case.one:
            apply(backend, case.one)
            before = backend.fingerprint()
            lab.changed(tampered)
            moved = backend.fingerprint() != before
            assert moved == lab.differ(case.one, tampered), f"{name}: the fingerprint {'moves' if moved else 'stands'}"


@law(needs_fingerprint)
def fingerprint_is_of_what_was_read(lab: Lab, case: Case) -> None:
    """While nobody writes, readings and commits give the fingerprint that the next question gives."""
    backend = lab.backend()
    apply(backend, case.one)
    now = backend.fingerprint()
    assert backend.cache.fingerprint == now is not None, "what apply remembers is not the fingerprint of now"
    observed = backend.observe()
    assert observed.fingerprint == now, "reading moved the fingerprint, or gives another"
    assert backend.observe([chain.key for chain in case.one.chains]).fingerprint == now, "reading a part gives another"
    other = lab.meant(case.other)
    backend.check(other)
    transaction = backend.compile(diff(observed.snapshot, other))
    assert backend.fingerprint() == now, "checking or compiling moved the fingerprint"
    committed = backend.commit(transaction, based_on=now)
    assert committed.fingerprint == backend.fingerprint() != now, "a commit gives another fingerprint than it made"
    assert committed.exclusive, "nobody else wrote, and the commit can't tell"


@law(needs_digest)
def digest_tells_of_every_change(lab: Lab, case: Case) -> None:
    """Every instance gives the same digest until something changes, whoever changed it and by whatever means."""
    backend = lab.backend()
    for name, tampered in all_edits(case.one).items():
        apply(backend, case.one)
        before = _digest(lab)
        assert _digest(lab) == before, "nothing changed, and another instance gives another digest"
        lab.changed(tampered)
        assert _digest(lab) != before or not lab.differ(case.one, tampered), f"{name}: the digest stands"
    for name, tamper in lab.tamperings.items():
        apply(lab.backend(), lab.sample)
        before = _digest(lab)
        tamper()
        assert _digest(lab) != before, f"{name}: the digest stands"


@law(needs_narrowing)
def moved_names_every_list_that_differs(lab: Lab, case: Case) -> None:
    """Whatever others changed, right after a commit of ours or later: who reads what moved again has read all of it."""
    changes: list[tuple[str, Ruleset, Callable[[], None]]] = [
        (name, case.one, partial(lab.changed, after)) for name, after in all_edits(case.one).items()
    ]
    changes += [(name, lab.sample, tamper) for name, tamper in lab.tamperings.items()]
    backend = lab.backend()
    for name, ruleset, change in changes:
        for quiet in (0, TICKS_OF_REST):
            apply(backend, _beheaded(ruleset))
            apply(backend, ruleset)
            for _ in range(quiet):
                apply(backend, ruleset)
            known, since = backend.cache.snapshot, backend.fingerprint()
            assert known is not None
            assert since is not None
            change()
            backend.fingerprint()
            moved = backend.moved(since) if isinstance(backend, Narrowing) else None
            if moved is not None:
                seen = known.updated(backend.observe(moved).snapshot, moved)
                assert meaning(seen) == meaning(lab.held()), f"{name}: what it names isn't all that changed"


def _beheaded(ruleset: Ruleset) -> Ruleset:
    """The ruleset without the first rule of each chain, so that every chain changes on the way back."""
    chains = tuple(msgspec.structs.replace(chain, rules=chain.rules[1:]) for chain in ruleset.chains)
    return msgspec.structs.replace(ruleset, chains=chains)


def _digest(lab: Lab) -> str | None:
    with lab.instance() as told:
        digest = told.digest() if isinstance(told, Provable) else None
    assert digest is not None, "the backend can't tell, though nobody writes"
    return digest


LAWS: Final = (
    tampering_is_repaired,
    every_kind_of_tampering_is_repaired,
    native_tampering_is_repaired,
    foreign_rules_stay,
    two_owners_never_fight,
    fingerprint_moves_with_every_write,
    fingerprint_is_of_what_was_read,
    digest_tells_of_every_change,
    moved_names_every_list_that_differs,
)
"""The second part of the book."""
