"""Laws of the record and the kernel: whatever is killed, repeated or done at once, both say the same in the end."""

from __future__ import annotations

import fcntl
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from meshfw_cni.firewall import owner_of
from meshfw_cni.main import main
from meshfw_cni.runtime import Answer

from meshfw import Family, Language, Plugins, Site, builtin_extensions, parse_dump, reconcile, ruleset_of_dump
from meshfw.testing.counting import ProcessCounter, run_counted
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

OURS: Final = (sys.executable, "-m", "meshfw_cni.main")
BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
FULL: Final = os.environ.get("HYPOTHESIS_PROFILE") == "full"
KILLS: Final = 40 if FULL else 2
DAMAGED: Final = 102
ABSENT: Final = 101


class Node:
    """A host's namespace and what a runtime asks of meshfw-cni there, with results as bridge would give them."""

    def __init__(self, room: Netns, directory: Path, backend: str) -> None:
        self.room, self.directory, self.backend = room, directory, backend

    def config(self, number: int, *, network: str = "blue", **keys: Any) -> dict[str, Any]:
        third = {"blue": 42, "green": 43}[network]
        interfaces = [{"name": f"br-{network}"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/pod"}]
        ips = [{"address": f"10.{third}.0.{number}/24"}, {"address": f"fd00:{third}::{number}/64"}]
        config = {
            "cniVersion": "1.1.0",
            "name": network,
            "type": "meshfw-cni",
            "ipMasq": True,
            "backend": self.backend,
            "dataDir": str(self.directory),
            "prevResult": {"interfaces": interfaces, "ips": [{**entry, "interface": 2} for entry in ips]},
        }
        return {**config, **keys}

    @staticmethod
    def variables(number: int) -> dict[str, str]:
        return {"CNI_CONTAINERID": f"pod{number}", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0"}

    def ask(self, command: str, number: int = 2, **keys: Any) -> Answer:
        """The answer, of the program run in this process: to start an interpreter takes longer than all else."""
        said, log = io.StringIO(), io.StringIO()
        text = io.TextIOWrapper(io.BytesIO(json.dumps(self.config(number, **keys)).encode()))
        with (
            self.room.entered(),
            mock.patch.dict(os.environ, {"CNI_COMMAND": command, **self.variables(number)}),
            mock.patch.object(sys, "stdin", text),
            redirect_stdout(said),
            redirect_stderr(log),
        ):
            code = main()
        return Answer(code, json.loads(said.getvalue()) if said.getvalue() else None, log.getvalue())

    def well(self, command: str, number: int = 2, **keys: Any) -> Any:
        answer = self.ask(command, number, **keys)
        assert answer.code == 0, answer
        return answer.value

    def collect(self, valid: list[dict[str, str]] | None, *, key: str = "cni.dev/valid-attachments") -> None:
        keys: dict[str, Any] = {key: valid}
        self.well("GC", 2, **keys)

    def started(self, command: str, number: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "CNI_COMMAND": command, **self.variables(number)}
        with self.room.entered():
            process = subprocess.Popen(
                OURS,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.config(number)))
        process.stdin.close()
        return process

    def tool(self, command: str) -> str:
        with self.room.entered():
            return subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout

    def everything(self) -> str:
        texts = [self.tool("nft -s list ruleset")]
        for tool in ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"):
            lines = self.tool(tool).splitlines()
            texts += [f"{line.partition(' [')[0]}\n" for line in lines if not line.startswith("#")]
        return "".join(texts)

    def holds(self, number: int, network: str = "blue") -> bool:
        return f"{network}/pod{number}/eth0" in self.everything()

    def recorded(self) -> set[str]:
        found = list(self.directory.glob("state*.json"))
        attached = json.loads(found[0].read_text(encoding="utf-8"))["attached"] if found else []
        return {f"{entry['key']['network']}/{entry['key']['container']}" for entry in attached}


@pytest.fixture(params=BACKENDS)
def node(request: pytest.FixtureRequest, netns: Netns, requires: Callable[..., None], tmp_path: Path) -> Node:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    node = Node(netns, tmp_path / "meshfw", request.param)
    for stem in ("iptables", "ip6tables"):  # tables that are used before stay when ours go
        for kind in ("legacy", "nft"):
            for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING"), ("mangle", "FORWARD")):
                node.tool(f"{stem}-{kind} -t {table} -A {chain} -m comment --comment theirs")
    return node


def test_pods_come_go_and_leave_the_rules_of_others_byte_for_byte(node: Node) -> None:
    before = node.everything()
    assert node.well("ADD", 2)["ips"][0]["address"] == "10.42.0.2/24"
    assert node.well("ADD", 3, network="green", policy="isolate")["cniVersion"] == "1.1.0"
    one = node.everything()
    node.well("ADD", 2)
    assert node.everything() == one, "adding twice changes nothing"
    for number, network in ((2, "blue"), (3, "green")):
        node.well("CHECK", number, network=network, **({"policy": "isolate"} if network == "green" else {}))
    assert node.ask("CHECK", 2, policy="isolate").problem == ABSENT, "what is asked now isn't what was added"
    assert node.ask("CHECK", 9).problem == ABSENT
    assert node.ask("STATUS").code == 0
    node.well("DEL", 2)
    assert (node.holds(2), node.holds(3, "green")) == (False, True)
    for again in ({}, {"prevResult": None}):
        node.well("DEL", 2, **again)
    node.well("DEL", 3, network="green", prevResult=None)
    assert node.everything() == before
    assert os.listdir(node.directory) == ["lock"]


def test_collection_takes_what_is_not_valid_of_this_network_alone(node: Node) -> None:
    for number in (2, 3, 4):
        node.well("ADD", number)
    node.well("ADD", 5, network="green")
    valid = [{"containerID": "pod3", "ifname": "eth0"}, {"containerID": "pod4", "ifname": "eth1"}]
    node.collect(valid)
    assert node.recorded() == {"blue/pod3", "green/pod5"}
    assert [node.holds(number) for number in (2, 3, 4)] == [False, True, False]
    node.collect(None, key="cni.dev/attachments")
    assert (node.recorded(), node.holds(3), node.holds(5, "green")) == ({"green/pod5"}, False, True)


def test_the_next_call_restores_every_pod_after_a_reboot_and_repairs_what_was_damaged(node: Node) -> None:
    node.well("ADD", 2)
    node.well("ADD", 3)
    damage(node)
    assert node.ask("CHECK", 2).problem == ABSENT
    node.well("ADD", 4)
    for number in (2, 3, 4):
        node.well("CHECK", number)


def test_check_minds_the_rules_of_its_own_pod_alone(node: Node) -> None:
    node.well("ADD", 2)
    node.well("ADD", 3)
    if node.backend == "nft":
        chain = f"ip {owner_of(str(node.directory))} filter-forward"
        listing = node.tool(f"nft -a list chain {chain}").splitlines()
        handle = next(line.split()[-1] for line in listing if "blue/pod3/eth0" in line)
        node.tool(f"nft delete rule {chain} handle {handle}")
    else:
        rules = node.tool(f"{node.backend} -S").splitlines()
        rule = next(line for line in rules if "blue/pod3/eth0" in line).replace('"', "")
        node.tool(f"{node.backend} -D{rule.removeprefix('-A')}")
    node.well("CHECK", 2)
    answer = node.ask("CHECK", 3)
    assert answer.problem == ABSENT
    assert "blue/pod3/eth0" in answer.value["details"]


def damage(node: Node) -> None:
    """Lose rules, as by a flush or a reboot."""
    if node.backend == "nft":
        for family in ("ip", "ip6"):
            node.tool(f"nft delete table {family} {owner_of(str(node.directory))}")
    else:
        for stem in ("iptables", "ip6tables"):
            node.tool(f"{stem}{node.backend.removeprefix('iptables')} -t nat -F")


def test_ten_additions_at_once_all_stand_and_ten_deletions_leave_nothing(node: Node) -> None:
    before = node.everything()
    numbers = range(2, 12 if FULL or node.backend == "iptables-nft" else 5)
    for command in ("ADD", "DEL"):
        processes = [node.started(command, number) for number in numbers]
        assert [process.wait() for process in processes] == [0] * len(numbers)
        assert len(node.recorded()) == (len(numbers) if command == "ADD" else 0)
        text = node.everything()
        assert [f"blue/pod{number}/eth0" in text for number in numbers] == [command == "ADD"] * len(numbers)
    assert node.everything() == before


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_whatever_is_killed_a_deletion_or_a_collection_leaves_nothing(node: Node, command: str) -> None:
    chance = random.Random(f"{node.backend} {command}")  # noqa: S311 - moments to try, the same ones each time
    before = node.everything()
    node.well("ADD", 3)
    beside = node.everything()
    start = time.monotonic()
    assert node.started("ADD", 2).wait() == 0
    lasts = time.monotonic() - start
    node.well("DEL", 2)
    assert node.everything() == beside
    for turn in range(KILLS):
        if command == "DEL":
            node.well("ADD", 2)
        process = node.started(command, 2)
        time.sleep(chance.uniform(0.4, 1.1) * lasts)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if turn % 2:
            node.well("DEL", 2, prevResult=None)
        else:
            node.collect([{"containerID": "pod3", "ifname": "eth0"}])
        assert node.recorded() == {"blue/pod3"}
        assert node.everything() == beside
        node.well("CHECK", 3)
    node.well("DEL", 3)
    assert node.everything() == before


def test_an_addition_that_fails_is_not_recorded(node: Node) -> None:
    owner = owner_of(str(node.directory))
    if node.backend == "nft":
        node.tool(f"nft add table ip6 {owner}; add chain ip6 {owner} filter-forward")
    else:
        node.tool(f"ip6{node.backend[2:]} -N {owner}-forward")
        node.tool(f"ip6{node.backend[2:]} -A {owner}-forward -j DROP")
    before = node.everything()
    assert node.ask("ADD", 3).problem == 100, "a chain of our name that isn't ours"
    assert node.ask("ADD", 4, backend="ntf").problem == 7
    assert node.ask("ADD", 4, backend="memory").problem == 7
    assert (node.recorded(), node.everything()) == (set(), before)


@pytest.mark.parametrize("node", ["nft"], indirect=True)
def test_a_pod_that_no_rule_can_isolate_is_refused(node: Node) -> None:
    for result in ({}, {"ips": [{"address": "10.42.0.1/24", "interface": 0}], "interfaces": [{"name": "br-blue"}]}):
        answer = node.ask("ADD", 2, policy="isolate", prevResult=result)
        assert (answer.problem, node.recorded()) == (7, set()), answer
        assert "can't be isolated" in answer.value["msg"]
        node.well("ADD", 2, prevResult=result)
        node.well("DEL", 2)


@pytest.mark.parametrize("node", ["iptables-legacy"], indirect=True)
def test_a_bridge_whose_name_stands_for_many_lets_none_of_them_in(node: Node) -> None:
    pod = {"name": "eth0", "sandbox": "/run/netns/pod"}
    result = {"interfaces": [{"name": "br+"}, pod], "ips": [{"address": "10.42.0.2/24", "interface": 1}]}
    node.well("ADD", 2, policy="isolate", prevResult=result)
    guard = [line for line in node.everything().splitlines() if "-A" in line and "isolate-blue" in line]
    assert not [line for line in guard if "br+" in line]
    assert [line for line in guard if "-s 10.42.0.0/24 -j RETURN" in line], guard


def test_a_pod_that_moves_to_another_backend_leaves_no_rule_in_the_old_one(node: Node) -> None:
    before = node.everything()
    other = "iptables-legacy" if node.backend != "iptables-legacy" else "nft"
    node.well("ADD", 2)
    node.well("ADD", 2, backend=other)
    node.well("ADD", 3)
    for number, backend in ((2, other), (3, node.backend)):
        node.well("CHECK", number, backend=backend)
    node.well("DEL", 3)
    assert (node.holds(2), node.holds(3)) == (True, False)
    node.well("DEL", 2)
    assert node.everything() == before


def test_auto_stays_where_rules_of_ours_stand(node: Node) -> None:
    node.well("ADD", 2)
    node.well("ADD", 3, backend="auto")
    found = json.loads(next(node.directory.glob("state*.json")).read_text(encoding="utf-8"))
    assert found["backends"] == [node.backend]


def test_processes_of_a_call(node: Node) -> None:
    """nft: none. iptables: for each family one that reads, where anything stands, and one that writes and reads."""
    few = 0 if node.backend == "nft" else 2
    for command, most in (("ADD", few), ("ADD", 2 * few), ("CHECK", few), ("DEL", 2 * few)):
        number = 3 if node.recorded() == {"blue/pod2"} and command == "ADD" else 2
        with node.room.entered():
            counted = run_counted(
                OURS,
                input=json.dumps(node.config(number)).encode(),
                env={**os.environ, "CNI_COMMAND": command, **node.variables(number)},
            )
        assert counted.returncode == 0, counted
        assert counted.count.forks == most, counted.count.commands


def test_another_owner_and_the_plugin_leave_each_other_alone(node: Node) -> None:
    words = Language.of(builtin_extensions())
    dump = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i wg0 -j ACCEPT\nCOMMIT\n"
    plugins = Plugins()
    with node.room.entered():
        backend = plugins.open_backend(plugins.backend(node.backend), Site(owner="edge", language=words))
        try:
            wanted = ruleset_of_dump(parse_dump(dump, family=Family.IPV4, language=words))
            reconcile.apply(backend, wanted)
            for _ in range(3):
                node.well("ADD", 2)
                assert not reconcile.plan(backend, wanted)
                with ProcessCounter() as counter:
                    report = reconcile.apply(backend, wanted)
                assert (report.commits, counter.count.forks == 0) == (0, True)
                node.well("CHECK", 2)
                node.well("DEL", 2)
        finally:
            backend.close()


def test_a_damaged_record_is_told_and_never_taken_for_an_empty_one(node: Node) -> None:
    node.well("ADD", 2)
    path = next(node.directory.glob("state*.json"))
    whole = path.read_text(encoding="utf-8")
    before = node.everything()
    for damaged in ("", whole[:-9], whole.replace('"version":1', '"version":2'), "[]"):
        path.write_text(damaged, encoding="utf-8")
        for command in ("ADD", "DEL", "CHECK", "GC"):
            answer = node.ask(command, 3, **{"cni.dev/valid-attachments": []} if command == "GC" else {})
            assert answer.problem == DAMAGED
            assert str(path) in answer.value["msg"]
        assert node.ask("STATUS").problem == 50
    assert node.everything() == before


def test_a_call_waits_for_another_one_and_then_says_so(node: Node) -> None:
    node.well("ADD", 2)
    with open(node.directory / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert node.ask("ADD", 3, lockTimeout=0).problem == 11
    node.well("ADD", 3, lockTimeout=0)


def test_status_says_whether_pods_suffer(node: Node) -> None:
    assert node.ask("STATUS").code == 0
    assert not node.directory.exists(), "to ask makes nothing"
    answer = node.ask("STATUS", backend="ntf")
    assert (answer.problem, "ntf" in answer.value["msg"]) == (50, True)
    node.well("ADD", 2)
    assert node.ask("STATUS", backend="ntf").problem == 51
    assert node.ask("STATUS", network="green", backend="ntf").problem == 50
