"""Laws of the algorithm: what is asked of a backend and when, what is cached and why it's dropped, when it gives up."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import pytest

from meshfw.backend import Committed, Fingerprint, Observed, Outcome, Site, Transaction, Unsupported
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.errors import BackendError, ConcurrentChangeError, StateError, UnsupportedError, VerifyError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.model import ChainKey, Family, Ruleset, Set, SetKey, Table
from meshfw.plan import Plan
from meshfw.reconcile import ATTEMPTS, PATIENCE, apply, plan
from meshfw.snapshot import ListKey, Snapshot
from meshfw.testing.edits import EDITS, edited, last, middle
from meshfw.testing.lab import differences
from meshfw.testing.rulesets import commented, copied, sample, small
from meshfw.testing.wrapping import Falsified, Interrupted, Recording, Wrapped, with_lines

LANGUAGE = Language.of(builtin_extensions())
FIRST = ChainKey(Family.IPV4, Table.FILTER, "first")
SMALL = small()


def longer(ruleset: Ruleset, *names: str, key: ChainKey = FIRST, at_front: bool = False) -> Ruleset:
    """The ruleset with more rules in one chain."""
    more = tuple(commented(name) for name in names)
    chains = tuple(
        chain
        if chain.key != key
        else msgspec.structs.replace(chain, rules=(*more, *chain.rules) if at_front else (*chain.rules, *more))
        for chain in ruleset.chains
    )
    return msgspec.structs.replace(ruleset, chains=chains)


def turned(ruleset: Ruleset) -> Ruleset:
    """The ruleset with the rules of one chain in the other order."""
    chains = tuple(
        msgspec.structs.replace(chain, rules=chain.rules[::-1]) if chain.key == FIRST else chain
        for chain in ruleset.chains
    )
    return msgspec.structs.replace(ruleset, chains=chains)


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel()


Make = Callable[[], MemoryBackend]


@pytest.fixture
def make(kernel: MemoryKernel) -> Make:
    return lambda: MemoryBackend(Site(owner="meshfw", language=LANGUAGE, options={"kernel": kernel}))


@pytest.fixture
def backend(make: Make) -> Recording:
    return Recording(make())


def writing(make: Make, ruleset: Ruleset) -> Callable[[], None]:
    """What another instance does meanwhile."""

    def write() -> None:
        apply(make(), ruleset)

    return write


def assert_held(make: Make, ruleset: Ruleset) -> None:
    assert list(differences(make().observe().snapshot, ruleset)) == []


# --- what is asked of a backend ----------------------------------------------------------------------------


def test_a_plan_reads_and_writes_nothing(backend: Recording, kernel: MemoryKernel) -> None:
    found = plan(backend, SMALL)
    assert backend.calls == ["check", "observe"]
    assert found.desired is SMALL
    assert {change.key for change in found.lists} >= {chain.key for chain in SMALL.chains}
    assert kernel.writes == 0


def test_a_cold_apply_reads_everything_commits_once_and_proves_what_it_touched(backend: Recording) -> None:
    report = apply(backend, SMALL)
    assert backend.calls == ["check", "observe", "compile", "commit", "observe some"]
    assert (report.outcome, report.commits, report.backend) == (Outcome.CHANGED, 1, "memory")
    assert {change.key for change in report.plan.lists} >= {chain.key for chain in SMALL.chains}


def test_applying_the_same_object_again_asks_for_the_fingerprint_alone(backend: Recording) -> None:
    apply(backend, SMALL)
    backend.calls.clear()
    report = apply(backend, SMALL)
    assert backend.calls == ["fingerprint"]
    assert (report.outcome, report.commits, report.cache) == (Outcome.IDLE, 0, "hit")
    assert not report.plan


def test_an_equal_ruleset_is_compared_and_nothing_is_read(backend: Recording) -> None:
    apply(backend, SMALL)
    backend.calls.clear()
    equal = copied(SMALL)
    report = apply(backend, equal)
    assert backend.calls == ["check", "fingerprint"]
    assert (report.outcome, report.commits, report.cache) == (Outcome.CLEAN, 0, "hit")
    backend.calls.clear()
    assert apply(backend, equal).outcome is Outcome.IDLE, "the equal object took the place of the first"
    assert backend.calls == ["fingerprint"]


def test_a_change_of_ours_reads_only_what_it_touched(backend: Recording) -> None:
    apply(backend, SMALL)
    backend.calls.clear()
    report = apply(backend, longer(SMALL, "more"))
    assert backend.calls == ["check", "fingerprint", "compile", "commit", "observe some"]
    assert (report.outcome, report.cache) == (Outcome.CHANGED, "hit")
    assert [change.key for change in report.plan.lists] == [FIRST]


def test_a_plan_after_an_apply_reads_nothing(backend: Recording) -> None:
    apply(backend, SMALL)
    backend.calls.clear()
    assert not plan(backend, copied(SMALL))
    assert backend.calls == ["check", "fingerprint"]


def test_nothing_wanted_and_nothing_there_is_clean(backend: Recording, kernel: MemoryKernel) -> None:
    report = apply(backend, Ruleset())
    assert (report.outcome, report.commits, kernel.writes) == (Outcome.CLEAN, 0, 0)
    assert not report.plan


def test_what_a_backend_refuses_is_raised_before_anything_else() -> None:
    class Refusing(Wrapped):
        def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
            return (
                Unsupported("ipv4 filter a, rule 1", "never heard of it", "-j NEW"),
                Unsupported("b", "odd", refuses=False),
            )

    recording = Recording(Refusing(MemoryBackend(Site(owner="meshfw", language=LANGUAGE))))
    for call in (apply, plan):
        with pytest.raises(UnsupportedError) as refused:
            call(recording, SMALL)
        assert str(refused.value).endswith("\n  ipv4 filter a, rule 1 (-j NEW): never heard of it")
        assert len(refused.value.items) == 1, "a warning is no refusal"
    assert recording.calls == ["check", "check"]


def test_a_warning_goes_into_the_report() -> None:
    class Warning_(Wrapped):  # noqa: N801 - beside the built-in name
        def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
            return (Unsupported("ipv4 filter input/last", "others drop here", refuses=False),)

    report = apply(Warning_(MemoryBackend(Site(owner="meshfw", language=LANGUAGE))), SMALL)
    assert report.warnings == ("ipv4 filter input/last: others drop here",)
    assert report.outcome is Outcome.CHANGED


# --- the cache ---------------------------------------------------------------------------------------------


def test_every_report_says_why_the_cache_was_not_used(backend: Recording, make: Make) -> None:
    assert apply(backend, SMALL).cache == "nothing read yet"
    assert apply(backend, longer(SMALL, "a")).cache == "hit"
    apply(make(), SMALL)
    assert apply(backend, longer(SMALL, "a")).cache == "the kernel changed"
    backend.cache.drop("forgotten by a test")
    assert apply(backend, longer(SMALL, "a")).cache == "forgotten by a test"
    assert apply(backend, longer(SMALL, "a")).cache == "hit"


def test_the_same_object_is_not_idle_where_the_kernel_changed(backend: Recording, make: Make) -> None:
    apply(backend, SMALL)
    apply(make(), longer(SMALL, "vandal"))
    report = apply(backend, SMALL)
    assert (report.outcome, report.cache) == (Outcome.CHANGED, "the kernel changed")
    assert_held(make, SMALL)


def test_a_backend_without_a_fingerprint_is_read_every_time() -> None:
    class Mute(Wrapped):
        def fingerprint(self) -> Fingerprint | None:
            return None

        def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
            return msgspec.structs.replace(self.inner.observe(keys), fingerprint=None)

        def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
            assert based_on is None
            return Committed(None, self.inner.commit(transaction, based_on=None).exclusive)

    recording = Recording(Mute(MemoryBackend(Site(owner="meshfw", language=LANGUAGE))))
    assert apply(recording, SMALL).outcome is Outcome.CHANGED
    for _ in range(2):
        recording.calls.clear()
        assert apply(recording, SMALL).outcome is Outcome.CLEAN
        assert recording.calls == ["fingerprint", "check", "observe", "fingerprint"]


def test_a_fingerprint_that_is_lost_drops_the_cache(backend: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(backend, SMALL)
    monkeypatch.setattr(backend.inner, "fingerprint", lambda: None)
    assert apply(backend, SMALL).cache == "no fingerprint"


@pytest.mark.parametrize("error", [BackendError("no"), KeyboardInterrupt()])
def test_a_commit_that_did_not_finish_drops_the_cache(make: Make, error: BaseException) -> None:
    def fail() -> None:
        raise error

    for interrupt in ({"before": fail}, {"after": fail}):
        backend = make()
        apply(backend, SMALL)
        with pytest.raises(type(error)):
            apply(Interrupted(backend, **interrupt), longer(SMALL, "more"))
        report = apply(backend, longer(SMALL, "more"))
        assert report.cache == "a commit did not finish"
        assert report.outcome is (Outcome.CHANGED if "before" in interrupt else Outcome.CLEAN)
        apply(backend, Ruleset())


def test_instances_share_no_cache(make: Make) -> None:
    one, other = make(), make()
    apply(one, SMALL)
    assert other.cache.snapshot is None
    assert apply(other, SMALL).cache == "nothing read yet"


# --- other writers -----------------------------------------------------------------------------------------


def test_a_writer_before_the_commit_makes_it_look_again(make: Make) -> None:
    wanted = longer(SMALL, "more")
    for other, commits, outcome in ((longer(SMALL, "x"), 1, Outcome.CHANGED), (copied(wanted), 0, Outcome.CLEAN)):
        backend = make()
        apply(backend, SMALL)
        recording = Recording(Interrupted(backend, before=writing(make, other)))
        report = apply(recording, wanted)
        assert recording.calls.count("commit") == 1 + commits
        assert (report.outcome, report.commits) == (outcome, commits)
        assert bool(report.plan) is bool(commits), "what nobody did stands in no report"
        assert_held(make, wanted)


def test_a_writer_after_the_commit_makes_it_read_everything(make: Make) -> None:
    backend = make()
    apply(backend, SMALL)
    other = edited(longer(SMALL, "more"), "remove a chain", last)
    assert other is not None
    recording = Recording(Interrupted(backend, after=writing(make, other)))
    report = apply(recording, longer(SMALL, "more"))
    assert recording.calls[-6:] == ["commit", "observe some", "observe", "compile", "commit", "observe some"]
    assert report.commits == 2
    assert_held(make, longer(SMALL, "more"))


def test_a_commit_that_was_not_alone_is_proven_by_reading_everything(make: Make) -> None:
    class Crowded(Wrapped):
        def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
            return msgspec.structs.replace(self.inner.commit(transaction, based_on=based_on), exclusive=False)

    recording = Recording(Crowded(make()))
    assert apply(recording, SMALL).commits == 1
    assert recording.calls[-2:] == ["commit", "observe"]


def test_a_family_that_was_built_anew_is_read_as_a_whole(make: Make) -> None:
    port = Set(family=Family.IPV4, name="s", elements=((5, 5),))
    before = msgspec.structs.replace(SMALL, sets=(port,))
    after = msgspec.structs.replace(SMALL, sets=(msgspec.structs.replace(port, intervals=True),))
    recording = Recording(make())
    apply(recording, before)
    report = apply(recording, after)
    assert report.plan.rebuilt
    assert recording.calls[-2:] == ["commit", "observe"]
    assert_held(make, after)


def test_a_writer_who_never_stops_ends_in_an_error(make: Make) -> None:
    class Busy(Wrapped):
        def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
            raise ConcurrentChangeError("somebody else wrote", backend="memory")

    recording = Recording(Busy(make()))
    with pytest.raises(ConcurrentChangeError, match="nothing was changed"):
        apply(recording, SMALL)
    assert recording.calls.count("commit") == ATTEMPTS + PATIENCE


def test_patience_with_others_ends_and_then_everything_is_read(make: Make) -> None:
    class Busy(Wrapped):
        def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
            if based_on is not None:
                raise ConcurrentChangeError("somebody else wrote", backend="memory")
            return self.inner.commit(transaction, based_on=None)

    recording = Recording(Busy(make()))
    report = apply(recording, SMALL)
    assert recording.calls.count("commit") == PATIENCE + 1
    assert recording.calls[-2:] == ["commit", "observe"]
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert_held(make, SMALL)


def test_who_does_not_agree_is_asked_before_anything_is_written(make: Make, kernel: MemoryKernel) -> None:
    def refuse(snapshot: Snapshot, todo: Plan) -> None:
        raise StateError(f"{snapshot.rules} rules, {len(todo.lists)} lists to change")

    recording = Recording(make())
    with pytest.raises(StateError, match=r"^0 rules, [1-9]\d* lists to change$"):
        apply(recording, SMALL, agree=refuse)
    assert "commit" not in recording.calls
    apply(recording, SMALL)
    with pytest.raises(StateError, match="0 lists to change"):
        apply(recording, copied(SMALL), agree=refuse)
    assert_held(make, SMALL)


def test_who_agreed_is_asked_again_after_a_writer_before_the_commit(make: Make) -> None:
    class Busy(Wrapped):
        def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
            assert based_on is not None, "a commit that nobody agreed to"
            raise ConcurrentChangeError("somebody else wrote", backend="memory")

    asked = []
    with pytest.raises(ConcurrentChangeError, match="nothing was changed"):
        apply(Busy(make()), SMALL, agree=lambda snapshot, todo: asked.append(len(todo.lists)))
    assert len(asked) == ATTEMPTS + PATIENCE + 1


def test_what_a_backend_compiles_nothing_for_is_named_by_its_place(make: Make) -> None:
    class Silent(Wrapped):
        def compile(self, plan: Plan) -> Transaction:
            return msgspec.structs.replace(self.inner.compile(plan), steps=())

    with pytest.raises(VerifyError, match=r"still needed:\n  ipv4 filter .*for which the backend compiles nothing"):
        apply(Silent(make()), SMALL)


def test_what_never_arrives_is_named_line_by_line(make: Make) -> None:
    wanted = longer(SMALL, "never")
    backend = make()
    apply(backend, SMALL)

    def losing(transaction: Transaction) -> Transaction:
        lines = [line for step in transaction.steps for line in step.input.splitlines()]
        return with_lines(transaction, lambda at: "never" not in lines[at])

    recording = Recording(Falsified(backend, losing, times=None))
    with pytest.raises(VerifyError) as refused:
        apply(recording, wanted)
    assert recording.calls.count("commit") == ATTEMPTS
    assert refused.value.differences == (
        "# memory-restore ipv4",
        "*filter",
        "-I meshfw:first 4 -m comment --comment never",
        "COMMIT",
    )
    assert str(refused.value).splitlines()[1:] == [f"  {line}" for line in refused.value.differences]
    report = apply(backend, wanted)
    assert (report.outcome, report.cache) == (Outcome.CHANGED, "the kernel differed after a commit")


# --- counters ----------------------------------------------------------------------------------------------


def counted(backend: MemoryBackend) -> dict[str, int]:
    return {
        held.rule.comment: held.packets
        for held in backend.observe([FIRST]).snapshot.lists[FIRST].rules
        if held.rule is not None
    }


def test_counters_of_rules_that_move_are_read_afresh(backend: Recording, make: Make, kernel: MemoryKernel) -> None:
    apply(backend, SMALL)
    kernel.count(packets=7)
    backend.calls.clear()
    report = apply(backend, turned(SMALL))
    again = ["compile", "observe some", "compile"]  # the transaction says which counters it takes along
    assert backend.calls == ["check", "fingerprint", *again, "commit", "observe some"]
    assert report.plan.moves(in_place=True) == (FIRST,)
    assert counted(make()) == {"one": 7, "two": 7, "three": 7}


def test_counters_of_a_cold_reading_are_fresh_already(make: Make, kernel: MemoryKernel) -> None:
    apply(make(), SMALL)
    kernel.count(packets=7)
    cold = Recording(make())
    apply(cold, turned(SMALL))
    assert cold.calls == ["check", "observe", "compile", "commit", "observe some"]
    assert counted(make()) == {"one": 7, "two": 7, "three": 7}


def test_a_change_that_moves_nothing_asks_for_no_counters(backend: Recording, make: Make, kernel: MemoryKernel) -> None:
    apply(backend, SMALL)
    kernel.count(packets=7)
    backend.calls.clear()
    assert apply(backend, longer(SMALL, "more")).plan.moves(in_place=True) == ()
    assert backend.calls == ["check", "fingerprint", "compile", "commit", "observe some"]
    assert counted(make()) == {"one": 7, "two": 7, "three": 7, "more": 0}


def test_a_writer_beside_the_reading_of_counters_is_noticed(make: Make) -> None:
    class Disturbed(Wrapped):
        disturb: Callable[[], None] | None = None

        def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
            disturb, self.disturb = self.disturb, None
            if disturb is not None and keys is not None:
                disturb()
            return self.inner.observe(keys)

    disturbed = Disturbed(make())
    apply(disturbed, SMALL)
    other = edited(SMALL, "remove a chain", last)
    assert other is not None
    disturbed.disturb = writing(make, other)
    recording = Recording(disturbed)
    report = apply(recording, turned(SMALL))
    assert recording.calls == [
        "check",
        "fingerprint",
        "compile",
        "observe some",
        "observe",
        "compile",
        "commit",
        "observe some",
    ]
    assert report.commits == 1
    assert_held(make, turned(SMALL))


# --- everything together -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_is_made_and_undone_with_the_cache_alone(backend: Recording, make: Make, name: str) -> None:
    before = sample(LANGUAGE)
    after = edited(before, name, middle)
    assert after is not None
    apply(backend, before)
    for ruleset in (after, before):
        backend.calls.clear()
        report = apply(backend, ruleset)
        assert (report.outcome, report.cache, report.commits) == (Outcome.CHANGED, "hit", 1)
        assert ("observe" in backend.calls) is bool(report.plan.rebuilt)
        assert_held(make, ruleset)


def test_a_reading_that_was_never_at_rest_is_not_called_proven(make: Make) -> None:
    class Restless(Wrapped):
        def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
            return Observed(super().observe(keys).snapshot, None)

    backend = Restless(make())
    report = apply(backend, SMALL)
    assert any("others kept writing" in warning for warning in report.warnings)
    again = apply(backend, SMALL)
    assert (again.outcome, again.cache) == (Outcome.CLEAN, "no fingerprint"), "nothing was served from the cache"
