"""What Kilo itself made of some meshes is what is made here: hook by hook, in both families, on every backend.

The recordings are no part of the project: an ``examples.json`` of options and objects, and for each example and node
what ip(6)tables-save showed after Kilo had run. MESHFW_KILO_GOLDEN names their directory; without it these tests look
beside the checkout, and skip. test_kilo_rules has rules written by hand, which need none.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from kilo_meshes import (
    LANGUAGE,
    NOW,
    Hooks,
    assert_in_order,
    counted,
    flat_ruleset,
    flat_save,
    peer_object,
    ready_node,
    recorded,
    rules,
    without,
)
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.objects import parse_objects
from meshfw_kilo.options import Compatibility, Encapsulation, Firewall, Granularity, Mesh
from meshfw_kilo.rules import ruleset_of
from meshfw_kilo.topology import Topology, topology_of

from meshfw import Backend, Family, Hook, Plugins, Ruleset, Site, Table, reconcile
from meshfw.testing.netns import Netns

BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
WIREGUARD: Final = "Kilo: do not NAT packets destined for WireGuared IPs"


class Case:
    """One node of one example: what it is asked with, and what Kilo made of it."""

    def __init__(self, folder: Path, example: str, node: str, told: Any) -> None:
        self.title = f"{example}/{node}"
        text = json.dumps(told["objs"]).replace('"NOW"', f'"{NOW}"')
        self.cluster = parse_objects(json.loads(text))
        self.node = node
        options = told["opts"]
        self.mesh = Mesh(granularity=Granularity(options["granularity"]))
        self.options = Firewall(
            cni=options["cni"],
            forward_rules=options["forward"],
            encapsulate=Encapsulation(options["encapsulate"]),
            local=options["local"],
            compatibility=Compatibility(options["compat"]),
            service_cidrs=tuple(cidr for text in options["services"] if (cidr := Cidr.parse(text)) is not None),
        )
        self.kilo: Hooks = {}
        for family, suffix in ((Family.IPV4, "v4"), (Family.IPV6, "v6")):
            self.kilo |= flat_save((folder / example / f"{node}.{suffix}.save").read_text(), family)

    @property
    def topology(self) -> Topology:
        return topology_of(self.cluster, self.node, self.mesh, now=NOW)

    def ruleset(self, *, compact: bool = False) -> Ruleset:
        from msgspec.structs import replace

        return ruleset_of(self.topology, replace(self.options, compact=compact), language=LANGUAGE)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    folder = recorded(__file__)
    told = json.loads((folder / "examples.json").read_text())
    return [
        Case(folder, example, path.name.removesuffix(".v4.save"), told[example])
        for example in sorted(told)
        for path in sorted((folder / example).glob("*.v4.save"))
    ]


def test_the_recordings_are_some(cases: list[Case]) -> None:
    assert len(cases) >= 16
    assert {key for case in cases for key in case.kilo} >= {
        (Family.IPV4, Table.NAT, Hook.POSTROUTING),
        (Family.IPV6, Table.NAT, Hook.POSTROUTING),
        (Family.IPV4, Table.FILTER, Hook.FORWARD),
        (Family.IPV6, Table.FILTER, Hook.INPUT),
    }


def test_topology_is_that_of_kilo(cases: list[Case]) -> None:
    told = json.loads((recorded(__file__) / "ops.json").read_text())
    for case in cases:
        example, node = case.title.split("/")
        theirs, ours = told[example][node], case.topology
        assert (ours.leads, ours.segment.key) == (theirs["leader"], theirs["location"]), case.title
        for segment, other in zip(ours.segments, theirs["segments"], strict=True):
            assert segment.key == other["Location"]
            assert segment.leader == other["Leader"]
            assert list(segment.nodes) == other["Hosts"]
            assert str(segment.wireguard_ip) == f"{other['WG']}/32"
            assert sorted(map(str, segment.allowed_ips)) == sorted(other["Allowed"])
            assert [str(cidr) for cidr in segment.location_ips] == (other["ALIPs"] or [])
            assert [str(cidr).partition("/")[0] for cidr in segment.private_ips] == other["Private"]


def test_rules_are_those_of_kilo(cases: list[Case]) -> None:
    for case in cases:
        hooks = flat_ruleset(case.ruleset())
        assert counted(hooks) == counted(case.kilo), case.title
        assert_in_order(hooks)


def test_compact_rules_are_those_of_kilo_but_for_repeats(cases: list[Case]) -> None:
    for case in cases:
        hooks = flat_ruleset(case.ruleset(compact=True))
        assert counted(hooks) == counted(without(case.kilo, WIREGUARD)), case.title
        assert_in_order(hooks)


# --- in a kernel -------------------------------------------------------------------------------------------


class Room:
    """A namespace with one backend at work in it, beside a rule of somebody else's on each hook."""

    def __init__(self, netns: Netns, name: str) -> None:
        self._netns = netns
        self.name = name
        self._mode = name.removeprefix("iptables-") if name != "nft" else "nft"
        for tool in ("iptables", "ip6tables"):
            for table, chain in (("nat", "POSTROUTING"), ("filter", "FORWARD"), ("filter", "INPUT")):
                self.run(f"{tool}-{self._mode}", "-t", table, "-A", chain, "-m", "comment", "--comment", "foreign")
        site = Site(owner="meshfw", language=LANGUAGE, netns=netns.path)
        self.backend: Backend = Plugins().backend(name).factory(site)

    def run(self, *command: str) -> str:
        with self._netns.entered():
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout

    def read(self) -> tuple[Hooks, Hooks]:
        """What stands there hook by hook, ours alone and everybody's, read by who has nothing to do with us."""
        if self.name == "nft":
            hooks = flat_ruleset(self.backend.observe().snapshot.ruleset())
            return hooks, hooks
        everybody: Hooks = {}
        for family, tool in ((Family.IPV4, "iptables"), (Family.IPV6, "ip6tables")):
            everybody |= flat_save(self.run(f"{tool}-{self._mode}-save"), family)
        ours = without(everybody, "foreign")
        return {key: found for key, found in ours.items() if found}, everybody


