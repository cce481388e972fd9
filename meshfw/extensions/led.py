"""The LED target: a light on the host's case (iptables-extensions(8), LED)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import number
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Rule, Target, byte_length

TRIGGER_BYTES: Final = 16  # linux/netfilter/xt_LED.h, id[27] with its prefix and the final NUL
FOREVER: Final = 0xFFFFFFFF


class Led(Target, frozen=True):
    """LED: a trigger that lights a LED for ``delay`` milliseconds, and again while it is lit where ``blink`` is set."""

    final: ClassVar[bool] = False
    trigger: str
    delay: int = 0
    blink: bool = False

    def __post_init__(self) -> None:
        if byte_length(self.trigger) > TRIGGER_BYTES or not self.trigger.isprintable():
            raise ModelError(f"LED trigger {self.trigger!r}: at most {TRIGGER_BYTES} bytes of printable text")
        if not 0 <= self.delay <= FOREVER:
            raise ModelError(f"LED delay {self.delay} is not a number of 32 bits")


def _parse_delay(text: str, context: ParseContext) -> int:
    return FOREVER if text.lower().startswith("inf") else number(text)


def _quoted(text: str) -> str:
    """Free text, quoted always and with the escapes that this target alone writes (libxt_LED.c)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_TRIGGER: Final = Codec(parse=lambda text, context: text, format=_quoted, expected="the name of a trigger")
_DELAY: Final = Codec(
    parse=_parse_delay,
    format=lambda value: "inf" if value == FOREVER else str(value),
    expected="milliseconds, or inf",
)


def _save(value: Led, family: Family) -> Iterable[str]:
    yield from ("--led-trigger-id", _quoted(value.trigger))
    if value.delay:
        yield from ("--led-delay", _DELAY.format(value.delay))
    if value.blink:
        yield "--led-always-blink"


def _to_nft(value: Led, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("LED --led-trigger-id: nft has no statement that lights a LED")


EXTENSIONS: Final = (
    Extension(
        name="LED",
        value=Led,
        options=(
            Option("--led-trigger-id", "trigger", _TRIGGER),
            Option("--led-delay", "delay", _DELAY),
            Option("--led-always-blink", "blink", words=0),
        ),
        save=_save,
        to_nft=_to_nft,
    ),
)
