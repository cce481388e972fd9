"""Laws of roll-outs, on a real server: canaries alone see an unproven release, and what stops it is undone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meshfw_etcd.client import Client
from meshfw_etcd.documents import Common, Node, read, write
from meshfw_etcd.simulation import Opinion
from meshfw_etcd.testing import Server
from meshfw_etcd.testing_house import NAMES, RULES, House

from meshfw import ConfigError


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


def failing(release: int, *names: str) -> Opinion:
    """The opinion of nodes that can't apply one release, all of them or those named."""
    return lambda name, number, text: "no such match" if number == release and (not names or name in names) else ""


# --- the way forth ---


def test_a_release_comes_to_all_by_stages_and_leaves_no_trial(house: House) -> None:
    with house.nodes() as fleet:
        assert house.push(1, "--now")[0] == 0
        house.settled(NAMES, 1)
        code, said = house.push(2, "--stages", "1,50%,100%")
        assert code == 0
        assert (said["release"], said["phase"], sorted(said["applied"])) == (2, "done", sorted(NAMES))
        assert {node.seen[-1] for node in fleet.nodes.values()} == {2}
    tried = house.trials()
    assert len(tried) == 6
    assert set().union(*tried.values()) == {2}
    assert house.holding() == set()
    common = house.client.get(house.keys.common)
    assert common is not None
    assert read(common.value, Common, key="").rules == RULES.format(2)


def test_named_canaries_are_the_first_and_own_rules_of_a_node_stay(house: House) -> None:
    own = Node(release=7, rules=RULES.format(7).replace("guests", "mine"))
    house.client.put(house.keys.node("n3"), write(own))
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        assert house.push(2, "--canaries", "n3,n5", "--stages", "100%")[0] == 0
    assert set(house.trials()) == {"n3", "n5"}
    pair = house.client.get(house.keys.node("n3"))
    assert pair is not None
    assert read(pair.value, Node, key="") == own


def test_the_first_release_of_all_is_tried_by_a_canary_as_every_other(house: House) -> None:
    with pytest.raises(ConfigError, match="--canaries: no node is known that could try it first"):
        house.push(1)
    with house.nodes(opinion=failing(1)) as crew:
        house.settled(NAMES, 0)  # each says that nothing is published
        code, said = house.push(1)
        assert (code, said["phase"]) == (2, "halted")
        assert sum(1 in node.seen for node in crew.nodes.values()) == 1
        assert house.push(2, "--canaries", "n1", "--stages", "100%")[0] == 0
        assert sum(2 in node.seen for node in crew.nodes.values()) == len(NAMES)
    assert house.trials()["n1"] >= {2}


def test_the_rules_that_stand_are_not_rolled_out_again(house: House) -> None:
    with house.nodes("n1"):
        house.push(1, "--now")
        code, said = house.push(1)
        assert (code, said["unchanged"], said["release"]) == (0, True, 1)


def test_a_dry_run_tells_the_stages_and_writes_nothing(house: House) -> None:
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
    before = house.client.range("/", "0")
    code, said = house.push(2, "--stages", "2,100%", "--dry-run")
    assert (code, said["release"], said["rules"], len(said["stages"][0])) == (0, 2, 1, 2)
    assert house.client.range("/", "0") == before


# --- halts ---


def test_a_release_that_fails_on_the_canary_reaches_nobody_else_and_the_canary_goes_back(house: House) -> None:
    with house.nodes(opinion=failing(2)) as fleet:
        house.push(1, "--now")
        house.settled(NAMES, 1)
        code, said = house.push(2)
        assert (code, said["phase"]) == (2, "halted")
        (canary,) = said["tried"]
        assert said["reason"] == f"1 node failed at it: {canary}: no such match"
        assert said["applied"] == [canary]
        house.settled(NAMES, 1)
        assert {name for name, node in fleet.nodes.items() if 2 in node.seen} == {canary}
        assert {node.holds for node in fleet.nodes.values()} == {1}
    assert house.trials() == {canary: {2}}
    assert house.holding() == set()
    assert house.fleet().release == 1
    assert house.call("status")[0] == 0


def test_a_later_stage_that_fails_takes_all_trials_back(house: House) -> None:
    with house.nodes(opinion=lambda name, number, text: "late" if number == 2 and name != "n0" else "") as fleet:
        house.push(1, "--now")
        house.settled(NAMES, 1)
        code, said = house.push(2, "--canaries", "n0", "--stages", "4,100%")
        assert (code, len(said["tried"])) == (2, 4)
        house.settled(NAMES, 1)
        assert sum(2 in node.seen for node in fleet.nodes.values()) == 4
    assert house.holding() == set()
    assert house.fleet().release == 1


