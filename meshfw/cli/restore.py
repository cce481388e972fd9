"""The verb ``restore``: what was applied last, or is held, without asking any source: for the time before the network.

No state, or one that says that nothing is wanted, is no error: a host that never had rules starts without them.
"""

from __future__ import annotations

from argparse import Namespace

from meshfw.applying import restore
from meshfw.cli.apply import told
from meshfw.cli.output import print_json, warn
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when the kernel holds that state, or when there is none."""
    shop = Workshop(arguments, needed=False, sources=False)
    applied = restore(shop, timeout=arguments.lock_timeout)
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
