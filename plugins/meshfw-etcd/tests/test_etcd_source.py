"""Laws of the source, on a real server: what a node gets, and what it says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from meshfw_etcd.documents import Ack, Common, Node, Trial, digest, read, write
from meshfw_etcd.errors import DocumentError, EtcdError, UnpublishedError
from meshfw_etcd.messages import Delete, Put
from meshfw_etcd.source import EtcdSource
from meshfw_etcd.testing import Relay, Server, until
from meshfw_etcd.testing.desk import KEYS, LANGUAGE, Desk, applied, made, rules

from meshfw import ConfigError, Declaration, MeshfwError, ParseError


@pytest.fixture(scope="module")
def shared(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requires("etcd")
    with Server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def desk(shared: Server, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(shared.endpoint, tmp_path)
    yield desk
    desk.client.txn([], [Delete("/", "0")])
    desk.close()


def drops(count: int) -> str:
    """A text of so many rules."""
    return rules(*(f"-s 10.0.{number}.0/24 -j DROP" for number in range(count)))


# --- what it gives ---


def test_a_node_gets_the_common_rules_and_its_own(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    assert desk.source().load() == made(rules("-j DROP"))
    desk.give(Node(release=1, rules=rules("-j ACCEPT", name="b")))
    assert desk.source().load() == made(rules("-j DROP"), rules("-j ACCEPT", name="b"))


@pytest.mark.parametrize(("trial", "expected"), [(4, "-j ACCEPT"), (3, "-j DROP"), (2, "-j DROP")])
def test_a_trial_counts_while_its_number_is_higher(desk: Desk, trial: int, expected: str) -> None:
    desk.publish(3, rules("-j DROP"))
    desk.give(Node(trial=Trial.of(trial, rules("-j ACCEPT"))))
    assert desk.source().load() == made(rules(expected))


def test_other_nodes_documents_are_none_of_its_business(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    desk.client.put(KEYS.node("n2"), b"junk")
    assert desk.source().load() == made(rules("-j DROP"))


def test_nothing_published_is_an_error_and_never_empty(desk: Desk) -> None:
    with pytest.raises(UnpublishedError, match="nothing is published"):
        desk.source().load()
    desk.give(Node(release=1, rules=rules("-j ACCEPT")))
    with pytest.raises(UnpublishedError):
        desk.source().load()


GOOD = write(Common.of(1, rules("-j DROP")))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (KEYS.common, b"", "common"),
        (KEYS.common, b"\xff", "common"),
        (KEYS.common, GOOD[:-9], "common"),
        (KEYS.common, b"[]", "common"),
        (KEYS.common, GOOD.replace(b'"format":1', b'"format":2'), "it is of format 2"),
        (KEYS.common, GOOD.replace(b"DROP", b"KEEP"), "its rules don't have the digest"),
        (KEYS.common, GOOD.replace(b'"release":1', b'"release":0'), "$.release"),
        (KEYS.common, GOOD.replace(b'"release":1', b'"release":"1"'), "$.release"),
        (KEYS.common, write(Common.of(1, "")), "release 1: it declares nothing"),
        (KEYS.common, write(Common.of(1, "x x")), "release 1: "),
        (KEYS.common, write(Common.of(1, 'owner = "x"')), "owner: unknown key"),
        (KEYS.common, write(Common.of(1, rules("-j NOWHERE"))), "NOWHERE"),
        (KEYS.node("n"), b"{", KEYS.node("n")),
        (KEYS.node("n"), write(Node(rules="chain")), KEYS.node("n")),
        (KEYS.node("n"), write(Node(rules=rules("-j DROP"))), "is declared in"),
        (KEYS.node("n"), write(Node(trial=Trial(release=2, rules="x", digest=digest("y")))), "trial"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_by_its_key(desk: Desk, key: str, value: bytes, told: str) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source()
    good = source.load()
    applied(source)
    desk.client.put(key, value)
    with pytest.raises((DocumentError, ConfigError, ParseError, MeshfwError)) as caught:
        source.load()
    assert told in str(caught.value)
    source.refused(str(caught.value))
    source.close()
    ack = desk.ack()
    assert ack is not None
    assert (ack.state, ack.holds) == ("failed", 1)
    assert told in ack.error
    desk.client.txn([], [Put(KEYS.common, GOOD), Delete(KEYS.node("n"))])
    assert desk.source().load() == good


def test_a_set_that_shrinks_too_much_is_refused_unless_forced(desk: Desk) -> None:
    desk.publish(1, drops(40))
    source = desk.source()
    source.load()
    applied(source)
    desk.publish(2, drops(19))
    for again in (source, desk.source()):  # a new process knows from its cache
        with pytest.raises(DocumentError, match="19 rules in place of 40"):
            again.load()
    assert desk.source(shrink_limit=60).load() == made(drops(19))
    desk.publish(3, drops(19), force=True)
    assert source.load() == made(drops(19))


def test_a_few_rules_may_go_at_once(desk: Desk) -> None:
    desk.publish(1, drops(11))
    source = desk.source()
    source.load()
    applied(source)
    desk.publish(2, drops(1))
    assert source.load() == made(drops(1))


# --- what it acknowledges ---


def test_what_was_applied_is_acknowledged_with_its_revision(desk: Desk) -> None:
    desk.publish(7, rules("-j DROP"))
    desk.give(Node(release=3, rules=rules("-j ACCEPT", name="b")))
    pair = desk.client.get(KEYS.node("n"))
    assert pair is not None
    source = desk.source()
    source.load()
    before = time.time()
    applied(source)
    source.close()
    ack = desk.ack()
    assert ack is not None
    assert before <= ack.time <= time.time()
    expected = Ack(
        release=7,
        node_release=3,
        revision=pair.mod_revision,
        state="applied",
        digest=digest(rules("-j DROP")),
        holds=7,
        time=ack.time,
    )
    assert ack == expected


def test_a_cache_that_cannot_be_written_is_told_of(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source(cache=str(desk.directory / "absent" / "too" / "n"))
    source.load()
    applied(source)
    assert "can't be kept for a start without the store" in source.doubts()[0]
    source.close()
    ack = desk.ack()
    assert ack is not None
    assert ack.state == "applied"


def test_to_load_alone_writes_nothing(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source()
    source.load()
    source.close()
    assert desk.ack() is None
    assert not os.listdir(desk.cache.parent)


def test_the_same_word_is_sent_once_and_the_latest_of_several_alone(desk: Desk) -> None:
    desk.publish(1, rules("-j DROP"))
    with Relay(desk.endpoint) as relay:
        desk.endpoint = relay.endpoint
        source = desk.source()
        source.load()
        applied(source)
        until(desk.ack)
        applied(source)
        relay.cut()
        for reason in ("one", "two", "three"):
            source.refused(reason)
        relay.mend()
        source.close()
    pair = desk.client.get(KEYS.ack("n"))
    assert pair is not None
    assert read(pair.value, Ack, key="ack").error == "three"
    assert pair.version == 2


def test_a_word_that_cannot_be_sent_does_not_hold_up_anybody(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfw_etcd.source._PATIENCE", 0.2)
    desk.publish(1, rules("-j DROP"))
    with Relay(desk.endpoint) as relay:
        desk.endpoint = relay.endpoint
        source = desk.source(timeout=60)
        source.load()
        relay.hush()
        applied(source)
        source.close()
    assert "couldn't be acknowledged" in caplog.text


@pytest.mark.parametrize("harm", ["cut", "changed", "of another node"])
def test_a_cache_that_is_not_whole_is_passed_over(desk: Desk, harm: str) -> None:
    desk.publish(1, rules("-j DROP"))
    source = desk.source()
    source.load()
    applied(source)
    source.close()
    file = desk.cache
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-20])
    elif harm == "changed":
        said = msgspec.json.decode(content)
        said["revision"] += 1
        file.write_bytes(msgspec.json.encode(said))
    desk.endpoint = "http://127.0.0.1:1"
    late = desk.source(**({"node": "m"} if harm == "of another node" else {}))
    with pytest.raises(EtcdError, match="no rules are kept"):
        late.load()
    assert "passed over" in late.doubts()[0]


# --- how it is asked for ---


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"endpoints": []}, "source[1].endpoints: no endpoint is given"),
        ({"endpoints": ["localhost"]}, "source[1].endpoints: 'localhost' is no endpoint"),
        ({"endpoints": ["http://localhost:secret@localhost"]}, "source[1].endpoints: an endpoint has a user in it"),
        ({"node": "a/b"}, "source[1].node: 'a/b' is no node"),
        ({"prefix": "x"}, "source[1].prefix"),
        ({"shrink-limit": 101}, "source[1].shrink-limit"),
        ({"heartbeat": 0}, "source[1].heartbeat"),
        ({"timeout": 0}, "source[1].timeout"),
        ({"user": "a"}, "password-file is missing"),
        ({"password-file": "a"}, "user is missing"),
        ({"key-file": "a"}, "cert-file is missing"),
        ({"ca-file": "a"}, "has no TLS, and ca-file is given"),
        ({"endpoints": "https://localhost", "ca-file": "absent"}, "source[1].ca-file: absent: No such file"),
        ({"endpoint": "x"}, "did you mean endpoints?"),
    ],
)
def test_an_option_that_is_wrong_is_named(tmp_path: Path, options: dict[str, object], told: str) -> None:
    given = {"endpoints": ["http://127.0.0.1:1"], **options}
    with pytest.raises(ConfigError) as caught:
        EtcdSource(Declaration(options=given, language=LANGUAGE, file="", path="source[1]"))
    assert told in str(caught.value)
