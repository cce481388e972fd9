"""The verbs that plugins bring: found when a verb isn't built in, and what they raise made their plugin's error."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from meshfw.cli.output import one_line, warn
from meshfw.cli.streams import OutputError
from meshfw.errors import ConfigError, PluginError
from meshfw.hookspecs import CommandPlugin
from meshfw.plugins import Plugins
from meshfw.source import suggestion

_LARGEST = 255
"""The largest exit code that a process can have."""


class ForeignVerb:
    """A verb of a plugin, used as one of meshfw's own."""

    def __init__(self, offer: CommandPlugin, plugins: Plugins) -> None:
        self._offer = offer
        self._plugins = plugins
        self.name = offer.name
        self.summary = one_line(offer.summary)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Have the verb's parser get what the plugin adds to it."""
        with self._blaming():
            self._offer.add_arguments(parser)

    def run(self, arguments: Namespace) -> int:
        """The exit code of the plugin's run."""
        with self._blaming():
            code: object = self._offer.run(arguments)
            if not isinstance(code, int) or not 0 <= code <= _LARGEST:
                raise TypeError(f"it returned {code!r}, which is no exit code")
        return code

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """A block of the plugin's code; output that can't be written is nobody's fault and passes as it is."""
        try:
            with self._plugins.blaming(self._offer):
                yield
        except PluginError as error:
            if isinstance(error.__cause__, OutputError):
                raise error.__cause__ from None
            raise


def find_foreign(name: str, *, built_in: Collection[str], refuse: Callable[[str], NoReturn]) -> ForeignVerb:
    """The verb of that name, of whichever installed plugin; ``refuse`` gets the reason where none has it.

    Raises:
        PluginError: two plugins bring it, its plugin doesn't fit this release, or the one of this name is broken.
    """
    plugins = Plugins()
    try:
        offer = plugins.command(name)
    except ConfigError:
        broken = f"; skipped: {'; '.join(plugins.problems)}" if plugins.problems else ""
        known = [*built_in, *(offer.name for offer, _ in plugins.commands())]
        refuse(f"there is no verb {name!r}{suggestion(name, known)}{broken}")
    warn(plugins.problems)
    return ForeignVerb(offer, plugins)


def print_foreign(built_in: Collection[str]) -> None:
    """Print the verbs of all installed plugins, a line each; those that can't be had are warned of."""
    plugins = Plugins()
    found = plugins.commands()
    warn([*plugins.problems, *_useless(found, built_in)])
    usable = [(offer, plugin) for offer, plugin in found if offer.name not in built_in]
    width = max((len(offer.name) for offer, _ in usable), default=0)
    for offer, plugin in usable:
        print(one_line(f"{offer.name:{width}}  {offer.summary}  [{plugin}]"))
    if not usable:
        print("no installed plugin brings a verb")


def _useless(found: Collection[tuple[CommandPlugin, str]], built_in: Collection[str]) -> Iterator[str]:
    """Why verbs can't be had that plugins bring."""
    for offer, plugin in found:
        if offer.name in built_in:
            yield f"plugin {plugin}: its verb {offer.name} is one of meshfw's own, which nobody replaces"
    names = [offer.name for offer, _ in found]
    for name in sorted({name for name in names if names.count(name) > 1}):
        both = " and ".join(plugin for offer, plugin in found if offer.name == name)
        yield f"more than one plugin brings the verb {name}: {both}; uninstall one"
