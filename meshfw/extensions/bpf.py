"""The bpf match: a program that says whether a packet meets it (iptables-extensions(8), bpf)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import quoted
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Match, Rule, byte_length

INSTRUCTIONS_MAX: Final = 64
"""linux/netfilter/xt_bpf.h, XT_BPF_MAX_NUM_INSTR."""
PATH_BYTES: Final = 511
"""linux/netfilter/xt_bpf.h, XT_BPF_PATH_MAX with the final NUL."""


class Instruction(msgspec.Struct, frozen=True, gc=False, order=True):
    """One instruction of the classic BPF machine (linux/filter.h, struct sock_filter)."""

    code: int
    jump_true: int
    jump_false: int
    operand: int

    def __post_init__(self) -> None:
        sizes = (0xFFFF, 0xFF, 0xFF, 0xFFFFFFFF)
        for held, last in zip(msgspec.structs.astuple(self), sizes, strict=True):
            if not 0 <= held <= last:
                raise ModelError(f"{held} in instruction {self} is not between 0 and {last}")

    def __str__(self) -> str:
        return f"{self.code} {self.jump_true} {self.jump_false} {self.operand}"


class Bpf(Match, frozen=True):
    """A program of classic BPF, or the path at which one is pinned: met where it returns anything but 0."""

    program: tuple[Instruction, ...] | None = None
    pinned: str | None = None

    def __post_init__(self) -> None:
        if (self.program is None) == (self.pinned is None):
            raise ModelError("bpf needs one of --bytecode and --object-pinned")
        if self.program is not None and not 1 <= len(self.program) <= INSTRUCTIONS_MAX:
            raise ModelError(f"a program has 1 to {INSTRUCTIONS_MAX} instructions")
        if self.pinned is not None and not 1 <= byte_length(self.pinned) <= PATH_BYTES:
            raise ModelError(f"a pinned program's path has 1 to {PATH_BYTES} bytes")


_INSTRUCTION: Final = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\Z", re.ASCII)


def _parse(text: str, context: ParseContext) -> tuple[Instruction, ...]:
    size, *items = text.removesuffix(",").split(",")
    program = []
    for item in items:
        found = _INSTRUCTION.match(item)
        if found is None:
            raise ModelError(f"{item!r} is no instruction of four numbers")
        program.append(Instruction(*map(int, found.groups())))
    if size.strip() != str(len(program)):
        raise ModelError(f"the program says {size} instructions and has {len(program)}")
    return tuple(program)


def _format(program: tuple[Instruction, ...]) -> str:
    return f'"{len(program)},{",".join(map(str, program))}"'


def _format_path(path: str) -> str:
    """The path as iptables-save prints it, bare, but in quotes where that could not be read again."""
    return quoted(path) if set(path) & set(" \t\"'\\") else path


_PROGRAM: Final = Codec(parse=_parse, format=_format, expected="LENGTH and so many of CODE JT JF K, joined by commas")
_PATH: Final = Codec(parse=lambda text, context: text, format=_format_path, expected="a path in a bpf file system")


def _to_nft(value: Bpf, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("bpf: nft runs no programs of BPF")


EXTENSIONS: Final = (
    Extension(
        name="bpf",
        value=Bpf,
        options=(Option("--bytecode", "program", _PROGRAM), Option("--object-pinned", "pinned", _PATH)),
        to_nft=_to_nft,
    ),
)
