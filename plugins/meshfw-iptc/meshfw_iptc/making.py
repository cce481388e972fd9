"""A rule of the model as a rule of python-iptables, written field by field and option by option.

The fields of the entry are written here. The library's own setters widen what they can't say in IPv6: an interface gets
a mask of 0x01 bytes (the kernel then compares the lowest bit of each letter), and a protocol that is excluded is never
looked at, since the flag that says to look is cleared.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any, Final

from meshfw import BackendError, Extension, Family, Goto, Interface, Jump, Language, Match, Network, Not, Rule, Target
from meshfw.model import Accept, Drop, Return
from meshfw_iptc.bench import Bench
from meshfw_iptc.libraries import NAME

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NAME_SIZE: Final = 16  # linux/if.h, IFNAMSIZ
# linux/netfilter_ipv4/ip_tables.h, ip6_tables.h: the same numbers, but that IPv6 says whether a protocol is stated.
INVERTED: Final = {"in": 0x01, "out": 0x02, "src": 0x08, "dst": 0x10, "fragment": 0x20, "protocol": 0x40}
FRAGMENT: Final = 0x01
GOTO: Final = {Family.IPV4: 0x02, Family.IPV6: 0x04}
STATES_PROTOCOL: Final = 0x01


def made(bench: Bench, rule: Rule, language: Language, *, counters: tuple[int, int] = (0, 0)) -> Any:
    """A rule of the library's; its chains are called as they stand in the table."""
    family = bench.family
    new = bench.rule()
    with bench.refusals():
        new.counters = counters
        _set_conditions(new.get_ip(), rule, family)
        for match in rule.matches:
            extension = language.by_value[type(match)]
            bench.extensions.require(extension.name, family, is_target=False)
            _set_options(new.create_match(extension.name), extension, match, family)
        _set_target(bench, new, rule.target, language)
    return new


def buffer(rule: Any) -> Any:
    """The bytes of a rule as the library writes them (struct ipt_entry, matches, target)."""
    raw = rule.rule
    if raw is None:
        raise BackendError("python-iptables made no rule", backend=NAME)
    return raw


# --- conditions of every rule ------------------------------------------------------------------------------


def _set_conditions(ip: Any, rule: Rule, family: Family) -> None:
    _set_network(ip, "src", rule.source, family)
    _set_network(ip, "dst", rule.destination, family)
    _set_interface(ip, "in", rule.in_interface)
    _set_interface(ip, "out", rule.out_interface)
    if rule.protocol is not None:
        ip.proto = _signed(ip, "protocol", rule.protocol)
        if family is Family.IPV6:
            ip.flags |= STATES_PROTOCOL
    if rule.fragment is not None:
        ip.flags |= FRAGMENT
        ip.invflags |= 0 if rule.fragment else INVERTED["fragment"]


def _signed(ip: Any, name: str, held: Any) -> Any:
    """The value, its negation noted."""
    if isinstance(held, Not):
        ip.invflags |= INVERTED[name]
        return held.value
    return held


def _set_network(ip: Any, name: str, held: Any, family: Family) -> None:
    if held is None:
        return
    network = _signed(ip, name, held)
    if not isinstance(network, Network):
        raise TypeError(f"{network} is no network")
    size = 4 if family is Family.IPV4 else 16
    for field, number in ((name, network.address), (f"{name[0]}msk", network.mask)):
        place = getattr(ip, field)
        ctypes.memmove(ctypes.addressof(place), number.to_bytes(size, "big"), size)


def _set_interface(ip: Any, name: str, held: Any) -> None:
    if held is None:
        return
    interface: Interface = _signed(ip, name, held)
    text = interface.name.encode()
    length = len(text) - 1 if interface.name.endswith("+") else len(text) + 1
    setattr(ip, f"{name}iface", text)
    setattr(ip, f"{name}iface_mask", (b"\xff" * length)[:_NAME_SIZE])


# --- matches and targets -----------------------------------------------------------------------------------


def _set_target(bench: Bench, new: Any, target: Target | None, language: Language) -> None:
    standard = standard_name(target)
    if standard is not None:  # by name: libiptc finds the verdict or chain, and no table is asked whether there is one
        new.create_target("").standard_target = standard
        if isinstance(target, Goto):
            new.get_ip().flags |= GOTO[bench.family]
    elif target is not None:
        extension = language.by_value[type(target)]
        bench.extensions.require(extension.name, bench.family, is_target=True)
        _set_options(new.create_target(extension.name), extension, target, bench.family)


def standard_name(target: Target | None) -> bytes | None:
    """The verdict or chain that a target is, empty for none; None for an extension."""
    match target:
        case None:
            return b""
        case Accept() | Drop() | Return():
            return target.label.encode()
        case Jump(chain) | Goto(chain):
            return chain.encode()
        case _:
            return None


def _set_options(part: Any, extension: Extension, value: Match | Target, family: Family) -> None:
    """Its options one by one, then its own check: the library keeps one place for both in each extension."""
    for option, words in options_of(extension, value, family):
        part.set_parameter(option, words)
    part._final_check()  # noqa: SLF001 - the public one sets all options anew from what it printed, and loses some


def options_of(extension: Extension, value: Match | Target, family: Family) -> Iterator[tuple[str, list[str]]]:
    """Each option's name without dashes, and its words, with ``!`` as the first where it's excluded.

    Raises:
        ValueError: a word that stands for no option.
    """
    words = extension.words(value, family)
    at = 0
    while at < len(words):
        sign = ["!"] if words[at] == "!" else []
        at += len(sign)
        option = extension.named.get(words[at])
        if option is None:
            raise ValueError(f"{extension.name}: {words[at]!r} is no option")
        count = option.words
        if option.optional and (at + 1 == len(words) or words[at + 1] == "!" or words[at + 1] in extension.named):
            count = 0
        yield words[at].lstrip("-"), [*sign, *map(unquoted, words[at + 1 : at + 1 + count])]
        at += 1 + count


def unquoted(word: str) -> str:
    """A word of iptables-save's as it is meant."""
    if len(word) > 1 and word[0] == word[-1] == '"':
        return _ESCAPED.sub(r"\1", word[1:-1])
    return word
