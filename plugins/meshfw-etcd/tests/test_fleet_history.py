"""Laws of releases that are kept, of the status, and of bad input, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meshfw_etcd.documents import Ack, Common, Node, Trial, read, write
from meshfw_etcd.errors import BusyError, DocumentError, EtcdError, UnreachableError
from meshfw_etcd.fleet import read_release
from meshfw_etcd.messages import Delete
from meshfw_etcd.releases import KEPT
from meshfw_etcd.testing import Server
from meshfw_etcd.testing_house import NAMES, RULES, House

from meshfw import ConfigError, MeshfwError


@pytest.fixture(scope="module")
def server(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requires("etcd")
    with Server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def house(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr("meshfw_etcd.pushing.LOOK", 0.02)
    with House(server, tmp_path) as house:
        yield house


def stands(house: House) -> str:
    """The rules of all nodes."""
    pair = house.client.get(house.keys.common)
    assert pair is not None
    return read(pair.value, Common, key="").rules


# --- roll-back ---


def test_a_roll_back_is_a_new_release_with_the_text_before_the_last_by_the_same_stages(house: House) -> None:
    with house.nodes():
        for number in (1, 2, 3):
            house.push(number, "--now")
        house.settled(NAMES, 3)
        code, said = house.call("rollback", "--timeout", "5s", "--soak", "0s")
        assert (code, said["release"]) == (0, 4)
        assert stands(house) == RULES.format(2)
        assert len(house.trials()) == 2  # 10% of 12, rounded up
        assert house.call("rollback", "--now")[1]["release"] == 5
        assert stands(house) == RULES.format(1)  # further back, not to and fro
        with pytest.raises(EtcdError, match="nothing is kept that stood before the rules of release 5 first did"):
            house.call("rollback", "--now")
        assert house.call("rollback", "3", "--now")[0] == 0
        assert stands(house) == RULES.format(3)
        kept = read_release(house.client, house.keys, 6)
        assert kept is not None
        assert (kept.restores, kept.base) == (3, 5)


def test_a_release_that_never_came_to_all_is_not_brought_back_to_all_at_once(house: House) -> None:
    with house.nodes("n0", "n1", opinion=lambda name, number, text: "no" if number == 2 else ""):
        house.push(1, "--now")
        house.settled(("n0", "n1"), 1)
        assert house.push(2)[0] == 2
        with pytest.raises(ConfigError, match="--now: release 2 never came to all nodes"):
            house.call("rollback", "2", "--now")
        house.push(3, "--now")
        house.call("rollback", "--now")
        assert stands(house) == RULES.format(1)
    with pytest.raises(ConfigError, match=r"RELEASE: release 9 isn't kept; expected one of those: 1, 2, 3, 4"):
        house.call("rollback", "9")


def test_so_many_releases_are_kept_and_the_one_before_the_standing_one_always(house: House) -> None:
    with house.nodes("n0"):
        for number in range(KEPT + 4):
            house.push(number + 1, "--now")
        releases = house.fleet().releases
        assert releases == tuple(range(5, KEPT + 5))
        assert house.call("rollback", "--now")[0] == 0


# --- status ---


def test_the_status_counts_who_holds_what_and_names_who_does_not(house: House) -> None:
    with house.nodes("n0", "n1", "n2", opinion=lambda name, number, text: "no" if (name, number) == ("n1", 2) else ""):
        house.push(1, "--now")
        house.settled(("n0", "n1", "n2"), 1)
        assert house.call("status")[0] == 0
        house.client.put(house.keys.node("n8"), write(Node()))
        house.client.put(house.keys.ack("n9"), write(Ack(release=1, state="applied", holds=1, time=1.0)))
        house.client.put(house.keys.ack("n7"), b"{")
        code, said = house.push(2, "--canaries", "n0", "--stages", "100%", "--timeout", "0.5s")
        assert (code, said["failed"]["n1"], said["missing"]) == (3, "no", ["n7", "n9"])
    code, said = house.call("status")
    assert code == 2
    assert said["release"] == 2
    assert said["counts"] == {"applied": 2, "failed": 2, "away": 0, "stale": 1, "silent": 1}
    states = {item["node"]: item for item in said["nodes"]}
    assert (states["n1"]["holds"], states["n1"]["error"]) == (1, "no")
    assert states["n7"]["error"].startswith(f"etcd key {house.keys.ack('n7')}: ")
    for name, pulse in (("p60", 60), ("p1", 1), ("p2", 1)):  # the first may only just have begun
        ack = Ack(release=2, state="applied", holds=2, time=time.time() - 30, pulse=pulse)
        house.client.put(house.keys.ack(name), write(ack))
    house.client.put(house.keys.pulse("p2"), b"")
    states = {item["node"]: item["state"] for item in house.call("status")[1]["nodes"]}
    assert {name: states[name] for name in ("p1", "p2", "p60")} == {"p1": "away", "p2": "applied", "p60": "applied"}
    assert house.fleet().healthy() == ("n0", "n2", "p2", "p60")
    house.client.txn([], [Delete(house.keys.ack("p1")), Delete(house.keys.ack("p2")), Delete(house.keys.ack("p60"))])
    assert house.call("status", "--older-than", "1h")[1]["counts"]["stale"] == 1
    assert house.call("status", "--older-than", "0s")[1]["counts"]["stale"] == 3


def test_the_status_tells_of_a_roll_out_under_way(house: House) -> None:
    with house.nodes("n0", "n1", opinion=lambda name, number, text: None if number == 2 else ""):
        house.push(1, "--now")
        house.settled(("n0", "n1"), 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("meshfw_etcd.pushing.Pusher._proven", lambda *_: (_ for _ in ()).throw(EtcdError("gone")))
            with pytest.raises(EtcdError, match="gone"):
                house.push(2, "--canaries", "n0")
        code, said = house.call("status")
        assert (code, said["rollout"]["phase"], said["rollout"]["reached"]) == (2, "trying", 1)
        assert {item["node"]: item["wanted"] for item in said["nodes"]} == {"n0": 2, "n1": 1}
        with pytest.raises(BusyError):
            house.push(3)
        house.call("abort")


# --- bad input ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[chain]\n", "rules.toml: Expected ']]' at the end of an array declaration (at line 1"),
        ('owner = "me"\n', "rules.toml: owner: unknown key; expected chain or set"),
        ('[[chain]]\nname = "a"\n', "rules.toml: it has no rule and no policy"),
        ("", "rules.toml: "),
        ('[[chain]]\nname = "a"\nrules = ["-s 10.0.0.0/33"]\n', "chain[1].rules[1]"),
        ('[[chain]]\nname = "a"\nrulse = ["-j DROP"]\n', "chain[1].rulse: unknown key (did you mean rules?)"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_by_their_place_and_nothing_is_written(
    house: House, tmp_path: Path, text: str, reason: str
) -> None:
    before = house.client.range("/", "0").revision
    (tmp_path / "rules.toml").write_text(text, encoding="utf-8")
    with pytest.raises(MeshfwError) as caught:
        house.call("push", str(tmp_path / "rules.toml"), "--now")
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "rules.toml"))
    assert house.client.range("/", "0").revision == before


def test_files_nodes_and_words_that_are_not_there_are_errors(house: House, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="none: can't be read: No such file"):
        house.call("push", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="latin: byte 2 is not UTF-8"):
        house.call("push", str(tmp_path / "latin"))
    with pytest.raises(ConfigError, match="RULES: no file of rules is named"):
        house.call("push")
    with pytest.raises(ConfigError, match="--resume: it goes on with the release it was"):
        house.call("push", house.rules(1), "--resume")
    with house.nodes("n0"):
        house.push(1, "--now")
        with pytest.raises(ConfigError, match="--canaries: no node 'n00' has ever acknowledged anything"):
            house.push(2, "--canaries", "n00")


def test_documents_that_nobody_can_read_stop_a_push_before_anything_is_written(house: House) -> None:
    with house.nodes("n0"):
        house.push(1, "--now")
        house.settled(("n0",), 1)
    house.client.put(house.keys.node("n0"), b"[]")
    code, said = house.push(2, "--canaries", "n0")
    assert (code, said["phase"]) == (2, "halted")
    assert house.keys.node("n0") in said["reason"]
    assert house.fleet().release == 1
    for key in (house.keys.rollout, house.keys.common):
        house.client.put(key, b'{"format": 99}')
        with pytest.raises(DocumentError, match=key):
            house.push(2)


def test_a_trial_of_somebody_else_is_left_alone(house: House) -> None:
    strange = Node(trial=Trial.of(50, "x"))
    with house.nodes("n0", "n1"):
        house.push(1, "--now")
        house.settled(("n0", "n1"), 1)
        house.client.put(house.keys.node("n1"), write(strange))
        house.push(2, "--canaries", "n0", "--stages", "100%", "--timeout", "0.5s")
    pair = house.client.get(house.keys.node("n1"))
    assert pair is not None
    assert read(pair.value, Node, key="") == strange


def test_the_command_is_a_verb_of_meshfw_with_its_messages_and_exit_codes(house: House, tmp_path: Path) -> None:
    def call(*argv: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "meshfw", "fleet", *argv)
        return subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)

    config = f'[[source]]\ntype = "etcd"\nnode = "n0"\nendpoints = ["{house.server.endpoint}"]\n'
    (tmp_path / "meshfw.toml").write_text(config, encoding="utf-8")
    with house.nodes("n0"):
        done = call("push", house.rules(1), "--canaries", "n0", "--soak", "0s")
        assert done.returncode == 0, done.stderr
        assert "release 1 is done: 1 of 1 nodes hold it\n" in done.stdout
    done = call("status", "--json")
    assert (done.returncode, json.loads(done.stdout)["counts"]["applied"]) == (0, 1)
    done = call("push", str(tmp_path / "none"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "ConfigError"
    done = call("status", "--endpoints", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "meshfw: error: etcd: no endpoint answers: 127.0.0.1:1: Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_endpoint_the_command_says_where_one_belongs(house: House) -> None:
    from meshfw_etcd.command import run
    from meshfw_etcd.testing_house import parsed

    with pytest.raises(ConfigError, match="--endpoints: no endpoint is given"):
        run(parsed("status", "--json"))
    with pytest.raises(UnreachableError):
        run(parsed("status", "--json", "--endpoints", "http://127.0.0.1:1"))
