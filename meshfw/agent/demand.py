"""What is wanted: what the sources say, or while they can't or mustn't be heard, the last good or the held rules."""

from __future__ import annotations

from typing import Final

import msgspec

from meshfw.agent.keeper import Keeper, Keeping
from meshfw.agent.past import Past
from meshfw.backend import Report
from meshfw.errors import ConcurrentChangeError, ConfigError, LockError, MeshfwError, PluginError, UnsupportedError
from meshfw.model import Ruleset
from meshfw.settings import AgentSettings
from meshfw.source import Changes
from meshfw.wanted import Sources
from meshfw.workshop import Workshop

SOURCES: Final = "sources"
LAST_GOOD: Final = "last good"
HELD: Final = "held"
_ROLLED_BACK: Final = "the declared rules were undone or rolled back, and wait for a change or 'meshfw apply'"
_FEW: Final = 10
"""So many rules may go whatever their share is: a share of a few means little."""


class Wanted(msgspec.Struct, frozen=True):
    """The declared rules to keep, where they come from, and what's the matter with the sources; None: nothing known."""

    ruleset: Ruleset | None
    origin: str = SOURCES
    problem: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def trouble(self) -> str:
        """The problem, or else what the sources doubt of what they say; empty where all is well."""
        return self.problem or "; ".join(self.doubts)


