"""The verb ``agent``: keep the declared rules in place, woken by events, until it's told to stop."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from meshfw import __version__
from meshfw.agent.control import ControlServer, socket_path
from meshfw.agent.logs import log_to
from meshfw.agent.loop import LOOK, RELOAD, Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.past import Past
from meshfw.agent.status import Status
from meshfw.agent.voice import Counters, Voice
from meshfw.files.inotify import FileChanges
from meshfw.source import Changes
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when it was told to stop."""
    shop = Workshop(arguments)
    settings = shop.config.agent
    log_to(sys.stderr, form=settings.log, level=settings.level)
    past = Past(shop.history)
    with ExitStack() as stack:
        counters: list[Counters] = []
        pulse = _no_pulse
        voice = Voice(Status(), notifier=Notifier.from_environment(), counters=counters)
        if settings.listen is not None:
            from meshfw.agent.metrics import Metrics
            from meshfw.agent.web import Pulse, WebServer

            metrics, beat = Metrics(version=__version__), Pulse()
            counters.append(metrics)
            pulse = beat.beat
            web = WebServer(settings.listen, registry=metrics.registry, alive=beat.doubt, ready=voice.doubt)
            stack.enter_context(web)
            voice.info(f"metrics are at http://{web.address}/metrics")
        agent = Agent(shop, arguments, voice=voice, past=past, watched=_config_changes, door=_door, pulse=pulse)
        agent.run()
    return 0


def _no_pulse(within: float) -> None:
    """Nobody asks whether the loop lives."""


def _config_changes(shop: Workshop) -> Changes | None:
    """Word of changes of the configuration's file; None where the system gives none."""
    try:
        return FileChanges([shop.config.file])
    except OSError:
        return None


def _door(agent: Agent) -> ControlServer:
    """The control socket of an agent."""

    def status() -> Mapping[str, Any]:
        answer: Mapping[str, Any] = msgspec.to_builtins(agent.status)
        return answer

    def told(word: str) -> Mapping[str, Any]:
        agent.ears.say(word)
        return {"told": word}

    return ControlServer(
        socket_path(agent.owner, agent.netns),
        {"status": lambda _: status(), "reconcile": lambda _: told(LOOK), "reload": lambda _: told(RELOAD)},
    )
