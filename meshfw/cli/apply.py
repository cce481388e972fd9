"""The verb ``apply``, and the report that it has in common with ``clean``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from meshfw import reconcile
from meshfw.backend import Outcome, Report
from meshfw.backends.instance import only_writer
from meshfw.cli.output import counted, one_line, print_edits, print_json, warn
from meshfw.model import Ruleset
from meshfw.workshop import Workshop

SHOWN: Final = 50
"""Lines of changes that a person is shown; ``plan`` and ``-v`` show all."""


def run(arguments: Namespace) -> int:
    """0 when the kernel holds the declared rules."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    with only_writer(shop.site, timeout=arguments.lock_timeout), shop.backend() as backend:
        refusal = shop.elsewhere(backend)
        if refusal is not None:
            raise refusal
        shop.warn_unread(backend)
        ruleset = shop.fitted(wanted, backend)
        report = reconcile.apply(backend, ruleset, proofs=shop.proofs(backend))
        if ruleset != Ruleset():
            shop.remember(backend)
    told(shop, report, arguments)
    return 0


def told(shop: Workshop, report: Report, arguments: Namespace) -> None:
    """Tell the plugins what was done, and a person or a program as well."""
    warnings = [*shop.warnings, *report.warnings, *shop.plugins.reconciled(report)]
    if arguments.json:
        print_json(reported(shop, report, warnings))
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
