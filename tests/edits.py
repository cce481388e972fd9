"""Random edits of a list of rules, and what they make of it."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

Items = list[tuple[int, str]]
"""For each rule that is wanted its position now, or 0 and its text."""


def old_rules(length: int) -> list[str]:
    """The rules that stand there at first."""
    return [f"-p tcp -m tcp --dport {number} -j RETURN" for number in range(1, length + 1)]


def new_rule(number: int) -> str:
    """A rule that comes."""
    return f"-p udp -m udp --dport {number} -j ACCEPT"


@st.composite
def scripts(draw: st.DrawFn, most: int = 9) -> tuple[int, Items]:
    """How many rules stand there, and what is wanted: some of them in their order, and new ones among them."""
    length = draw(st.integers(0, most))
    kept = sorted(draw(st.sets(st.integers(1, length)))) if length else []
    items: Items = [(position, "") for position in kept]
    for number in range(draw(st.integers(0, most))):
        items.insert(draw(st.integers(0, len(items))), (0, new_rule(number + 1)))
    return length, items


def carried_out(lines: Iterable[str], length: int) -> list[str]:
    """What iptables makes of the old rules by some lines."""
    rules = old_rules(length)
    for line in lines:
        command, _, *rest = line.split(" ", 2)
        text = rest[0] if rest else ""
        if command == "-A":
            rules.append(text)
            continue
        number, _, text = text.partition(" ")
        at = int(number) - 1
        if command == "-D":
            del rules[at]
        elif command == "-I":
            rules.insert(at, text)
        else:
            rules[at] = text
    return rules
