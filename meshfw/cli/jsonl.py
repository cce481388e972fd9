"""Many rules to translate, one JSON object a line in and one out: a wrong line is answered, and the next one read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from meshfw.extensions.language import Language
from meshfw.model import Family
from meshfw.translation import Failure, Kind, Place, translated

_EXPECTED: Final = 'an object with "family", and "rule" in restore quoting or "argv", a list of words'
_NULL: Final = msgspec.Raw(b"null")


class Request(msgspec.Struct, frozen=True):
    """One line of input; other keys are let be."""

    id: msgspec.Raw = _NULL
    family: Family = Family.IPV4
    table: str | None = None
    chain: str | None = None
    rule: str | None = None
    argv: list[str] | None = None


class Answer(msgspec.Struct, frozen=True):
    """One line of output."""

    id: msgspec.Raw
    canonical: tuple[str, ...]
    nft: tuple[str, ...]
    error: Failure | None
    warnings: tuple[str, ...]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are answered: with nft's part or without it, approximated or not, and in which family."""

    language: Language
    nft: bool = True
    approximate: bool = False
    family: Family | None = None


def answers(lines: Iterable[bytes], terms: Terms) -> Iterator[bytes]:
    """The answer to each line that isn't empty, each with its line's end."""
    decoder, encoder = msgspec.json.Decoder(Request), msgspec.json.Encoder()
    for line in lines:
        if not line.strip():
            continue
        try:
            request = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield encoder.encode(_refused(_id_of(line), f"{error}; expected {_EXPECTED}")) + b"\n"
            continue
        yield encoder.encode(_answer(request, terms)) + b"\n"


def _answer(request: Request, terms: Terms) -> Answer:
    if (request.rule is None) == (request.argv is None):
        return _refused(
            request.id,
            f"it has {'neither rule nor' if request.rule is None else 'both rule and'} argv; expected {_EXPECTED}",
        )
    place = Place(request.table or "", request.chain or "")
    rule = request.rule if request.rule is not None else request.argv or []
    found = translated(
        rule,
        family=terms.family or request.family,
        language=terms.language,
        place=place,
        nft=terms.nft,
        approximate=terms.approximate,
    )
    return Answer(request.id, found.canonical, found.nft, found.error, found.warnings)


def _refused(name: msgspec.Raw, message: str) -> Answer:
    return Answer(name, (), (), Failure(message, Kind.INPUT), ())


def _id_of(line: bytes) -> msgspec.Raw:
    """The id of a line that is wrong otherwise, so that the answer can be told whose it is."""
    try:
        found: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NULL
    return msgspec.Raw(msgspec.json.encode(found["id"])) if isinstance(found, dict) and "id" in found else _NULL


def run(lines: Iterable[bytes], terms: Terms) -> int:
    """Answer every line at once, so that whoever waits for it can ask the next; 0, whatever the answers are."""
    out = sys.stdout.buffer
    for answer in answers(lines, terms):
        out.write(answer)
        out.flush()
    return 0
