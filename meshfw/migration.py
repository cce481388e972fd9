"""Moving a live host from one backend to another, make-before-break: no packet meets less than all of the rules.

The order is what makes it safe. What is moved is written to a journal; the new backend gets it, proves it, and is read
once more by another instance that knows nothing; the journal says so; only then the old backend is cleaned. Between the
first and the last of these each packet meets both copies, which is what :mod:`meshfw.doubling` tells of. A kill leaves
the journal, and rules in one backend or in both: the same command goes on from there, and ``--to`` the old backend goes
back. Whatever else ends it is put back: the new backend's rules go, and the old one's stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from meshfw import reconcile
from meshfw.agent.control import refuse_second
from meshfw.applying import state_of
from meshfw.backend import Backend, Outcome, Report, Unsupported
from meshfw.backends import remembered
from meshfw.backends.instance import only_writer
from meshfw.doubling import Doubled, doubled
from meshfw.errors import BackendError, HalfMigratedError, MeshfwError, MigrationError, StateError
from meshfw.hookspecs import BackendPlugin
from meshfw.model import Accept, Place, Policy, Ruleset
from meshfw.plugins import AUTO, Sighting, room, standing, unavailable
from meshfw.probe import Probe
from meshfw.safety.moving import Journal, Moving, find_moving, journal_of
from meshfw.safety.settling import require_settled
from meshfw.states import digest, format_state, parse_state
from meshfw.wanted import matters
from meshfw.workshop import Workshop

if TYPE_CHECKING:
    from meshfw.safety.probing import Failure

STOP_AGENT: Final = (
    "it would keep them in the old backend: stop it, migrate, and start it again; the rules stay in place"
)
_FORCE: Final = "--force goes on all the same"


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a move would do.

    ``sources`` are the backends that would be left, none where there is nothing to move. ``ruleset`` is as declared.
    ``differences`` are what becomes of packets otherwise, beside what ``doubles``; ``resumed`` is whether a move that
    is half done would be brought to its end, or back.
    """

    sources: tuple[str, ...]
    target: str
    ruleset: Ruleset = Ruleset()
    doubles: tuple[Doubled, ...] = ()
    differences: tuple[str, ...] = ()
    resumed: bool = False
    agreed: bool = False
    """Whether it's one of the two ways out of a move that is half done, which was agreed to when it began."""

    @property
    def refused(self) -> bool:
        """Whether it is done only by force."""
        return not self.agreed and (bool(self.differences) or any(item.alters for item in self.doubles))

    @property
    def rules(self) -> int:
        """How many rules are moved, of both families."""
        return sum(len(chain.rules) for chain in self.ruleset.chains)


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A move that was done: the report of each backend, the new one's first, and the state's number in the history."""

    prospect: Prospect
    reports: tuple[Report, ...] = ()
    number: int = 0


def foresee(shop: Workshop) -> Prospect:
    """What :func:`migrate` would do now; reads the kernel and writes nothing. Errors are the same."""
    with ExitStack() as stack:
        return _Move(shop, stack).prospect()


def migrate(
    shop: Workshop, *, timeout: float, force: bool = False, tell: Callable[[Prospect], None] = lambda _: None
) -> Moved:
    """Move the owner's rules to the backend that the workshop was told of, out of any other in which they stand.

    ``tell`` hears what will be done before anything is written.

    Raises:
        AgentError: an agent keeps the rules. ConfigError: the configuration would lead elsewhere the next time.
        MigrationError: nothing can be moved, what stands isn't what is declared, or it failed and was put back.
        HalfMigratedError: it failed and couldn't be put back.
        MeshfwError: as a source, a backend's check or the lock says; nothing was written.
    """
    refuse_second(shop.config.owner, shop.site.netns, STOP_AGENT)
    with only_writer(shop.site, timeout=timeout), ExitStack() as stack:
        refuse_second(shop.config.owner, shop.site.netns, STOP_AGENT)  # one that started while this waited
        require_settled(shop.site, shop.warnings)
        move = _Move(shop, stack)
        prospect = move.prospect()
        tell(prospect)
        if prospect.refused and not force:
            raise MigrationError("what is listed makes packets fare otherwise; nothing was changed", remedy=_FORCE)
        return move.carry_out(prospect)


class _Move:
    """One move, with the backends that take part open as long as the stack."""

    def __init__(self, shop: Workshop, stack: ExitStack) -> None:
        self._shop = shop
        self._stack = stack
        self._journal: Journal = journal_of(shop.site)
        self._moving = find_moving(shop, self._journal)
        self._target: BackendPlugin = shop.offer
        self._probes: tuple[Probe, ...] = ()
        self._old: list[tuple[BackendPlugin, Backend]] = []
        self._new: Backend

    # --- what is to be done ---

    def prospect(self) -> Prospect:
        """What is to be moved, from where, and what comes of it."""
        shop, name = self._shop, self._target.name
        self._check_configured()
        own = [item for item in shop.everywhere if item.presence.own]
        if self._moving is not None and not own and not shop.unread():
            self._moving = None  # of another namespace that had this one's number: nothing of it stands here
        sources = self._sources(own)
        if not sources:
            if not any(room(item.offer) == room(self._target) for item in own):
                if (why := unavailable(self._target)) is not None:  # who may not look saw none
                    raise BackendError(why, backend=name)
                raise MigrationError(
                    f"no rules of {shop.config.owner} stand in any backend",
                    remedy=f"{shop.command('apply')} puts the declared ones in place",
                )
            return Prospect(sources=(), target=name)
        self._new = self._opened(self._target)
        if not self._new.capabilities.kernel:
            raise MigrationError(
                f"no packet meets the rules of {name}, so the host would be left without any",
                remedy=f"{shop.command('clean --all-backends')} takes them away, if that's meant",
            )
        self._old = [(offer, self._opened(offer)) for offer in sources]
        shop.warn_unread(self._new)
        ruleset = self._ruleset()
        fitted = shop.fitted(ruleset, self._new)
        shop.warnings += [text for text in reconcile.checked(self._new, fitted)[1] if text not in shop.warnings]
        return Prospect(
            sources=tuple(offer.name for offer in sources),
            target=name,
            ruleset=ruleset,
            doubles=doubled(fitted, shop.formatter),
            differences=tuple(str(item) for item in (*self._lacking(ruleset, fitted), *self._differences(fitted))),
            resumed=self._moving is not None,
            agreed=self._moving is not None and name in (self._moving.target, *self._moving.sources),
        )

    def _check_configured(self) -> None:
        """Refuse while the configuration says, or auto would take, another backend than the new one."""
        config, name = self._shop.config, self._target.name
        if config.backend == AUTO and self._target.automatic is None:
            raise config.error(
                f"auto never takes {name}, so the next apply would go elsewhere", key="backend", expected=f'"{name}"'
            )
        if config.backend not in (AUTO, name):
            raise config.error(
                f'"{config.backend}" is where the next apply would go: change that line before moving to {name}',
                key="backend",
                expected=f'"{name}" or "{AUTO}"',
            )

    def _sources(self, own: Sequence[Sighting]) -> list[BackendPlugin]:
        """The backends to be left: where rules of ours stand beside the new one's, and those of a move half done."""
        plugins, found = self._shop.plugins, dict[str, BackendPlugin]()
        for item in standing(own, beside=self._target):
            found.setdefault(room(item.offer), item.offer)  # two backends of one place see the same rules
        if self._moving is not None:
            for name in (*self._moving.sources, self._moving.target):
                offer = plugins.backend(name, key="the backend of a move half done")
                if room(offer) != room(self._target):
                    found.setdefault(room(offer), offer)
        elif len(found) > 1:
            names = [offer.name for offer in found.values()]
            ways = ", ".join(self._shop.command(f"clean --backend {name}") for name in names)
            raise MigrationError(
                f"rules stand in {' and in '.join(names)}", remedy=f"clean all but one of them: {ways}"
            )
        return list(found.values())

    def _opened(self, offer: BackendPlugin) -> Backend:
        return self._stack.enter_context(self._shop.backend(offer))

    def _ruleset(self) -> Ruleset:
        """What is moved: that of a move half done, or what is declared or held, as the old backend has to hold it."""
        shop = self._shop
        if self._moving is not None:
            return parse_state(self._moving.rules.encode(), shop.language, owner=shop.config.owner).ruleset
        ruleset = shop.rules()
        hold = shop.history.held()
        if hold is not None and hold.against == digest(ruleset):
            ruleset = shop.history.load(hold.number).ruleset
        for offer, backend in self._old:
            pending = len(list(reconcile.plan(backend, shop.fitted(ruleset, backend)).edits(shop.formatter)))
            if pending:
                raise MigrationError(
                    f"what stands in {offer.name} is {pending} changes away from what is declared",
                    remedy=f"{shop.command(f'apply --backend {offer.name}')} first, then migrate",
                )
        return ruleset

    def _lacking(self, ruleset: Ruleset, fitted: Ruleset) -> Iterator[Unsupported]:
        """The families that an old backend holds rules of and the new one can't."""
        for offer, backend in self._old:
            held = self._shop.fitted(ruleset, backend)
            for family in sorted(family for family in held.families - fitted.families if matters(held, family)):
                told = f"{self._target.name} has no {family}, so its packets would meet no rule of ours any more"
                yield Unsupported(f"what stands in {offer.name} for {family}", told)

    def _differences(self, ruleset: Ruleset) -> Iterator[Unsupported]:
        """What others' rules make of ours in one of the backends and not in the other."""
        decisive = sorted(set(_decisive(ruleset)))
        seen = {item.offer.name: item for item in self._shop.everywhere}
        ends = [(self._target, self._new), *self._old]
        if not decisive or len({backend.capabilities.foreign_accept_wins for _, backend in ends}) < 2:
            return
        for offer, backend in ends:
            others = seen[offer.name].presence.others if offer.name in seen else ""
            if backend.capabilities.foreign_accept_wins and others:
                yield Unsupported(
                    f"others have {others} by {offer.name}",
                    f"there what decides first ends the hook, elsewhere a drop of anybody's wins: {decisive[0]}",
                )

    # --- doing it ---

    def carry_out(self, prospect: Prospect) -> Moved:
        """Do it, or put back what was done."""
        if not prospect.sources:
            self._end()
            return Moved(prospect=prospect)
        self._probes = self._working()
        moving = self._record(prospect)
        self._journal.keep(moving)
        try:
            reports = [self._made(prospect.ruleset)]
            self._ask_again("with both backends")
            self._journal.keep(msgspec.structs.replace(moving, proven=True))
            refuse_second(moving.owner, self._shop.site.netns, STOP_AGENT)  # one that began before the journal did
            reports += [self._emptied(offer, backend) for offer, backend in self._old]
            reports += self._stand_still(prospect.ruleset)
            self._ask_again(f"with {prospect.target} alone")
        except BaseException as error:
            self._put_back(prospect.ruleset, error)
            raise
        number = self._recorded(prospect)
        self._end()
        return Moved(prospect=prospect, reports=tuple(reports), number=number)

    def _record(self, prospect: Prospect) -> Moving:
        shop = self._shop
        state = state_of(shop, self._new, prospect.ruleset, _reason(prospect))
        return Moving(
            owner=shop.config.owner,
            boot=self._journal.boot,
            sources=prospect.sources,
            target=prospect.target,
            begun=time.time(),
            rules=format_state(state, shop.language).decode(),
        )

    def _made(self, ruleset: Ruleset) -> Report:
        """The new backend holds the rules, by its own proof and by that of an instance that knows nothing."""
        shop = self._shop
        fitted = shop.fitted(ruleset, self._new)
        report = reconcile.apply(self._new, fitted)
        self._require(self._target, fitted)
        return report

    def _emptied(self, offer: BackendPlugin, backend: Backend) -> Report:
        report = reconcile.apply(backend, Ruleset())
        self._require(offer, Ruleset())
        return report

    def _stand_still(self, ruleset: Ruleset) -> Iterator[Report]:
        """The report of putting back what somebody took from the new backend since it was proven, if anybody did."""
        shop, name = self._shop, self._target.name
        report = reconcile.apply(self._new, shop.fitted(ruleset, self._new))
        if report.outcome is Outcome.CHANGED:
            shop.warnings.append(f"somebody changed the rules in {name} meanwhile: they were put back")
            yield report

    def _require(self, offer: BackendPlugin, ruleset: Ruleset) -> None:
        with self._shop.backend(offer) as other:
            left = list(reconcile.plan(other, ruleset).edits(self._shop.formatter))
        if left:
            raise MigrationError(f"{offer.name} doesn't hold what it was given: {left[0]}, and {len(left) - 1} more")

    def _put_back(self, ruleset: Ruleset, error: BaseException) -> None:
        """The old backends hold the rules, and the new one none.

        Raises:
            HalfMigratedError: that can't be done; the journal stays.
        """
        shop = self._shop
        try:
            for _, backend in self._old:
                reconcile.apply(backend, shop.fitted(ruleset, backend), stood=True)
            self._emptied(self._target, self._new)
            self._journal.over()
        except MeshfwError as failed:
            told = "it was interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            again = shop.command(f"migrate --to {self._target.name}")
            raise HalfMigratedError(
                f"{told}\n  and that couldn't be put back: {failed}", remedy=f"{again} again"
            ) from error

    # --- what has to answer ---

    def _working(self) -> tuple[Probe, ...]:
        """The probes that succeed now: one that fails already says nothing about the move."""
        failed = self._failures(self._shop.config.safety.probes)
        self._shop.warnings += [
            f"not asked after the move, since it fails before it already: {item}" for item in failed
        ]
        bad = {item.probe for item in failed}
        return tuple(probe for probe in self._shop.config.safety.probes if probe not in bad)

    def _failures(self, probes: tuple[Probe, ...]) -> tuple[Failure, ...]:
        if not probes:
            return ()
        from meshfw.safety.probing import failures

        return failures(self._shop.config.safety, probes, self._shop.site.netns)

    def _ask_again(self, when: str) -> None:
        failed = self._failures(self._probes)
        if failed:
            raise MigrationError(f"{when} a probe fails that worked before: {'; '.join(map(str, failed))}")

    # --- what is left for the next one ---

    def _recorded(self, prospect: Prospect) -> int:
        """The number of the state in the history; a rollback's hold stays, of what is now in the new backend."""
        shop, history = self._shop, self._shop.history
        if history.why_not:
            return 0
        try:
            hold = history.held()
            number = history.record(state_of(shop, self._new, prospect.ruleset, _reason(prospect)))
            if hold is not None and digest(history.load(hold.number).ruleset) == digest(prospect.ruleset):
                history.hold(number, against=hold.against)
            else:  # of something else than what stands: it was over already
                history.release()
        except StateError as error:
            shop.warnings.append(f"after a reboot the rules may come back in the old backend: {error}")
            return 0
        return number

    def _end(self) -> None:
        """Have auto take the new backend from now on, and the move be over."""
        shop = self._shop
        if shop.config.backend == AUTO:
            why_not = remembered.remember(shop.config.owner, shop.site.netns, self._target.name)
            if why_not:
                shop.notes.append(f"not remembered for the next time: {why_not}")
        self._journal.over()


def _reason(prospect: Prospect) -> str:
    return f"moved from {' and '.join(prospect.sources)} to {prospect.target}"


def _decisive(ruleset: Ruleset) -> Iterator[str]:
    """Where a ruleset decides for others: it accepts, or what is attached behind theirs drops."""
    for chain in ruleset.chains:
        for number, rule in enumerate(chain.rules, 1):
            if isinstance(rule.target, Accept):
                yield f"{chain.family} {chain.table} {chain.name} rule {number} accepts"
    for item in ruleset.attachments:
        where = f"{item.family} {item.table} {item.hook}"
        if item.policy is Policy.ACCEPT:
            yield f"the policy of {item.chain} on {where} accepts"
        if item.place is Place.LAST:
            yield f"{item.chain} stands last on {where}"
