"""The verb ``rollback``: an earlier state again, and the agent holds it until something else is declared."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from meshfw.applying import roll_back
from meshfw.cli.apply import print_report, reported
from meshfw.cli.output import one_line, print_json, warn
from meshfw.workshop import Workshop

_HELD: Final = "the agent keeps it until the declaration changes, or until 'meshfw apply'"


def run(arguments: Namespace) -> int:
    """0 when the kernel holds that state."""
    shop = Workshop(arguments, needed=False, sources=False)
    done = roll_back(shop, arguments.number, timeout=arguments.lock_timeout)
    report = done.applied.report
    warnings = [*shop.warnings, *shop.history.notes, *report.warnings, *shop.plugins.reconciled(report)]
    if arguments.json:
        states = {"from": done.source.number, "to": done.to.number, "number": done.applied.number, "held": done.held}
        print_json({**reported(shop, report, warnings), **states})
        return 0
    warn(warnings)
    print_report(shop, report, verbose=arguments.verbose)
    said = f"state {done.to.number} ({done.to.summary.reason}) stands again"
    print(one_line(f"{said}; {_HELD}" if done.held else f"{said}, which is what's declared"))
    if arguments.verbose:
        for note in shop.notes:
            print(one_line(note))
    return 0
