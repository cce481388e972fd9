"""The rules of attachments: a pure function from what is recorded to the ruleset of both families.

Per pod stand only the rules that name its address, each with ``network/container/interface`` as its comment; what a
network's pods have in common is a chain of the network's.

* ``filter`` FORWARD: what the pod sends is accepted, and to it what belongs to connections that it has (as the
  reference plugin ``firewall`` does).
* ``mangle`` FORWARD, for ``isolate``: what would open a connection to the pod is dropped, unless it comes from its own
  network. It stands before ``filter``, so that no accept of anybody's in there lets foreign pods in: on iptables the
  first verdict in a table counts, and others put themselves before us.
* ``nat`` POSTROUTING, for ``ipMasq``: what leaves the pod's network is masqueraded, but for multicast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshfw import (
    ACCEPT,
    DROP,
    RETURN,
    Attachment,
    Chain,
    Comment,
    Family,
    Goto,
    Hook,
    Interface,
    Language,
    Network,
    Rule,
    Ruleset,
    Table,
    builtin_extensions,
    parse_rule,
)
from meshfw_cni.request import Key, Policy
from meshfw_cni.state import Attached

_MULTICAST: Final = {Family.IPV4: "224.0.0.0/4", Family.IPV6: "ff00::/8"}
_LONGEST_NAME: Final = 80
_LONGEST_COMMENT: Final = 255
_PLACES: Final = (
    (Table.FILTER, Hook.FORWARD, "forward"),
    (Table.MANGLE, Hook.FORWARD, "isolate"),
    (Table.NAT, Hook.POSTROUTING, "masquerade"),
)
"""Where the chains that all networks share are attached."""


def language() -> Language:
    """The language of these rules, without what none of them uses."""
    return Language.of(builtin_extensions("comment", "conntrack", "nat"))


def label(key: Key) -> str:
    """The comment of an attachment's rules."""
    text = str(key)
    if len(text) <= _LONGEST_COMMENT:
        return text
    return f"{text[: _LONGEST_COMMENT - 17]}#{_hashed(text)}"


class Pod(msgspec.Struct, frozen=True):
    """An attachment's part in one family: its addresses, and the networks that these are in."""

    attached: Attached
    hosts: tuple[Network, ...]
    subnets: tuple[Network, ...]

    @property
    def network(self) -> str:
        """The network's name."""
        return self.attached.key.network


def rules_of(attached: Iterable[Attached], *, everybody: Iterable[Attached], words: Language) -> Ruleset:
    """The ruleset of some attachments; ``everybody`` are those of all backends, of which foreign pods are told."""
    attached, everybody = tuple(attached), tuple(everybody)
    chains: list[Chain] = []
    for family in Family:
        pods = tuple(_pods(attached, family))
        if pods:
            chains += _Writer(family, words, everybody).chains(pods, tuple(_pods(everybody, family)))
    places = {(chain.family, chain.table, chain.name) for chain in chains}
    return Ruleset(
        chains=tuple(chains),
        attachments=tuple(
            Attachment(family=family, table=table, hook=hook, chain=chain)
            for family in Family
            for table, hook, chain in _PLACES
            if (family, table, chain) in places
        ),
    )


def _pods(attached: Iterable[Attached], family: Family) -> Iterator[Pod]:
    for entry in attached:
        # A colon tells the family: to parse an address only to find that it's of the other one takes longer.
        mine = [text for text in entry.addresses if (":" in text) == (family is Family.IPV6)]
        if mine:
            hosts = tuple(Network.parse(text.partition("/")[0]) for text in mine)
            yield Pod(entry, hosts, tuple(Network.parse(text) for text in mine))


