"""The verb ``restore``: what was applied last, or is held, without asking any source: for the time before the network.

No state, or one that says that nothing is wanted, is no error: a host that never had rules starts without them. Nor is
a configuration that can't be loaded, as long as it's clear whose states are meant: a typo must not open a host.
"""

from __future__ import annotations

from argparse import Namespace

from meshfw.applying import Applied, restore, to_restore
from meshfw.cli.apply import told
from meshfw.cli.output import print_json, warn
from meshfw.config import Config
from meshfw.errors import ConfigError, PluginError
from meshfw.history import owners_of_states
from meshfw.plugins import AUTO
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when the kernel holds that state, or when there is none."""
    shop, applied = _restored(arguments)
    if applied is not None:
        told(shop, applied.report, arguments)
        return 0
    warnings = [*shop.warnings, *shop.history.notes]
    why = shop.history.why_not or "no state is kept, or nothing is wanted"
    if arguments.json:
        print_json({"outcome": "idle", "backend": None, "commits": 0, "changes": [], "note": why, "warnings": warnings})
        return 0
    warn(warnings)
    print(f"nothing to restore: {why}")
    return 0


def _restored(arguments: Namespace) -> tuple[Workshop, Applied | None]:
    """What was restored, with the workshop that did it: the configuration's, or else one for the states alone."""
    timeout = arguments.lock_timeout
    try:
        shop = Workshop(arguments, needed=False, sources=False)
    except (ConfigError, PluginError) as error:
        shop = _without_configuration(arguments, error)
    else:
        try:
            return shop, restore(shop, timeout=timeout)
        except ConfigError as error:
            if not error.key.startswith("backend"):  # what the configuration asks for isn't there, such as IPv6
                raise
            shop = _without_configuration(arguments, error)
    return shop, restore(shop, timeout=timeout, stood=True)


def _without_configuration(arguments: Namespace, error: ConfigError | PluginError) -> Workshop:
    """A workshop for the only owner that has states here, with the backend of the one to restore and no options.

    Raises:
        ConfigError, PluginError: the ``error`` in the configuration, where it isn't clear whose states are meant.
    """
    states = {
        owner: to_restore(Workshop(arguments, config=Config(owner=owner)).history)
        for owner in owners_of_states(arguments.netns)
    }
    owners = [owner for owner, state in states.items() if state is not None] or list(states)
    if not owners:
        raise error
    if len(owners) > 1:
        raise ConfigError(
            f"{error}\n  and without it, it isn't clear whose rules to restore: states are kept of {', '.join(owners)}"
        ) from error
    state = states[owners[0]]
    shop = Workshop(arguments, config=Config(owner=owners[0], backend=AUTO if state is None else state.backend))
    shop.warnings.append(f"restored for {owners[0]} without the configuration, which can't be used: {error}")
    return shop
