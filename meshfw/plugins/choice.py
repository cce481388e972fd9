"""The choice of a backend: what is known of each here, and the one that ``auto`` takes, with the reason in words.

The ranks, highest first: a backend in which rules of ours stand already, what auto took last time, the way that others
go here, and the first that can be used at all. Each asks less of a host than the next: whoever is there stays, a reboot
changes nothing, and only a host that nobody has touched yet gets what meshfw likes best.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from meshfw.backend import API_VERSION, Backend, Site
from meshfw.errors import KernelError, MeshfwError, PluginError
from meshfw.hookspecs import BackendPlugin, CommandPlugin, Presence, SourcePlugin
from meshfw.plugins.loading import blaming

Sites = Callable[[BackendPlugin], Site]
"""Where and as whom each backend would work."""

_OWN, _LAST, _OTHERS, _FREE = range(4)
_USABLE: Final = "the first in rank that can be used here"
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that auto may take: its rank, why it can't be used here (None where it can), and what stands there.

    ``unread`` is why that can't be told now, where another look may tell it.
    """

    name: str
    automatic: int
    unavailable: str | None = None
    presence: Presence = Presence()
    unread: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What ``auto`` chose, and why; ``name`` is None where nothing can be used.

    ``doubt`` is why it might have chosen another one, had it been told what stands there; empty where it's sure.
    """

    name: str | None
    reason: str
    warnings: tuple[str, ...] = ()
    doubt: str = ""


class Sighting(msgspec.Struct, frozen=True):
    """What was found where a backend keeps its rules; ``unread`` is why that can't be told.

    ``denied`` is whether that is for want of a privilege, so that another look tells no more.
    """

    offer: BackendPlugin
    presence: Presence = Presence()
    unread: str = ""
    denied: bool = False


def choose(candidates: Iterable[Candidate], *, remembered: str = "") -> Verdict:
    """The first in rank that can be used; ``remembered`` is the name of the one that auto took last time."""
    ranked = sorted(candidates, key=lambda candidate: _place(candidate, remembered))
    warnings = tuple(_warnings(ranked, remembered))
    over: list[Candidate] = []
    for candidate in ranked:
        if candidate.unavailable is None:
            reason = _reason(candidate, ranked, remembered)
            if over:
                reason += f"; passed over: {'; '.join(_passed(entry, remembered) for entry in over)}"
            return Verdict(candidate.name, reason, warnings, _doubt(candidate, ranked))
        over.append(candidate)
    reasons = (f"{entry.name}: {entry.unavailable}" for entry in over)
    return Verdict(None, "\n  ".join(reasons) or "no backend has a rank", warnings)


def _level(candidate: Candidate, remembered: str) -> int:
    if candidate.presence.own:
        return _OWN
    if candidate.name == remembered:
        return _LAST
    return _OTHERS if candidate.presence.others else _FREE


def _place(candidate: Candidate, remembered: str) -> tuple[int, int, int]:
    """What candidates are sorted by: the level; within it, what speaks for one of them; the rank of its own."""
    level = _level(candidate, remembered)
    within = {_OWN: int(candidate.name != remembered), _OTHERS: -candidate.presence.rules}.get(level, 0)
    return level, within, candidate.automatic


def _reason(taken: Candidate, ranked: Sequence[Candidate], remembered: str) -> str:
    level, presence = _level(taken, remembered), taken.presence
    if level == _OWN:
        return f"rules of ours stand there already ({presence.own})"
    if level == _LAST:
        return "auto took it last time"
    if level == _FREE:
        return _USABLE
    beside = [entry for entry in ranked if entry is not taken and entry.presence.others and not entry.unavailable]
    if not beside:
        return f"others use it ({presence.others})"
    less = ", ".join(f"{entry.name} ({entry.presence.others})" for entry in beside)
    equal = beside[0].presence.rules == presence.rules
    than = "as much as" if equal else "more than"
    tie = ", and it's before it in rank" if equal else ""
    return f"others use it ({presence.others}) {than} {less}{tie}"


def _doubt(taken: Candidate, ranked: Sequence[Candidate]) -> str:
    """What couldn't be told of others that might have been taken; rules of ours where they are expected settle it."""
    if taken.presence.own:
        return ""
    return "; ".join(
        untold(entry.name, entry.unread)
        for entry in ranked
        if entry is not taken and entry.unread and entry.unavailable is None
    )


