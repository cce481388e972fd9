"""A rule of python-iptables as text: what iptables-save would print of it, or nothing where that isn't sure."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from meshfw import BackendError, Family, Language, MeshfwError, Rule, format_rule, parse_rule
from meshfw_iptc import proven
from meshfw_iptc.bench import Bench, body_of, bytes_of, in_kernels_form, names_of
from meshfw_iptc.making import FRAGMENT, GOTO, INVERTED, STATES_PROTOCOL, buffer, made, standard_name

_COMMENT: Final = "comment"
_HEADER: Final = 32  # linux/netfilter/x_tables.h, struct xt_entry_match
_QUOTED: Final = frozenset(" \t\"'\\")


def told(bench: Bench, entry: Any, standard: bytes | None, language: Language) -> str | None:
    """The text of a rule in the kernel's form; None for one that the library can't tell, or not all of it.

    What it tells is believed only where the same rule made anew has the same bytes: it loses options that are given
    twice, and quotes, and takes extensions of another revision for its own.
    """
    rule = _read(bench, entry, standard, language)
    try:
        if rule is None or not _is_same(bench, entry, standard, made(bench, rule, language)):
            return None
    except BackendError:
        return None
    return format_rule(rule, family=bench.family, language=language)


def tried(bench: Bench, rule: Rule, language: Language) -> str | None:
    """What speaks against writing a rule, found by making it and reading it back without a kernel; None for nothing."""
    try:
        with bench.turn:
            raw, standard = buffer(made(bench, rule, language)), standard_name(rule.target)
            entry = bench.entry.from_buffer(raw) if standard is None else in_kernels_form(raw, bench.entry)
            again = _read(bench, entry, standard, language)
    except BackendError as error:
        return f"python-iptables can't make it: {error.reason}"
    return None if again == rule else "python-iptables doesn't read it back as it wrote it"


def _read(bench: Bench, entry: Any, standard: bytes | None, language: Language) -> Rule | None:
    """The rule that the library takes an entry for."""
    family = bench.family
    if not proven.listed(*names_of(entry), family=family, language=language):
        return None  # nor looked at by the library: an extension that it lacks in a family ends the process
    try:
        with bench.refusals():
            words = [*_conditions(entry, family), *_parts(bench.view(entry, standard), standard, family)]
        return parse_rule(" ".join(map(_quoted, words)), family=family, language=language)
    except (MeshfwError, ValueError, KeyError):
        return None


def _is_same(bench: Bench, entry: Any, standard: bytes | None, again: Any) -> bool:
    """Whether a rule made anew has the bytes that stand, as far as they are the writer's (``userspacesize``)."""
    name = None if standard is None else again.target.standard_target.encode()
    mine = body_of(bytes(buffer(again)), bench.entry, name)
    held = body_of(bytes_of(entry), bench.entry, standard)
    if mine == held or len(mine) != len(held):
        return mine == held
    mask = bytes(again.mask)
    return not any(mask[at : at + 1] != b"\0" for at in range(len(mine)) if mine[at] != held[at])


# --- conditions --------------------------------------------------------------------------------------------


def _conditions(entry: Any, family: Family) -> Iterator[str]:
    """The words of what every rule has; ValueError where an interface's mask is none that iptables makes."""
    ip = entry.ipv6 if family is Family.IPV6 else entry.ip
    for option, name in (("-s", "src"), ("-d", "dst")):
        address, mask = _number(getattr(ip, name)), _number(getattr(ip, f"{name[0]}msk"))
        if address or mask or ip.invflags & INVERTED[name]:
            yield from _sign(ip, name)
            yield from (option, f"{_address(address, family)}/{_address(mask, family)}")
    for option, name in (("-i", "in"), ("-o", "out")):
        pattern = _interface(bytes(ip), type(ip), name)
        if pattern or ip.invflags & INVERTED[name]:
            yield from _sign(ip, name)
            yield from (option, pattern)
    if ip.proto or ip.invflags & INVERTED["protocol"]:
        if family is Family.IPV6 and not ip.flags & STATES_PROTOCOL:
            raise ValueError("a protocol that the kernel doesn't look at")
        yield from _sign(ip, "protocol")
        yield from ("-p", str(ip.proto))
    if family is Family.IPV4 and ip.flags & FRAGMENT:
        yield from _sign(ip, "fragment")
        yield "-f"


def _sign(ip: Any, name: str) -> list[str]:
    return ["!"] if ip.invflags & INVERTED[name] else []


def _number(place: Any) -> int:
    return int.from_bytes(ctypes.string_at(ctypes.addressof(place), ctypes.sizeof(place)), "big")


def _address(number: int, family: Family) -> str:
    return str(IPv4Address(number) if family is Family.IPV4 else IPv6Address(number))


def _interface(ip: bytes, kind: Any, name: str) -> str:
    field, mask_field = getattr(kind, f"{name}iface"), getattr(kind, f"{name}iface_mask")
    text = ip[field.offset : field.offset + field.size]
    mask = ip[mask_field.offset : mask_field.offset + mask_field.size].rstrip(b"\0")
    if mask.strip(b"\xff"):
        raise ValueError("a mask that lets other interfaces through")
    bare = text.rstrip(b"\0").decode()
    return bare if len(mask) > len(bare) or not bare else f"{bare[: len(mask)]}+"


# --- matches and targets -----------------------------------------------------------------------------------


def _parts(rule: Any, standard: bytes | None, family: Family) -> Iterator[str]:
    for match in rule.matches:
        yield from ("-m", match.name)
        yield from _comment(match) if match.name == _COMMENT else _options(match)
    if standard is None:
        yield from ("-j", rule.target.name)
        yield from _options(rule.target)
    elif standard:
        yield from ("-g" if rule.get_ip().flags & GOTO[family] else "-j", standard.decode())


def _comment(match: Any) -> Iterator[str]:
    """Its text from the bytes themselves: printed, it would come back with other quotes."""
    text = bytes(match.match_buf)[_HEADER:].partition(b"\0")[0]
    yield from ("--comment", text.decode())


def _options(part: Any) -> Iterator[str]:
    for name, words in part.get_all_parameters().items():
        negated = words[:1] == ["!"]
        yield from (["!"] if negated else [])
        yield f"--{name}"
        yield from words[negated:]


def _quoted(word: str) -> str:
    if word and not _QUOTED & set(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
