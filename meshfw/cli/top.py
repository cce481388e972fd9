"""The verb ``top``: which rules of ours count packets now, and how fast, until a person has seen enough."""

from __future__ import annotations

import os
import select
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from meshfw.backend import Backend
from meshfw.cli.output import one_line, print_json, warn
from meshfw.cli.rates import Rate, busiest, list_rates, rule_rates, shortened
from meshfw.errors import BackendError
from meshfw.model import DispatcherKey
from meshfw.snapshot import Snapshot
from meshfw.workshop import Workshop

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_ONCE_MOST: Final = 50
"""Rules that a table for a file or a pipe has."""
_CHAINS_MOST: Final = 6
_FRAME: Final = 8
"""Lines of a screen that are no rule and no chain."""
_SLICE: Final = 0.2
"""Seconds after which a terminal of another size is seen."""
_QUIT: Final = frozenset("qQ\x03\x1b\x04")
_SORTS: Final = {"p": "packets", "b": "bytes"}


def run(arguments: Namespace) -> int:
    """0 when it has shown what it was asked for."""
    shop = Workshop(arguments, needed=False, sources=False)
    with shop.backend() as backend:
        if not backend.capabilities.counters:
            raise BackendError("its rules count no packets", backend=backend.name)
        top = Top(shop, backend, by=arguments.sort)
        warn(shop.warnings)
        if arguments.json or arguments.once or not sys.stdout.isatty():
            time.sleep(arguments.interval)
            top.look()
            top.print_once(json=arguments.json, verbose=arguments.verbose)
        else:
            _watch(top, arguments.interval)
    return 0


class Top:
    """Two looks at a kernel and what was counted in between; ``by`` is what the fastest is told by."""

    def __init__(self, shop: Workshop, backend: Backend, *, by: str) -> None:
        self._shop = shop
        self._backend = backend
        self.by = by
        self.seconds = 0.0
        self._before, self._when = self._read()
        self.rules = rule_rates(self._before, self._before, seconds=1.0)  # what was counted before, at rest as yet

    def _read(self) -> tuple[Snapshot, float]:
        return self._backend.observe().snapshot, time.monotonic()

    def look(self) -> None:
        """Look again: the rates are those since the last time."""
        after, now = self._read()
        self.seconds = max(now - self._when, 1e-6)
        self.rules = rule_rates(self._before, after, seconds=self.seconds)
        self._before, self._when = after, now

    # --- for a file, a pipe or a program ---

    def print_once(self, *, json: bool, verbose: bool) -> None:
        """One table, or all of it as JSON."""
        formatter = self._shop.formatter
        if json:
            print_json(
                {
                    "owner": self._shop.config.owner,
                    "backend": self._backend.name,
                    "seconds": round(self.seconds, 3),
                    "rules": [rate.data(formatter) for rate in busiest(self.rules, by=self.by)],
                    "chains": [rate.data(formatter) for rate in busiest(list_rates(self.rules), by=self.by)],
                    "warnings": self._shop.warnings,
                }
            )
            return
        shown = busiest(self.rules, by=self.by, most=None if verbose else _ONCE_MOST)
        rows = [("PKT/S", "B/S", "PACKETS", "BYTES", "WHERE", "RULE"), *map(self._row, shown)]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        for row in rows:
            numbers = [text.rjust(width) for text, width in zip(row[:4], widths, strict=False)]
            print("  ".join([*numbers, row[4].ljust(widths[4]), row[5]]).rstrip())
        if len(self.rules) > len(shown):
            print(f"... {len(self.rules) - len(shown)} more (-v shows all)")

    def _row(self, rate: Rate) -> tuple[str, ...]:
        where = f"{rate.key.family} {rate.key.table} {rate.name}" + (f" {rate.position}" if rate.position else "")
        numbers = (rate.packet_rate, rate.byte_rate, rate.packets, rate.bytes)
        return (*map(shortened, numbers), one_line(where), one_line(rate.text(self._shop.formatter)))

    # --- for a terminal ---

    def screen(self, console: Console) -> RenderableType:
        """What fits on the terminal as large as it is now."""
        from rich.console import Group
        from rich.text import Text

        lists = list_rates(self.rules)
        room = max(console.size.height - _FRAME, 1)
        chains = min(_CHAINS_MOST, len(lists), room // 3)
        # Those are met once at each hook; a packet counts again for each rule behind it.
        hooks = [rate for rate in self.rules if isinstance(rate.key, DispatcherKey)]
        packets, octets = sum(rate.packet_rate for rate in hooks), sum(rate.byte_rate for rate in hooks)
        head = Text(
            f"{self._shop.config.owner} on {self._backend.name}: {len(self.rules)} rules; each second "
            f"{shortened(packets)} packets and {shortened(octets)} bytes come to them from the hooks",
            style="bold",
            no_wrap=True,
            overflow="ellipsis",
        )
        keys = Text(f"by {self.by}    p packets  b bytes  q quit", style="dim", no_wrap=True, overflow="ellipsis")
        tables = [self._table("RULE", busiest(self.rules, by=self.by, most=room - chains))]
        if chains:
            tables.insert(0, self._table("", busiest(lists, by=self.by, most=chains)))
        return Group(head, keys, *tables)

    def _table(self, last: str, shown: Sequence[Rate]) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="reverse", expand=True)
        for name in ("PKT/S", "B/S", "PACKETS", "BYTES"):
            table.add_column(name, justify="right", no_wrap=True, min_width=7)
        table.add_column("WHERE" if last else "CHAIN", no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column(last, no_wrap=True, overflow="ellipsis", ratio=3)
        for rate in shown:
            busy = "" if rate.packet_rate else "dim"
            table.add_row(*(Text(text) for text in self._row(rate)), style=busy)
        return table


def _watch(top: Top, interval: float) -> None:
    """Show it on the terminal until a key or a signal says that it's enough."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(top.screen(console), refresh=True)
                due, size = time.monotonic() + interval, console.size
                while (left := due - time.monotonic()) > 0:
                    key = _pressed(keys, min(left, _SLICE))
                    if key in _QUIT:
                        return
                    changed = key in _SORTS or console.size != size
                    if changed:
                        top.by, size = _SORTS.get(key, top.by), console.size
                        live.update(top.screen(console), refresh=True)
                top.look()
        except KeyboardInterrupt as interrupt:
            if getattr(interrupt, "number", None) is not None:  # a signal, and not Ctrl-C
                raise


@contextmanager
def _keys() -> Iterator[int | None]:
    """The descriptor of the keyboard, a key at a time and unseen; None where standard input is none.

    Ctrl-Z is switched off: it would leave the shell on our screen.
    """
    if not os.isatty(0):
        yield None
        return
    import termios

    before = termios.tcgetattr(0)
    mode = termios.tcgetattr(0)
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    mode[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(0, termios.TCSANOW, mode)
    try:
        yield 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _pressed(keys: int | None, seconds: float) -> str:
    """The first key pressed within so many seconds; empty for none. A terminal that went away is like q."""
    if keys is None:
        time.sleep(seconds)
        return ""
    if not select.select([keys], [], [], seconds)[0]:
        return ""
    try:
        pressed = os.read(keys, 64)
    except OSError:
        return "q"
    if not pressed:
        return "q"
    if len(pressed) > 1 and pressed.startswith(b"\x1b"):  # an arrow, or another key of several bytes
        return ""
    return pressed[:1].decode("latin-1")
