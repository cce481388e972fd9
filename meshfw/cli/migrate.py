"""The verb ``migrate``: the owner's rules move to another backend while packets flow, which meet all of them."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from meshfw.cli import PENDING
from meshfw.cli.output import UnfinishedError, counted, one_line, print_json, warn
from meshfw.errors import ConfigError, MeshfwError
from meshfw.migration import Moved, Prospect, foresee, migrate
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when the rules stand in that backend and in no other; with ``--dry-run`` 2 where something would be moved."""
    if arguments.backend is not None:
        raise ConfigError("the backend to leave is the one where rules stand", key="--backend", expected="--to alone")
    arguments.backend = arguments.to
    shop = Workshop(arguments, key="--to")
    if arguments.dry_run:
        prospect = foresee(shop)
        if arguments.json:
            print_json({**_foreseen(prospect), "warnings": shop.warnings})
        else:
            warn(shop.warnings)
            _tell(prospect, done=False)
        return PENDING if prospect.sources else 0
    foreseen: list[Prospect] = []
    tell = foreseen.append if arguments.json else _beforehand
    try:
        moved = migrate(shop, timeout=arguments.lock_timeout, force=arguments.force, tell=tell)
    except MeshfwError as error:
        if not foreseen:
            raise
        raise UnfinishedError(error, {**_foreseen(foreseen[0]), "warnings": shop.warnings}) from error
    warnings = [*shop.warnings, *shop.history.notes, *_told_plugins(shop, moved)]
    if arguments.json:
        print_json({**_foreseen(moved.prospect), "number": moved.number, "warnings": warnings})
        return 0
    warn(warnings)
    print(_done(moved))
    if arguments.verbose:
        for note in shop.notes:
            print(one_line(note))
    return 0


def _told_plugins(shop: Workshop, moved: Moved) -> list[str]:
    return [warning for report in moved.reports for warning in shop.plugins.reconciled(report)]


def _beforehand(prospect: Prospect) -> None:
    """Told before anything is written, so written out at once."""
    _tell(prospect, done=True)
    sys.stdout.flush()


def _foreseen(prospect: Prospect) -> dict[str, Any]:
    """A move as data."""
    return {
        "from": prospect.sources,
        "to": prospect.target,
        "rules": prospect.rules,
        "resumed": prospect.resumed,
        "doubles": prospect.doubles,
        "differences": prospect.differences,
        "force": prospect.refused,
    }


def _tell(prospect: Prospect, *, done: bool) -> None:
    if not prospect.sources:
        if not done:
            print(f"nothing to move: the rules stand in {prospect.target}")
        return
    goes_on = "brings a move that is half done to its end: " if prospect.resumed else ""
    rules = counted(prospect.rules, "rule")
    verb = "moving" if done else "would move"
    print(f"{goes_on}{verb} {rules} from {' and '.join(prospect.sources)} to {prospect.target}")
    force = "" if prospect.agreed else " (takes --force)"
    for item in prospect.doubles:
        print(one_line(f"  doubles while both are live{force if item.alters else ''}: {item}"))
    for difference in prospect.differences:
        print(one_line(f"  differs{force}: {difference}"))
    if not prospect.doubles and not prospect.differences:
        print("  nothing doubles while both are live")


def _done(moved: Moved) -> str:
    prospect = moved.prospect
    if not prospect.sources:
        return f"nothing to move: the rules stand in {prospect.target}"
    return f"moved {counted(prospect.rules, 'rule')} to {prospect.target}; nothing of ours is left elsewhere"
