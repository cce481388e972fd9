"""An agent on a kernel of text and a clock that the test turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from meshfw.agent.loop import Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.outside import Outside
from meshfw.agent.past import Past
from meshfw.agent.status import Phase, Status
from meshfw.agent.voice import Voice
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.model import Family
from meshfw.workshop import Workshop

RULES: Final = ("-i lo -j ACCEPT", "-s 10.0.0.0/8 -j DROP")


class Asked(msgspec.Struct, frozen=True):
    """A command line's words."""

    config: str
    backend: str | None = None
    netns: str | None = None


class Clock:
    """A clock that stands still until it's turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """An agent in this thread, its clock, and the kernel of text that it keeps."""

    def __init__(self, directory: Path, *, agent: str = "", rules: tuple[str, ...] = RULES) -> None:
        self.file = directory / "meshfw.toml"
        self.settings = agent
        self.declare(*rules)
        asked = Asked(str(self.file))
        self.clock = Clock()
        shop = Workshop(asked)
        self.voice = Voice(Status(), notifier=Notifier(None))
        self.agent = Agent(
            shop,
            asked,
            voice=self.voice,
            past=Past(shop.history),
            outside=Outside(),
            clock=self.clock,
            chance=lambda: 0.0,
        )
        self.agent._begin()

    def declare(self, *rules: str, more: str = "") -> None:
        """Write the configuration."""
        chain = f'[[chain]]\nname = "input"\nattach = {{ hook = "input" }}\nrules = {json.dumps(rules)}\n'
        text = f'owner = "loop"\nbackend = "memory"\n[agent]\n{self.settings}\n{chain}{more}'
        self.file.write_text(text, encoding="utf-8")

    @property
    def backend(self) -> MemoryBackend:
        keeper = self.agent._keeper
        assert keeper is not None
        assert isinstance(keeper.backend, MemoryBackend)
        return keeper.backend

    @property
    def kernel(self) -> MemoryKernel:
        return self.backend.kernel

    @property
    def status(self) -> Status:
        return self.agent.status

    def phase(self) -> Phase:
        return self.status.phase

    def turn(self, seconds: float) -> None:
        """Let time pass, and the agent do what is due."""
        self.clock.now += seconds
        self.agent.ears.say("")
        self.agent.step()

    def undo(self, *, command: str = "rival", secretly: bool = False) -> None:
        """Take our rules away, as somebody else."""
        if secretly:
            self.kernel._texts[Family.IPV4] = ""
            self.kernel.writes += 1
        else:
            self.kernel.write(Family.IPV4, "", pid=77, command=command)

    def stands(self) -> bool:
        return "-s 10.0.0.0/8" in self.kernel.text(Family.IPV4)
