"""The verb ``graph``: the way of packets through the rules, as text for Graphviz or as a picture."""

from __future__ import annotations

import sys
from argparse import Namespace

import msgspec

from meshfw.backends.instance import drawn
from meshfw.cli.listing import as_snapshot
from meshfw.cli.output import one_line, print_json, warn
from meshfw.cli.picture import dot_text, graph_of
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0, whatever there is."""
    shop = Workshop(arguments, needed=arguments.wanted)
    owner = shop.config.owner
    if arguments.wanted:
        snapshot, where = as_snapshot(shop.rules()), "as declared"
    else:
        with shop.backend() as backend:
            snapshot, where = backend.observe().snapshot, f"in the kernel, by {backend.name}"
    broken = {family.value: reason for family, reason in snapshot.broken.items()}
    graph = graph_of(snapshot)
    if arguments.json:
        print_json({"owner": owner, **msgspec.to_builtins(graph), "broken": broken, "warnings": shop.warnings})
        return 0
    warn([*shop.warnings, *(f"the {family} tables need a rebuild: {reason}" for family, reason in broken.items())])
    if not graph.nodes:
        print(f"owner {owner} has nothing {'declared' if arguments.wanted else 'in the kernel'}", file=sys.stderr)
    text = dot_text(graph, title=one_line(f"{owner}, {where}"))
    print(drawn(text) if arguments.svg else text, end="")
    return 0
