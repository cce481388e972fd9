"""The CLASSIFY target: the class of a packet in traffic control (iptables-extensions(8), CLASSIFY; tc(8), CLASSES)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Hook, Rule, Target


class Classify(Target, frozen=True):
    """CLASSIFY: sets the packet's priority to a class, ``major`` in its upper 16 bits and ``minor`` in the lower."""

    final: ClassVar[bool] = False
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING})
    priority: int

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 0xFFFFFFFF:
            raise ModelError(f"class {self.priority} is not a number of 32 bits")

    @property
    def parts(self) -> tuple[int, int]:
        """Major and minor number."""
        return self.priority >> 16, self.priority & 0xFFFF


def _number(text: str) -> int:
    """A hexadecimal number, of which iptables keeps the lowest 16 bits."""
    try:
        if not text or text[0] in "+-" or "_" in text:
            raise ValueError
        return int(text, 16) & 0xFFFF
    except ValueError:
        raise ModelError(f"{text!r} is not a hexadecimal number") from None


def _parse(text: str, context: ParseContext) -> int:
    major, colon, minor = text.partition(":")
    if not colon:
        raise ModelError(f"{text!r} is not a class")
    return _number(major) << 16 | _number(minor)


_CLASS: Final = Codec(
    parse=_parse,
    format=lambda value: f"{value >> 16:04x}:{value & 0xFFFF:04x}",
    expected="MAJOR:MINOR, two hexadecimal numbers",
)
_NFT_NAMES: Final = {0: "none", 0xFFFFFFFF: "root"}
"""The classes that nft lists by name."""


def _to_nft(value: Classify, family: Family, rule: Rule) -> Iterable[str]:
    major, minor = value.parts
    yield f"meta priority set {_NFT_NAMES.get(value.priority) or f'{major:x}:{minor:x}'}"


def _from_nft(body: Any, family: Family) -> Classify | None:
    held = body["value"]
    named = next((priority for priority, name in _NFT_NAMES.items() if name == held), None)
    if named is not None:
        return Classify(named)
    return Classify(_parse(held, ParseContext(family))) if isinstance(held, str) else None


EXTENSIONS: Final = (
    Extension(
        name="CLASSIFY",
        value=Classify,
        options=(Option("--set-class", "priority", _CLASS),),
        to_nft=_to_nft,
        from_nft={"mangle meta priority": _from_nft},
    ),
)
