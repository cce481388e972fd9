"""What commits of ours taught of iptables' texts: kept under /run, so that a new run knows rules again.

*Spellings*: ``--timestart 8:00`` comes back as ``--timestart 08:00:00`` and more, and both are one rule. *Forms*: a
newer iptables-nft may build rules of expressions of which nobody here knows that it tells them all; those that it built
for us are known by their bytes. A run that knows neither writes such a rule once more. The directory is
$RUNTIME_DIRECTORY (systemd.exec(5)), else /run/meshfw; like the rules it goes with a reboot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from meshfw.files.kept import OddFileError, only_keeper, read_kept, write_kept
from meshfw.model import Family

DIRECTORY: Final = "/run/meshfw"
_LONGEST: Final = 4 << 20
_MOST: Final = 10_000
Printed = tuple[Family, str, str]
"""Family, what was written (its text, or a digest of its bytes), and the text that iptables prints for it."""


class KnownTexts:
    """The printed texts by what was written; a file that is odd or missing holds none."""

    def __init__(self, name: str) -> None:
        self._name = f"{name}.json"
        self._known: dict[Family, dict[str, str]] | None = None

    def printed(self, family: Family, written: str) -> str | None:
        """What iptables prints for it; None where it isn't known."""
        if self._known is None:
            self._known = self._read()
        return self._known[family].get(written)

    def keep(self, new: Iterable[Printed]) -> None:
        """Keep more for the next run; where that can't be done, only this one knows them."""
        more = [*new]
        try:
            with only_keeper(_directory()):  # owners and namespaces share the file
                self._known = self._with(more)
                write_kept(_directory(), self._name, msgspec.json.encode(self._known) + b"\n")
        except (OSError, OddFileError):
            self._known = self._with(more)

    def _with(self, more: Iterable[Printed]) -> dict[Family, dict[str, str]]:
        """What this run knew already, what others have kept since, and more; the oldest are left out."""
        known = self._read()
        if self._known is not None:
            known = {family: {**self._known[family], **texts} for family, texts in known.items()}
        for family, written, printed in more:
            known[family].pop(written, None)
            known[family][written] = printed
        for texts in known.values():
            for oldest in [*texts][: max(0, len(texts) - _MOST)]:
                del texts[oldest]
        return known

    def _read(self) -> dict[Family, dict[str, str]]:
        try:
            content = read_kept(_directory(), self._name, most=_LONGEST)
            found = msgspec.json.decode(content, type=dict[Family, dict[str, str]])
        except (OSError, OddFileError, msgspec.MsgspecError, UnicodeDecodeError):
            found = {}
        return {family: found.get(family, {}) for family in Family}


def _directory() -> str:
    named = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return named if os.path.isabs(named) else DIRECTORY
