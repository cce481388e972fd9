"""The verb ``confirm``: a change on trial is kept, or undone at once; the configuration may be broken by then."""

from __future__ import annotations

from argparse import Namespace

from meshfw.agent.control import wake
from meshfw.backend import Site
from meshfw.backends.instance import only_writer
from meshfw.cli.output import print_json, warn
from meshfw.errors import ConfigError, PluginError
from meshfw.extensions.language import Language
from meshfw.safety.pending import Pending, at, owners_on_trial
from meshfw.safety.settling import confirm, undo
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when the change is what was asked for; with nothing on trial that's an error."""
    warnings: list[str] = []
    site = _site(arguments, warnings)
    with only_writer(site, timeout=arguments.lock_timeout):
        pending = undo(site, warnings) if arguments.undo else confirm(site, warnings)
    wake(site.owner, site.netns)
    if arguments.json:
        print_json({**outlined(pending), "confirmed": not arguments.undo, "warnings": warnings})
        return 0
    warn(warnings)
    print(UNDONE if arguments.undo else CONFIRMED)
    return 0


CONFIRMED = "confirmed: the new rules stay"
UNDONE = "undone: the old rules are back"


def outlined(pending: Pending) -> dict[str, object]:
    """A change on trial as data."""
    return {"owner": pending.owner, "backend": pending.backend, "begun": pending.begun, "until": pending.until}


def asking(pending: Pending) -> str:
    """How a change on trial is confirmed, and until when."""
    return f"on trial until {at(pending.until)}: 'meshfw confirm' keeps it, or it is undone"


def _site(arguments: Namespace, warnings: list[str]) -> Site:
    """Whose change and where: as the configuration says, or if that can't be read, the only one there is."""
    try:
        shop = Workshop(arguments, needed=False, sources=False)
    except (ConfigError, PluginError) as error:
        owners = owners_on_trial(arguments.netns)
        if len(owners) != 1:
            raise
        warnings.append(f"the configuration can't be read: {error}")
        return Site(owner=owners[0], language=Language.of(()), netns=arguments.netns)
    warnings += shop.warnings
    return shop.site
