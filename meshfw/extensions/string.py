"""The string match: bytes found anywhere in a packet (iptables-extensions(8), string)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Match, Not, Rule

PATTERN_BYTES: Final = 128
"""linux/netfilter/xt_string.h, XT_STRING_MAX_PATTERN_SIZE."""
ALGORITHMS: Final = ("bm", "kmp")
"""Boyer-Moore and Knuth-Morris-Pratt, the kernel's searches for a pattern of bytes (linux/textsearch.h)."""
_END: Final = 0xFFFF
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class String(Match, frozen=True):
    """A pattern of bytes in a packet, between two offsets from the beginning of its IP header."""

    pattern: bytes | Not[bytes]
    algorithm: str
    start: int = 0
    end: int = _END
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(sign(self.pattern)[1]) <= PATTERN_BYTES:
            raise ModelError(f"a pattern has 1 to {PATTERN_BYTES} bytes")
        if self.algorithm not in ALGORITHMS:
            raise ModelError(f"{self.algorithm!r} is none of the algorithms {' and '.join(ALGORITHMS)}")
        if not 0 <= self.start <= self.end <= _END:
            raise ModelError(f"offsets {self.start} and {self.end} aren't in ascending order from 0 to {_END}")


def _parse_plain(text: str, context: ParseContext) -> bytes:
    return _bytes(text)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _parse_hex(text: str, context: ParseContext) -> bytes:
    """Bytes as they are or behind a backslash, and between bars pairs of hex digits.

    As in iptables a byte behind a closing bar stands for itself, and a bar at the end needs no other.
    """
    raw = _bytes(text)
    held = bytearray()
    inside, at = False, 0
    while at < len(raw):
        letter = raw[at : at + 1]
        if letter == b"|":
            inside = not inside
            at += 1
            while inside and raw[at : at + 1] == b" ":
                at += 1
        if at == len(raw):
            break
        if inside:
            held.append(_hex_pair(raw, at))
            at += 3 if raw[at + 2 : at + 3] == b" " else 2
        else:
            at += letter == b"\\"
            if at == len(raw):
                raise ModelError("a backslash has a character behind it")
            held.append(raw[at])
            at += 1
    return bytes(held)


def _hex_pair(raw: bytes, at: int) -> int:
    pair = raw[at : at + 2].decode(errors="replace")
    if len(pair) < 2 or set(pair) - _HEX:
        raise ModelError(f"{pair!r} is no pair of hex digits")
    if at + 2 == len(raw):
        raise ModelError("hex digits end with a bar")
    return int(pair, 16)


def _printed(pattern: bytes) -> Sequence[str]:
    """The pattern as iptables-save prints it: all in hex where a byte can't be printed or the last is a backslash."""
    if any(not 0x20 <= byte < 0x7F for byte in pattern) or pattern.endswith(b"\\"):
        return "--hex-string", f'"|{pattern.hex()}|"'
    text = pattern.decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
    return "--string", f'"{text}"'


def _save(value: String, family: Family) -> Sequence[str]:
    negated, pattern = sign(value.pattern)
    words = [*(["!"] if negated else []), *_printed(pattern), "--algo", value.algorithm]
    words += ["--from", str(value.start)] if value.start else []
    words += ["--to", str(value.end)] if value.end != _END else []
    return [*words, "--icase"] if value.ignore_case else words


def _to_nft(value: String, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("string: nft searches no packet, and where offsets leave one place kernels differ")


_OFFSET: Final = integer("an offset from 0 to 65535", high=_END)
_PATTERN: Final[dict[str, Any]] = {"format": repr, "expected": f"1 to {PATTERN_BYTES} bytes"}

EXTENSIONS: Final = (
    Extension(
        name="string",
        value=String,
        options=(
            Option("--string", "pattern", Codec(parse=_parse_plain, **_PATTERN), invertible=True),
            Option("--hex-string", "pattern", Codec(parse=_parse_hex, **_PATTERN), invertible=True),
            Option("--algo", "algorithm", Codec(parse=lambda text, context: text, format=str, expected="bm or kmp")),
            Option("--from", "start", _OFFSET),
            Option("--to", "end", _OFFSET),
            Option("--icase", "ignore_case", words=0),
        ),
        save=_save,
        to_nft=_to_nft,
    ),
)
