"""Three network namespaces in a row, client - gateway - server, through which real packets of both families go.

The gateway forwards between ``wg0``, where the peers of a mesh come in (a veth pair stands for the tunnel), and
``eth0``, the way to everybody else. Client and server own whole prefixes, so a probe may have any of their addresses,
and their kernels answer: an echo reply, a TCP reset, a port unreachable. Neighbours are static and no limits
on answers apply, so nothing but the rules in the gateway decides what arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final

from meshfw.errors import BackendError
from meshfw.kernel.command import run
from meshfw.kernel.netns import ipv6_available
from meshfw.model import Family
from meshfw.testing.netns import Netns

MESH: Final = "wg0"
"""The gateway's interface towards the client."""
WAN: Final = "eth0"
"""The gateway's interface towards the server."""
CLIENT_LINK: Final = "mesh0"
SERVER_LINK: Final = "lan0"

MESH_ADDRESS: Final = {Family.IPV4: "10.5.0.1", Family.IPV6: "fd00:5::1"}
"""The gateway's address on :data:`MESH`."""
WAN_ADDRESS: Final = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8:1::1"}
"""The gateway's address on :data:`WAN`, which masqueraded packets bear."""
CLIENT_NETWORKS: Final = {Family.IPV4: ("10.4.0.0/16",), Family.IPV6: ("fd00:4::/32",)}
"""What the client owns besides its own address."""
SERVER_NETWORKS: Final = {
    Family.IPV4: ("192.0.2.0/24", "198.51.100.0/24", "10.8.0.0/16"),
    Family.IPV6: ("2001:db8:2::/48", "2001:db8:3::/48", "fd00:8::/32"),
}
"""What the server owns besides its own address."""

_MACS: Final = {
    CLIENT_LINK: "02:00:00:00:00:01",
    MESH: "02:00:00:00:00:02",
    WAN: "02:00:00:00:00:03",
    SERVER_LINK: "02:00:00:00:00:04",
}
_CLIENT_ADDRESS: Final = {Family.IPV4: "10.5.0.2", Family.IPV6: "fd00:5::2"}
_SERVER_ADDRESS: Final = {Family.IPV4: "203.0.113.2", Family.IPV6: "2001:db8:1::2"}
_LENGTH: Final = {Family.IPV4: 24, Family.IPV6: 64}
_EVERYWHERE: Final = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}  # says the family, as "default" doesn't
_NO_DAD: Final = {Family.IPV4: "", Family.IPV6: " nodad"}
_IP_SECONDS: Final = 20.0

# In each namespace, before an interface is made: new ones take over what stands under default.
_SYSCTLS: Final = {
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/icmp_ratelimit": "0",
}
_SYSCTLS6: Final = {
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/icmp/ratelimit": "0",
}
_SILENT6: Final = {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}
_OPTIONAL: Final = {"ipv4/icmp_msgs_per_sec": "1000000", "ipv4/icmp_msgs_burst": "100000"}
"""Limits on the answers of both families together; older kernels have them for the host alone and may lose some."""
_FORWARDING: Final = {Family.IPV4: "ipv4/ip_forward", Family.IPV6: "ipv6/conf/all/forwarding"}


