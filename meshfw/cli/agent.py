"""The verb ``agent``: keep the declared rules in place, woken by events, until it's told to stop."""

from __future__ import annotations

from argparse import Namespace

from meshfw.agent.loop import Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.past import Past
from meshfw.agent.status import Status
from meshfw.agent.voice import Voice
from meshfw.files.inotify import FileChanges
from meshfw.history import History
from meshfw.source import Changes
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when it was told to stop."""
    import logging

    logging.basicConfig(level="INFO", format="%(message)s")
    shop = Workshop(arguments)
    history = History(shop.config.owner, shop.site.netns, shop.language)
    past = Past(history, keep=shop.config.agent.last_good)
    voice = Voice(Status(), notifier=Notifier.from_environment())
    Agent(shop, arguments, voice=voice, past=past, watched=_config_changes).run()
    return 0


def _config_changes(shop: Workshop) -> Changes | None:
    """Word of changes of the configuration's file; None where the system gives none."""
    try:
        return FileChanges([shop.config.file])
    except OSError:
        return None
