"""The one move of an owner to another backend that is under way: a record on disk, written before anything else.

It holds all that it takes to go on or back: the rules that are moved, from where and to where. While it's there rules
of ours stand in the old backend, in the new one, or in both, and each of these is safe; so nobody else writes until the
move is over. Like the record of a change on trial it belongs to one boot and one namespace, and is void elsewhere.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from meshfw.backend import Backend, Site
from meshfw.backends.instance import namespace_of
from meshfw.backends.remembered import state_directory
from meshfw.errors import MigrationError, StateError
from meshfw.safety.pending import Register, at
from meshfw.workshop import Workshop

_KIND: Final = "migration"


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A move under way.

    ``sources`` are the backends to be left, ``begun`` is in seconds since the epoch, and ``rules`` the document of the
    state that is moved. ``proven`` is whether the new backend was found to hold all of it, so that the old ones may be
    cleaned.
    """

    owner: str
    boot: str
    sources: tuple[str, ...]
    target: str
    begun: float
    rules: str
    proven: bool = False

    def __str__(self) -> str:
        return f"the move of {self.owner}'s rules from {' and '.join(self.sources)} to {self.target}"


class Journal(Register):
    """Where the move of an owner in a namespace is kept; whoever changes it holds the instance lock."""

    def moving(self) -> Moving | None:
        """The move under way; None where there is none of this boot.

        Raises:
            StateError: there is a record, but it can't be believed.
        """
        if not os.path.lexists(self._path(_KIND)):
            return None
        found = self._read(_KIND, Moving, _KIND)
        if found is not None and found.owner != self.owner:
            raise StateError(f"it is of owner {found.owner!r}", source=self._path(_KIND))
        return found if found is not None and found.boot == self.boot else None

    def keep(self, moving: Moving) -> None:
        """Have the record on disk, whatever happens next.

        Raises:
            StateError: that can't be done.
        """
        self._write(_KIND, moving, _KIND)

    def over(self) -> None:
        """Keep it no longer."""
        if os.path.lexists(self._path(_KIND)):
            self._remove(_KIND)


def journal_of(site: Site) -> Journal:
    """The journal of the site's owner in its namespace, however that was named: BackendError where there is none."""
    return Journal(state_directory(), owner=site.owner, namespace=namespace_of(site.netns))


def find_moving(shop: Workshop, journal: Journal) -> Moving | None:
    """The move under way; a record that can't be believed is a warning."""
    try:
        return journal.moving()
    except StateError as error:
        shop.warnings += [] if str(error) in shop.warnings else [str(error)]
        return None


def half_moved(shop: Workshop) -> MigrationError | None:
    """The reason why nothing may be written but what ends a move that is half done; None where none is.

    A record of which nothing stands any more, as of another namespace that had this one's number, says nothing.
    """
    moving = find_moving(shop, journal_of(shop.site))
    if moving is None or not (shop.standing() or shop.unread()):
        return None
    back = f", {shop.command(f'migrate --to {moving.sources[0]}')} goes back" if moving.sources else ""
    return MigrationError(
        f"{moving}, begun at {at(moving.begun)}, is half done: its rules stand in one of these or in both",
        remedy=f"{shop.command(f'migrate --to {moving.target}')} goes on{back}",
    )


def require_whole(shop: Workshop, *, alone: bool = False) -> None:
    """MigrationError while a move is half done.

    With ``alone``, within the instance lock, a void record is taken away: what is written next would be taken for what
    its move has left, and hold everybody up.
    """
    reason = half_moved(shop)
    if reason is not None:
        raise reason
    journal = journal_of(shop.site)
    if alone and find_moving(shop, journal) is not None:
        journal.over()


def warn_divided(shop: Workshop, backend: Backend) -> None:
    """Warn of what would make ``apply`` refuse to write: a move that is half done, or rules in another backend."""
    reason = half_moved(shop)
    if reason is None:
        shop.warn_elsewhere(backend)
    else:
        shop.warnings.append(f"apply would refuse: {reason}")
        shop.warn_unread(backend)
