"""The verb ``plan``: what apply would change, or with ``--transaction`` exactly what would run.

With ``--out`` it's kept in a file as well, for an apply that makes these changes and no others.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from meshfw import reconcile
from meshfw.cli import PENDING
from meshfw.cli.output import counted, for_tools, print_edits, print_json, warn
from meshfw.errors import StateError
from meshfw.safety.moving import warn_divided
from meshfw.snapshot import Snapshot
from meshfw.workshop import Workshop

if TYPE_CHECKING:
    from meshfw.planned import Planned


def run(arguments: Namespace) -> int:
    """0 when there is nothing to do, 2 when there is."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    with shop.backend() as backend:
        ruleset = shop.fitted(wanted, backend)
        shop.warnings += reconcile.checked(backend, ruleset)[1]
        warn_divided(shop, backend)
        snapshot: Snapshot | None = None
        if arguments.out is None:
            plan = reconcile.plan(backend, ruleset, proofs=shop.proofs(backend))
        else:
            snapshot, plan = reconcile.compared(backend, ruleset)
        transaction = backend.compile(plan) if plan else None
        if snapshot is not None:
            from meshfw.applying import planned

            text = str(transaction) if transaction is not None else ""
            _write(arguments.out, planned(shop, backend, wanted, snapshot=snapshot, plan=plan, transaction=text))
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


def _write(path: str, reviewed: Planned) -> None:
    from meshfw.files.kept import write_private
    from meshfw.planned import format_planned

    try:
        write_private(path, format_planned(reviewed))
    except OSError as error:
        raise StateError(f"can't be written: {error.strerror or error}", source=path) from error
