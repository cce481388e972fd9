"""The TCPOPTSTRIP target: options of a TCP header replaced by padding (iptables-extensions(8), TCPOPTSTRIP)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import number
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.tcp import NFT_OPTIONS, TCP
from meshfw.model import Family, Rule, Table, Target

NAMES: Final = {"wscale": 3, "mss": 2, "sack-permitted": 4, "sack": 5, "timestamp": 8, "md5": 19}
"""The options that iptables reads by name; it prints numbers."""


class TcpOptStrip(Target, frozen=True):
    """TCPOPTSTRIP: the options by number, from 2 to 255, in ascending order."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    final: ClassVar[bool] = False
    options: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if list(self.options) != sorted(set(self.options)) or not all(2 <= option <= 0xFF for option in self.options):
            raise ModelError("options of TCP are numbers from 2 to 255, each once and in ascending order")

    def atom(self, family: Family | None = None) -> Any:
        """The options; the same as no target without any."""
        return self if self.options else None

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule that isn't one of TCP."""
        return None if rule.protocol == TCP else f"target TCPOPTSTRIP needs the rule to state its protocol ({TCP})"

    def then(self, following: Target) -> Target | None:
        """The options of both."""
        if not isinstance(following, TcpOptStrip):
            return None
        return TcpOptStrip(tuple(sorted({*self.options, *following.options})))


def _parse(text: str, context: ParseContext) -> tuple[int, ...]:
    found: list[int] = []
    for word in text.split(","):
        option = NAMES.get(word) or number(word, high=0xFF)
        if option < 2:
            raise ModelError(f"option {option} of TCP can't be stripped")
        if option in found:
            raise ModelError(f"option {word} is given twice")
        found.append(option)
    return tuple(sorted(found))


_OPTIONS: Final = Codec(
    parse=_parse,
    format=lambda options: ",".join(map(str, options)),
    expected=f"numbers from 2 to 255 or {', '.join(NAMES)}, joined by commas",
)

# --- nft ------------------------------------------------------------------------------------------------


_NUMBERS: Final = {name: option for option, name in NFT_OPTIONS.items()}


def _to_nft(value: TcpOptStrip, family: Family, rule: Rule) -> Iterable[str]:
    return (f"reset tcp option {NFT_OPTIONS.get(option, option)}" for option in value.options)


def _read(body: Any, family: Family) -> TcpOptStrip | None:
    held = body["tcp option"]
    option = int(held["base"]) if "base" in held else _NUMBERS[held["name"]]
    return TcpOptStrip((option,)) if option >= 2 else None


EXTENSIONS: Final = (
    Extension(
        name="TCPOPTSTRIP",
        value=TcpOptStrip,
        options=(Option("--strip-options", "options", _OPTIONS),),
        save=lambda value, family: ("--strip-options", ",".join(map(str, value.options))) if value.options else (),
        to_nft=_to_nft,
        from_nft={"reset": _read},
    ),
)
