"""A realistic configuration: the dual-stack gateway of a WireGuard mesh, and where packets go under it.

It fits :mod:`meshfw.testing.topology`: ten sites share the prefixes behind ``wg0``, everybody else and the office LAN
are behind ``eth0``. One TOML text declares both families; what holds an address goes to that address's family.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshfw.model import Family
from meshfw.testing.frames import Packet
from meshfw.testing.topology import MESH_ADDRESS, WAN_ADDRESS

FILE: Final = "gateway.toml"
"""What messages call the text."""
SITES: Final = (*("berlin", "dublin", "lisbon", "madrid", "nairobi", "osaka", "prague", "quito", "seoul", "toronto"),)
"""The sites of the mesh; the number of each, counted from 1, is part of its prefixes."""
GUESTS: Final = frozenset({"quito", "seoul"})
"""Sites whose peers may not reach the LAN."""

_PREFIX: Final = {Family.IPV4: "10.4.{}.0/24", Family.IPV6: "fd00:4:{:x}::/48"}
_HOST: Final = {Family.IPV4: "10.4.{}.{}", Family.IPV6: "fd00:4:{:x}::{:x}"}
_LAN: Final = {Family.IPV4: "10.8.0.0/16", Family.IPV6: "fd00:8::/32"}
_MAIL: Final = {Family.IPV4: "10.8.0.25", Family.IPV6: "fd00:8::25"}
_BLOCKED: Final = {Family.IPV4: ("198.51.100.64/26",), Family.IPV6: ("2001:db8:3:66::/64",)}
_PUBLISHED: Final = ((443, 1, 20, 8443, "web"), (993, 2, 25, 993, "mailboxes"), (6881, 4, 81, 6881, "mirror"))
"""Services for everybody: port at the gateway, site and host number behind it, port there, name."""

_HEAD: Final = """\
# The gateway of a WireGuard mesh. wg0 is the tunnel, eth0 leads to the office LAN and to everybody else.
owner = "meshfw"
"""
_INPUT: Final = (
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m conntrack --ctstate INVALID -j DROP",
    "-i lo -j ACCEPT",
    "-p icmp -m icmp --icmp-type echo-request -j ACCEPT",
    "-p icmp -m icmp --icmp-type fragmentation-needed -j ACCEPT",
    *(
        f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT"
        for kind in ("echo-request", "packet-too-big", "router-advertisement", "neighbour-solicitation")
    ),
    "-p ipv6-icmp -m icmp6 --icmpv6-type neighbour-advertisement -j ACCEPT",
    '-i eth0 -p udp -m udp --dport 51820 -m comment --comment "WireGuard" -j ACCEPT',
    '-i wg0 -s @admins -p tcp -m tcp --dport 22 -m comment --comment "shell, for administrators" -j ACCEPT',
    "-i wg0 -s @mesh -p udp -m udp --dport 53 -j ACCEPT",
    "-i wg0 -s @mesh -p tcp -m tcp --dport 53 -j ACCEPT",
    '-i wg0 -s @admins -p tcp -m multiport --dports 9100,9586 -m comment --comment "metrics" -j ACCEPT',
    "-i wg0 -p tcp -m tcp --dport 179 -j ACCEPT",
    "-p tcp -m tcp --dport 113 -j REJECT --reject-with tcp-reset",
    '-m limit --limit 5/min -j LOG --log-prefix "meshfw input: "',
)
_FORWARD: Final = (
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m conntrack --ctstate INVALID -j DROP",
    '-m conntrack --ctstate DNAT -i eth0 -o wg0 -m comment --comment "what is published" -j ACCEPT',
    "-i wg0 -o wg0 -s @mesh -d @mesh -j ACCEPT",
)


def gateway_toml() -> str:
    """The configuration, as a file would hold it."""
    return "\n".join(
        (
            _HEAD,
            _set("mesh", _both(_PREFIX)),
            _set("lan", _LAN.values()),
            _set("admins", [_host(1, 10, family) for family in Family]),
            _set("blocked", [prefix for family in Family for prefix in _BLOCKED[family]]),
            _set("web", ["80", "443", "8080-8090"], kind="port"),
            _chain("spoofed", "raw", "prerouting", ("-i eth0 -s @mesh -j DROP", "-i eth0 -s @blocked -j DROP")),
            _chain("classes", "mangle", "forward", _classes()),
            _chain("published", "nat", "prerouting", _published()),
            _chain("outside", "nat", "postrouting", _outside()),
            _chain("input", "filter", "input", _INPUT, policy="drop"),
            _chain("forward", "filter", "forward", _forward(), policy="drop"),
            *(_chain(f"site-{name}", "filter", "", _site(name)) for name in SITES),
        )
    )


def _host(site: int, number: int, family: Family) -> str:
    return _HOST[family].format(site, number)


def _both(pattern: dict[Family, str]) -> list[str]:
    """Every site's prefix of both families."""
    return [pattern[family].format(number) for family in Family for number in range(1, len(SITES) + 1)]


def _set(name: str, elements: Iterable[str], *, kind: str = "address") -> str:
    return f'[[set]]\nname = "{name}"\ntype = "{kind}"\nelements = {json.dumps(list(elements))}\n'


def _chain(name: str, table: str, hook: str, rules: Iterable[str], *, policy: str = "return") -> str:
    lines = "".join(f"    {json.dumps(rule)},\n" for rule in rules)
    attach = f'attach = [{{ hook = "{hook}", policy = "{policy}" }}]\n' if hook else ""
    return f'[[chain]]\nname = "{name}"\ntable = "{table}"\n{attach}rules = [\n{lines}]\n'


