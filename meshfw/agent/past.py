"""What was applied before, as the agent asks for it and keeps it: the history on disk, and this agent's part in it."""

from __future__ import annotations

import time
from typing import Final

from meshfw.backend import Backend
from meshfw.errors import StateError
from meshfw.history import Entry, History
from meshfw.model import Ruleset
from meshfw.states import State, digest

REASON: Final = "agent"


class Past:
    """The history of an owner in a network namespace, as far as it can be read and written here.

    ``notes`` says what couldn't be; nothing of it stops the agent.
    """

    def __init__(self, history: History, *, keep: bool) -> None:
        self._history = history
        self._keep = keep
        self._seen = self._newest()
        self._approved = ""
        self.notes: list[str] = [history.why_not] if history.why_not else []

    def last(self) -> Ruleset | None:
        """The rules of the last state that was applied well; None where none is known."""
        state = self._history.last() if self._keep else None
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
        except StateError as error:
            self._tell(str(error))
            return None

    def moved(self) -> bool:
        """Whether somebody else has applied since this was last asked."""
        newest = self._newest()
        moved = newest != self._seen
        self._seen = newest
        return moved

    def applied(self, declared: Ruleset, backend: Backend, *, netns: str | None) -> None:
        """Keep rules that were applied well."""
        if not self._keep or self._history.why_not:
            return
        state = State(
            owner=self._history.owner,
            backend=backend.name,
            netns=netns,
            ruleset=declared,
            time=time.time(),
            reason=REASON,
        )
        try:
            self._history.record(state)
        except StateError as error:
            self._tell(f"the rules were applied, and not kept for later: {error}")
        self._seen = self._newest()

    def approved(self, declared: Ruleset) -> bool:
        """Whether these very rules were applied last by a person, who needs no protection from himself."""
        newest = self._history.newest()
        return newest is not None and newest.summary.reason != REASON and newest.summary.digest == digest(declared)

    def _newest(self) -> Entry | None:
        return self._history.newest()

    def _tell(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
