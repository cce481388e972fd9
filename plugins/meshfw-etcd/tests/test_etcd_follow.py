"""Laws of following a real store: cut off, killed, emptied or compacted, nothing is lost or ever read as empty."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meshfw_etcd.documents import Common, Node, Trial, write
from meshfw_etcd.errors import EtcdError, UnpublishedError
from meshfw_etcd.messages import Delete, Put
from meshfw_etcd.pulse import Pulse
from meshfw_etcd.testing import Relay, Server, heard, until
from meshfw_etcd.testing.desk import KEYS, Desk, applied, made, rules


@pytest.fixture(scope="module")
def shared(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requires("etcd")
    with Server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats ten times as often as they're asked for, and short pauses between tries."""
    monkeypatch.setattr("meshfw_etcd.clerk.random", lambda: -0.4)
    monkeypatch.setattr("meshfw_etcd.backoff._FIRST", 0.05)


@pytest.fixture
def desk(shared: Server, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(shared.endpoint, tmp_path)
    yield desk
    desk.client.txn([], [Delete("/", "0")])
    desk.close()


@pytest.fixture
def server(requires: Callable[..., None], loopback: None, tmp_path: Path) -> Iterator[Server]:
    """A server that the test may ill-treat."""
    requires("etcd")
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def own(server: Server, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(server.endpoint, tmp_path)
    yield desk
    desk.close()


# --- what it follows ---


def test_a_change_is_heard_and_loaded(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source()
    changes = source.changes()
    first = source.load()
    heard(changes)
    assert source.load() is first
    desk.publish(2, rules("-j ACCEPT"))
    assert heard(changes)
    assert source.load() == made(rules("-j ACCEPT"))
    desk.give(Node(trial=Trial.of(3, rules("-j RETURN"))))
    assert heard(changes)
    assert source.load() == made(rules("-j RETURN"))
    assert source.doubts() == []


def test_an_agent_says_that_it_lives_and_who_applies_once_promises_nothing(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    for options, follows in (({}, False), ({"heartbeat": 1}, True)):
        source = desk.source(**options)
        if follows:
            source.changes()
        source.load()
        applied(source)
        if follows:
            until(lambda: desk.client.get(KEYS.pulse("n")))
        source.close()
        ack = desk.ack()
        assert ack is not None
        assert ack.pulse == (4 if follows else 0)
        assert (desk.client.get(KEYS.pulse("n")) is not None) == follows


def test_a_beat_writes_nothing_while_the_key_is_there_and_anew_where_its_lease_is_gone(desk: Desk) -> None:
    pulse = Pulse(KEYS.pulse("n"), lasts=60)
    pulse.beat(desk.client)
    first = desk.client.range(KEYS.pulse("n"))
    pulse.beat(desk.client)
    assert desk.client.range(KEYS.pulse("n")) == first
    assert first.pairs[0].lease
    desk.client.revoke(first.pairs[0].lease)  # as the store does when nobody renews it
    assert desk.client.get(KEYS.pulse("n")) is None
    pulse.beat(desk.client)
    assert desk.client.get(KEYS.pulse("n")) is not None


def test_a_trial_that_ends_with_the_common_release_shows_no_older_one(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    desk.give(Node(trial=Trial.of(2, rules("-j ACCEPT"))))
    source = desk.source()
    changes = source.changes()
    seen = [source.load()]
    new = write(Common.of(2, rules("-j ACCEPT")))
    desk.client.txn([], [Put(KEYS.node("n"), write(Node())), Put(KEYS.common, new)])
    while seen[-1] is seen[0]:
        heard(changes)
        seen.append(source.load())
        if source._last is not None and not source._last.chosen.trial:
            break
    assert {str(ruleset) for ruleset in seen} == {str(made(rules("-j ACCEPT")))}


def test_a_deleted_key_is_an_error_and_its_return_a_change(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source()
    changes = source.changes()
    source.load()
    heard(changes)
    desk.client.txn([], [Delete(KEYS.common)])
    heard(changes)
    with pytest.raises(UnpublishedError):
        source.load()
    desk.publish(2, rules("-j ACCEPT"))
    heard(changes)
    assert source.load() == made(rules("-j ACCEPT"))


def test_a_cut_is_told_of_and_what_was_missed_is_caught_up(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    with Relay(desk.endpoint) as relay:
        desk.endpoint = relay.endpoint
        source = desk.source()
        source.changes()
        first = source.load()
        relay.cut()
        until(lambda: source.load() is first and source.doubts())
        assert "no news since" in source.doubts()[0]
        for release in (2, 3):
            desk.publish(release, rules("-j ACCEPT", f"-s 10.0.0.{release} -j DROP"))
        relay.mend()
        until(lambda: source.load() == made(rules("-j ACCEPT", "-s 10.0.0.3 -j DROP")))
        until(lambda: source.load() and not source.doubts())
        source.close()


def test_a_history_that_is_gone_by_then_is_listed_anew(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    with Relay(desk.endpoint) as relay:
        desk.endpoint = relay.endpoint
        source = desk.source()
        source.changes()
        source.load()
        applied(source)
        until(desk.ack)
        relay.cut()
        until(lambda: source.load() and source.doubts())
        desk.client.txn([], [Delete(KEYS.ack("n"))])
        desk.publish(2, rules("-j RETURN"))
        desk.client.compact(desk.client.put("/other", b""))
        relay.mend()
        until(lambda: source.load() == made(rules("-j RETURN")))
        until(desk.ack)  # who has lost so much may have lost that too
        source.close()


def test_a_stream_that_is_dead_without_a_word_is_noticed(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    with Relay(desk.endpoint) as relay:
        desk.endpoint = relay.endpoint
        source = desk.source(heartbeat=1, timeout=1)
        source.changes()
        first = source.load()
        until(lambda: source._follower is not None and source._follower._watching)
        relay.hush()
        desk.publish(2, rules("-j ACCEPT"))
        until(lambda: source.load() is first and source.doubts())
        relay.mend()
        until(lambda: source.load() == made(rules("-j ACCEPT")))
        source.close()


# --- a server that suffers ---


def test_a_store_that_is_killed_and_started_loses_nobody(own: Desk, server: Server) -> None:
    own.publish(1, rules("-j DROP"))
    source = own.source()
    source.changes()
    first = source.load()
    applied(source)
    until(own.ack)
    server.kill()
    until(lambda: source.load() is first and source.doubts())
    server.start()
    own.publish(2, rules("-j ACCEPT"))
    until(lambda: source.load() == made(rules("-j ACCEPT")))
    applied(source)
    until(lambda: (ack := own.ack()) is not None and ack.release == 2)


def test_a_store_that_was_emptied_is_an_error_and_its_refilling_a_change(own: Desk, server: Server) -> None:
    own.publish(1, rules("-j DROP"))
    for number in range(5):
        own.client.put("/other", str(number).encode())
    source = own.source(heartbeat=1)
    source.changes()
    source.load()
    server.kill()
    shutil.rmtree(own.directory / "data")
    server.start()

    def refused() -> bool:
        try:
            source.load()
        except UnpublishedError:
            return True
        return False

    until(refused)  # its revisions begin anew, so that no watch would ever tell
    own.publish(1, rules("-j ACCEPT"))
    until(lambda: not refused())
    assert source.load() == made(rules("-j ACCEPT"))


def test_a_start_without_the_store_gives_what_was_applied_last(own: Desk, server: Server) -> None:
    own.publish(1, rules("-j DROP"))
    own.give(Node(release=1, rules=rules("-j ACCEPT", name="b")))
    source = own.source()
    given = source.load()
    applied(source)
    own.publish(2, rules("-j RETURN"))
    assert source.load() != given  # and this was never applied
    source.close()
    server.kill()
    once = own.source()
    assert once.load() == given
    assert "the rules are those applied here at" in once.doubts()[0]
    assert "Connection refused" in once.doubts()[0]
    following = own.source()
    changes = following.changes()
    assert following.load() == given
    server.start()
    heard(changes)
    until(lambda: following.load() == made(rules("-j RETURN"), rules("-j ACCEPT", name="b")))
    assert following.doubts() == []
    assert os.stat(own.cache).st_mode & 0o777 == 0o600


def test_a_start_without_store_and_cache_is_an_error(tmp_path: Path) -> None:
    desk = Desk("http://127.0.0.1:1", tmp_path)
    source = desk.source()
    with pytest.raises(EtcdError, match=r"no endpoint answers: .* and no rules are kept in"):
        source.load()
    following = desk.source()
    following.changes()
    with pytest.raises(EtcdError, match="no endpoint answers"):
        following.load()
    following.close()
