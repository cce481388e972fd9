"""What ends a trial: the change is confirmed, or the state before it is applied again, from the record alone.

An undone change's declaration is held off (:mod:`meshfw.history`), or whoever keeps the rules in place would make it
again. Everything here is done under the instance lock, which the caller holds, and may be done twice: what the kernel
holds already costs no write.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Report, Site
from meshfw.backends.instance import namespace_of
from meshfw.config import Config, SourceTable
from meshfw.errors import ConfigError, MeshfwError, PendingError, PluginError, StateError
from meshfw.extensions.language import Language
from meshfw.history import History
from meshfw.model import Ruleset
from meshfw.safety.pending import Pending, Register, Undone, at, of_other_boots, register_of
from meshfw.states import parse_state
from meshfw.workshop import Workshop

OVERDUE: Final = "it wasn't confirmed in time"
ASKED: Final = "it was asked for"
RESTARTED: Final = "the machine was restarted before it was confirmed"


class _There(msgspec.Struct, frozen=True, kw_only=True):
    """Where a workshop works, when a record rather than a command line says so."""

    backend: str
    netns: str | None
    config: str | None = None


class Undoing:
    """All that undoing one pending change takes, made ready beforehand; ``netns`` is how its namespace is called now.

    Raises:
        StateError, PluginError, ConfigError: the record asks for what isn't there any more.
    """

    def __init__(self, register: Register, pending: Pending, *, netns: str | None) -> None:
        self.register = register
        self.pending = pending
        self._shop = _workshop(pending, netns)
        self._ruleset = parse_state(pending.before.encode(), self._shop.language, owner=pending.owner).ruleset

    @property
    def site(self) -> Site:
        """Where and as whom it is done."""
        return self._shop.site

    def rehearse(self) -> None:
        """Do all of it but the writing, so that what would fail does so now, and all code is loaded."""
        with self._shop.backend() as backend:
            reconcile.checked(backend, self._ruleset, stood=True)
            backend.observe()

    def carry_out(self, reason: str) -> Undone:
        """Put the old state back, hold the declaration off, and take the record away."""
        with self._shop.backend() as backend:
            put_back(backend, self._ruleset)
        return settled(self.register, self.pending, reason, language=self._shop.language)


def _workshop(pending: Pending, netns: str | None) -> Workshop:
    config = Config(
        backend=pending.backend,
        owner=pending.owner,
        plugins=pending.plugins,
        options=pending.options,
        sources=tuple(SourceTable(kind, f"source[{number}]") for number, kind in enumerate(pending.sources, 1)),
    )
    where = _There(backend=pending.backend, netns=netns)
    try:
        return Workshop(where, config=config)
    except (ConfigError, PluginError):  # a source may be gone: its words are only needed where a rule has them
        return Workshop(where, config=config, sources=False)


def put_back(backend: Backend, ruleset: Ruleset) -> Report:
    """A ruleset that stood there before, applied again, whatever the backend has against it by now."""
    return reconcile.apply(backend, ruleset, stood=True)


def confirm(site: Site, warnings: list[str]) -> Pending:
    """The pending change, which is on trial no longer: what it made stays.

    Raises:
        PendingError: there is none, or its time is over; it was undone, if need be by this very call.
    """
    pending = settle(site, warnings)
    if pending is None:
        raise nothing_pending(site)
    register_of(site).remove()
    try:
        _keep(pending, _workshop(pending, site.netns).language)
    except MeshfwError as error:  # it's confirmed all the same
        warnings.append(f"the confirmed rules aren't kept for a rollback: {error}")
    return pending


def _keep(pending: Pending, language: Language) -> None:
    """Have the state that was confirmed be the last good one, held off by nothing."""
    history = History(pending.owner, pending.netns, language, keep=pending.keep)
    if history.why_not:
        return
    for document in (pending.before, pending.after) if history.newest() is None else (pending.after,):
        history.record(parse_state(document.encode(), language, owner=pending.owner))
    history.release()


def undo(site: Site, warnings: list[str]) -> Pending:
    """The pending change, undone now.

    Raises:
        PendingError: there is none. MeshfwError: it can't be undone; its record stays.
    """
    register = register_of(site)
    pending = find_pending(register, warnings)
    if pending is None:
        raise nothing_pending(site)
    Undoing(register, pending, netns=site.netns).carry_out(OVERDUE if pending.overdue else ASKED)
    return pending


def nothing_pending(site: Site) -> PendingError:
    """The lack of a pending change, with what became of the last one."""
    undone = register_of(site).undone()
    if undone is None:
        return PendingError(f"no change of {site.owner} waits to be confirmed")
    return PendingError(f"no change of {site.owner} waits to be confirmed: the last one was undone at {told(undone)}")


def told(undone: Undone) -> str:
    """When a change was undone and why, and what went wrong with that."""
    return f"{at(undone.time)}, since {undone.reason}" + (f"; {undone.error}" if undone.error else "")


def settled(register: Register, pending: Pending, reason: str, *, language: Language) -> Undone:
    """What became of a pending change whose old state is back: its declaration is held off, its record is gone."""
    why_not = hold_off(pending, language)
    undone = Undone(time=time.time(), reason=reason, trial=pending.trial, error=why_not)
    register.tell(undone)  # before the record goes: who sees it gone finds out why
    register.remove()
    return undone


def hold_off(pending: Pending, language: Language) -> str:
    """Have the old state kept for as long as the sources declare what was undone; why that couldn't be done, if so."""
    history = History(pending.owner, pending.netns, language, keep=pending.keep)
    if history.why_not:  # a passing namespace, in which no agent works
        return ""
    try:
        before = parse_state(pending.before.encode(), language, owner=pending.owner)
        history.hold(history.record(before), against=pending.trial)
    except StateError as error:
        return f"an agent isn't held off: {error}"
    return ""