class Topology:
    """The three namespaces, up and routed inside the ``with`` block.

    ``families`` are those that work here: a kernel without IPv6 leaves one. With ``answering`` False client and server
    own no address and say nothing, whatever they get. Raises BackendError where ``ip`` is missing and KernelError or
    CommandError where the system refuses.
    """

    def __init__(self, prefix: str = "meshfw", *, answering: bool = True) -> None:
        self._answering = answering
        self.client = Netns(f"{prefix}-client")
        self.gateway = Netns(f"{prefix}-gateway")
        self.server = Netns(f"{prefix}-server")
        self.families: tuple[Family, ...] = tuple(Family) if ipv6_available() else (Family.IPV4,)
        self._stack = ExitStack()

    def __enter__(self) -> Topology:
        with ExitStack() as stack:
            for room in self.rooms:
                stack.enter_context(room)
                self._set_kernel(room)
            _ip(self.gateway, _pair(MESH, CLIENT_LINK, self.client) + _pair(WAN, SERVER_LINK, self.server))
            _ip(self.gateway, self._gateway_lines())
            _ip(self.client, self._end_lines(CLIENT_LINK))
            _ip(self.server, self._end_lines(SERVER_LINK))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @staticmethod
    def mac(link: str) -> bytes:
        """The hardware address of a link."""
        return bytes.fromhex(_MACS[link].replace(":", ""))

    @property
    def rooms(self) -> tuple[Netns, Netns, Netns]:
        """Client, gateway and server."""
        return self.client, self.gateway, self.server

    def _set_kernel(self, room: Netns) -> None:
        speaking = room is self.gateway or self._answering
        values = _SYSCTLS | (_SYSCTLS6 if speaking else _SILENT6) if Family.IPV6 in self.families else dict(_SYSCTLS)
        if room is self.gateway:
            values |= {_FORWARDING[family]: "1" for family in self.families}
        with room.entered():  # the directory shows the namespace of the thread that looks
            for name, value in values.items():
                try:
                    _write_sysctl(name, value)
                except OSError as error:
                    raise BackendError(
                        f"set net/{name}: {error.strerror}", remedy="a container needs /proc/sys/net to be writable"
                    ) from error
            for name, value in _OPTIONAL.items():
                with suppress(OSError):
                    _write_sysctl(name, value)

    def _gateway_lines(self) -> list[str]:
        lines = [f"link set {name} up" for name in (MESH, WAN)]
        for family in self.families:
            lines += [
                _address(MESH_ADDRESS, family, MESH),
                _address(WAN_ADDRESS, family, WAN),
                _neighbour(_CLIENT_ADDRESS, family, MESH, CLIENT_LINK),
                _neighbour(_SERVER_ADDRESS, family, WAN, SERVER_LINK),
                f"route add {_EVERYWHERE[family]} via {_SERVER_ADDRESS[family]} dev {WAN}",
            ]
            lines += [
                f"route add {network} via {_CLIENT_ADDRESS[family]} dev {MESH}" for network in CLIENT_NETWORKS[family]
            ]
        return lines

    def _end_lines(self, link: str) -> list[str]:
        client = link == CLIENT_LINK
        own, networks = (_CLIENT_ADDRESS, CLIENT_NETWORKS) if client else (_SERVER_ADDRESS, SERVER_NETWORKS)
        gateway, far = (MESH_ADDRESS, MESH) if client else (WAN_ADDRESS, WAN)
        lines = [f"link set {link} up"]
        for family in self.families if self._answering else ():
            lines += [
                _address(own, family, link),
                _neighbour(gateway, family, link, far),
                f"route add {_EVERYWHERE[family]} via {gateway[family]} dev {link}",
            ]
            lines += [f"route add local {network} dev lo" for network in networks[family]]
        return lines


def _write_sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
        file.write(value)


def _address(addresses: Mapping[Family, str], family: Family, link: str) -> str:
    return f"address add {addresses[family]}/{_LENGTH[family]} dev {link}{_NO_DAD[family]}"


def _neighbour(addresses: Mapping[Family, str], family: Family, link: str, far: str) -> str:
    """The line that makes the far end of a link a neighbour for good."""
    return f"neighbour add {addresses[family]} dev {link} lladdr {_MACS[far]} nud permanent"


def _pair(name: str, peer: str, room: Netns) -> list[str]:
    """The lines that make a veth pair whose other end is in another namespace."""
    return [f"link add {name} address {_MACS[name]} type veth peer name {peer} address {_MACS[peer]} netns {room.path}"]


def _ip(room: Netns, lines: Iterable[str]) -> None:
    with room.entered():
        run(("ip", "-batch", "-"), timeout=_IP_SECONDS, input="".join(f"{line}\n" for line in lines).encode())
