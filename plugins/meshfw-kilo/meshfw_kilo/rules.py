"""A node's firewall out of its topology: the rules that Kilo keeps, with its comments, for both families in one go.

Kilo puts rules into built-in chains; here chains of its names' kind hold them (KILO-POSTROUTING, KILO-FORWARD,
KILO-INPUT), attached to the hooks. Rules that commute stand in the order of their addresses, and not in that of
segments: so a node or a location more is a rule more at its place, and moves no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from meshfw import (
    ACCEPT,
    DROP,
    RETURN,
    Attachment,
    Chain,
    Comment,
    Family,
    Hook,
    Jump,
    Language,
    Network,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
    Target,
    parse_rule,
)
from meshfw.model import Place, merge_ranges
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.options import FAMILIES, Firewall
from meshfw_kilo.topology import Topology

NAT: Final = "KILO-NAT"
IPIP: Final = "KILO-IPIP"
POSTROUTING: Final = "KILO-POSTROUTING"
FORWARD: Final = "KILO-FORWARD"
INPUT: Final = "KILO-INPUT"

_IPIP: Final = 4
"""IPv4 in IP, which iptables calls ipencap after /etc/protocols (RFC 2003)."""


def ruleset_of(topology: Topology, options: Firewall, *, language: Language) -> Ruleset:
    """The ruleset of both families; ``language`` knows MASQUERADE."""
    parts = [_Part(family, topology, options, language) for family in FAMILIES]
    return Ruleset(
        chains=tuple(chain for part in parts for chain in part.chains()),
        sets=tuple(entry for part in parts for entry in part.sets.values()),
        attachments=tuple(item for part in parts for item in part.attachments()),
    )


class _Part:
    """The rules of one family, and the sets that they name."""

    def __init__(self, family: Family, topology: Topology, options: Firewall, language: Language) -> None:
        self._family = family
        self._topology = topology
        self._options = options
        self._masquerade = parse_rule("-j MASQUERADE", family=family, language=language).target
        self.sets: dict[str, Set] = {}
        self._rules = {
            (Table.NAT, NAT): tuple(self._nat()),
            (Table.NAT, POSTROUTING): tuple(dict.fromkeys(self._postrouting())),  # to all is from all
            (Table.FILTER, FORWARD): tuple(self._forward()),
        }
        if options.encapsulates and topology.found_private_ip:
            self._rules[Table.FILTER, IPIP] = tuple(self._ipip())
            self._rules[Table.FILTER, INPUT] = tuple(self._input())

    def chains(self) -> Iterator[Chain]:
        """The chains: Kilo's own even where they are empty, those at hooks where they hold something."""
        for (table, name), rules in self._rules.items():
            if rules or name in (NAT, IPIP):
                yield Chain(family=self._family, table=table, name=name, rules=rules)

    def attachments(self) -> Iterator[Attachment]:
        """The attachments of the chains at hooks."""
        hooks = (
            (Table.NAT, POSTROUTING, Hook.POSTROUTING, Place.FIRST),
            (Table.FILTER, FORWARD, Hook.FORWARD, Place.FIRST),
            (Table.FILTER, INPUT, Hook.INPUT, self._options.input_place),
        )
        for table, name, hook, place in hooks:
            if self._rules.get((table, name)):
                yield Attachment(family=self._family, table=table, hook=hook, chain=name, place=place)

    # --- nat ---

    def _nat(self) -> Iterator[Rule]:
        topology = self._topology
        segments = topology.segments
        known = [cidr for segment in segments for cidr in segment.allowed_ips]
        services = self._options.service_cidrs
        yield from self._to("kilo-peers", self._peers(), "Kilo: do not NAT packets destined for peers", RETURN)
        if not self._options.compact:  # those are known IPs as well, and a set needs them but once
            wireguard = [segment.wireguard_ip for segment in segments]
            yield from self._to("", wireguard, "Kilo: do not NAT packets destined for WireGuared IPs", RETURN)
        yield from self._to("kilo-known", known, "Kilo: do not NAT packets destined for known IPs", RETURN)
        yield from self._to("kilo-services", services, "Kilo: do not NAT packets destined for service CIDRs", RETURN)
        yield _rule("Kilo: NAT remaining packets", self._masquerade)

    def _postrouting(self) -> Iterator[Rule]:
        nat = Jump(NAT)
        own = self._topology.pod_cidrs if self._options.cni else ()
        reached = self._topology.segment.location_ips
        yield from self._from("kilo-peers", self._peers(), "Kilo: jump to NAT chain", nat)
        yield from self._to("kilo-location", reached, "Kilo: jump to NAT chain", nat)
        yield from self._from("", own, "Kilo: jump to KILO-NAT chain", nat)

    # --- filter ---

    def _forward(self) -> Iterator[Rule]:
        if not (self._options.cni and self._options.forward_rules):
            return
        segment = self._topology.segment
        if not self._topology.leads:
            yield from self._both_ways("", self._topology.pod_cidrs, "the node's pod subnet")
            return
        yield from self._both_ways("kilo-private", segment.private_ips, "private IPs")
        yield from self._both_ways("kilo-location", segment.location_ips, "allowed location IPs")
        yield from self._both_ways("kilo-pods", segment.pod_cidrs, "the pod subnet")

    def _both_ways(self, name: str, cidrs: Iterable[Cidr], what: str) -> Iterator[Rule]:
        yield from self._to(name, cidrs, f"Kilo: forward packets to {what}", ACCEPT)
        yield from self._from(name, cidrs, f"Kilo: forward packets from {what}", ACCEPT)

    def _ipip(self) -> Iterator[Rule]:
        neighbours = self._topology.neighbours
        name = "kilo-private" if neighbours == self._topology.segment.private_ips else "kilo-neighbours"
        return self._from(name, neighbours, "Kilo: allow IPIP traffic", ACCEPT)

    def _input(self) -> Iterator[Rule]:
        yield _rule("Kilo: jump to IPIP chain", Jump(IPIP), protocol=_IPIP)
        yield _rule("Kilo: reject other IPIP traffic", DROP, protocol=_IPIP)

    # --- rules for addresses ---

    def _peers(self) -> list[Cidr]:
        return [cidr for peer in self._topology.peers for cidr in peer.allowed_ips]

    def _to(self, name: str, cidrs: Iterable[Cidr], comment: str, target: Target) -> Iterator[Rule]:
        for addresses in self._addresses(name, cidrs):
            yield _rule(comment, target, destination=addresses)

    def _from(self, name: str, cidrs: Iterable[Cidr], comment: str, target: Target) -> Iterator[Rule]:
        for addresses in self._addresses(name, cidrs):
            yield _rule(comment, target, source=addresses)

    def _addresses(self, name: str, cidrs: Iterable[Cidr]) -> list[Network | SetRef]:
        """The networks of the family, each once; or if they have a name and rules are to be few, the one set."""
        networks = sorted({cidr.network for cidr in cidrs if cidr.family is self._family})
        if not (name and networks and self._options.compact):
            return list(networks)
        elements = merge_ranges((network.address, network.last) for network in networks)
        self.sets[name] = Set(family=self._family, name=name, intervals=True, elements=elements)
        return [SetRef(name)]


def _rule(
    comment: str,
    target: Target | None,
    *,
    source: Network | SetRef | None = None,
    destination: Network | SetRef | None = None,
    protocol: int | None = None,
) -> Rule:
    return Rule(source=source, destination=destination, protocol=protocol, matches=(Comment(comment),), target=target)
