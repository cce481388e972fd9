"""The law book, first part: what holds of a backend that is left alone.

A law is a function over a lab and a case, which leaves the cleaning to its caller; it raises where it is broken.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshfw.backend import API_VERSION, Backend, Cache, Capabilities, Outcome
from meshfw.errors import UnsupportedError
from meshfw.languages.iptables import format_rule
from meshfw.model import (
    ACCEPT,
    Chain,
    ChainKey,
    Family,
    OpaqueMatch,
    OpaqueTarget,
    Rule,
    Ruleset,
    Table,
)
from meshfw.plan import diff
from meshfw.reconcile import apply, plan
from meshfw.states import State, format_state, parse_state
from meshfw.testing.lab import Case, Lab, law, meaning, needs_fingerprint, refused, without_fingerprint
from meshfw.testing.rulesets import commented, copied, of_families, parsed, small
from meshfw.testing.wrapping import Recording


@law(generated=True)
def plan_after_apply_is_empty(lab: Lab, case: Case) -> None:
    """Apply then plan is empty, for the instance that applied and for a new one."""
    backend = lab.backend()
    for ruleset in (case.one, case.other, case.one):
        report = apply(backend, ruleset)
        assert (report.outcome is Outcome.CHANGED) == bool(report.plan), (
            f"{report.outcome} with this plan:\n{lab.described(report.plan)}"
        )
        assert not plan(backend, ruleset), "the instance that applied still sees changes"
        assert not lab.planned(ruleset), "a new instance sees changes"


@law(generated=True)
def what_is_declared_is_held(lab: Lab, case: Case) -> None:
    """After any change a new instance reads exactly what was declared: chains, rules, policies, sets.

    So a state can be made of what stands, kept on disk, and be read again as the ruleset to which nothing leads.
    """
    backend = lab.backend()
    for ruleset in (case.one, case.other, case.one):
        apply(backend, ruleset)
        held = lab.assert_held(ruleset)
        found = held.meaning()
        assert not found.notes, f"what stands says more than a ruleset: {found.notes}"
        document = format_state(State(owner="meshfw", backend=backend.name, ruleset=found.ruleset), lab.language)
        left = diff(held, parse_state(document, lab.language).ruleset)
        assert not left, f"what stands, kept and read again, is another ruleset:\n{lab.described(left)}"


@law(generated=True)
def order_is_kept(lab: Lab, case: Case) -> None:
    """Rules stand in the declared order, equal ones too, also after every rule has moved."""
    backend = lab.backend()
    turned = tuple(msgspec.structs.replace(chain, rules=chain.rules[::-1]) for chain in case.one.chains)
    for ruleset in (case.one, msgspec.structs.replace(case.one, chains=turned)):
        apply(backend, ruleset)
        meant = lab.meant(ruleset)
        for key, held in lab.held().lists.items():
            chain = meant.chain(key) if isinstance(key, ChainKey) else None
            if chain is not None:
                assert [rule.rule for rule in held.rules] == list(chain.rules), f"{key} has another order"


def _needs_two_families(lab: Lab) -> str | None:
    return None if len(lab.families) == len(Family) else f"the backend has {lab.families[0]} alone"


@law(_needs_two_families)
def families_are_held_apart(lab: Lab, case: Case) -> None:
    """Both families are held, and a family that is left out gets nothing."""
    backend = lab.backend()
    for families in (tuple(Family), (Family.IPV4,), (Family.IPV6,), tuple(Family)):
        part = of_families(case.one, families)
        apply(backend, part)
        held = {key.family for key in lab.held().lists}
        wanted = lab.meant(part).families
        assert held == wanted, f"declared for {sorted(wanted)}, held for {sorted(held)}"
        lab.assert_held(part)


@law(generated=True)
def second_apply_writes_nothing(lab: Lab, case: Case) -> None:
    """A second apply of an equal ruleset writes nothing, with a warm cache and with a cold one."""
    backend, witness = lab.backend(), lab.backend()
    apply(backend, case.one)
    before, text = witness.fingerprint(), lab.text()
    for reason in ("", "forgotten by a law"):
        if reason:
            backend.cache.drop(reason)
        recording = Recording(backend)
        report = apply(recording, copied(case.one))
        assert report.outcome is Outcome.CLEAN, f"a second apply was {report.outcome}"
        assert "commit" not in recording.calls, "a second apply committed"
        assert witness.fingerprint() == before, "a second apply moved the fingerprint"
        assert lab.text() == text, "a second apply changed the kernel"


@law(needs_fingerprint)
def idle_apply_reads_nothing(lab: Lab, case: Case) -> None:
    """Applying the same object again asks for the fingerprint and does nothing else."""
    recording = Recording(lab.backend())
    apply(recording, case.one)
    recording.calls.clear()
    assert apply(recording, case.one).outcome is Outcome.IDLE, "the same object again is no idle apply"
    assert recording.calls == ["fingerprint"], f"an idle apply did {recording.calls}"


def _some_processes(lab: Lab) -> str | None:
    each = lab.capabilities.processes_per_family
    return f"with {each} {'process' if each == 1 else 'processes'} for each family" if each else None


@law(eases=(_some_processes, without_fingerprint))
def processes_stay_in_budget(lab: Lab, case: Case) -> None:
    """No more processes than the capabilities say: none when idle, for a change, for adoption, for a cold start."""
    from meshfw.testing.counting import ProcessCounter

    each, families = lab.capabilities.processes_per_family, len(lab.families)
    changed = _with_one_more(case.one, lab.families[0])
    backend = lab.backend()
    with ProcessCounter() as cold:
        apply(backend, case.one)
    with ProcessCounter() as idle:
        apply(backend, case.one)
        apply(backend, copied(case.one))
    with ProcessCounter() as change:
        apply(backend, changed)
    with ProcessCounter() as adoption:
        lab.changed(changed)
    spent = [counter.count.forks for counter in (idle, change, adoption, cold)]
    read = 0 if lab.has_fingerprint else 2 * each * families  # each of the two reads everything, every time
    budget = [read, each + read // 2, each * families, 2 * each * families]
    assert all(one <= other for one, other in zip(spent, budget, strict=True)), (
        f"idle, change, adoption and cold start took {spent} processes, allowed are {budget}"
    )


def _with_one_more(ruleset: Ruleset, family: Family) -> Ruleset:
    chain = next(chain for chain in ruleset.chains if chain.family is family)
    longer = msgspec.structs.replace(chain, rules=(*chain.rules, commented("one more")))
    return msgspec.structs.replace(ruleset, chains=tuple(longer if held is chain else held for held in ruleset.chains))


@law(generated=True)
def new_instance_adopts(lab: Lab, case: Case) -> None:
    """A new instance takes what is there for its own and writes nothing."""
    lab.changed(case.one)
    witness = lab.backend()
    before = witness.fingerprint()
    recording = Recording(lab.backend())
    report = apply(recording, copied(case.one))
    assert report.outcome is Outcome.CLEAN, f"a new instance changes:\n{lab.described(report.plan)}"
    assert "commit" not in recording.calls, "a new instance committed"
    assert witness.fingerprint() == before, "a new instance moved the fingerprint"


@law(generated=True)
def empty_ruleset_leaves_no_trace(lab: Lab, case: Case) -> None:
    """Applying the empty ruleset takes away all that is ours, whoever of us wrote it."""
    for cleaner in (None, lab.backend()):
        before = lab.text()
        backend = lab.backend()
        apply(backend, case.one)
        apply(backend, case.other)
        apply(cleaner or backend, Ruleset())
        assert not lab.held(), f"left behind: {lab.held()}"
        assert lab.text() == before, "the kernel holds something that was not there before"


_OPAQUE: Final = {
    "a match without a typed value": Rule(
        matches=(OpaqueMatch("statistic", ("--mode", "nth", "--every", "3", "--packet", "0")),), target=ACCEPT
    ),
    "a target without a typed value": Rule(target=OpaqueTarget("NFQUEUE", ("--queue-num", "5"))),
}


def _opaque(lab: Lab) -> str | None:
    return "what has no typed value may be held as well as refused" if lab.capabilities.opaque else None


@law(eases=(_opaque,))
def unsupported_is_refused_first(lab: Lab, case: Case) -> None:
    """What can't be held is refused by name before anything is read or written; what isn't refused is held."""
    family = lab.families[0]
    for what, rule in _OPAQUE.items():
        # Where the language under test has a type for it after all, that is what it's read back as.
        text = format_rule(rule, family=family, language=lab.language)
        as_read = parsed(text, family=family, language=lab.language) or rule
        ruleset, held = (
            msgspec.structs.replace(
                case.one,
                chains=(
                    *case.one.chains,
                    Chain(family=family, table=Table.FILTER, name="strange", rules=(commented("fine"), last)),
                ),
            )
            for last in (rule, as_read)
        )
        _refused_or_held(lab, ruleset, what, may=lab.capabilities.opaque, held_as=held)
    for family in Family:
        if family not in lab.families:
            _refused_or_held(lab, small([family]), f"family {family}", may=False)


def _refused_or_held(lab: Lab, ruleset: Ruleset, what: str, *, may: bool, held_as: Ruleset | None = None) -> None:
    witness, recording = lab.backend(), Recording(lab.backend())
    before, held = witness.fingerprint(), lab.held()
    if not any(finding.refuses for finding in recording.check(lab.meant(ruleset))):
        assert may, f"{what}: the capabilities exclude it and check() doesn't refuse it"
        apply(recording, ruleset)
        lab.assert_held(held_as or ruleset)
        return
    for call in (apply, plan):
        error = refused(lambda call=call: call(recording, ruleset))  # type: ignore[misc]  # mypy types no such lambda
        assert isinstance(error, UnsupportedError), f"{what}: {call.__name__} raised {error!r}"
        assert "strange" in str(error) or "first" in str(error), f"{what}: the error doesn't say where: {error}"
    assert set(recording.calls) <= {"check", "fingerprint"}, f"{what}: refused after {recording.calls}"
    assert witness.fingerprint() == before, f"{what}: refused after a write"
    assert meaning(lab.held()) == meaning(held), f"{what}: refused after a change"


@law(generated=True)
def rendering_is_deterministic(lab: Lab, case: Case) -> None:
    """The transaction of one plan is the same text every time and in every instance, and compiling writes nothing."""
    lab.changed(case.one)
    backend, other = lab.backend(), lab.backend()
    observed = backend.observe()
    for ruleset in (case.other, Ruleset()):
        found = diff(observed.snapshot, lab.meant(ruleset))
        texts = {str(held.compile(found)) for held in (backend, other, backend, other, lab.backend())}
        assert len(texts) == 1, f"one plan, {len(texts)} texts"
    assert backend.fingerprint() == observed.fingerprint, "compiling moved the fingerprint"


@law(generated=True)
def reading_a_part_agrees_with_the_whole(lab: Lab, case: Case) -> None:
    """Named lists and sets are read as they are with everything else, and one that isn't there isn't read."""
    backend = lab.backend()
    apply(backend, case.one)
    whole = lab.held()
    keys = [*whole.lists, *whole.sets]
    missing = ChainKey(lab.families[0], Table.SECURITY, "no-such-chain")
    for part in (keys[::2], keys[1::2], [], [missing]):
        held = backend.observe(part).snapshot
        read = whole.updated(held, part)
        assert meaning(read) == meaning(whole), f"read on their own, {len(part)} lists and sets differ"
    assert missing not in backend.observe([missing]).snapshot.lists


@law()
def protocol_is_kept(lab: Lab, case: Case) -> None:
    """It is a Backend of this version with a cache for each instance, and closing it leaves the rules alone."""
    backend, other = lab.backend(), lab.backend()
    assert isinstance(backend, Backend), "a member of the protocol is missing"
    assert backend.api_version == API_VERSION
    assert backend.name == other.name != ""
    assert isinstance(backend.capabilities, Capabilities)
    assert isinstance(backend.cache, Cache)
    assert backend.cache is not other.cache, "two instances share a cache"
    told, read = backend.fingerprint(), backend.observe().fingerprint
    assert (told is None) == (read is None), "asked for its fingerprint it says one thing, and when it reads another"
    with lab.instance() as closed:
        apply(closed, case.one)
    lab.assert_held(case.one)


LAWS: Final = (
    plan_after_apply_is_empty,
    what_is_declared_is_held,
    order_is_kept,
    families_are_held_apart,
    second_apply_writes_nothing,
    idle_apply_reads_nothing,
    processes_stay_in_budget,
    new_instance_adopts,
    empty_ruleset_leaves_no_trace,
    unsupported_is_refused_first,
    rendering_is_deterministic,
    reading_a_part_agrees_with_the_whole,
    protocol_is_kept,
)
"""The first part of the book."""
