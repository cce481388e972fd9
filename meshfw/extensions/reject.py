"""The REJECT target: an error back to the sender, and the packet is gone (iptables-extensions(8), REJECT)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.tcp import TCP
from meshfw.model import Family, Fate, Hook, Packet, Rule, Table, Target, Verdict


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One kind of answer: iptables' names for it, the first the one it prints, and nft's name."""

    names: tuple[str, ...]
    nft: str


ANSWERS: Final[Mapping[Family, Mapping[str, Answer]]] = {
    Family.IPV4: {
        "net-unreachable": Answer(("icmp-net-unreachable", "net-unreach"), "net-unreachable"),
        "host-unreachable": Answer(("icmp-host-unreachable", "host-unreach"), "host-unreachable"),
        "proto-unreachable": Answer(("icmp-proto-unreachable", "proto-unreach"), "prot-unreachable"),
        "port-unreachable": Answer(("icmp-port-unreachable", "port-unreach"), "port-unreachable"),
        "net-prohibited": Answer(("icmp-net-prohibited", "net-prohib"), "net-prohibited"),
        "host-prohibited": Answer(("icmp-host-prohibited", "host-prohib"), "host-prohibited"),
        "tcp-reset": Answer(("tcp-reset", "tcp-rst"), ""),
        "admin-prohibited": Answer(("icmp-admin-prohibited", "admin-prohib"), "admin-prohibited"),
    },
    Family.IPV6: {
        "no-route": Answer(("icmp6-no-route", "no-route"), "no-route"),
        "admin-prohibited": Answer(("icmp6-adm-prohibited", "adm-prohibited"), "admin-prohibited"),
        "addr-unreachable": Answer(("icmp6-addr-unreachable", "addr-unreach"), "addr-unreachable"),
        "port-unreachable": Answer(("icmp6-port-unreachable", "port-unreach"), "port-unreachable"),
        "tcp-reset": Answer(("tcp-reset",), ""),
        "policy-fail": Answer(("icmp6-policy-fail", "policy-fail"), "policy-fail"),
        "reject-route": Answer(("icmp6-reject-route", "reject-route"), "reject-route"),
    },
}
"""The answers of each family by a name that both share where both have it (RFC 792, RFC 4443; libxt_REJECT)."""

DEFAULT: Final = "port-unreachable"
"""The answer when none is stated."""


class Reject(Target, frozen=True):
    """REJECT: the sender hears why; ``answer`` is a name in :data:`ANSWERS`."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.FILTER})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT})
    drops: ClassVar[bool] = True
    answer: str = DEFAULT

    def __post_init__(self) -> None:
        if not any(self.answer in answers for answers in ANSWERS.values()):
            raise ModelError(f"{self.answer!r} is no answer that REJECT can give")

    def verdicts(self, packet: Packet) -> tuple[Verdict | None, ...]:
        """Gone, with an answer."""
        return (Verdict(Fate.REJECT, self.answer),)

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

_ICMP: Final = {Family.IPV4: "icmp", Family.IPV6: "icmpv6"}

_EITHER: Final[Mapping[str, Mapping[Family, str]]] = {
    "port-unreachable": dict.fromkeys(Family, "port-unreachable"),
    "admin-prohibited": dict.fromkeys(Family, "admin-prohibited"),
    "no-route": {Family.IPV4: "net-unreachable", Family.IPV6: "no-route"},
    "host-unreachable": {Family.IPV4: "host-unreachable", Family.IPV6: "addr-unreachable"},
}
"""nft's answers of an inet table, icmpx, as the kernel gives them (net/netfilter/nft_reject.c)."""


def _to_nft(value: Reject, family: Family, rule: Rule) -> Iterable[str]:
    if value.answer == "tcp-reset":
        yield "reject with tcp reset"
    elif value.answer == DEFAULT:
        yield "reject"
    else:
        yield f"reject with {_ICMP[family]} {ANSWERS[family][value.answer].nft}"


def _from_nft(body: Any, family: Family) -> Reject | None:
    if body is None:
        return Reject()
    if body["type"] == "tcp reset":
        return Reject("tcp-reset")
    if body["type"] == "icmpx":
        answer = _EITHER.get(body["expr"], {}).get(family)
        return None if answer is None else Reject(answer)
    if body["type"] != _ICMP[family]:
        return None
    return next((Reject(answer) for answer, held in ANSWERS[family].items() if held.nft == body["expr"]), None)


EXTENSIONS: Final = (
    Extension(
        name="REJECT",
        value=Reject,
        options=(Option("--reject-with", "answer", _ANSWER),),
        save=lambda value, family: ("--reject-with", ANSWERS[family][value.answer].names[0]),
        to_nft=_to_nft,
        from_nft={"reject": _from_nft},
    ),
)