def _classes() -> Iterator[str]:
    """Marks by which traffic of guests is shaped."""
    for name in sorted(GUESTS):
        for family in Family:
            yield f"-s {_PREFIX[family].format(SITES.index(name) + 1)} -j MARK --set-xmark 0x10/0xff"
    yield "-p udp -m udp --dport 51820 -j MARK --set-xmark 0x1/0xff"


def _published() -> Iterator[str]:
    for port, site, number, inner, name in _PUBLISHED:
        for family in Family:
            host = _host(site, number, family)
            to = f"[{host}]:{inner}" if family is Family.IPV6 else f"{host}:{inner}"
            match = f"-d {WAN_ADDRESS[family]} -i eth0 -p tcp -m tcp --dport {port}"
            yield f'{match} -m comment --comment "{name}" -j DNAT --to-destination {to}'
    yield '-i wg0 -p udp -m udp --dport 53 -m comment --comment "names: ours alone" -j REDIRECT --to-ports 53'


def _outside() -> Iterator[str]:
    yield "-d @mesh -j RETURN"
    yield "-d @lan -j RETURN"
    for number, name in enumerate(SITES, 1):
        for family in Family:
            yield f'-s {_PREFIX[family].format(number)} -o eth0 -m comment --comment "{name}" -j MASQUERADE'


def _forward() -> Iterator[str]:
    yield from _FORWARD
    for number, name in enumerate(SITES, 1):
        for family in Family:
            yield f"-s {_PREFIX[family].format(number)} -i wg0 -j site-{name}"
    yield '-m limit --limit 5/min -j LOG --log-prefix "meshfw forward: "'


def _site(name: str) -> Iterator[str]:
    """What peers of a site may reach beyond the mesh."""
    if name in GUESTS:
        yield '-d @lan -m comment --comment "guests stay outside" -j REJECT'
    else:
        yield "-d @lan -p tcp -m multiport --dports 22,80,443,3389 -j ACCEPT"
        for family in Family:
            yield f"-d {_MAIL[family]}/{family.bits} -p tcp -m multiport --dports 465,587,993 -j ACCEPT"
        yield "-d @lan -j DROP"
    yield '-p tcp -m tcp --dport 25 -m comment --comment "by the relay" -j REJECT --reject-with tcp-reset'
    yield "-p tcp -m tcp --dport @web -j ACCEPT"
    yield "-p udp -m multiport --dports 123,443,51820 -j ACCEPT"
    yield "-p icmp -m icmp --icmp-type echo-request -j ACCEPT"
    yield "-p ipv6-icmp -m icmp6 --icmpv6-type echo-request -j ACCEPT"


# --- where packets go ----------------------------------------------------------------------------------------


class Journey(msgspec.Struct, frozen=True):
    """A packet, what it stands for, and what shall become of it (:attr:`~meshfw.testing.probes.Result.verdict`)."""

    story: str
    packet: Packet
    verdict: str


def journeys(family: Family) -> tuple[Journey, ...]:
    """A few packets of a family and what the gateway's rules make of each."""
    peer, guest, admin = (_host(site, number, family) for site, number in ((3, 9), (8, 9), (1, 10)))
    web, lan = _host(1, 20, family), "10.8.3.7" if family is Family.IPV4 else "fd00:8::7"
    out, bad = ("192.0.2.80", "198.51.100.70") if family is Family.IPV4 else ("2001:db8:2::80", "2001:db8:3:66::1")
    here, wan = MESH_ADDRESS[family], WAN_ADDRESS[family]
    inner = f"[{web}]:8443" if family is Family.IPV6 else f"{web}:8443"
    resolver = f"[{here}]:53" if family is Family.IPV6 else f"{here}:53"

    def way(story: str, ends: tuple[str, str], service: tuple[str, int], verdict: str) -> Journey:
        source, destination = ends
        start = "server" if source in (out, bad) or story.startswith("spoofed") else "client"
        protocol, port = service
        packet = Packet(
            family=family, protocol=protocol, source=source, destination=destination, dport=port, start=start
        )
        return Journey(story, packet, verdict)

    return (
        way("a peer opens a web page", (peer, out), ("tcp", 443), f"accepted from {wan}"),
        way("a peer pings somebody outside", (peer, out), ("icmp", 0), f"accepted from {wan}"),
        way("a peer asks a foreign name server", (peer, out), ("udp", 53), f"accepted by the gateway to {resolver}"),
        way("a peer sends mail past the relay", (peer, out), ("tcp", 25), "rejected (reset)"),
        way("a peer opens a desktop in the LAN", (peer, lan), ("tcp", 3389), "accepted"),
        way("a peer tries telnet in the LAN", (peer, lan), ("tcp", 23), "dropped"),
        way("a guest tries the LAN", (guest, lan), ("tcp", 443), "rejected (port-unreachable)"),
        way("an administrator opens a shell here", (admin, here), ("tcp", 22), "accepted by the gateway"),
        way("a peer tries a shell here", (peer, here), ("tcp", 22), "dropped"),
        way("somebody outside opens our web page", (out, wan), ("tcp", 443), f"accepted to {inner}"),
        way("a WireGuard handshake from outside", (out, wan), ("udp", 51820), "accepted by the gateway"),
        way("somebody outside tries a shell here", (out, wan), ("tcp", 22), "dropped"),
        way("somebody outside tries a peer", (out, peer), ("tcp", 443), "dropped"),
        way("a blocked network tries our web page", (bad, wan), ("tcp", 443), "dropped"),
        way("spoofed: a peer's address from outside", (peer, wan), ("udp", 51820), "dropped"),
    )
