"""nft's meter: a statement that keeps a limit or a count for each value of a key (nft(8), METERS)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from meshfw.errors import InexpressibleError
from meshfw.model import Family, format_address, parse_address

SIZE: Final = 65535
"""The entries of a meter without a size of its own."""
_NAME_MAX: Final = 255  # linux/netfilter/nf_tables.h, NFT_NAME_MAXLEN with the final NUL
_ODD: Final = re.compile(rb"[^A-Za-z0-9_.-]")
_CODED: Final = re.compile(r"/([0-9a-f]{2})")
_STEPS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))

Part = tuple[str, int | None]
"""What a key is made of: a header's field, and for an address the mask that it is and-ed with."""


def nft_name(prefix: str, name: str) -> str:
    """A name of ours for nft: never a word of its own language, odd bytes as ``/`` and two hex digits."""
    coded = _ODD.sub(lambda found: b"/" + bytes(found[0]).hex().encode(), name.encode()).decode()
    if len(prefix) + len(coded) > _NAME_MAX:
        raise InexpressibleError(f"{name}: with {prefix} before it, it is longer than nft's {_NAME_MAX} bytes")
    return prefix + coded


def name_of(prefix: str, text: str) -> str | None:
    """The name that :func:`nft_name` made this of; None where it made none."""
    if not text.startswith(prefix):
        return None
    coded = text.removeprefix(prefix).encode("latin-1", "replace").decode("latin-1")
    name = _CODED.sub(lambda found: chr(int(found[1], 16)), coded).encode("latin-1").decode(errors="replace")
    return name if nft_name(prefix, name) == text else None


def meter(name: str, key: Sequence[Part], statement: str, *, seconds: int = 0, size: int = SIZE) -> str:
    """The meter as nft lists it; with ``seconds`` it forgets a key that was not seen for so long."""
    timeout = f" timeout {duration(seconds)}" if seconds else ""
    return f"meter {name} size {size} {{ {' . '.join(map(_part, key))}{timeout} {statement} }}"


def _part(part: Part) -> str:
    field, mask = part
    if mask is None:
        return field
    return f"{field} & {format_address(mask, Family.IPV6 if field.startswith('ip6 ') else Family.IPV4)}"


def duration(seconds: int) -> str:
    """A time as nft lists it."""
    text = ""
    for letter, unit in _STEPS:
        count, seconds = divmod(seconds, unit)
        text += f"{count}{letter}" if count else ""
    return text


def read_meter(body: Mapping[str, Any]) -> tuple[dict[str, int | None], int]:
    """Key and timeout in seconds (0: none) of a meter in nft's JSON; ``ValueError`` where they are none of ours."""
    key, seconds = body["key"], 0
    if "elem" in key:
        if set(key["elem"]) - {"val", "timeout"}:
            raise ValueError(f"{key}: no key of ours")
        key, seconds = key["elem"]["val"], int(key["elem"].get("timeout", 0))
    parts: Iterable[Any] = key.get("concat", [key])
    return dict(_read_part(part) for part in parts), seconds


def _read_part(part: Mapping[str, Any]) -> Part:
    mask = None
    if "&" in part:
        part, text = part["&"]
        mask = parse_address(text)[1]
    payload = part["payload"]
    return f"{payload['protocol']} {payload['field']}", mask


def prefix_mask(length: int, family: Family) -> int | None:
    """The mask of a prefix; None for the whole address."""
    full = (1 << family.bits) - 1
    return None if length == family.bits else full ^ full >> length
