"""The verb ``diff``: what makes one ruleset another, compared by meaning; both may be dumps, nft's, or the host's."""

from __future__ import annotations

from argparse import Namespace

from meshfw.cli import PENDING
from meshfw.cli.output import counted, print_edits, print_json, warn
from meshfw.cli.rulesets import ruleset_named
from meshfw.comparison import compare
from meshfw.errors import ParseError
from meshfw.model import Family
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when both mean the same, 2 when they differ."""
    if arguments.old == arguments.new == "-":
        raise ParseError("standard input can be one of the two only", expected="a file, or live:TOOL")
    shop = Workshop(arguments, needed=False, sources=False)
    family = Family(arguments.family) if arguments.family else None
    old, new = (
        ruleset_named(name, language=shop.language, family=family, netns=arguments.netns)
        for name in (arguments.old, arguments.new)
    )
    edits = compare(old, new, shop.formatter)
    if arguments.json:
        names = {"+": "add", "~": "change", "-": "remove"}
        changes = [{"action": names[edit.symbol], "where": edit.where, "text": str(edit)[2:]} for edit in edits]
        print_json({"same": not edits, "changes": changes, "warnings": shop.warnings})
        return PENDING if edits else 0
    warn(shop.warnings)
    if not edits:
        print("both mean the same")
        return 0
    print(f"{counted(len(edits), 'difference')} from {arguments.old} to {arguments.new}")
    print_edits(edits)
    return PENDING
