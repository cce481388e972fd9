"""The law of test_packets at other hooks, for packets of several users, and for what targets do to connections."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.languages.dump import hook_of
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, render_rule
from meshfw.languages.nft.tables import nft_hook
from meshfw.model import Family, Table
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import packets_at
from tests.extensions.test_packets import send

Places = dict[str, tuple[str, ...]]


def send_as_others(family: Family) -> None:
    """Datagrams of three users, to which the kernel itself answers, and its answers to a segment for nobody."""
    address = "::1" if family is Family.IPV6 else "127.0.0.1"
    kind = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
    for user, group in ((1000, 1002), (1001, 5), (1003, 1000)):
        child = os.fork()
        if not child:  # which ends here, whatever happens
            try:
                os.setgroups([7])
                os.setresgid(group, group, group)
                os.setresuid(user, user, user)
                with socket.socket(kind, socket.SOCK_DGRAM) as sender:
                    for port in range(1101, 1104):
                        sender.sendto(b"x", (address, port))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    with socket.socket(kind) as caller:
        assert caller.connect_ex((address, 1)) != 0


def restored(places: Places, family: Family) -> str:
    tables: dict[str, list[str]] = {}
    for place, rules in places.items():
        table, _, chain = place.partition("/")
        parsed = [parse_rule(text, family=family, language=LANGUAGE) for text in rules]
        texts = [format_rule(rule, family=family, language=LANGUAGE) for rule in parsed]
        tables.setdefault(table, []).extend(f"-A {chain} {text}" for text in texts)
    return "".join("\n".join([f"*{table}", *lines, "COMMIT", ""]) for table, lines in tables.items())


def scripted(places: Places, family: Family) -> str:
    network = FAMILIES[family]
    lines = [f"add table {network} t"]
    for place, rules in places.items():
        table, _, chain = place.partition("/")
        hook = hook_of(chain, Table(table))
        assert hook is not None
        lines.append(f"add chain {network} t {table}-{chain} {{ {nft_hook(Table(table), hook)} }}")
        for text in rules:
            rule = parse_rule(text, family=family, language=LANGUAGE)
            said = render_rule(rule, family=family, language=LANGUAGE, hook=hook)
            lines.append(f"add rule {network} t {table}-{chain} {said}")
    return "\n".join([*lines, ""])


class Tried:
    """What the packets met and left behind: counters by rule, and the connections that are tracked."""

    def __init__(self, family: Family, sent: Callable[[Family], None], environment: dict[str, str]) -> None:
        self._family = family
        self._sent = sent
        self._environment = environment

    def on_iptables(self, places: Places) -> tuple[list[int], list[str]]:
        tool = "iptables-legacy" if self._family is Family.IPV4 else "ip6tables-legacy"
        with Netns() as room, room.entered():
            script = restored(places, self._family)
            subprocess.run([f"{tool}-restore"], input=script, text=True, env=self._environment, check=True)
            connections = self._after()
            counts = []
            for place in places:
                table, _, chain = place.partition("/")
                saved = subprocess.run(
                    [f"{tool}-save", "-c", "-t", table],
                    capture_output=True,
                    text=True,
                    env=self._environment,
                    check=True,
                ).stdout
                counts += [int(met) for met in re.findall(rf"^\[(\d+):\d+\] -A {chain} ", saved, re.MULTILINE)]
        return counts, connections

    def on_nft(self, places: Places) -> tuple[list[int], list[str]]:
        with Netns() as room, room.entered():
            subprocess.run(["nft", "-f", "-"], input=scripted(places, self._family), text=True, check=True)
            connections = self._after()
            listed = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        rules = [item["rule"] for item in json.loads(listed)["nftables"] if "rule" in item]
        by_chain = {
            f"{table}-{chain}": [rule for rule in rules if rule["chain"] == f"{table}-{chain}"]
            for table, _, chain in (place.partition("/") for place in places)
        }
        counts = [
            statement["counter"]["packets"]
            for held in by_chain.values()
            for rule in held
            for statement in rule["expr"]
            if "counter" in statement
        ]
        return counts, connections

    def _after(self) -> list[str]:
        """The connections after the packets: protocol, ends in both directions and zones."""
        self._sent(self._family)
        text = Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii")
        # A source port that another connection has already is replaced by one that the kernel chooses by chance.
        kept = re.compile(r"(?:src|dst|zone|zone-orig|zone-reply)=?")
        return sorted(
            " ".join([line.split()[2], *(word for word in line.split() if kept.match(word))])
            for line in text.splitlines()
        )


@pytest.fixture
def environment(requires: Callable[..., None], tmp_path: Path) -> dict[str, str]:
    requires("nft", "iptables-legacy-restore", "ip6tables-legacy-restore")
    return {**os.environ, "XTABLES_LOCKFILE": str(tmp_path / "lock")}


def send_all(family: Family) -> None:
    send(family)
    send_as_others(family)


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_a_packet_meets_a_rule_at_any_hook_on_nft_as_on_iptables(environment: dict[str, str], family: Family) -> None:
    tried, places = Tried(family, send_all, environment), packets_at(family)
    (one, _), (other, _) = tried.on_iptables(places), tried.on_nft(places)
    texts = [f"{place} {rule}" for place, rules in places.items() for rule in rules]
    assert len(one) == len(other) == len(texts)
    pairs = zip(texts, one, other, strict=True)
    assert {text: counts for text, *counts in pairs if counts[0] != counts[1]} == {}
    assert sum(1 for count in one if count) > len(texts) * 2 // 3, "packets that meet nothing prove nothing"


# A connection is looked up before a later rule speaks: so of each of these places the later rules have their effect, or
# not, by the earlier ones.
TRACKED: dict[str, Places] = {
    "untracked": {"raw/OUTPUT": ("-p udp --dport 101:103 -j NOTRACK", "-p udp --dport 102 -j CT --notrack")},
    "zones": {
        "raw/OUTPUT": (
            "-p udp --dport 101 -j NOTRACK",
            "-p udp --dport 102 -j CT",
            "-p udp --dport 103 -j CT --zone-orig 3",
            "-p udp --dport 104 -j CT --zone-reply 4",
            "-j CT --zone 7",
            "-p udp --dport 105 -j NOTRACK",
        ),
        "raw/PREROUTING": ("-j CT --zone 9",),
    },
}
MAPPED = {
    Family.IPV4: (
        "-p udp --dport 101:103 -j NETMAP --to 127.8.0.0/16",
        "-p udp --dport 104 -j NETMAP --to 127.0.0.9",
        "-p udp --dport 105:108 -j NETMAP --to 127.0.0.0/31",
    ),
    Family.IPV6: ("-p udp --dport 101:103 -j NETMAP --to ::/126", "-p udp -j NETMAP --to ::1"),
}


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", TRACKED)
def test_connections_are_tracked_on_nft_as_on_iptables(environment: dict[str, str], family: Family, name: str) -> None:
    # Something must ask for tracking, or there is none.
    places: Places = {**TRACKED[name], "filter/INPUT": ("-m conntrack --ctstate NEW",)}
    tried = Tried(family, send, environment)
    one, other = tried.on_iptables(places), tried.on_nft(places)
    assert one == other
    assert all(one[0])


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("chain", ["OUTPUT", "POSTROUTING"])
def test_addresses_are_mapped_on_nft_as_on_iptables(environment: dict[str, str], family: Family, chain: str) -> None:
    places: Places = {f"nat/{chain}": MAPPED[family]}
    tried = Tried(family, send, environment)
    one, other = tried.on_iptables(places), tried.on_nft(places)
    assert one == other
    assert all(one[0])
