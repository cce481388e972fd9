"""The verb ``check``: whether the kernel still holds the declared rules, and what differs."""

from __future__ import annotations

from argparse import Namespace

from meshfw import reconcile
from meshfw.backends.instance import only_writer
from meshfw.cli import PENDING
from meshfw.cli.arguments import LOCK_TIMEOUT
from meshfw.cli.output import counted, print_edits, print_json, warn
from meshfw.safety.moving import warn_divided
from meshfw.safety.pending import on_trial
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when it does, 2 when it doesn't."""
    shop = Workshop(arguments)
    wanted = shop.rules()
    _settle(shop)
    with shop.backend() as backend:
        plan = reconcile.plan(backend, shop.fitted(wanted, backend), proofs=shop.proofs(backend))
        warn_divided(shop, backend)
        name = backend.name
    if arguments.json:
        data = plan.data(shop.formatter)
        print_json({"backend": name, "drift": bool(plan), "changes": data, "warnings": shop.warnings})
        return PENDING if plan else 0
    warn(shop.warnings)
    if not plan:
        print(f"in place ({name})")
        return 0
    edits = list(plan.edits(shop.formatter))
    print(f"drift: the kernel is {counted(len(edits), 'change')} away from the declared rules ({name})")
    print_edits(edits)
    return PENDING


def _settle(shop: Workshop) -> None:
    """Warn of a change on trial; one whose time is over, and that nobody undid, is undone."""
    if not on_trial(shop.site):
        return
    from meshfw.cli.confirm import asking
    from meshfw.safety.settling import settle

    with only_writer(shop.site, timeout=LOCK_TIMEOUT):
        pending = settle(shop.site, shop.warnings)
    if pending is not None:
        shop.warnings.append(asking(pending))
