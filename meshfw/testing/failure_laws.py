"""The law book, fourth part: what holds when a commit fails, is interfered with, or does not do what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from meshfw.backend import Backend, Outcome, Transaction
from meshfw.errors import BackendError, ConcurrentChangeError, UnsupportedError
from meshfw.model import Ruleset
from meshfw.plan import diff
from meshfw.reconcile import apply
from meshfw.testing.edits import all_edits, edited, first, last
from meshfw.testing.lab import Case, Lab, law, needs_fingerprint, not_all, refused, without_fingerprint
from meshfw.testing.rulesets import compact, compact_changed
from meshfw.testing.wrapping import Falsified, Interrupted, transaction_lines, with_lines

GARBAGE: Final = "this is no command of any rule language"
_CUTS: Final = 6
"""In how many places of a transaction it is cut off."""


def _steps(lab: Lab) -> tuple[tuple[Ruleset, Ruleset], ...]:
    """What the laws about lines go from and to: everything comes, everything changes, everything goes."""
    one, other = compact(lab.families), compact_changed(lab.families)
    return (Ruleset(), one), (one, other), (other, Ruleset())


@law(needs_fingerprint)
def stale_commit_is_refused(lab: Lab, case: Case) -> None:
    """A commit based on an old fingerprint is refused and writes nothing, or admits that it may not be alone."""
    backend = lab.backend()
    apply(backend, case.one)
    observed = backend.observe()
    transaction = backend.compile(diff(observed.snapshot, lab.meant(case.other)))
    intruder = edited(case.one, "delete a rule", first) or Ruleset()
    lab.changed(intruder)
    try:
        committed = backend.commit(transaction, based_on=observed.fingerprint)
    except ConcurrentChangeError:
        lab.assert_held(intruder)
    else:
        assert not committed.exclusive, "somebody wrote since the fingerprint, and the commit calls itself exclusive"
    with lab.instance() as insisting:
        late = insisting.compile(diff(insisting.observe().snapshot, lab.meant(case.one)))
        exclusive = insisting.commit(late, based_on=None).exclusive
    assert not exclusive, "a commit based on nothing can't know that nobody wrote, and calls itself exclusive"
    lab.assert_held(case.one)


@law(eases=(without_fingerprint,))
def intruder_is_noticed(lab: Lab, case: Case) -> None:
    """Whoever writes just before or just after our commit, the apply ends with what was declared."""
    target = edited(case.one, "edit a rule in place", first)
    assert target is not None
    for name in ("delete a rule", "remove a chain", "add a chain", "detach a chain", "remove everything"):
        intruder = edited(case.one, name, last)
        if intruder is None:
            continue
        for when in ("before", "after"):
            interrupt: Callable[[], None] = partial(lab.changed, intruder)
            with lab.instance() as backend:
                apply(backend, case.one)
                error = refused(partial(apply, Interrupted(backend, **{when: interrupt}), target))
                # Without a fingerprint a commit can't know that it's late, but it must not say that all is well.
                assert error is None or not lab.has_fingerprint, f"{name} {when} the commit: {error}"
                if error is not None:
                    apply(backend, target)
            problems = lab.planned(target)
            assert not problems, f"{name} {when} the commit:\n{lab.described(problems)}"
            lab.assert_held(target)


def _crash() -> None:
    raise BackendError("a law ends it here")


@law()
def failure_leaves_old_or_new(lab: Lab, case: Case) -> None:
    """A commit that fails leaves everything as it was, even if its last line alone is refused; the next one works."""
    for old, new in ((Ruleset(), case.one), (case.one, case.other), *_steps(lab)):
        backend = lab.backend()
        apply(backend, old)
        broken = Falsified(backend, lambda transaction: with_lines(transaction, lambda _at: True, extra=GARBAGE))
        assert refused(partial(apply, broken, new)) is not None, "a line that is no command was taken"
        lab.assert_held(old)
        assert refused(partial(apply, Interrupted(backend, before=_crash), new)) is not None
        lab.assert_held(old)
        apply(backend, new)
        lab.assert_held(new)


@law()
def success_that_looks_like_failure_is_adopted(lab: Lab, case: Case) -> None:
    """After a commit that worked and then reported an error the next apply finds everything done."""
    for warm in (False, True):
        lab.changed(case.one)
        with lab.instance() as backend:
            if warm:
                apply(backend, case.one)
            assert refused(partial(apply, Interrupted(backend, after=_crash), case.other)) is not None
            lab.assert_held(case.other)
            assert apply(backend, case.other).outcome is Outcome.CLEAN, "what was done is done again"


@law()
def cut_off_commit_is_mended(lab: Lab, case: Case) -> None:
    """Wherever a commit was cut off, the next apply converges: nothing lost, nothing doubled."""
    for old, new in (*_steps(lab), (case.one, case.other)):
        lab.changed(old)
        count = len(transaction_lines(_transaction(lab, new)))
        for cut in sorted({count * part // _CUTS for part in range(_CUTS)}):
            with lab.instance() as backend:
                apply(backend, old)
                short = Falsified(backend, partial(with_lines, keep=partial(_is_before, cut)))
                refused(partial(apply, Interrupted(short, after=_crash), new))
                _mend(lab, backend, new)


def _mend(lab: Lab, backend: Backend, ruleset: Ruleset) -> None:
    """Converge after a failure; a backend may refuse, by name, what has lost its mark, where it can be wiped off."""
    error = refused(partial(apply, backend, ruleset))
    if error is None:
        lab.assert_held(ruleset)
    elif lab.wipe is not None and isinstance(error, UnsupportedError):
        lab.wipe()
    else:
        raise error


def _is_before(cut: int, at: int) -> bool:
    return at < cut


def _is_not(line: int, at: int) -> bool:
    return at != line


def _transaction(lab: Lab, ruleset: Ruleset) -> Transaction:
    with lab.instance() as backend:
        return backend.compile(diff(backend.observe().snapshot, lab.meant(ruleset)))


@law(eases=(not_all,))
def dropped_line_is_caught(lab: Lab, _case: Case) -> None:
    """Whichever line a transaction loses on its way, no apply says that all is well when it isn't."""
    for old, new in _steps(lab):
        lab.changed(old)
        lines = transaction_lines(_transaction(lab, new))
        for index, line in lab.some(enumerate(lines)):
            for times in (1, None):
                with lab.instance() as backend:
                    apply(backend, old)
                    lossy = Falsified(backend, partial(with_lines, keep=partial(_is_not, index)), times=times)
                    error = refused(partial(apply, lossy, new))
                    if error is None:
                        problems = lab.planned(new)
                        assert not problems, f"without {line!r} all is said to be well:\n{lab.described(problems)}"
                    _mend(lab, backend, new)


