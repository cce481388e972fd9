"""What was applied before, as the agent asks for it."""

from __future__ import annotations

from meshfw.backend import Backend
from meshfw.model import Ruleset


class NoPast:
    """Nothing is known of before, and nothing is kept for later."""

    def last(self) -> Ruleset | None:
        """None."""
        return None

    def held(self, declared: Ruleset | None) -> Ruleset | None:
        """None: whatever is declared may be applied."""
        return None

    def moved(self) -> bool:
        """False: nobody can tell."""
        return False

    def applied(self, ruleset: Ruleset, backend: Backend) -> None:
        """Forget it."""

    def approved(self, declared: Ruleset) -> bool:
        """False: nobody can tell."""
        return False
