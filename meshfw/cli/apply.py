"""The verbs that write: ``apply``, and what it has in common with ``clean``."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from meshfw import reconcile
from meshfw.backend import Outcome
from meshfw.backends.instance import only_writer
from meshfw.cli.output import counted, print_edits, print_json, warn
from meshfw.cli.prepare import Workshop
from meshfw.model import Ruleset

SHOWN: Final = 50
"""Lines of changes that a person is shown; ``plan`` and ``-v`` show all."""


def run(arguments: Namespace) -> int:
    """0 when the kernel holds the declared rules."""
    shop = Workshop(arguments)
    return reconciled(shop, shop.rules(), arguments)


def reconciled(shop: Workshop, wanted: Ruleset, arguments: Namespace) -> int:
    """0, after the kernel was made to hold the rules, the plugins were told, and a person as well."""
    with only_writer(shop.site, timeout=arguments.lock_timeout), shop.backend() as backend:
        report = reconcile.apply(backend, shop.fitted(wanted, backend))
    warnings = [*shop.warnings, *report.warnings, *shop.plugins.reconciled(report)]
    if arguments.json:
        print_json(
            {
                "outcome": report.outcome,
                "backend": report.backend,
                "commits": report.commits,
                "cache": report.cache,
                "changes": report.plan.data(shop.formatter),
                "warnings": warnings,
            }
        )
        return 0
    warn(warnings)
    edits = list(report.plan.edits(shop.formatter))
    print_edits(edits, most=None if arguments.verbose else SHOWN)
    if report.outcome is Outcome.CHANGED:
        print(f"{counted(len(edits), 'change')} in {counted(report.commits, 'transaction')} ({report.backend})")
    else:
        print(f"nothing to do ({report.backend})")
    if arguments.verbose:
        print(f"cache: {report.cache}")
    return 0
