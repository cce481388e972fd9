"""The IDLETIMER target: the kernel tells when no packet has met it for a while (iptables-extensions(8), IDLETIMER)."""

from __future__ import annotations

from typing import ClassVar, Final, NoReturn

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, word
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Family, Rule, Target

LABEL_BYTES: Final = 27  # linux/netfilter/xt_IDLETIMER.h, MAX_IDLETIMER_LABEL_SIZE with the final NUL
TIMEOUT_MAX: Final = 0x7FFFFFFF // 1000 - 1
_TAKEN: Final = frozenset({"power", "subsystem", "uevent"})  # names of files that sysfs has already


class IdleTimer(Target, frozen=True):
    """IDLETIMER: starts a timer of so many seconds anew; ``alarm`` runs on while the host sleeps."""

    final: ClassVar[bool] = False
    timeout: int
    name: str
    alarm: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= TIMEOUT_MAX:
            raise ModelError(f"a timeout is from 1 to {TIMEOUT_MAX} seconds")
        if self.name in _TAKEN or "/" in self.name:
            raise ModelError(f"{self.name!r}: the label is a file's in /sys, where this can't be one")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "IDLETIMER"


def _to_nft(value: IdleTimer, family: Family, rule: Rule) -> NoReturn:
    raise InexpressibleError("IDLETIMER: nft has no timer that tells of silence")


EXTENSIONS: Final = (
    Extension(
        name="IDLETIMER",
        value=IdleTimer,
        options=(
            Option("--timeout", "timeout", integer("a number of seconds", low=1, high=TIMEOUT_MAX)),
            Option("--label", "name", word("a label", most=LABEL_BYTES)),
            Option("--alarm", "alarm", words=0),
        ),
        to_nft=_to_nft,
    ),
)
