"""The verb ``apply``, and the report that it has in common with ``clean``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from meshfw.applying import apply_declared, apply_planned
from meshfw.backend import Outcome, Report
from meshfw.cli.confirm import asking, outlined
from meshfw.cli.output import counted, one_line, print_edits, print_json, warn
from meshfw.safety.pending import Pending
from meshfw.workshop import Workshop

SHOWN: Final = 50
"""Lines of changes that a person is shown; ``plan`` and ``-v`` show all."""
_NOT_ON_TRIAL: Final = "so nothing is on trial"
_FOLLOWED: Final = "; an agent that follows the configuration's file may have applied it already (follow = false)"


def run(arguments: Namespace) -> int:
    """0 when the kernel holds the declared rules, and nobody had anything against them who was asked."""
    shop = Workshop(arguments)
    timeout, confirm = arguments.lock_timeout, arguments.confirm
    if arguments.plan is None:
        applied = apply_declared(shop, timeout=timeout, confirm=confirm)
    else:
        applied = apply_planned(shop, arguments.plan, timeout=timeout, confirm=confirm)
    told(shop, applied.report, arguments, pending=applied.pending)
    if arguments.json:
        return 0
    if applied.pending is None:
        if confirm is not None:
            print(_NOT_ON_TRIAL + (_FOLLOWED if shop.config.agent.follow else ""))
        return 0
    if sys.stdin.isatty():
        from meshfw.cli.asking import ask

        return ask(shop.site, applied.pending, arguments)
    print(asking(applied.pending))
    return 0


def told(shop: Workshop, report: Report, arguments: Namespace, *, pending: Pending | None = None) -> None:
    """Tell the plugins what was done, and a person or a program as well."""
    warnings = [*shop.warnings, *shop.history.notes, *report.warnings, *shop.plugins.reconciled(report)]
    if arguments.json:
        trial = {"pending": outlined(pending)} if pending is not None else {}
        print_json({**reported(shop, report, warnings), **trial})
        return
    warn(warnings)
    print_report(shop, report, verbose=arguments.verbose)
    if arguments.verbose:
        for note in shop.notes:
            print(one_line(note))


def reported(shop: Workshop, report: Report, warnings: Sequence[str]) -> dict[str, Any]:
    """A report as data."""
    return {
        "outcome": report.outcome,
        "backend": report.backend,
        "commits": report.commits,
        "cache": report.cache,
        "changes": report.plan.data(shop.formatter),
        "warnings": warnings,
    }


def print_report(shop: Workshop, report: Report, *, verbose: bool) -> None:
    """A report's changes, how many they were, and with ``verbose`` how it came to them."""
    edits = list(report.plan.edits(shop.formatter))
    print_edits(edits, most=None if verbose else SHOWN)
    if report.outcome is Outcome.CHANGED:
        print(f"{counted(len(edits), 'change')} in {counted(report.commits, 'transaction')} ({report.backend})")
    else:
        print(f"nothing to do ({report.backend})")
    if verbose:
        print(f"cache: {report.cache}")
