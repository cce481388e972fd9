"""The verb ``clean``: the empty ruleset applied, which takes everything of the owner's away and nothing else."""

from __future__ import annotations

from argparse import Namespace

from meshfw.cli.apply import reconciled
from meshfw.cli.prepare import Workshop
from meshfw.model import Ruleset


def run(arguments: Namespace) -> int:
    """0 when nothing of ours is left; the rules of the configuration aren't read, so broken ones don't matter."""
    return reconciled(Workshop(arguments, needed=False, sources=False), Ruleset(), arguments)
