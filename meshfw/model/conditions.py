"""How addresses and interfaces of a rule are met by a packet, and what they add to the rule's meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshfw.model.address import Addresses, Elements, Interfaces, SetRef, matches_any, within
from meshfw.model.kinds import Not
from meshfw.model.packet import turned


def signed(field: str, value: Any) -> tuple[Any, ...]:
    """An atom of a base condition, with its sign first."""
    if type(value) is Not:
        value = value.value
        return (field, True, value.atom() if hasattr(value, "atom") else value)
    return (field, False, value.atom() if hasattr(value, "atom") else value)


def sign(held: Any) -> tuple[bool, Any]:
    """Whether a condition is negated, and the condition itself."""
    return (True, held.value) if type(held) is Not else (False, held)


def address_met(condition: Addresses, address: int | None, sets: Mapping[str, Elements]) -> bool | None:
    """Whether an address meets a condition, which may name one of the sets; None where that can't be told."""
    negated, held = sign(condition)
    if isinstance(held, SetRef):
        elements = sets.get(held.name)
        return turned(None if address is None or elements is None else within(address, elements), negated)
    return turned((True if not held.mask else None) if address is None else held.holds(address), negated)


def interface_met(condition: Interfaces, name: str | None) -> bool | None:
    """Whether an interface meets a condition; None where it isn't known."""
    negated, held = sign(condition)
    if name is None:
        return turned(True if matches_any(held) else None, negated)
    return turned(held.holds(name), negated)