def test_a_canary_that_says_nothing_halts_it_unless_silence_is_allowed(house: House) -> None:
    silent: Opinion = lambda name, number, text: None if number > 1 and name == "n0" else ""  # noqa: E731 - an opinion
    with house.nodes(opinion=silent):
        house.push(1, "--now")
        house.settled(NAMES, 1)
        code, said = house.push(2, "--canaries", "n0,n1", "--timeout", "0.4s")
        assert (code, said["reason"]) == (2, "1 node didn't acknowledge it: n0 in 0.4 s")
        code, said = house.push(2, "--canaries", "n0,n1", "--timeout", "0.4s", "--missing", "1")
        assert (code, said["release"], said["missing"]) == (3, 3, ["n0"])


def test_what_nobody_has_applied_goes_no_further_however_many_may_say_nothing(house: House) -> None:
    silent: Opinion = lambda name, number, text: None if number > 1 and name == "n0" else ""  # noqa: E731 - an opinion
    with house.nodes(*NAMES[:4], opinion=silent) as crew:
        house.push(1, "--now")
        house.settled(NAMES[:4], 1)
        code, said = house.push(2, "--canaries", "n0", "--timeout", "0.3s", "--missing", "100%")
        assert (code, said["reason"]) == (2, "nobody applied it in 0.3 s")
        assert {name for name, node in crew.nodes.items() if 2 in node.seen} == {"n0"}
    assert house.fleet().release == 1


def test_a_canary_that_fails_later_within_the_soak_halts_it(house: House) -> None:
    with house.nodes() as fleet:
        house.push(1, "--now")
        house.settled(NAMES, 1)

        def spoil() -> None:
            house.settled(("n0",), 2)
            client = Client(house.server.access)
            ack = house.fleet().acks["n0"]
            client.put(house.keys.ack("n0"), write(ack).replace(b'"applied"', b'"failed"'))
            client.close()

        spoiler = threading.Thread(target=spoil)
        spoiler.start()
        code, said = house.push(2, "--canaries", "n0", "--soak", "20s")
        spoiler.join()
        assert (code, said["phase"]) == (2, "halted")
        assert sum(2 in node.seen for node in fleet.nodes.values()) == 1


def test_a_node_that_fails_without_the_release_halts_it_and_one_that_failed_before_does_not(house: House) -> None:
    with house.nodes(*NAMES[:5]):
        house.push(1, "--now")
        house.settled(NAMES[:5], 1)
    ack = house.fleet().acks["n4"]
    house.client.put(house.keys.ack("n4"), write(ack).replace(b'"applied"', b'"failed"'))
    with house.nodes(*NAMES[:3]):
        code, said = house.push(2, "--canaries", "n0", "--stages", "100%", "--timeout", "0.3s")
        assert (code, said["phase"], said["missing"]) == (3, "done", ["n3", "n4"])


# --- more than one ---


def test_whoever_publishes_in_between_wins_and_nothing_else_is_changed(house: House) -> None:
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)

        def interfere() -> None:
            house.settled(("n0",), 2)
            client = Client(house.server.access)
            client.put(house.keys.common, write(Common.of(9, RULES.format(9))))
            client.close()

        other = threading.Thread(target=interfere)
        other.start()
        code, said = house.push(2, "--canaries", "n0", "--stages", "100%", "--soak", "5s")
        other.join()
        assert (code, said["reason"]) == (2, "somebody else published release 9 in between")
        house.settled(NAMES, 9)
    assert house.holding() == set()
    assert house.fleet().release == 9


def test_two_pushes_at_once_are_one_and_a_clear_error(house: House) -> None:
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        codes: list[str] = []

        def second() -> None:
            house.settled(("n0",), 2)
            from meshfw_etcd.beginning import Wish, planned
            from meshfw_etcd.stages import Canaries, stages_of

            wish = Wish(rules="", canaries=Canaries(), stages=stages_of("1,100%"), timeout=1, soak=0)
            try:
                planned(house.fleet(), wish)
            except Exception as error:  # noqa: BLE001 - whatever it says is looked at
                codes.append(str(error))

        other = threading.Thread(target=second)
        other.start()
        assert house.push(2, "--canaries", "n0", "--soak", "0.4s")[0] == 0
        other.join()
    assert "release 2 is being rolled out (trying) by " in codes[0]
    assert "'meshfw fleet push --resume' goes on with it, 'meshfw fleet abort' takes it back" in codes[0]