@law()
def what_is_printed_is_what_runs(lab: Lab, case: Case) -> None:
    """A transaction's lines are all there is to it: without them nothing happens, with them any instance can run it."""
    backend, other = lab.backend(), lab.backend()
    apply(backend, case.one)
    transaction = _transaction(lab, case.other)
    assert transaction_lines(transaction), "the law has nothing to run"
    silent = msgspec.structs.replace(transaction, steps=())
    refused(partial(backend.commit, silent, based_on=backend.observe().fingerprint))
    lab.assert_held(case.one)
    other.commit(transaction, based_on=other.observe().fingerprint)
    lab.assert_held(case.other)


@law(eases=(not_all,))
def every_change_is_made_in_one_go(lab: Lab, case: Case) -> None:
    """From any state to any other takes one commit."""
    backend = lab.backend()
    apply(backend, case.one)
    for name, changed in lab.some(all_edits(case.one).items()):
        needed = int(lab.differ(case.one, changed))
        for ruleset in (changed, case.one):
            report = apply(backend, ruleset)
            assert report.commits == needed, f"{name} took {report.commits} commits, not {needed}"


LAWS: Final = (
    stale_commit_is_refused,
    intruder_is_noticed,
    failure_leaves_old_or_new,
    success_that_looks_like_failure_is_adopted,
    cut_off_commit_is_mended,
    dropped_line_is_caught,
    what_is_printed_is_what_runs,
    every_change_is_made_in_one_go,
)
"""The fourth part of the book."""
