"""The REJECT target: an error back to the sender, and the packet is gone (iptables-extensions(8), REJECT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.tcp import TCP
from meshfw.model import Family, Hook, Rule, Table, Target


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One kind of answer: iptables' names for it, the first the one it prints, and its code in the ICMP message."""

    names: tuple[str, ...]
    code: int


_RESET: Final = Answer(("tcp-reset", "tcp-rst"), -1)
ANSWERS: Final[Mapping[Family, Mapping[str, Answer]]] = {
    Family.IPV4: {
        "net-unreachable": Answer(("icmp-net-unreachable", "net-unreach"), 0),
        "host-unreachable": Answer(("icmp-host-unreachable", "host-unreach"), 1),
        "proto-unreachable": Answer(("icmp-proto-unreachable", "proto-unreach"), 2),
        "port-unreachable": Answer(("icmp-port-unreachable", "port-unreach"), 3),
        "net-prohibited": Answer(("icmp-net-prohibited", "net-prohib"), 9),
        "host-prohibited": Answer(("icmp-host-prohibited", "host-prohib"), 10),
        "tcp-reset": _RESET,
        "admin-prohibited": Answer(("icmp-admin-prohibited", "admin-prohib"), 13),
    },
    Family.IPV6: {
        "no-route": Answer(("icmp6-no-route", "no-route"), 0),
        "admin-prohibited": Answer(("icmp6-adm-prohibited", "adm-prohibited"), 1),
        "addr-unreachable": Answer(("icmp6-addr-unreachable", "addr-unreach"), 3),
        "port-unreachable": Answer(("icmp6-port-unreachable", "port-unreach"), 4),
        "tcp-reset": _RESET,
        "policy-fail": Answer(("icmp6-policy-fail", "policy-fail"), 5),
        "reject-route": Answer(("icmp6-reject-route", "reject-route"), 6),
    },
}
"""The answers of each family by a name that both share where both have it (RFC 792, RFC 4443; libxt_REJECT)."""


class Reject(Target, frozen=True):
    """REJECT: the sender hears why; ``answer`` is a name in :data:`ANSWERS`."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.FILTER})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT})
    answer: str = "port-unreachable"

    def __post_init__(self) -> None:
        if not any(self.answer in answers for answers in ANSWERS.values()):
            raise ModelError(f"{self.answer!r} is no answer that REJECT can give")

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An answer of the other family, or a TCP reset for what may not be TCP."""
        if self.answer not in ANSWERS[family]:
            return f"REJECT can't answer {self.answer} in {family}"
        if self.answer == "tcp-reset" and rule.protocol != TCP:
            return "REJECT --reject-with tcp-reset needs -p tcp"
        return None


def _find(text: str, family: Family) -> str | None:
    """The answer of a name, or of the beginning of one, as iptables reads it."""
    wanted = text.lower()
    for exact in (True, False):
        for answer, held in ANSWERS[family].items():
            if any(name == wanted if exact else name.startswith(wanted) for name in held.names):
                return answer
    return None


def _parse(text: str, context: ParseContext) -> str:
    found = _find(text, context.family) if text else None
    if found is not None:
        return found
    other = Family.IPV6 if context.family is Family.IPV4 else Family.IPV4
    if text and _find(text, other):
        raise FamilyError(f"{text!r} is an answer of {other} only")
    raise ModelError(f"{text!r} is no answer that REJECT can give")


_ANSWER: Final = Codec(parse=_parse, format=str, expected="an answer such as icmp-port-unreachable or tcp-reset")

EXTENSIONS: Final = (
    Extension(
        name="REJECT",
        value=Reject,
        options=(Option("--reject-with", "answer", _ANSWER),),
        save=lambda value, family: ("--reject-with", ANSWERS[family][value.answer].names[0]),
    ),
)
