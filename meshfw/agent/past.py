"""What was applied before, as the agent asks for it: the history on disk, and which of it is this agent's own doing."""

from __future__ import annotations

from typing import Final

from meshfw.errors import StateError
from meshfw.history import Entry, History
from meshfw.model import Ruleset
from meshfw.states import digest

AGENT: Final = "agent"
"""The reason of a state that an agent applied."""


class Past:
    """The history of an owner in a network namespace; what of it can't be read is as if it weren't."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._seen = history.newest()

    def last(self) -> Ruleset | None:
        """The rules of the last state that was applied well; None where none is known."""
        state = self._history.last()
        return state.ruleset if state is not None else None

    def held(self, declared: Ruleset | None) -> Ruleset | None:
        """The rules to keep in place of the declared ones, which were rolled back; None where those may be applied.

        Another declaration than the one rolled back ends the hold. None declared, since it can't be read, doesn't.
        """
        hold = self._history.held()
        if hold is None:
            return None
        try:
            if declared is not None and digest(declared) != hold.against:
                self._history.release()
                return None
            return self._history.load(hold.number).ruleset
        except StateError:
            return None

    def refuses(self, declared: Ruleset) -> bool:
        """Whether these very rules were rolled back, or undone: asked right before they are applied."""
        hold = self._history.held()
        return hold is not None and digest(declared) == hold.against and self.held(declared) is not None

    def moved(self) -> bool:
        """Whether a person has applied since this agent did, or since this was last asked; another agent is a rival."""
        newest = self._history.newest()
        moved = newest is not None and newest != self._seen and newest.summary.reason != AGENT
        self._seen = newest
        return moved

    def seen(self) -> None:
        """Take what is there for known."""
        self._seen = self._history.newest()

    def approved(self, declared: Ruleset) -> bool:
        """Whether these very rules were applied last by a person, who needs no protection from himself."""
        newest: Entry | None = self._history.newest()
        return newest is not None and newest.summary.reason != AGENT and newest.summary.digest == digest(declared)

    @property
    def notes(self) -> list[str]:
        """What of it couldn't be read, as far as nobody has taken note of it."""
        return self._history.notes