class _Writer:
    """The chains of one family."""

    def __init__(self, family: Family, words: Language, everybody: Iterable[Attached]) -> None:
        self._family = family
        self._ways = frozenset((entry.key.network, entry.bridge) for entry in everybody if entry.bridge)

        def rule(text: str) -> Rule:
            return parse_rule(text, family=family, language=words)

        self._known = rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
        self._published = rule("-m conntrack --ctstate DNAT -j RETURN")
        self._masquerade = rule("-j MASQUERADE")

    def chains(self, pods: tuple[Pod, ...], everybody: tuple[Pod, ...]) -> Iterator[Chain]:
        """All of them, those without rules left out."""
        yield self._chain(Table.FILTER, "forward", self._accepts(pods))
        networks = _by_network(pods)
        isolated = {pod.network for pod in pods if pod.attached.policy is Policy.ISOLATE}
        hidden = {pod.network for pod in pods if pod.attached.masquerade}
        if isolated:
            yield self._chain(Table.MANGLE, "isolate", self._isolates(pods))
        if hidden:
            yield self._chain(Table.NAT, "masquerade", self._hides(pods))
        for name in sorted(isolated):
            foreign = [pod for pod in everybody if pod.network != name]
            ways = {bridge for network, bridge in self._ways if network != name}
            yield self._chain(Table.MANGLE, _chain_name("isolate", name), self._guard(networks[name], foreign, ways))
        for name in sorted(hidden):
            yield self._chain(Table.NAT, _chain_name("masquerade", name), self._leaving(networks[name]))

    def _chain(self, table: Table, name: str, rules: Iterable[Rule]) -> Chain:
        return Chain(family=self._family, table=table, name=name, rules=tuple(rules))

    def _accepts(self, pods: Iterable[Pod]) -> Iterator[Rule]:
        for pod in pods:
            said = Comment(label(pod.attached.key))
            for host in pod.hosts:
                yield Rule(destination=host, matches=(*self._known.matches, said), target=ACCEPT)
                yield Rule(source=host, matches=(said,), target=ACCEPT)

    def _isolates(self, pods: Iterable[Pod]) -> Iterator[Rule]:
        yield Rule(matches=self._known.matches, target=RETURN)
        for pod in pods:
            if pod.attached.policy is Policy.ISOLATE:
                guard = Goto(_chain_name("isolate", pod.network))
                for host in pod.hosts:
                    yield Rule(destination=host, matches=(Comment(label(pod.attached.key)),), target=guard)

    def _hides(self, pods: Iterable[Pod]) -> Iterator[Rule]:
        for pod in pods:
            if pod.attached.masquerade:
                way = Goto(_chain_name("masquerade", pod.network))
                for host in pod.hosts:
                    yield Rule(source=host, matches=(Comment(label(pod.attached.key)),), target=way)

    def _guard(self, own: Iterable[Pod], foreign: Iterable[Pod], ways: Iterable[str]) -> Iterator[Rule]:
        """What becomes of a packet that would open a connection to a network's pod; ``ways`` are foreign pods' bridges.

        Foreign pods that are known go first, or port mappings would let them in: by their way too, for whoever may send
        raw packets says what source he likes. An address alone makes nobody a pod of the network's: where its interface
        on the host is known, what comes by another one isn't from here.
        """
        own = tuple(own)
        subnets = _distinct(subnet for pod in own for subnet in pod.subnets)
        for network in _distinct(net for pod in foreign for net in _outside(pod, subnets)):
            yield Rule(source=network, target=DROP)
        bridges = sorted({pod.attached.bridge for pod in own if pod.attached.bridge})
        for way in sorted(set(ways) - set(bridges)):
            yield Rule(in_interface=Interface(way), target=DROP)
        for bridge in bridges:
            yield Rule(in_interface=Interface(bridge), target=RETURN)
        known = _named(own, self._family) if bridges else _distinct((*subnets, *_named(own, self._family)))
        for network in known:
            yield Rule(source=network, target=RETURN)
        yield self._published
        yield Rule(target=DROP)

    def _leaving(self, own: Iterable[Pod]) -> Iterator[Rule]:
        """What becomes of a packet that a network's pod sends: whatever leaves the network is masqueraded."""
        own = tuple(own)
        subnets = (subnet for pod in own for subnet in pod.subnets)
        for network in _distinct((*subnets, *_named(own, self._family), Network.parse(_MULTICAST[self._family]))):
            yield Rule(destination=network, target=RETURN)
        yield self._masquerade


def _by_network(pods: Iterable[Pod]) -> Mapping[str, list[Pod]]:
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        found.setdefault(pod.network, []).append(pod)
    return found


def _named(pods: Iterable[Pod], family: Family) -> tuple[Network, ...]:
    """The further networks of their own pods that the configuration names."""
    texts = dict.fromkeys(text for pod in pods for text in pod.attached.pod_networks)
    return _distinct(network for network in map(Network.parse, texts) if network.family is family)


def _distinct(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The networks without those that lie in another one, in order."""
    every = sorted(set(networks))
    return tuple(one for one in every if not any(one != other and _within(one, other) for other in every))


def _within(one: Network, other: Network) -> bool:
    return other.mask & one.mask == other.mask and one.address & other.mask == other.address


def _outside(pod: Pod, own: Iterable[Network]) -> Iterator[Network]:
    """A foreign pod's networks; its own address where such a network and one of ours overlap."""
    own = tuple(own)
    for host, subnet in zip(pod.hosts, pod.subnets, strict=True):
        yield host if any(_within(subnet, net) or _within(net, subnet) for net in own) else subnet


def _chain_name(kind: str, network: str) -> str:
    short = network if len(network) <= _LONGEST_NAME else f"{network[:_LONGEST_NAME]}.{_hashed(network)}"
    return f"{kind}-{short}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
