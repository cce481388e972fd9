"""Laws of a pusher that is killed at any write: whoever comes after him goes on, or takes back what he did."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from meshfw_etcd.client import Client
from meshfw_etcd.errors import BusyError, ConflictError, EtcdError, UncertainError
from meshfw_etcd.messages import Decided, Put
from meshfw_etcd.testing import Server
from meshfw_etcd.testing_house import FAST, NAMES, House

from meshfw import ConfigError

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
WAY = ("--canaries", "n0", "--stages", "3,100%", "--soak", "0s")
WRITES = 9
"""At least as many transactions as a push of that way makes."""


class KilledError(BaseException):
    """The end of a pusher, which no handler of his own hears of."""


@pytest.fixture(scope="module")
def server(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requires("etcd")
    with Server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def house(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr("meshfw_etcd.pushing.LOOK", 0.02)
    monkeypatch.setattr("meshfw_etcd.beginning._ALIVE", 0.05)
    with House(server, tmp_path) as house:
        yield house


def writes(monkeypatch: pytest.MonkeyPatch, hurt: Callable[[int, Callable[[], Decided]], Decided]) -> None:
    """Have each writing transaction of a pusher, counted from 1, go through ``hurt``."""
    plain, count = Client.txn, [0]

    def txn(self: Client, checks: Any, then: Any, **named: Any) -> Decided:
        if not any(isinstance(item, Put) for item in then):
            return plain(self, checks, then, **named)
        count[0] += 1
        return hurt(count[0], lambda: plain(self, checks, then, **named))

    monkeypatch.setattr(Client, "txn", txn)


def killed_at(number: int, *, before: bool) -> Callable[[int, Callable[[], Decided]], Decided]:
    """An end right before or right behind a transaction."""

    def hurt(count: int, write: Callable[[], Decided]) -> Decided:
        if count == number and before:
            raise KilledError
        decided = write()
        if count == number:
            raise KilledError
        return decided

    return hurt


def left_behind(house: House, monkeypatch: pytest.MonkeyPatch, number: int, *, before: bool) -> bool:
    """Whether a push that was killed at a write left a roll-out that somebody has to end."""
    with monkeypatch.context() as patch:
        writes(patch, killed_at(number, before=before))
        with suppress(KilledError):
            house.push(2, *WAY)
    rollout = house.fleet().rollout
    return rollout is not None and rollout.under_way


@pytest.mark.parametrize("number", range(1, WRITES + 1) if FULL else (2, 4, 6))
@pytest.mark.parametrize("before", [True, False])
def test_a_push_that_was_killed_at_any_write_is_resumed(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, before: bool
) -> None:
    with house.nodes() as fleet:
        house.push(1, "--now")
        house.settled(NAMES, 1)
        if left_behind(house, monkeypatch, number, before=before):
            with pytest.raises(BusyError, match="release 2 is being rolled out"):
                house.push(3)
            code, said = house.call("push", "--resume")
            assert (code, said["release"], said["phase"]) == (0, 2, "done")
            house.settled(NAMES, 2)
        assert house.holding() == set()
        assert {node.holds for node in fleet.nodes.values()} == {house.fleet().release}


@pytest.mark.parametrize("number", range(1, WRITES + 1) if FULL else (2, 4))
@pytest.mark.parametrize("before", [True, False])
def test_a_push_that_was_killed_at_any_write_is_aborted_and_leaves_no_trace_at_any_node(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, before: bool
) -> None:
    with house.nodes() as fleet:
        house.push(1, "--now")
        house.settled(NAMES, 1)
        if left_behind(house, monkeypatch, number, before=before):
            if house.fleet().release == 2:  # it was published already
                with pytest.raises(EtcdError, match="that of all nodes already"):
                    house.call("abort")
                return
            assert house.call("abort")[1]["phase"] == "aborted"
            house.settled(NAMES, 1)
            assert len([name for name, node in fleet.nodes.items() if 2 in node.seen]) <= 3
            assert house.fleet().release == 1
        assert house.holding() == set()


def test_a_transaction_that_comes_through_while_it_is_made_again_is_ones_own(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: set[int] = set()

    def delay(count: int, write: Callable[[], Decided]) -> Decided:
        if count % 3 == 1 and count not in late:
            late.update((count, count + 1))
            raise UncertainError("the answer was lost")
        if count in late:
            write()  # the first one, which was under way when the state was read
        return write()

    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        writes(monkeypatch, delay)
        assert house.push(2, *WAY)[0] == 0
    assert late
    assert house.holding() == set()


@pytest.mark.parametrize("took_place", [True, False])
def test_a_transaction_whose_answer_is_lost_is_made_once(
    house: House, monkeypatch: pytest.MonkeyPatch, took_place: bool
) -> None:
    lost: set[int] = set()

    def lose(count: int, write: Callable[[], Decided]) -> Decided:
        if count % 2 and count not in lost:
            lost.update((count, count + 1))
            if took_place:
                write()
            raise UncertainError("the answer was lost")
        return write()

    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        writes(monkeypatch, lose)
        assert house.push(2, *WAY)[0] == 0
        house.settled(NAMES, 2)
    assert lost
    assert house.holding() == set()


def test_a_pusher_who_is_taken_for_dead_writes_nothing_any_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(count: int, write: Callable[[], Decided]) -> Decided:
        if count == 3:
            with monkeypatch.context() as patch:
                patch.undo()
                assert house.call("abort")[1]["phase"] == "aborted"
        return write()

    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        with monkeypatch.context() as patch:
            writes(patch, overtaken)
            with pytest.raises(ConflictError, match="has taken over: release 2 is aborted"):
                house.push(2, *WAY)
        house.settled(NAMES, 1)
    assert house.holding() == set()
    assert house.fleet().release == 1


def test_a_release_that_is_published_is_brought_back_without_waiting_for_the_nodes_that_fail_at_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(count: int, write: Callable[[], Decided]) -> Decided:
        rollout = house.fleet().rollout
        if rollout is not None and rollout.phase == "settling" and rollout.release == 2:
            raise KilledError
        return write()

    with house.nodes(opinion=lambda name, number, rules: "no" if number == 2 and name == "n9" else ""):
        house.push(1, "--now")
        house.settled(NAMES, 1)
        with monkeypatch.context() as patch:
            writes(patch, late)
            with pytest.raises(KilledError):
                house.push(2, "--canaries", "n0", "--stages", "100%", "--soak", "0s")
        rollout = house.fleet().rollout
        assert rollout is not None
        assert (rollout.phase, house.holding()) == ("settling", {"n0"})
        with pytest.raises(ConfigError, match="release 7 isn't kept"):
            house.call("rollback", "7")
        assert house.fleet().rollout == rollout
        code, said = house.call("rollback", "--now")
        assert (code, said["release"]) == (0, 3)
        house.settled(NAMES, 3)
    assert house.holding() == set()


def test_a_store_that_is_killed_and_comes_back_costs_a_push_no_more_than_the_time(house: House) -> None:
    def interrupt() -> None:
        house.settled(("n0",), 2)
        house.server.kill()
        house.server.start()

    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        trouble = threading.Thread(target=interrupt)
        trouble.start()
        code, said = house.push(2, "--canaries", "n0", "--stages", "100%", "--soak", "1s", "--timeout", "20s")
        trouble.join()
        assert (code, said["phase"]) == (0, "done"), said
        house.settled(NAMES, 2)
    assert house.holding() == set()


def test_an_interrupted_pusher_says_how_it_stands(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        monkeypatch.setattr("meshfw_etcd.pushing.Pusher._proven", interrupt)
        with pytest.raises(KeyboardInterrupt):
            house.push(2, *WAY)
        assert "release 2 stands where it is (trying; on trial at: n0): 'meshfw fleet push --resume' goes on" in (
            capsys.readouterr().err
        )
        house.call("abort")
    assert house.holding() == set()


def test_whoever_is_at_work_is_not_pushed_aside_by_a_resume(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        assert left_behind(house, monkeypatch, 2, before=False)
        monkeypatch.setattr("meshfw_etcd.beginning._ALIVE", 5.0)
        pair = house.client.get(house.keys.rollout)
        assert pair is not None
        monkeypatch.setattr(
            "meshfw_etcd.beginning.time.sleep", lambda _: house.client.put(house.keys.rollout, pair.value)
        )
        with pytest.raises(BusyError, match="is at work on release 2"):
            house.call("push", "--resume")


def test_what_is_not_under_way_is_neither_resumed_nor_aborted(house: House) -> None:
    for words in (("push", "--resume"), ("abort",)):
        with pytest.raises(EtcdError, match="no roll-out is under way"):
            house.call(*words)


@pytest.mark.parametrize("seed", range(20 if FULL else 1))
def test_a_pusher_killed_by_the_kernel_at_a_random_moment_leaves_what_can_be_ended(house: House, seed: int) -> None:
    """The real command in a process of its own, ended by SIGKILL."""
    chance = random.Random(seed)  # noqa: S311 - which moment is no secret
    command = [sys.executable, "-m", "meshfw", "fleet", "push", house.rules(2, "second.toml"), *FAST, *WAY]
    with house.nodes():
        house.push(1, "--now")
        house.settled(NAMES, 1)
        pusher = subprocess.Popen(
            [*command, "--endpoints", house.server.endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while house.fleet().rollout is None or house.fleet().next_release == 2:
            assert time.monotonic() < end, "it never began"
            time.sleep(0.01)
        time.sleep(chance.random() * 0.6)
        pusher.send_signal(signal.SIGKILL)
        pusher.wait()
        fleet = house.fleet()
        if fleet.rollout is not None and fleet.rollout.under_way:
            house.call(*(("push", "--resume") if seed % 2 or fleet.release == 2 else ("abort",)))
        house.settled(NAMES, house.fleet().release)
    assert house.holding() == set()
