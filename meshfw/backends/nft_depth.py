"""How deep jumps may go: nf_tables follows so many from a base chain and refuses the transaction beyond (EMLINK)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from meshfw.backend import Unsupported
from meshfw.model import ChainKey, Goto, Jump, Ruleset

DEPTH_MAX: Final = 15
"""Chains on a path behind a dispatcher (net/netfilter/nf_tables.h, NFT_JUMP_STACK_SIZE, less the dispatcher)."""


def deep_paths(ruleset: Ruleset, *, most: int = DEPTH_MAX) -> Iterator[Unsupported]:
    """The attachments from which jumps and gotos lead through too many chains, with the longest path."""
    steps = {
        chain.key: tuple(
            dict.fromkeys(
                ChainKey(chain.family, chain.table, rule.target.chain)
                for rule in chain.rules
                if isinstance(rule.target, Jump | Goto)
            )
        )
        for chain in ruleset.chains
    }
    longest: dict[ChainKey, tuple[int, ChainKey | None]] = {}
    for attachment in ruleset.attachments:
        start = ChainKey(attachment.family, attachment.table, attachment.chain)
        _measure(start, steps, longest)
        depth = longest[start][0]
        if depth > most:
            path = " -> ".join(_path(start, longest))
            yield Unsupported(
                f"attachment of {attachment.chain} to {attachment.dispatcher}",
                f"jumps lead through {depth} chains ({path}); nf_tables follows {most}",
            )


def _measure(
    start: ChainKey,
    steps: Mapping[ChainKey, tuple[ChainKey, ...]],
    longest: dict[ChainKey, tuple[int, ChainKey | None]],
) -> None:
    """Fill in the length of the longest path from each chain reached, and its next chain; the model has no loops."""
    todo = [start]
    while todo:
        here = todo[-1]
        missing = [step for step in steps[here] if step not in longest]
        if missing:
            todo.extend(missing)
            continue
        todo.pop()
        following = max(steps[here], key=lambda step: longest[step][0], default=None)
        longest[here] = (1 if following is None else longest[following][0] + 1, following)


def _path(start: ChainKey, longest: Mapping[ChainKey, tuple[int, ChainKey | None]]) -> Iterator[str]:
    here: ChainKey | None = start
    while here is not None:
        yield here.name
        here = longest[here][1]
