"""The verb ``plan``: what apply would change, and with ``--transaction`` exactly what would run."""

from __future__ import annotations

from argparse import Namespace

from meshfw import reconcile
from meshfw.cli.output import counted, print_edits, print_json, warn
from meshfw.cli.prepare import Workshop

PENDING = 2
"""The exit code when there is something to do."""


def run(arguments: Namespace) -> int:
    """0 when there is nothing to do, 2 when there is."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    with shop.backend() as backend:
        ruleset = shop.fitted(wanted, backend)
        shop.warnings += (str(finding) for finding in backend.check(ruleset) if not finding.refuses)
        plan = reconcile.plan(backend, ruleset)
        transaction = backend.compile(plan) if plan and arguments.transaction else None
        name = backend.name
    if arguments.json:
        data = {"backend": name, "pending": bool(plan), "changes": plan.data(shop.formatter)}
        if arguments.transaction:
            data["transaction"] = transaction.steps if transaction is not None else ()
        print_json({**data, "warnings": shop.warnings})
        return PENDING if plan else 0
    warn(shop.warnings)
    edits = list(plan.edits(shop.formatter))
    print_edits(edits)
    if transaction is not None:
        print(f"\n{transaction}", end="")
    if not plan:
        print(f"nothing to do ({name})")
    elif arguments.verbose:
        print(f"{counted(len(edits), 'change')} ({name})")
    return PENDING if plan else 0