@pytest.fixture(params=BACKENDS)
def room(
    request: pytest.FixtureRequest,
    netns: Netns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requires: Callable[..., None],
) -> Iterator[Room]:
    requires("nft", "iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    made = Room(netns, request.param)
    yield made
    made.backend.close()


@pytest.mark.kernel
def test_a_kernel_holds_what_kilo_would_have_put_there(cases: list[Case], room: Room) -> None:
    for case in cases:
        reconcile.apply(room.backend, case.ruleset())
        hooks, everybody = room.read()
        assert counted(hooks) == counted(case.kilo), case.title
        assert_in_order(hooks)
        for key, found in everybody.items():
            comments = [rule.comment for _, rule in found]
            assert "foreign" not in comments[:-1], key  # ours come first


@pytest.mark.kernel
def test_a_kernel_holds_the_same_by_compact_rules(cases: list[Case], room: Room) -> None:
    for case in cases if room.name == "nft" else cases[::3]:
        reconcile.apply(room.backend, case.ruleset(compact=True))
        hooks, _ = room.read()
        assert counted(hooks) == counted(without(case.kilo, WIREGUARD)), case.title
        assert_in_order(hooks)


@pytest.mark.kernel
@pytest.mark.parametrize("compact", [False, True], ids=["plain", "compact"])
def test_a_kernel_takes_a_peer_of_everything(room: Room, compact: bool) -> None:
    ways = ["0.0.0.0/0", "::/0"]
    objects = [ready_node("n1", "10.42.0.0/24", "10.0.0.1/24"), peer_object("exit", allowedIPs=ways)]
    ruleset = rules(objects, "n1", Firewall(compact=compact))
    reconcile.apply(room.backend, ruleset)
    assert not reconcile.plan(room.backend, ruleset)
    hooks, _ = room.read()
    assert hooks[Family.IPV6, Table.NAT, Hook.POSTROUTING]
    assert_in_order(hooks)
