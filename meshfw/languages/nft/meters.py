"""The names of meters that rules have taken: nft holds one of a name, where iptables' rules share what it counts."""

from __future__ import annotations

import re
from typing import Final

from meshfw.errors import InexpressibleError
from meshfw.languages.nft.render import NftText

_METER: Final = re.compile(r"\bmeter (\S+) size ")


class MeterNames:
    """The names taken so far by the rules of one family."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, text: NftText) -> None:
        """Note the names of a rule's meters.

        Raises:
            InexpressibleError: another rule has one of them.
        """
        if "meter " not in text.head:
            return
        names = _METER.findall(text.head)
        for name in names:
            if name in self._taken:
                raise InexpressibleError(
                    f"another rule has the meter {name}: iptables' rules of one --hashlimit-name share what it counts, "
                    "and nft's can't"
                )
        self._taken.update(names)
