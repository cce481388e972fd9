"""The verb ``agent``: keep the declared rules in place, woken by events, until it's told to stop."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from meshfw import __version__
from meshfw.agent.control import ControlServer, refuse_second, socket_path
from meshfw.agent.logs import log_to
from meshfw.agent.loop import LOOK, RELOAD, Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.outside import Askable, Outside
from meshfw.agent.past import Past
from meshfw.agent.pulse import Pulse
from meshfw.agent.status import Status
from meshfw.agent.voice import Counters, Voice
from meshfw.files.inotify import FileChanges
from meshfw.settings import AgentSettings, LogFormat, LogLevel
from meshfw.source import Changes
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when it was told to stop."""
    shop = Workshop(arguments)
    refuse_second(shop.config.owner, shop.site.netns, "end that one first, or give this one another owner")
    settings, pulse = shop.config.agent, Pulse()
    log_as(settings, arguments)
    with ExitStack() as stack:
        counters: list[Counters] = []
        voice = Voice(Status(), notifier=Notifier.from_environment(), counters=counters)
        service = Service(shop, voice, pulse, arguments)
        service.warn(shop)
        if settings.listen is not None:
            from meshfw.agent.metrics import Metrics
            from meshfw.agent.web import WebServer

            metrics = Metrics(version=__version__)
            counters.append(metrics)
            web = WebServer(settings.listen, registry=metrics.registry, alive=pulse.doubt, ready=voice.doubt)
            stack.enter_context(web)
            voice.info(f"metrics are at http://{web.address}/metrics")
        Agent(shop, arguments, voice=voice, past=Past(shop.history), outside=service).run()
    return 0


def log_as(settings: AgentSettings, arguments: Namespace) -> None:
    """Log as the configuration says; with ``--json`` as data whatever it says, and with ``-v`` all there is."""
    form = LogFormat.JSON if arguments.json else settings.log
    log_to(sys.stderr, form=form, level=LogLevel.DEBUG if arguments.verbose else settings.level)


class Service(Outside):
    """A process that is nothing but an agent: it watches its configuration's file, and answers on a control socket."""

    def __init__(self, shop: Workshop, voice: Voice, pulse: Pulse, arguments: Namespace) -> None:
        self._listen = shop.config.agent.listen
        self._voice = voice
        self._pulse = pulse
        self._arguments = arguments

    def changes(self, shop: Workshop) -> Changes | None:
        """Word of changes of the configuration's file; None where the system gives none."""
        try:
            return FileChanges([shop.config.file])
        except OSError as error:
            self._voice.warning(f"changes of {shop.config.file} aren't heard of: {error.strerror}; send SIGHUP")
            return None

    def door(self, agent: Askable) -> ControlServer:
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

    def beat(self, within: float) -> None:
        """The loop lives."""
        self._pulse.beat(within)

    def adopted(self, shop: Workshop) -> None:
        """Log as another configuration says; where it's listened can't change in a running process."""
        settings = shop.config.agent
        log_as(settings, self._arguments)
        self.warn(shop)
        if settings.listen != self._listen:
            self._voice.warning("agent.listen has changed: it takes effect when the agent is started anew")

    def warn(self, shop: Workshop) -> None:
        """Tell what whoever wrote the configuration should know."""
        for warning in (*shop.warnings, *shop.config.agent.warnings):
            self._voice.once(warning, warning)
