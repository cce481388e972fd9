"""The verb ``show``: what the kernel holds of ours, or with ``--wanted`` what is declared."""

from __future__ import annotations

import sys
from argparse import Namespace

from meshfw.cli.listing import as_snapshot, iptables_text, listing_data, nft_text
from meshfw.cli.output import print_json, printable, warn
from meshfw.snapshot import Snapshot
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0, whatever there is."""
    shop = Workshop(arguments, needed=arguments.wanted)
    owner = shop.config.owner
    if arguments.wanted:
        snapshot = as_snapshot(shop.rules())
    else:
        with shop.backend() as backend:
            snapshot = backend.observe().snapshot
    broken = {family.value: reason for family, reason in snapshot.broken.items()}
    if arguments.json:
        families = listing_data(snapshot, shop.formatter)
        print_json({"owner": owner, "families": families, "broken": broken, "warnings": shop.warnings})
        return 0
    warn([*shop.warnings, *(f"the {family} tables need a rebuild: {reason}" for family, reason in broken.items())])
    if not snapshot:
        print(f"owner {owner} has nothing {'declared' if arguments.wanted else 'in the kernel'}", file=sys.stderr)
    print(_text(snapshot, shop, arguments), end="")
    return 0


def _text(snapshot: Snapshot, shop: Workshop, arguments: Namespace) -> str:
    if arguments.nft:
        return printable(nft_text(snapshot, owner=shop.config.owner, language=shop.language))
    return iptables_text(snapshot, shop.formatter)
