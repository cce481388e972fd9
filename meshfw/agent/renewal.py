"""A configuration read anew: taken once it's known that it can be worked with, or not at all."""

from __future__ import annotations

from meshfw.agent.keeper import Keeper
from meshfw.errors import ConfigError, MeshfwError, UnsupportedError
from meshfw.workshop import Where, Workshop


def renewed(old: Workshop, where: Where) -> tuple[Workshop, Keeper | None]:
    """What a running agent goes over to, with the backend open; None where that is in the kernel's way just now.

    Raises:
        ConfigError, UnsupportedError: the configuration can't be worked with, or not by an agent that runs already.
        MeshfwError, OSError: whatever keeps it, or its rules, from being read.
    """
    shop = Workshop(where)
    _check_alike(old, shop)
    declared = shop.rules()
    try:
        keeper = Keeper(shop)
    except ConfigError:
        raise
    except (MeshfwError, OSError):
        return shop, None
    try:
        keeper.keeping(declared)
    except (ConfigError, UnsupportedError):
        keeper.close()
        raise
    except (MeshfwError, OSError):
        keeper.close()
        return shop, None
    return shop, keeper


def _check_alike(old: Workshop, new: Workshop) -> None:
    """Refuse what a running agent can't go over to: ConfigError."""
    pairs = {
        "owner": (old.config.owner, new.config.owner),
        "backend": (old.offer.name, new.offer.name),
    }
    for key, (was, now) in pairs.items():
        if was != now:
            expected = f"{was}, or 'meshfw clean' and a new start of the agent"
            raise new.config.error(f"a running agent can't go over to {now}", key=key, expected=expected)
