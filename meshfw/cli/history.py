"""The verb ``history``: the states that were applied and are kept, the newest last."""

from __future__ import annotations

import time
from argparse import Namespace

from meshfw.cli.output import counted, one_line, print_json, warn
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0, whatever there is."""
    shop = Workshop(arguments, needed=False, sources=False)
    history = shop.history
    entries, held = history.entries(), history.held()
    warnings = [*shop.warnings, *history.notes]
    number = held.number if held is not None else None
    if arguments.json:
        states = [
            {
                "number": entry.number,
                "time": entry.summary.time,
                "backend": entry.summary.backend,
                "rules": entry.summary.rules,
                "reason": entry.summary.reason,
                "digest": entry.summary.digest,
            }
            for entry in entries
        ]
        print_json({"directory": history.directory, "states": states, "held": number, "warnings": warnings})
        return 0
    warn(warnings)
    if not entries:
        print(f"no state is kept{f': {history.why_not}' if history.why_not else f' in {history.directory}'}")
    for entry in entries:
        said = entry.summary
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said.time))
        held_mark = "  (held)" if entry.number == number else ""
        text = f"{entry.number:>6}  {when}  {said.backend:<15}  {counted(said.rules, 'rule'):<12}  {said.reason}"
        print(one_line(text + held_mark))
    return 0
