"""Worlds for packets: a gateway between a client and a server, and one way of loading rules into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.backend import Backend, Site
from meshfw.backends.iptables import iptables_legacy, iptables_nft
from meshfw.backends.nft import NftBackend
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply, plan
from meshfw.testing.frames import Packet
from meshfw.testing.probes import Prober, Result
from meshfw.testing.topology import Topology

LANGUAGE: Final = Language.of(builtin_extensions())
BACKENDS: Final[Mapping[str, Callable[[Site], Backend]]] = {
    "nft": NftBackend,
    "iptables-nft": iptables_nft,
    "iptables-legacy": iptables_legacy,
}
"""Engines of meshfw's own."""
WITNESSES: Final = ("iptables-legacy-restore", "iptables-nft-restore")
"""The tools of iptables that say what a dump means."""

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


NO_OPTIONS: Final[Mapping[str, Any]] = {}


class World:
    """A gateway between a client and a server, and one way of loading rules into it."""

    def __init__(self, family: Family, engine: str, topology: Topology, prober: Prober) -> None:
        self.family = family
        self.engine = engine
        self.words = WORDS[family]
        self.topology = topology
        self._prober = prober
        self._backends: dict[str, Backend] = {}

    def close(self) -> None:
        """Let go of the backends; the rules go with the namespace."""
        for backend in self._backends.values():
            backend.close()

    def backend(self, owner: str = "meshfw", options: Mapping[str, Any] = NO_OPTIONS) -> Backend:
        """The backend of an owner in the gateway."""
        key = f"{owner} {options}"
        if key not in self._backends:
            self._backends[key] = self._made(owner, options)
        return self._backends[key]

    def _made(self, owner: str, options: Mapping[str, Any] = NO_OPTIONS) -> Backend:
        netns = self.topology.gateway.path
        return BACKENDS[self.engine](Site(owner=owner, language=LANGUAGE, netns=netns, options=options))

    def load(self, text: str) -> None:
        """Put one table, or several, into effect: ``*filter``, ``:FORWARD DROP`` and ``-A`` lines, COMMIT left out."""
        lines = [line.strip() for line in text.format(**self.words).strip().splitlines()]
        tables = "\n".join(lines).replace("\n*", "\nCOMMIT\n*") + "\nCOMMIT\n"
        if self.engine in WITNESSES:
            self.run(tool_of(self.engine, self.family), "-w", "10", text=tables)
        else:
            self.apply(ruleset_of_dump(parse_dump(tables, family=self.family, language=LANGUAGE)))

    def apply(self, ruleset: Ruleset) -> None:
        """Put a ruleset into effect; it's read back as the same rules by somebody who knows nothing."""
        apply(self.backend(), ruleset)
        with closing(self._made("meshfw")) as fresh:
            todo = plan(fresh, ruleset)
        assert not todo, todo.text(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))

    def run(self, *argv: str, text: str = "") -> None:
        """Run a tool in the gateway."""
        with self.topology.gateway.entered():
            run(argv, timeout=20, input=text.encode())

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


def tool_of(tool: str, family: Family) -> str:
    """A tool of iptables as it is called for a family."""
    return tool if family is Family.IPV4 else tool.replace("iptables", "ip6tables")


Maker = Callable[[Family, str], World]


@contextmanager
def worlds(request: pytest.FixtureRequest, directory: Path) -> Iterator[Maker]:
    """The maker of worlds, each with namespaces of its own, for a test that may need tools of its engines."""
    check: Callable[..., None] = request.getfixturevalue("requires")
    check("ip")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", str(directory / "xtables.lock"))

        def make(family: Family, engine: str) -> World:
            if engine != "nft":
                tool = f"{engine.removesuffix('-restore')}-restore"
                check(*(tool_of(tool, each) for each in Family))
            topology = stack.enter_context(Topology())
            if family not in topology.families:
                pytest.skip("this kernel has no IPv6")
            world = World(family, engine, topology, stack.enter_context(Prober(topology)))
            stack.callback(world.close)
            return world

        yield make
