"""The agent's door: open in the namespace of now, and no reason not to work where there can be none."""

from __future__ import annotations

from contextlib import ExitStack

from meshfw.agent.outside import Askable, Closable, Outside
from meshfw.agent.voice import Voice
from meshfw.errors import AgentError, MeshfwError


class Door:
    """What others ask an agent by, opened again whenever its namespace may be another one."""

    def __init__(self, outside: Outside, voice: Voice) -> None:
        self._outside = outside
        self._voice = voice
        self._opened: Closable = ExitStack()

    def open(self, agent: Askable) -> None:
        """Let others ask; what keeps them from it is told of.

        Raises:
            AgentError: before anything was reconciled, another agent answers here already.
        """
        self._opened.close()
        try:
            self._opened = self._outside.door(agent) or ExitStack()
            self._voice.once("door", "")
        except AgentError:
            if not self._voice.status.reconciled:
                raise  # another agent is at work
            self._voice.once("door", "another agent answers for this owner here")
        except MeshfwError as error:
            self._voice.once("door", f"nobody can ask this agent: {error}")
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            self._voice.once("door", f"nobody can ask this agent: {place}{error.strerror or error}")

    def close(self) -> None:
        """Let nobody ask any more; a second call does nothing."""
        self._opened.close()
