"""Worlds for packets: a gateway between a client and a server, and one way of loading rules into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.backend import Backend, Site
from meshfw.backends.nft import NftBackend
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.languages.iptables import format_rule
from meshfw.model import Family
from meshfw.reconcile import apply, plan
from meshfw.testing.frames import Packet
from meshfw.testing.probes import Prober, Result
from meshfw.testing.topology import Topology

LANGUAGE: Final = Language.of(builtin_extensions())
BACKENDS: Final[Mapping[str, Callable[[Site], Backend]]] = {"nft": NftBackend}
WITNESSES: Final = ("iptables-legacy", "iptables-nft")

WORDS: Final = {
    Family.IPV4: {
        "peer": "10.4.0.9",
        "peers": "10.4.0.0/16",
        "host": "192.0.2.5",
        "host2": "192.0.2.6",
        "hosts": "192.0.2.0/24",
        "range": "192.0.2.5-192.0.2.9",
        "other": "198.51.100.7",
        "gateway": "10.5.0.1",
        "wan": "203.0.113.1",
        "alias": "198.18.0.77",
        "host_port": "192.0.2.6:8080",
        "icmp": "-p icmp -m icmp --icmp-type",
        "icmp_not": "-p icmp -m icmp ! --icmp-type",
        "ping": "echo-request",
    },
    Family.IPV6: {
        "peer": "fd00:4::9",
        "peers": "fd00:4::/32",
        "host": "2001:db8:2::5",
        "host2": "2001:db8:2::6",
        "hosts": "2001:db8:2::/48",
        "range": "2001:db8:2::5-2001:db8:2::9",
        "other": "2001:db8:3::7",
        "gateway": "fd00:5::1",
        "wan": "2001:db8:1::1",
        "alias": "2001:db8:77::77",
        "host_port": "[2001:db8:2::6]:8080",
        "icmp": "-p ipv6-icmp -m icmp6 --icmpv6-type",
        "icmp_not": "-p ipv6-icmp -m icmp6 ! --icmpv6-type",
        "ping": "echo-request",
    },
}
ICMP_REPLY: Final = {Family.IPV4: (0, 0), Family.IPV6: (129, 0)}


class World:
    """A gateway between a client and a server, and one way of loading rules into it."""

    def __init__(self, family: Family, engine: str, topology: Topology, prober: Prober, lock: Path) -> None:
        self.family = family
        self.words = WORDS[family]
        self.topology = topology
        self._engine = engine
        self._prober = prober
        self._lock = lock
        self._backends: dict[str, Backend] = {}

    def close(self) -> None:
        """Let go of the backends; the rules go with the namespace."""
        for backend in self._backends.values():
            backend.close()

    def backend(self, owner: str = "meshfw") -> Backend:
        """The backend of an owner in the gateway."""
        if owner not in self._backends:
            self._backends[owner] = self._made(owner)
        return self._backends[owner]

    def _made(self, owner: str) -> Backend:
        return BACKENDS[self._engine](Site(owner=owner, language=LANGUAGE, netns=self.topology.gateway.path))

    def load(self, text: str) -> None:
        """Put one table, or several, into effect: ``*filter``, ``:FORWARD DROP`` and ``-A`` lines, COMMIT left out."""
        lines = [line.strip() for line in text.format(**self.words).strip().splitlines()]
        tables = "\n".join(lines).replace("\n*", "\nCOMMIT\n*") + "\nCOMMIT\n"
        if self._engine in WITNESSES:
            tool = self._engine.replace("iptables", "iptables" if self.family is Family.IPV4 else "ip6tables")
            with self.topology.gateway.entered():
                environment = {"XTABLES_LOCKFILE": str(self._lock)}
                run((f"{tool}-restore", "-w", "10"), timeout=20, input=tables.encode(), env=environment)
        else:
            ruleset = ruleset_of_dump(parse_dump(tables, family=self.family, language=LANGUAGE))
            apply(self.backend(), ruleset)
            fresh = self._made(
                "meshfw"
            )  # what was written is read back as the same rules, by somebody who knows nothing
            todo = plan(fresh, ruleset)
            fresh.close()
            assert not todo, todo.text(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))

    def packet(self, protocol: str, dport: int = 0, **fields: Any) -> Packet:
        """A packet from the peer to the host, unless told otherwise; addresses may be given by their words."""
        for field, usual in (("source", "peer"), ("destination", "host")):
            name = fields.get(field, usual)
            fields[field] = self.words.get(name, name)
        return Packet(family=self.family, protocol=protocol, dport=dport, **fields)

    def send(self, protocol: str, dport: int = 0, **fields: Any) -> Result:
        """What became of one packet."""
        return self._prober.send(self.packet(protocol, dport, **fields))[0]

    def send_all(self, packets: Sequence[Packet]) -> tuple[Result, ...]:
        """What became of each packet."""
        return self._prober.send(*packets)

    def verdict(self, protocol: str, dport: int = 0, **fields: Any) -> str:
        """What became of one packet, in words."""
        return self.send(protocol, dport, **fields).verdict


Maker = Callable[[Family, str], World]


@contextmanager
def worlds(request: pytest.FixtureRequest, directory: Path) -> Iterator[Maker]:
    """The maker of worlds, each with namespaces of its own, for a test that may need tools of its engines."""
    check: Callable[..., None] = request.getfixturevalue("requires")
    check("ip")
    with ExitStack() as stack:

        def make(family: Family, engine: str) -> World:
            if engine in WITNESSES:
                check(f"{engine}-restore", f"{engine.replace('iptables', 'ip6tables')}-restore")
            topology = stack.enter_context(Topology())
            if family not in topology.families:
                pytest.skip("this kernel has no IPv6")
            world = World(family, engine, topology, stack.enter_context(Prober(topology)), directory / "xtables.lock")
            stack.callback(world.close)
            return world

        yield make
