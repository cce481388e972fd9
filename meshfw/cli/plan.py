"""The verb ``plan``: what apply would change, or with ``--transaction`` exactly what would run."""

from __future__ import annotations

import sys
from argparse import Namespace

from meshfw import reconcile
from meshfw.cli.output import counted, for_tools, print_edits, print_json, warn
from meshfw.workshop import Workshop

PENDING = 2
"""The exit code when there is something to do."""


def run(arguments: Namespace) -> int:
    """0 when there is nothing to do, 2 when there is."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    with shop.backend() as backend:
        ruleset = shop.fitted(wanted, backend)
        shop.warnings += reconcile.checked(backend, ruleset)[1]
        shop.warn_elsewhere(backend)
        plan = reconcile.plan(backend, ruleset, proofs=shop.proofs(backend))
        transaction = backend.compile(plan) if plan else None
        name = backend.name
    warnings = (*shop.warnings, *(transaction.notes if transaction is not None else ()))
    if arguments.json:
        data = {"backend": name, "pending": bool(plan), "changes": plan.data(shop.formatter)}
        if arguments.transaction:
            data["transaction"] = transaction.steps if transaction is not None else ()
        print_json({**data, "warnings": warnings})
        return PENDING if plan else 0
    warn(warnings)
    if arguments.transaction:
        # Nothing else goes to standard output: it may be on its way into nft.
        print(for_tools(str(transaction)) if transaction is not None else "", end="")
        if transaction is None:
            print(f"nothing to do ({name})", file=sys.stderr)
        return PENDING if plan else 0
    edits = list(plan.edits(shop.formatter))
    print_edits(edits)
    if not plan:
        print(f"nothing to do ({name})")
    elif arguments.verbose:
        print(f"{counted(len(edits), 'change')} ({name})")
    return PENDING if plan else 0
