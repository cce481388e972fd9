"""What the agent asks of whoever runs it: nothing of it is needed to keep rules in place."""

from __future__ import annotations

from typing import Protocol

from meshfw.agent.ears import Ears
from meshfw.agent.status import Status
from meshfw.source import Changes
from meshfw.workshop import Workshop


class Askable(Protocol):
    """An agent, as others may ask it and speak to it from any thread."""

    @property
    def ears(self) -> Ears:
        """What hears their words."""
        ...

    @property
    def status(self) -> Status:
        """What it says of itself."""
        ...

    @property
    def owner(self) -> str:
        """Whose rules it keeps."""
        ...

    @property
    def netns(self) -> str | None:
        """In which network namespace, as the user named it; None: its own."""
        ...


class Closable(Protocol):
    """Something open."""

    def close(self) -> None:
        """Close it; a second call does nothing."""
        ...


class Outside:
    """Nobody: no word of the configuration's changes, no door, no pulse; whoever runs an agent says more."""

    def changes(self, shop: Workshop) -> Changes | None:
        """Word of changes of the configuration; None where there is none."""
        return None

    def door(self, agent: Askable) -> Closable | None:
        """What others ask the agent by, in its namespace of now.

        Raises:
            AgentError: another agent answers there already.
        """
        return None

    def beat(self, within: float) -> None:
        """The loop lives, and is back within so many seconds."""

    def adopted(self, shop: Workshop) -> None:
        """Another configuration is worked with from now on."""
