"""The verb ``apply``, and the report that it has in common with ``clean``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from meshfw.backend import Outcome, Report
from meshfw.backends.instance import only_writer
from meshfw.cli.asking import ask
from meshfw.cli.confirm import asking, outlined
from meshfw.cli.output import counted, one_line, print_edits, print_json, warn
from meshfw.model import Ruleset
from meshfw.safety.pending import Pending
from meshfw.safety.settling import require_settled
from meshfw.safety.trial import guarded_apply
from meshfw.workshop import Workshop

SHOWN: Final = 50
"""Lines of changes that a person is shown; ``plan`` and ``-v`` show all."""


def run(arguments: Namespace) -> int:
    """0 when the kernel holds the declared rules, and nobody had anything against them who was asked."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    with only_writer(shop.site, timeout=arguments.lock_timeout):
        require_settled(shop.site, shop.warnings)
        with shop.backend() as backend:
            refusal = shop.elsewhere(backend)
            if refusal is not None:
                raise refusal
            shop.warn_unread(backend)
            ruleset = shop.fitted(wanted, backend)
            tried = guarded_apply(shop, backend, ruleset, declared=wanted, confirm=arguments.confirm)
            if ruleset != Ruleset():
                shop.remember(backend)
    told(shop, tried.report, arguments, pending=tried.pending)
    if tried.pending is None or arguments.json:
        return 0
    if sys.stdin.isatty():
        return ask(shop.site, tried.pending, arguments)
    print(asking(tried.pending))
    return 0


def told(shop: Workshop, report: Report, arguments: Namespace, *, pending: Pending | None = None) -> None:
    """Tell the plugins what was done, and a person or a program as well."""
    warnings = [*shop.warnings, *report.warnings, *shop.plugins.reconciled(report)]
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