def _passed(entry: Candidate, remembered: str) -> str:
    """A better one that can't be used: why it was better, where that isn't its rank alone, and what is the matter."""
    why = {
        _OWN: f", where rules of ours stand ({entry.presence.own})",
        _LAST: ", which auto took last time",
        _OTHERS: f", which others use ({entry.presence.others})",
        _FREE: "",
    }[_level(entry, remembered)]
    return f"{entry.name}{why}: {entry.unavailable}"


def _warnings(candidates: Sequence[Candidate], remembered: str) -> Iterable[str]:
    if remembered and all(entry.name != remembered for entry in candidates):
        yield f"auto took {remembered} last time, and it's none of the backends that auto may take now"
    ways: dict[str, list[Candidate]] = {}
    for entry in candidates:
        if entry.presence.others and entry.presence.tool:
            ways.setdefault(entry.presence.tool, []).append(entry)
    for tool, entries in ways.items():
        if len(entries) > 1:
            shown = " and ".join(f"{entry.name} ({entry.presence.others})" for entry in entries)
            yield (
                f"others use {tool} in {len(entries)} ways at once, {shown}: "
                "each command shows its own rules alone, and packets meet all of them"
            )


# --- what the plugins say ----------------------------------------------------------------------------------


def unavailable(offer: BackendPlugin) -> str | None:
    """Why an offered backend can't be used here, its broken check included; None where it can."""
    if offer.api_version != API_VERSION:
        return version_problem(offer)
    try:
        with blaming(PluginError, "its check"):
            return offer.unavailable()
    except MeshfwError as error:
        return str(error)


def look(offer: BackendPlugin, site: Site) -> Sighting:
    """What stands where an offered backend keeps its rules, or why that can't be told."""
    if offer.api_version != API_VERSION:
        return Sighting(offer)
    try:
        with blaming(PluginError, "its look at the rules", refusals=True):
            found: Any = offer.presence(site)
    except MeshfwError as error:
        return Sighting(offer, unread=str(error), denied=isinstance(error, KernelError) and error.errno in _DENIED)
    if not isinstance(found, Presence):
        return Sighting(offer, unread=f"its look at the rules gave {found!r}, which is no Presence")
    return Sighting(offer, found)


def standing(sightings: Iterable[Sighting], *, beside: BackendPlugin | None = None) -> tuple[Sighting, ...]:
    """Those where rules of ours stand; with ``beside`` only in other places than that backend's."""
    return tuple(
        sighting
        for sighting in sightings
        if sighting.presence.own and (beside is None or room(sighting.offer) != room(beside))
    )


def unread(sightings: Iterable[Sighting], *, beside: BackendPlugin | None = None) -> tuple[Sighting, ...]:
    """Those of usable backends where nobody can tell what stands; ``beside`` is as for :func:`standing`."""
    return tuple(
        sighting
        for sighting in sightings
        if sighting.unread
        and (beside is None or room(sighting.offer) != room(beside))
        and unavailable(sighting.offer) is None
    )


def untold(name: str, reason: str) -> str:
    """That nobody can tell what stands in a backend, in words."""
    return f"what stands in {name} can't be told: {reason}"


def room(offer: BackendPlugin) -> str:
    """The name of the place where a backend keeps its rules."""
    return offer.place or offer.name


def version_problem(offer: BackendPlugin | SourcePlugin | CommandPlugin | Backend) -> str:
    """That something was written for another version of the plugin interface than this one."""
    return (
        f"it was written for version {offer.api_version} of the plugin interface, and this meshfw has version "
        f"{API_VERSION}: install releases that fit together"
    )