def find_pending(register: Register, warnings: list[str]) -> Pending | None:
    """The pending change; a record that can't be believed is a warning."""
    try:
        return register.read()
    except StateError as error:
        warnings.append(str(error))
        return None


def settle(site: Site, warnings: list[str]) -> Pending | None:
    """Undo the pending change if its time is over and nobody did, such as a guard that was killed; else the change.

    Raises:
        MeshfwError: it can't be undone; the record stays.
    """
    register = register_of(site)
    if register.stamp() is None:
        return None
    pending = find_pending(register, warnings)
    if pending is None or not pending.overdue:
        return pending
    Undoing(register, pending, netns=site.netns).carry_out(OVERDUE)
    warnings.append(f"the change of {at(pending.begun)} was undone, since {OVERDUE}")
    return None


def after_restart(site: Site, warnings: list[str]) -> None:
    """Take note of changes that a restart of the machine ended: they weren't confirmed, so they are held off.

    The restart took their rules away, and the last state that was confirmed is what comes back.
    """
    for register, pending in of_other_boots(site.owner, site.netns, namespace=namespace_of(site.netns)):
        try:
            settled(register, pending, RESTARTED, language=_workshop(pending, site.netns).language)
            warnings.append(f"the change of {at(pending.begun)} is held off: {RESTARTED}")
        except MeshfwError as error:  # its plugin is gone, or the disk is read-only: no reason to start without rules
            warnings.append(f"the change of {at(pending.begun)} can't be held off, though {RESTARTED}: {error}")


def require_settled(site: Site, warnings: list[str]) -> None:
    """As :func:`settle` and :func:`after_restart`; PendingError while a change waits still."""
    after_restart(site, warnings)
    pending = settle(site, warnings)
    if pending is not None:
        raise PendingError(
            f"the change of {at(pending.begun)} is on trial until {at(pending.until)}",
            remedy="'meshfw confirm' keeps it, 'meshfw confirm --undo' undoes it now",
        )
