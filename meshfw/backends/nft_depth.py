"""How deep jumps may go: nf_tables follows so many from a base chain and refuses the transaction beyond (EMLINK)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from meshfw.alignment import shared_ends
from meshfw.backend import Unsupported
from meshfw.model import Chain, ChainKey, Goto, Jump, Ruleset

DEPTH_MAX: Final = 15
"""Chains on a path behind a dispatcher (net/netfilter/nf_tables.h, NFT_JUMP_STACK_SIZE, less the dispatcher)."""


Known = dict[ChainKey, tuple[Chain, dict[str, int]]]
"""The names of the chains that a chain leads to and how often it does, by the chain itself."""


def deep_paths(ruleset: Ruleset, *, most: int = DEPTH_MAX, known: Known | None = None) -> Iterator[Unsupported]:
    """The attachments from which jumps and gotos lead through too many chains, with the longest path.

    ``known`` spares chains that are the same as last time, and is filled for the next.
    """
    known = {} if known is None else known
    steps = {chain.key: _steps(chain, known) for chain in ruleset.chains}
    for gone in [key for key in known if key not in steps]:
        del known[gone]
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


def _steps(chain: Chain, known: Known) -> tuple[ChainKey, ...]:
    """The chains that a chain leads to; of one much like last time's only the rules that differ are looked at."""
    key = chain.key
    held = known.get(key)
    if held is None or held[0] is not chain:
        old, counts = (held[0].rules, dict(held[1])) if held is not None else ((), {})
        start, end = shared_ends(old, chain.rules) if old else (0, 0)
        for rules, sign in ((old, -1), (chain.rules, 1)):
            for rule in rules[start : len(rules) - end]:
                if isinstance(rule.target, Jump | Goto):
                    counts[rule.target.chain] = counts.get(rule.target.chain, 0) + sign
        held = known[key] = chain, {name: count for name, count in counts.items() if count}
    return tuple(ChainKey(chain.family, chain.table, name) for name in sorted(held[1]))


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
