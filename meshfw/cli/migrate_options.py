"""The options of ``meshfw migrate``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable


def add_migrate(
    parser: ArgumentParser, *, name: Callable[[str], str], writer: Callable[[ArgumentParser], None]
) -> None:
    """Add them to a parser; ``name`` is the type of a name, ``writer`` adds the options of all that write."""
    writer(parser)
    parser.add_argument("--to", metavar="NAME", type=name, required=True, help="the backend that gets the rules")
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be moved and what doubles meanwhile, and change nothing"
    )
    parser.add_argument(
        "--force", action="store_true", help="move them though some packets fare otherwise, as --dry-run lists"
    )
