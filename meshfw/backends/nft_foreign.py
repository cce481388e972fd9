"""Nft rulesets as JSON, whoever wrote them: a text that is loaded in a room of its own, or what a host holds."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshfw.errors import BackendError
from meshfw.kernel.command import run
from meshfw.kernel.libnftables import Libnftables, Numeric
from meshfw.kernel.netns import entered, fresh_namespace

_NUMERIC: Final = Numeric.PROTOCOL | Numeric.PRIORITY
_TIMEOUT: Final = 60


def objects_of(text: str) -> list[dict[str, Any]]:
    """The objects of an nft text as libnftables-json(5) has them; it's loaded in an empty network namespace.

    Raises BackendError with nft's own words for a mistake in it, KernelError where no namespace may be made.
    """
    with fresh_namespace() as room, Libnftables(room.file) as nft:
        nft.run(text)
        return listed(nft.run("list ruleset", json_output=True, handles=False, numeric=_NUMERIC))


def host_objects(netns: str | None = None) -> list[dict[str, Any]]:
    """The objects of a host's ruleset, by a process of its own: an older nft can crash on what a newer one wrote."""
    with entered(netns):
        done = run(["nft", "-j", "-p", "-y", "list", "ruleset"], timeout=_TIMEOUT)
    return listed(done.stdout)


def listed(text: str) -> list[dict[str, Any]]:
    """The objects of one JSON listing.

    Raises BackendError for what is none.
    """
    if not text.strip():  # the flags of a table are no text in nft 1.0.6 (json.c, table_flags_name)
        raise BackendError("nft printed nothing", remedy="an older nft can't list a dormant table as JSON: wake it")
    try:
        return list(msgspec.json.decode(text)["nftables"])
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
        raise BackendError(f"no listing of nft's: {error}; expected what nft -j list ruleset prints") from None
