"""Plan and apply: the whole algorithm. Look, compare, commit, and prove by looking again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshfw.backend import Backend, Narrowing, Observed, Outcome, Report, Unsupported
from meshfw.errors import ConcurrentChangeError, MeshfwError, UnsupportedError, VerifyError
from meshfw.expansion import expand
from meshfw.model import Ruleset
from meshfw.plan import Plan, diff
from meshfw.proofs import Proofs
from meshfw.snapshot import Snapshot

ATTEMPTS: Final = 4
"""Tries before giving up on a kernel that keeps differing (another writer, or a defect)."""
PATIENCE: Final = 4
"""Commits put off because somebody wrote in between. Then one is made all the same: whoever writes that often mostly
writes rules of his own; such a commit is never exclusive, so all of ours is read behind it."""
KEPT: Final = "kept"
"""What a report says of the cache where a proof of an earlier process held."""


def plan(backend: Backend, ruleset: Ruleset, *, proofs: Proofs | None = None) -> Plan:
    """What ``apply`` would change now; reads the kernel and writes nothing there.

    With ``proofs`` no rule is read where an earlier process proved that there is nothing to change.

    Raises:
        UnsupportedError: the backend can't express the ruleset.
    """
    wanted, _ = checked(backend, ruleset)
    if _is_proven(backend, wanted, proofs, declared=ruleset):
        return Plan(desired=wanted)
    observed, found = _compared(backend, wanted)
    if proofs is not None and not found:
        proofs.keep(backend, wanted, observed.fingerprint)
    return found


def compared(backend: Backend, ruleset: Ruleset) -> tuple[Snapshot, Plan]:
    """What the kernel holds now, and what ``apply`` would change of it; as :func:`plan`."""
    observed, found = _compared(backend, checked(backend, ruleset)[0])
    return observed.snapshot, found


def _compared(backend: Backend, wanted: Ruleset) -> tuple[Observed, Plan]:
    observed, *_ = _look(backend)
    return observed, _difference(backend, observed, wanted)


Agree = Callable[[Snapshot, Plan], None]
"""Raises where a plan must not be carried out on what the kernel holds."""


def apply(
    backend: Backend,
    ruleset: Ruleset,
    *,
    agree: Agree | None = None,
    before: Callable[[Snapshot], None] | None = None,
    stood: bool = False,
    proofs: Proofs | None = None,
) -> Report:
    """Make the kernel hold the ruleset, and prove it.

    ``agree`` is asked before each commit until one is made; nothing was written when it raises. Nobody asks it where
    the last report still stands. ``before`` is told what the kernel holds, once and before anything is written; nothing
    is if it raises. ``stood`` says of a ruleset that it stood there: what the backend now has against it is a warning.
    With ``proofs`` what is proven is kept for later processes, and where an earlier one's holds no rule is read, unless
    somebody is to ``agree``.

    Raises:
        UnsupportedError: the backend can't express it; nothing was written.
        BackendError: a commit failed; what the backend's atomicity promises holds, and the next call converges.
        ConcurrentChangeError: somebody else wrote before every commit; nothing was written.
        VerifyError: the kernel still differs after several commits.
    """
    report = idle(backend, ruleset)
    if report is not None:
        return report
    wanted, warnings = checked(backend, ruleset, stood=stood)
    if agree is None and _is_proven(backend, wanted, proofs, declared=ruleset):
        return Report(outcome=Outcome.IDLE, backend=backend.name, cache=KEPT, warnings=warnings)
    observed, reason, known = _look(backend)
    first = todo = _difference(backend, observed, wanted)
    if agree is not None:
        agree(observed.snapshot, todo)
    if todo and before is not None:
        before(observed.snapshot)
    commits = refusals = 0
    notes: list[str] = []
    while todo:
        if commits == ATTEMPTS or refusals == ATTEMPTS + PATIENCE:
            raise _given_up(backend, todo, commits)
        fresh = commits == refusals == 0
        insist = refusals >= PATIENCE and agree is None  # nobody has agreed to what such a commit meets
        observed, committed = _commit(
            backend, observed, todo, wanted, cached=fresh and known, insist=insist, notes=notes
        )
        commits += committed
        refusals += not committed
        todo = _difference(backend, observed, wanted)
        if agree is not None and not commits:
            agree(observed.snapshot, todo)
    if observed.fingerprint is None and backend.fingerprint() is not None:
        notes.append("others kept writing while the rules were read: what was read may be of several moments")
    _settle(backend, observed, wanted, declared=ruleset, proofs=proofs)
    return Report(
        outcome=Outcome.CHANGED if commits else Outcome.CLEAN,
        backend=backend.name,
        cache=reason,
        plan=first if commits else todo,
        commits=commits,
        warnings=(*warnings, *notes),
    )


def _given_up(backend: Backend, todo: Plan, commits: int) -> MeshfwError:
    """What apply ends with where the kernel keeps differing, or where nobody lets it write; nothing is known then."""
    backend.cache.drop("the kernel differed after a commit")
    if not commits:
        return ConcurrentChangeError("somebody else keeps writing; nothing was changed", backend=backend.name)
    needed = str(backend.compile(todo)).splitlines()
    if not needed:  # a backend that compiles nothing for what differs
        differing = [*(str(change.key) for change in todo.lists), *(" set ".join(change.key) for change in todo.sets)]
        needed = [f"{place}, for which the backend compiles nothing" for place in differing]
    return VerifyError(needed, backend=backend.name)


def idle(backend: Backend, ruleset: Ruleset) -> Report | None:
    """The report of a reconcile that finds nothing to do by the fingerprint alone; None where more has to be looked at.

    True of this very ruleset object only: to find that another one equals it takes as long as a comparison of all.
    """
    cache = backend.cache
    if ruleset is not cache.ruleset or cache.report is None:
        return None
    fingerprint = backend.fingerprint()
    return cache.report if fingerprint is not None and fingerprint == cache.fingerprint else None


def checked(backend: Backend, ruleset: Ruleset, *, stood: bool = False) -> tuple[Ruleset, tuple[str, ...]]:
    """The ruleset as the backend is to hold it, without sets where it has none, and the backend's warnings about it.

    The backend is asked about what it will get, so its findings count rules as the plan does; what can't be expanded is
    named by the declared rule. Nothing is read or written.

    Raises:
        UnsupportedError: the backend can't express the ruleset, and it isn't said to have stood there.
    """
    if not backend.capabilities.native_sets:
        expansion = backend.cache.expansion = expand(ruleset, backend.cache.expansion)
        if expansion.problems:
            raise UnsupportedError(backend.name, [Unsupported(where, reason) for where, reason in expansion.problems])
        ruleset = expansion.ruleset
    findings = backend.check(ruleset)
    refused = [finding for finding in findings if finding.refuses]
    if refused and not stood:
        raise UnsupportedError(backend.name, refused)
    return ruleset, tuple(str(finding) for finding in findings)


def _is_proven(backend: Backend, wanted: Ruleset, proofs: Proofs | None, *, declared: Ruleset) -> bool:
    """Whether an earlier process proved what the kernel holds now; then its fingerprint stands for it from now on.

    Nobody asks for it who has read the rules himself.
    """
    cache = backend.cache
    if proofs is None or cache.snapshot is not None:
        return False
    proven = proofs.find(backend, wanted)
    if proven is None:
        return False
    if proven.fingerprint is not None:
        cache.fingerprint, cache.ruleset = proven.fingerprint, declared
        cache.report = Report(outcome=Outcome.IDLE, backend=backend.name, cache="hit")
    return True


def _difference(backend: Backend, observed: Observed, wanted: Ruleset) -> Plan:
    """The plan from what was seen to what is wanted; a list that somebody else made under a wanted name is refused."""
    found = diff(observed.snapshot, wanted)
    strangers = observed.snapshot.strangers
    if strangers:
        refused = [
            Unsupported(str(change.key), f"{strangers[change.key]} is somebody else's: {_STRANGER}")
            for change in found.lists
            if change.key in strangers
        ]
        if refused:
            raise UnsupportedError(backend.name, refused)
    return found


_STRANGER: Final = (
    "remove it, take another owner, or say adopt = true under the backend's options to have it taken over"
)


def _look(backend: Backend) -> tuple[Observed, str, bool]:
    """What the kernel holds, ``hit`` or why it was read, and whether any of it is from the cache.

    It's all from the cache while its fingerprint stands, and else as far as the backend can tell what still stands.
    """
    cache = backend.cache
    if cache.snapshot is None or cache.fingerprint is None:
        return backend.observe(), cache.reason, False
    known, since, fingerprint = cache.snapshot, cache.fingerprint, backend.fingerprint()
    if fingerprint == since:
        return Observed(known, fingerprint), "hit", True
    cache.drop("the kernel changed" if fingerprint is not None else "no fingerprint")
    moved = backend.moved(since) if isinstance(backend, Narrowing) else None
    if moved is not None:
        part = backend.observe(moved)
        if part.fingerprint == fingerprint:
            return Observed(known.updated(part.snapshot, moved), fingerprint), cache.reason, True
    return backend.observe(), cache.reason, False


def _commit(
    backend: Backend, observed: Observed, todo: Plan, ruleset: Ruleset, *, cached: bool, insist: bool, notes: list[str]
) -> tuple[Observed, bool]:
    """Commit a plan and read what came of it, the touched lists or everything; and whether anything was committed."""
    transaction = backend.compile(todo)
    if cached and transaction.rewrites:
        # Rules that are written again take their counters along, and a cached snapshot's are old.
        part = backend.observe(transaction.rewrites)
        if part.fingerprint != observed.fingerprint:
            return backend.observe(), False
        observed = Observed(observed.snapshot.updated(part.snapshot, transaction.rewrites), part.fingerprint)
        todo = diff(observed.snapshot, ruleset)
        transaction = backend.compile(todo)
    backend.cache.drop("a commit did not finish")
    try:
        committed = backend.commit(transaction, based_on=None if insist else observed.fingerprint)
    except ConcurrentChangeError:
        return backend.observe(), False
    notes.extend(transaction.notes)
    if not committed.exclusive or todo.rebuilt:
        return backend.observe(), True
    part = backend.observe(todo.keys)
    if part.fingerprint != committed.fingerprint:
        return backend.observe(), True
    return Observed(observed.snapshot.updated(part.snapshot, todo.keys), part.fingerprint), True


def _settle(backend: Backend, observed: Observed, wanted: Ruleset, *, declared: Ruleset, proofs: Proofs | None) -> None:
    """Remember what was proven: the snapshot, now known to equal the wanted ruleset's own values."""
    cache = backend.cache
    cache.snapshot = observed.snapshot.adopted(wanted)
    cache.fingerprint = observed.fingerprint
    cache.ruleset = declared
    cache.reason = "hit" if observed.fingerprint is not None else "no fingerprint"
    cache.report = Report(outcome=Outcome.IDLE, backend=backend.name, cache="hit")
    if proofs is not None:
        proofs.keep(backend, wanted, observed.fingerprint)
