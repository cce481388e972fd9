"""Rulesets like those of a WireGuard mesh's gateway, of any size: the same size gives the same rules."""

from __future__ import annotations

from typing import Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import parse_rule
from meshfw.model import Attachment, Chain, Family, Hook, Policy, Rule, Ruleset, Set, Table

CHAIN_RULES: Final = 500
"""The most rules of one chain."""
LEAST_RULES: Final = 10
NODES: Final = "mesh-nodes"
"""The set, one in each family, that holds the address of every peer's node."""
_INLINE: Final = 50  # up to so many rules a section is one chain; more, and it leads into chains of its own
_IPV4_SHARE: Final = 60  # per cent


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one hook: the first one, then some for each peer in turn."""

    table: Table
    hook: Hook
    chain: str
    share: int
    """Per cent of a family's rules; the section with 0 gets the rest."""
    policy: Policy = Policy.RETURN
    first: str
    peer: tuple[str, ...]


_SECTIONS: Final = (
    _Section(
        table=Table.NAT,
        hook=Hook.POSTROUTING,
        chain="mesh-nat",
        share=30,
        first=f'-d @{NODES} -m comment --comment "mesh: do not NAT packets to nodes" -j RETURN',
        peer=(
            '-s {pods} -o eth0 -m comment --comment "mesh: NAT pods of peer {peer} on their way out" -j MASQUERADE',
            '-d {pods} -m comment --comment "mesh: do not NAT packets to pods of peer {peer}" -j RETURN',
            '-d {node} -m comment --comment "mesh: do not NAT packets to peer {peer}" -j RETURN',
        ),
    ),
    _Section(
        table=Table.FILTER,
        hook=Hook.INPUT,
        chain="mesh-input",
        share=20,
        first="-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        peer=(
            "-s {node} -i wg0 -p tcp -m tcp --dport 10250 -j ACCEPT",
            "-s {node} -i wg0 -p udp -m udp --dport 8472 -j ACCEPT",
            "-s {pods} -i wg0 -m conntrack --ctstate NEW -j DROP",
        ),
    ),
    _Section(
        table=Table.FILTER,
        hook=Hook.FORWARD,
        chain="mesh-forward",
        share=0,
        policy=Policy.DROP,
        first="-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        peer=(
            "-s {pods} -i wg0 -m conntrack --ctstate NEW -j ACCEPT",
            "-d {pods} -o wg0 -j ACCEPT",
            '-d {node} -o wg0 -p tcp -m tcp --dport {port} -m comment --comment "service of peer {peer}" -j ACCEPT',
            "-d {node} -o wg0 -p udp -m udp --dport {port} -j ACCEPT",
            "-s {pods} ! -o wg0 -j DROP",
        ),
    ),
)


def mesh_ruleset(rules: int, *, language: Language) -> Ruleset:
    """A gateway's ruleset of exactly ``rules`` rules in both families, three in five of them IPv4.

    Each peer has a node address and a prefix of pods behind ``wg0``; ``eth0`` leads to everybody else. Rules accept
    by peer, service and connection state, drop the rest, and masquerade what leaves the mesh. They stand in chains of
    at most :data:`CHAIN_RULES`; one rule of each family refers to the set :data:`NODES`, whose elements come on top.

    Raises:
        ModelError: for fewer than :data:`LEAST_RULES`.
    """
    if rules < LEAST_RULES:
        raise ModelError(f"a mesh ruleset has at least {LEAST_RULES} rules, not {rules}")
    quota = {Family.IPV4: rules * _IPV4_SHARE // 100}
    quota[Family.IPV6] = rules - quota[Family.IPV4]
    chains: list[Chain] = []
    sets = []
    for family, count in quota.items():
        peers = 1
        for section, size in _sizes(count):
            chains.extend(_chains(section, size, family, language))
            peers = max(peers, 1 + size // len(section.peer))
        sets.append(Set.of(family, NODES, (_node(peer, family) for peer in range(peers))))
    attachments = tuple(
        Attachment(family=family, table=at.table, hook=at.hook, chain=at.chain, policy=at.policy)
        for family in quota
        for at in _SECTIONS
    )
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=attachments)


def _sizes(count: int) -> tuple[tuple[_Section, int], ...]:
    """How many of a family's rules each section has."""
    sizes = [max(1, count * section.share // 100) if section.share else 0 for section in _SECTIONS]
    rest = count - sum(sizes)
    return tuple((section, size or rest) for section, size in zip(_SECTIONS, sizes, strict=True))


def _chains(section: _Section, size: int, family: Family, language: Language) -> list[Chain]:
    """One section of ``size`` rules in all: its first chain, and those into which that one leads."""
    name = section.chain
    groups = -(-(size - 1) // (CHAIN_RULES + 1)) if size > _INLINE else 0
    leaves = size - 1 - groups
    made = [parse_rule(_peer_rule(section, index, family), family=family, language=language) for index in range(leaves)]
    head = [section.first, *(f"-j {name}-{group}" for group in range(groups))]
    first = [parse_rule(text, family=family, language=language) for text in head]

    def chain(full_name: str, rules: list[Rule]) -> Chain:
        return Chain(family=family, table=section.table, name=full_name, rules=tuple(rules))

    if not groups:
        return [chain(name, first + made)]
    cuts = [leaves * group // groups for group in range(groups + 1)]
    return [
        chain(name, first),
        *(chain(f"{name}-{group}", made[cuts[group] : cuts[group + 1]]) for group in range(groups)),
    ]


def _peer_rule(section: _Section, index: int, family: Family) -> str:
    peer, kind = divmod(index, len(section.peer))
    return section.peer[kind].format(
        peer=peer, port=30000 + peer % 2768, node=_node(peer, family), pods=_pods(peer, family)
    )


def _node(peer: int, family: Family) -> str:
    """The address of a peer's node: the first host of its pods' prefix."""
    if family is Family.IPV6:
        return f"fd00:4:{peer >> 16:x}:{peer & 0xFFFF:x}::1"
    return f"10.{4 + (peer >> 12)}.{peer >> 4 & 255}.{(peer & 15) << 4 | 1}"


def _pods(peer: int, family: Family) -> str:
    if family is Family.IPV6:
        return f"fd00:4:{peer >> 16:x}:{peer & 0xFFFF:x}::/64"
    return f"10.{4 + (peer >> 12)}.{peer >> 4 & 255}.{(peer & 15) << 4}/28"


__all__ = ["CHAIN_RULES", "LEAST_RULES", "NODES", "mesh_ruleset"]
