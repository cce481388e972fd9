"""The live cluster against a server that misbehaves, refuses, or is away; and that it ends when it is told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kilo_fake_api import FakeApi
from kilo_fake_store import NODES, PEERS
from kilo_live import (
    SOON,
    Clocks,
    annotate,
    attempt,
    names,
    node,
    opened,
    peer,
    populated,
    readable,
    settled,
    until,
)
from meshfw_kilo.kubernetes import LiveCluster
from meshfw_kilo.kubernetes_access import Access, KubernetesError, Token


@pytest.fixture
def api(loopback: None) -> Iterator[FakeApi]:
    with populated() as fake:
        yield fake


@pytest.fixture
def cluster(api: FakeApi) -> Iterator[LiveCluster]:
    with closing(opened(api)) as found:
        found.read()
        settled(api)
        yield found


# --- what servers do ---


@pytest.mark.parametrize("how", ["end", "break", "tear"])
def test_a_watch_is_resumed_without_a_list(api: FakeApi, cluster: LiveCluster, how: str) -> None:
    api.store.create(PEERS, peer("before"))
    until(lambda: "before" in names(cluster))
    watches = api.asked("peers", watch=True)
    api.order(how)
    api.store.create(PEERS, peer("between"))
    until(lambda: "between" in names(cluster))
    until(lambda: api.asked("peers", watch=True) > watches)
    assert (api.asked("nodes", watch=False), api.asked("peers", watch=False)) == (1, 1)


def test_a_bookmark_is_where_a_watch_is_resumed(api: FakeApi, cluster: LiveCluster) -> None:
    api.progress = True
    for number in range(50):
        annotate(api, "a", location=str(number))  # which the watch of Peers hears nothing of
    api.order("bookmark")
    api.order("end")
    until(lambda: api.asked("peers", watch=True) == 2)
    api.store.forget()
    resumed = [query for _, path, query in api.requests if path == PEERS.path and "watch" in query][-1]
    assert resumed["resourceVersion"] == str(api.store.version)
    settled(api)
    api.store.create(PEERS, peer("office"))
    until(lambda: "office" in names(cluster))
    assert api.asked("peers", watch=False) == 1


def test_what_went_while_nobody_listened_is_gone_after_the_history_is(api: FakeApi, cluster: LiveCluster) -> None:
    api.stop()
    api.store.delete(NODES, "a")
    api.store.delete(PEERS, "laptop")
    api.store.create(NODES, node("c"))
    api.store.forget()
    api.start()
    until(lambda: names(cluster) == ["b", "c"])
    assert (api.asked("nodes", watch=False), api.asked("peers", watch=False)) == (2, 2)


def test_a_list_that_says_the_same_is_no_change(api: FakeApi, cluster: LiveCluster) -> None:
    before = cluster.read()
    annotate(api, "a", last_seen="1")  # another object, by its heartbeat alone
    until(lambda: cluster.read() is not before)
    before = cluster.read()
    api.store.forget()
    api.order("!no JSON")
    until(lambda: (api.asked("nodes", watch=False), api.asked("peers", watch=False)) == (2, 2))
    settled(api)
    assert not readable(cluster)
    assert cluster.read() is before
    api.store.create(NODES, node("c"))
    until(lambda: "c" in names(cluster))
    assert all(new is old for new, old in zip(cluster.read(), before[:2], strict=False))


@pytest.mark.parametrize("line", ["!not JSON", "[1]", "{}", '{"type":"ADDED","object":{"metadata":{}}}', "[" * 50000])
def test_a_line_that_cant_be_read_takes_nothing_away(api: FakeApi, cluster: LiveCluster, line: str) -> None:
    api.order(line)
    until(lambda: api.asked("nodes", watch=False) == 2)
    settled(api)
    api.store.create(NODES, node("c"))
    until(lambda: names(cluster) == ["a", "b", "c", "laptop"])


def test_a_silent_connection_is_given_up(api: FakeApi) -> None:
    with closing(opened(api, idle=0.2)) as found:
        found.read()
        settled(api)
        api.faults.mute = True
        api.store.create(NODES, node("c"))
        watches = api.asked("nodes", watch=True)
        until(lambda: api.asked("nodes", watch=True) > watches)
        api.calm()
        until(lambda: "c" in names(found))
    assert api.asked("nodes", watch=False) == 1


def test_a_server_that_asks_for_patience_gets_it_and_is_heard_then(api: FakeApi, cluster: LiveCluster) -> None:
    api.faults.answers += [
        (429, {"Retry-After": "0"}, b""),
        (503, {}, b"starting"),
        (500, {}, b"{}"),
        (200, {}, b"<html>"),
    ]
    api.order("break")
    api.store.create(NODES, node("c"))
    until(lambda: names(cluster) == ["a", "b", "c", "laptop"] and not api.faults.answers)


# --- who may ---


def test_a_renewed_token_is_read_again(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    api.faults.tokens = {"first"}
    access = Access(server=api.url, token=Token(path=str(token)))
    with closing(LiveCluster(access, chance=lambda: 0.05)) as found:
        assert len(found.read()) == 3
        settled(api)
        token.write_text("second")
        api.faults.tokens = {"second"}
        api.order("end")
        api.store.create(NODES, node("c"))
        until(lambda: "c" in names(found))
    assert api.asked("nodes", watch=False) == 1


def test_a_token_renewed_after_it_was_read_is_read_again(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    class Renewed(Token):
        def read(self) -> str:
            before = super().read()
            token.write_text("new")
            return before

    api.faults.tokens = {"new"}
    with closing(LiveCluster(Access(server=api.url, token=Renewed(path=str(token))), chance=lambda: 0.05)) as found:
        assert len(found.read()) == 3


def test_a_refused_token_is_told_at_once(api: FakeApi) -> None:
    api.faults.tokens = {"good"}
    with closing(opened(api)) as found, pytest.raises(KubernetesError, match=r"Unauthorized.*isn't accepted"):
        found.read()


@pytest.mark.parametrize(("plural", "title"), [("nodes", "nodes"), ("peers", "peers.kilo.squat.ai")])
def test_a_missing_right_names_verb_and_resource(api: FakeApi, plural: str, title: str) -> None:
    api.faults.forbidden = {("list", plural)}
    with (
        closing(opened(api)) as found,
        pytest.raises(KubernetesError, match=f"{title} is forbidden.* may not list {plural}"),
    ):
        found.read()


def test_a_right_given_later_is_enough(api: FakeApi) -> None:
    api.faults.forbidden = {("list", "nodes"), ("watch", "nodes")}
    with closing(opened(api)) as found:
        with pytest.raises(KubernetesError):
            found.read()
        api.calm()
        assert readable(found, SOON)
        assert found.drain()
        until(lambda: not isinstance(attempt(found), KubernetesError))
        assert names(found) == ["a", "b", "laptop"]


def test_no_answer_is_an_error_after_a_bounded_time(api: FakeApi) -> None:
    api.faults.hangs = True
    with closing(opened(api, first_answer=0.1)) as found:
        with pytest.raises(KubernetesError, match=r"nodes: no answer in 0\.1 s"):
            found.read()
        api.calm()
        until(lambda: not isinstance(attempt(found), KubernetesError))


def test_who_listens_is_not_kept_waiting_and_hears_of_the_answer(api: FakeApi) -> None:
    api.faults.hangs = True
    with closing(opened(api, first_answer=3600.0)) as found:
        assert found.changes() is not None
        with pytest.raises(KubernetesError, match="nodes: no answer in 1 s"):
            found.read()
        api.calm()
        until(lambda: not isinstance(attempt(found), KubernetesError))


def test_no_server_is_an_error_that_names_it(api: FakeApi) -> None:
    api.stop()
    with (
        closing(opened(api, first_answer=0.2)) as found,
        pytest.raises(KubernetesError, match=f"{api.url}: nodes: .*refused"),
    ):
        found.read()


def test_a_server_away_for_long_is_an_error_and_one_come_back_is_told(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshfw.kilo")
    monotonic = Clocks()
    with closing(opened(api, monotonic=monotonic)) as found:
        before = found.read()
        settled(api)
        api.stop()
        until(lambda: "aren't heard" in caplog.text)
        assert found.read() is before
        assert not readable(found)
        monotonic.seconds += 61
        assert readable(found, SOON)
        assert found.drain()
        with pytest.raises(KubernetesError, match=r"not heard for 61 s: .*refused"):
            found.read()
        assert found.silence == 61
        api.start()
        until(lambda: attempt(found) is before)
        settled(api)
        api.order("bookmark")
        until(lambda: caplog.text.count("are heard again") == caplog.text.count("aren't heard") == 2)


# --- the end ---


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("meshfw-kilo")]


def test_close_leaves_no_thread_and_no_descriptor(api: FakeApi) -> None:
    found = opened(api)
    found.read()
    settled(api)
    assert sorted(ours()) == ["meshfw-kilo nodes", "meshfw-kilo peers"]
    found.close()
    found.close()
    assert ours() == []
    assert found.fileno() == -1
    settled(api, 0)


@pytest.mark.parametrize("state", ["hangs", "down", "mute"])
def test_close_ends_what_waits(api: FakeApi, state: str) -> None:
    if state == "down":
        api.stop()
    else:
        setattr(api.faults, state, True)
    found = opened(api, chance=lambda: 1.0)
    until(lambda: state == "down" or len(api.requests) >= 2)
    found.close()
    assert ours() == []


def test_nothing_is_ever_written(api: FakeApi, cluster: LiveCluster) -> None:
    api.order("break")
    settled(api)
    assert {method for method, _, _ in api.requests} == {"GET"}
