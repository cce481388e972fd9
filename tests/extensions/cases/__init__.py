"""The cases of every extension, one file each: a new extension's file is found by itself.

A file may hold any of these; the laws beside this package run over all files:

* ``CASES``: rules with their canonical text and their nft text.
* ``UNHELD``: cases of what the kernel of a test need not have, a module or an object: no kernel is asked for them.
* ``REFUSED``: (text, a part of the reason) that no ipv4 rule can hold.
* ``EQUAL`` and ``DIFFERENT``: pairs of texts that behave the same, and that don't.
* ``UNSAYABLE``: (text, a pattern of the reason) of ipv4 rules that nft can't express.
* ``PACKETS``: rules for both families, each met equally often on iptables and on nft by what test_packets sends;
  ``PACKETS_IPV4`` and ``PACKETS_IPV6`` for one alone.
* ``CHANGES``, ``CHANGES_IPV4`` and ``CHANGES_IPV6``: rules that change a packet, octet for octet the same on iptables
  and on nft.
* ``PACKETS_AT``: the same for chains of a table, by ``table/CHAIN``; ``PACKETS_AT_IPV4`` for ipv4 alone.
* ``IPSETS``: what ipset(8) is told before the cases that name a set.
* ``prepare()``: makes in a network namespace what the rules of ``CASES`` need to be loaded by iptables.
* ``matches(family, protocol)`` and ``targets(family, protocol)``: lists of hypothesis strategies of values that can
  stand in a rule of the family and protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from hypothesis import strategies as st

from meshfw.model import Family, Match, Target
from tests.extensions.case import Case

_FILES = tuple(import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))


def _gathered(name: str) -> tuple[Any, ...]:
    return tuple(item for file in _FILES for item in getattr(file, name, ()))


CASES: tuple[Case, ...] = _gathered("CASES")
UNHELD: tuple[Case, ...] = _gathered("UNHELD")
REFUSED: tuple[tuple[str, str], ...] = _gathered("REFUSED")
EQUAL: tuple[tuple[str, str], ...] = _gathered("EQUAL")
DIFFERENT: tuple[tuple[str, str], ...] = _gathered("DIFFERENT")
UNSAYABLE: tuple[tuple[str, str], ...] = _gathered("UNSAYABLE")
PREPARATIONS: tuple[Callable[[], None], ...] = tuple(file.prepare for file in _FILES if hasattr(file, "prepare"))
PACKETS: dict[Family, tuple[str, ...]] = {
    family: _gathered("PACKETS") + _gathered(f"PACKETS_{family.upper()}") for family in Family
}
CHANGES: dict[Family, tuple[str, ...]] = {
    family: _gathered("CHANGES") + _gathered(f"CHANGES_{family.upper()}") for family in Family
}
IPSETS: tuple[str, ...] = _gathered("IPSETS")


def packets_at(family: Family) -> dict[str, tuple[str, ...]]:
    """The rules of each chain of a table that packets are counted at."""
    found: dict[str, tuple[str, ...]] = {}
    for name in ("PACKETS_AT", f"PACKETS_AT_{family.upper()}"):
        for file in _FILES:
            for place, rules in getattr(file, name, {}).items():
                found[place] = (*found.get(place, ()), *rules)
    return found


def _strategies(name: str, family: Family, protocol: int | None) -> list[Any]:
    makers: list[Callable[[Family, int | None], list[Any]]] = [
        getattr(file, name) for file in _FILES if hasattr(file, name)
    ]
    return [strategy for make in makers for strategy in make(family, protocol)]


def more_matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """The strategies of matches that the files offer."""
    return _strategies("matches", family, protocol)


def more_targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Target]]:
    """The strategies of targets that the files offer."""
    return _strategies("targets", family, protocol)