class Demand:
    """The open sources of a configuration, and what to keep in their place.

    ``kept`` is the ruleset that was last applied well, None at the beginning.
    """

    def __init__(self, shop: Workshop, past: Past, settings: AgentSettings, *, kept: Ruleset | None = None) -> None:
        self._shop = shop
        self._past = past
        self._settings = settings
        self._sources: Sources | None = None
        self._declared: Ruleset | None = None
        self._rejected: Ruleset | None = None
        self._given = False  # whether what is kept is what the sources said last
        self.untaken = ""
        """Why a later configuration was not taken in place of this one; empty where there is none."""
        self.silent = False
        """Whether a source gives no word of its changes, so that it has to be asked to know."""
        self.kept = kept
        self.changes: tuple[Changes, ...] = ()
        """Word of changes, of the sources that are open and give it."""

    def close(self) -> None:
        """Close the sources."""
        if self._sources is not None:
            self._sources.close()
            self._sources, self.changes = None, ()

    def heard(self, number: int) -> bool:
        """Whether a source, by its place among the :attr:`changes`, may say something else now.

        Raises:
            PluginError: it can't tell any more; the sources are closed, and opened anew by the next :meth:`load`.
        """
        if number >= len(self.changes):  # closed by what was heard in the same moment
            return False
        try:
            return self.changes[number].drain()
        except Exception as error:
            self.close()
            raise PluginError(f"a source can't tell of its changes any more: {error!r}") from error

    # --- what became of it ---

    def reject(self, reason: str) -> None:
        """What is declared now was tried and undone: don't give it again before it changes."""
        self._rejected = self._declared
        self.refuse(reason)

    def settle(self, kept: Ruleset | None, outcome: Report | str | None) -> None:
        """A look came to an end: the rules that were last put in place well (None: as before), and what became of them.

        The sources are told, where those are what they said.
        """
        self.kept = kept or self.kept
        if not self._given or outcome is None:
            return
        if isinstance(outcome, str):
            self.refuse(outcome)
        elif self._sources is not None:
            self._shop.warnings += self._sources.applied(outcome)

    def failed(self, error: Exception) -> None:
        """What is wanted couldn't be put in place: the sources are told, unless others only write just now."""
        if self._given and not isinstance(error, LockError | ConcurrentChangeError):
            self.refuse(str(error))

    def refuse(self, reason: str) -> None:
        """Tell the sources that what they said last isn't in place."""
        if self._sources is not None:
            self._shop.warnings += self._sources.refused(reason)

    def overtaken(self) -> None:
        """Somebody else has applied: what he did is what was last applied well."""
        self.kept = self._past.last() or self.kept

    def kept_here(self, keeper: Keeper, before: Keeping | None) -> tuple[Wanted, Keeping | None]:
        """What is wanted now and what of it is to be kept here, ``before`` where that is the same.

        Where nothing here can hold what the sources say that is a problem, and what was kept stays.
        """
        self._given = False
        wanted = self.load()
        try:
            kept = _keeping(keeper, wanted.ruleset, before)
        except (ConfigError, UnsupportedError) as error:
            wanted = self.without_sources(str(error))
            kept = _keeping(keeper, wanted.ruleset, before)
        self._given = not wanted.problem
        if wanted.problem and self._rejected is None:  # of what was undone they have heard why
            self.refuse(wanted.problem)
        return wanted, kept

    def load(self) -> Wanted:
        """What is wanted now.

        Where the sources fail, or say less than may go at once, that is a problem and what was kept stays.
        """
        try:
            declared = self._load()
        except MeshfwError as error:
            return self.without_sources(str(error))
        except OSError as error:
            return self.without_sources(f"{error.filename or 'a source'}: {error.strerror or error}")
        if self._declared is not None and declared == self._declared:
            declared = self._declared  # the very object, which the backend's cache knows
        self._declared = declared
        if declared != self._rejected:
            self._rejected = None
        held = self._past.held(declared)
        if held is not None or self._rejected is not None:
            return Wanted(self._known(held), HELD, _ROLLED_BACK)
        before = self.kept if self.kept is not None else self._past.last()
        refusal = self._shrinks(before, declared)
        if refusal:
            return Wanted(before, LAST_GOOD, refusal)
        doubts = self._sources.doubts() if self._sources is not None else ()
        untaken = (f"the configuration is not taken: {self.untaken}",) if self.untaken else ()
        return Wanted(declared, doubts=(*untaken, *doubts))

    def _load(self) -> Ruleset:
        if self._sources is None:
            self._sources = Sources(self._shop.config, plugins=self._shop.plugins, language=self._shop.language)
            self.changes = self._sources.changes()
            self.silent = len(self.changes) < len(self._shop.config.sources)
        ruleset = self._sources.load()
        self._shop.warnings += self._sources.warnings
        return ruleset

    def without_sources(self, problem: str) -> Wanted:
        """What is wanted while the sources can't be heard, or say what can't be: a rollback's rules before all."""
        held = self._past.held(None)
        if held is not None:
            return Wanted(self._known(held), HELD, problem)
        if self.kept is not None:
            return Wanted(self.kept, LAST_GOOD, problem)
        last = self._past.last() if self._settings.last_good else None
        return Wanted(last, LAST_GOOD if last is not None else SOURCES, problem)

    def _known(self, held: Ruleset | None) -> Ruleset | None:
        """Rules that are held, as the very object that is kept already where they equal it; none known: that one."""
        return self.kept if held is None or held == self.kept else held

    def _shrinks(self, before: Ruleset | None, declared: Ruleset) -> str:
        """Why the declared rules are too few to be believed; empty where they're believed."""
        if before is None or self._settings.shrink >= 1:
            return ""
        counts = [("rules", rule_count), ("elements of sets", element_count)]
        for what, count in counts:
            old, new = count(before), count(declared)
            if old - new > max(_FEW, old * self._settings.shrink) and not self._past.approved(declared):
                return (
                    f"the sources say {new} {what} in place of {old}, and more than {self._settings.shrink:.0%} may "
                    "not go at once: if that's meant, say 'meshfw apply'"
                )
        return ""


def _keeping(keeper: Keeper, declared: Ruleset | None, before: Keeping | None) -> Keeping | None:
    if declared is None or (before is not None and declared is before.declared):
        return None if declared is None else before
    return keeper.keeping(declared)


def rule_count(ruleset: Ruleset) -> int:
    """The rules of a ruleset, both families'."""
    return sum(len(chain.rules) for chain in ruleset.chains)


def element_count(ruleset: Ruleset) -> int:
    """The elements of a ruleset's sets, both families'."""
    return sum(len(entry.elements) for entry in ruleset.sets)
