"""Laws of pods behind a real chain of plugins: bridge, host-local, portmap, then meshfw-cni, on every backend."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from meshfw_cni.runtime import PLUGINS, Chain, Place

from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

OURS: Final = (sys.executable, "-m", "meshfw_cni.main")
BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
NEVER: Final = 0.1
"""Seconds to wait for a connection that mustn't be made; those that are made take a hundredth of it."""
FULL: Final = os.environ.get("HYPOTHESIS_PROFILE") == "full"
WAN: Final = ("192.0.2.80", "2001:db8:80::80")
HOST: Final = ("192.0.2.1", "2001:db8:80::1")
RANGES: Final = {"blue": ("10.42.0.0/24", "fd00:42::/64"), "green": ("10.43.0.0/24", "fd00:43::/64")}


class Town:
    """A host between pods and the world outside."""

    def __init__(self, make: Callable[[], Netns], directory: Path, backend: str, stack: ExitStack) -> None:
        self._make, self._stack, self._directory, self.backend = make, stack, directory, backend
        self.host, self.wan = self.room(), self.room()
        self.run(self.host, f"ip link add eth0 type veth peer name eth0 netns {self.wan.name}")
        for room, addresses in ((self.host, HOST), (self.wan, WAN)):
            self.run(room, f"ip addr add {addresses[0]}/24 dev eth0")
            self.run(room, f"ip addr add {addresses[1]}/64 dev eth0 nodad")
            self.run(room, "ip link set eth0 up")
        with self.host.entered():
            for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path("/proc/sys/net", path).write_text("1", encoding="ascii")

    def room(self) -> Netns:
        """A namespace in which addresses of IPv6 are good at once."""
        room = self._stack.enter_context(self._make())
        with room.entered():
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0", encoding="ascii")
        return room

    def network(self, name: str, *, ours: bool = True, **keys: Any) -> Chain:
        """A network of the host's, with or without meshfw-cni at the end of its chain."""
        ranges = [[{"subnet": subnet}] for subnet in RANGES[name]]
        addresses = {
            "type": "host-local",
            "dataDir": str(self._directory / "addresses"),
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }
        chain: list[dict[str, Any]] = [
            {"type": "bridge", "bridge": name, "isGateway": True, "hairpinMode": True, "ipam": addresses},
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        ]
        if ours:
            chain.append(
                {"type": "meshfw-cni", "backend": self.backend, "dataDir": str(self.data), "ipMasq": True, **keys}
            )
        return Chain(name, chain, programs={"meshfw-cni": OURS}, host=self.host.entered)

    @property
    def others(self) -> str:
        """The variant of iptables that meets the backend's packets at the same hooks."""
        return "legacy" if self.backend == "iptables-legacy" else "nft"

    @property
    def data(self) -> Path:
        """Where meshfw-cni keeps its state."""
        return self._directory / "meshfw"

    def pod(self, chain: Chain, name: str, **runtime: Any) -> tuple[Netns, list[str]]:
        """A new pod and its addresses."""
        room = self.room()
        result = chain.add(name, room.path, **runtime)
        return room, [entry["address"].partition("/")[0] for entry in result["ips"]]

    @staticmethod
    def run(room: Netns, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line in a namespace."""
        with room.entered():
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, done.stderr
        return done

    @staticmethod
    def reaches(room: Netns, address: str, *, port: int = 80, within: float = 0.3) -> bool:
        """Whether a TCP connection from a namespace is made within so many seconds."""
        with room.entered(), socket.socket(_family(address), socket.SOCK_STREAM) as client:
            client.settimeout(within)
            try:
                client.connect((address, port))
            except OSError:
                return False
            return True

    def serve(self, room: Netns, port: int = 80) -> None:
        """Accept connections in a namespace, of both families, until the test ends; nobody answers them."""
        with room.entered():
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        self._stack.enter_context(listener)

    def seen_from(self, room: Netns, address: str) -> str:
        """The address under which a namespace's datagram arrives at one of the WAN's."""
        with self.wan.entered():
            server = socket.socket(_family(address), socket.SOCK_DGRAM)
        with server:
            server.bind((address, 0))
            server.settimeout(2)
            with room.entered(), socket.socket(_family(address), socket.SOCK_DGRAM) as client:
                client.sendto(b"who am I", server.getsockname()[:2])
            return str(server.recvfrom(64)[1][0])

    def everything(self) -> str:
        """All rules of the host's, of anybody's, as the tools print them without counters."""
        texts = [self.run(self.host, "nft -s list ruleset").stdout]
        texts += [self.rules_of(f"{stem}-nft-save") for stem in ("iptables", "ip6tables")]
        for stem in ("iptables", "ip6tables"):
            texts += [
                self.run(self.host, f"{stem}-legacy -t {table} -S").stdout for table in ("filter", "nat", "mangle")
            ]
        return "".join(texts)

    def rules_of(self, save: str) -> str:
        """What a program like iptables-save prints, without comments and counters."""
        lines = self.run(self.host, save).stdout.splitlines()
        return "".join(f"{line.partition(' [')[0]}\n" for line in lines if not line.startswith("#"))


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def some(*few: str) -> pytest.MarkDecorator:
    """Marks a test that by default takes some of the backends, and all of them in the long run."""
    return pytest.mark.parametrize("town", BACKENDS if FULL else few, indirect=True)


@pytest.fixture(params=BACKENDS)
def town(
    request: pytest.FixtureRequest, kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path
) -> Iterator[Town]:
    requires("ip", "nft", "iptables-nft-restore", "iptables-legacy-restore")
    requires(*(f"{PLUGINS}/{plugin}" for plugin in ("bridge", "host-local", "portmap")))
    with ExitStack() as stack:
        yield Town(kernel_room, tmp_path, request.param, stack)


def test_pods_reach_each_other_and_the_world_which_sees_the_host(town: Town) -> None:
    blue = town.network("blue")
    one, _ = town.pod(blue, "one")
    two, addresses = town.pod(blue, "two")
    town.serve(two)
    for family, address in enumerate(addresses):
        assert town.reaches(one, address)
        assert town.seen_from(one, WAN[family]) == HOST[family]
    untouched = town.network("green", ipMasq=False)
    three, mine = town.pod(untouched, "three")
    for family, address in enumerate(WAN):
        town.run(town.wan, f"ip route add {RANGES['green'][family]} via {HOST[family]}")
        assert town.seen_from(three, address) == mine[family], "without ipMasq the world sees the pod"


def test_foreign_pods_are_kept_out_and_replies_come_in(town: Town) -> None:
    blue, green = town.network("blue", policy="isolate"), town.network("green")
    stranger = town.network("green", ours=False)
    home, addresses = town.pod(blue, "home", portMappings=[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
    friend, _ = town.pod(blue, "friend")
    foreign, theirs = town.pod(green, "foreign")
    unknown, _ = town.pod(stranger, "unknown")
    town.serve(home)
    town.serve(foreign)
    for family, address in enumerate(addresses):
        assert town.reaches(friend, address), "own network"
        assert town.reaches(town.host, address), "the host"
        assert town.reaches(town.wan, HOST[family], port=8080), "a port mapping, from outside"
        assert not town.reaches(foreign, address, within=NEVER)
        assert not town.reaches(foreign, HOST[family], port=8080, within=NEVER), "nor by a port mapping"
        assert not town.reaches(unknown, address, within=NEVER), "nor from a network that doesn't chain meshfw-cni"
        assert town.reaches(home, theirs[family]), "what the pod itself opens is answered"


@some("iptables-nft")
def test_an_accept_of_others_lets_no_foreign_pod_in(town: Town) -> None:
    """Others put themselves before us in table filter, as the plugin firewall does when it comes later."""
    blue = town.network("blue", policy="isolate")
    home, addresses = town.pod(blue, "home")
    foreign, _ = town.pod(town.network("green", ours=False), "foreign")
    town.serve(home)
    for stem in ("iptables", "ip6tables"):
        town.run(town.host, f"{stem}-{town.others} -I FORWARD -j ACCEPT")
    assert [town.reaches(foreign, address) for address in addresses] == [False, False]


@some("nft")
def test_a_foreign_pod_gets_in_by_no_source_that_it_makes_up(town: Town) -> None:
    blue = town.network("blue", policy="isolate", podNetworks=["10.99.0.0/16"])
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "udp"}
    home, addresses = town.pod(blue, "home", portMappings=[mapping])
    foreign, _ = town.pod(town.network("green"), "foreign")
    with home.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.bind(("", 80))
        server.settimeout(NEVER)
        for source, place in (("10.99.0.7", (addresses[0], 80)), ("198.51.100.7", (HOST[0], 8080))):
            town.run(foreign, f"ip addr add {source}/32 dev eth0")
            with foreign.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((source, 0))
                client.sendto(b"let me in", place)
            with pytest.raises(TimeoutError):
                server.recvfrom(64)
        with town.wan.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"from outside", (HOST[0], 8080))
        server.settimeout(5)
        assert server.recvfrom(64)[0] == b"from outside"


@some("nft", "iptables-legacy")
def test_pods_talk_where_others_drop_by_default(town: Town) -> None:
    """On nft an accept ends its own base chain only: there the drop of others stands, and the log says so."""
    for stem in ("iptables", "ip6tables"):
        town.run(town.host, f"{stem}-{town.others} -P FORWARD DROP")
    blue = town.network("blue")
    one, _ = town.pod(blue, "one")
    town.serve(town.wan)
    overruled = town.backend == "nft"
    # Where bridged packets meet FORWARD too, the drop delays the discovery of neighbours by a second or two.
    within = 0.3 if overruled else 5
    assert [town.reaches(one, address, within=within) for address in WAN] == [not overruled] * 2
    log = blue.one("ADD", "meshfw-cni", Place("one", one.path)).log
    assert ("policy" in log) == overruled, log


@some("iptables-nft")
def test_deleting_leaves_the_rules_of_others_as_they_were(town: Town) -> None:
    town.run(town.host, "iptables-nft -t nat -A POSTROUTING -s 203.0.113.9 -j MASQUERADE")
    town.run(town.host, "nft add table inet mine; add chain inet mine c")
    blue = town.network("blue")
    mapping = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    plain = town.network("blue", ours=False)
    for chain in (plain, plain):  # the chains that portmap makes stay
        room, _ = town.pod(chain, "first", portMappings=mapping)
        chain.delete("first", room.path, portMappings=mapping)
    alone = town.everything()
    one, _ = town.pod(blue, "one", portMappings=mapping)
    town.pod(blue, "two")
    assert "blue/one/eth0" in town.everything()
    blue.delete("one", one.path, portMappings=mapping)
    assert "blue/one/eth0" not in town.everything()
    assert "blue/two/eth0" in town.everything()
    blue.delete("two")
    assert town.everything() == alone
    assert sorted(os.listdir(town.data)) == ["lock"]
