"""One resource kept up to date: what a reflector asks, when it asks again, after which pause; no clock, no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from meshfw_kilo.kubernetes import NODES, PEERS
from meshfw_kilo.kubernetes_access import KubernetesError, UntrustedError
from meshfw_kilo.kubernetes_http import MalformedError, RefusedError
from meshfw_kilo.kubernetes_reflector import PAGE, Pauses, Reflector, Resource

EXPIRED = RefusedError(410, "too old")


def node(name: str, version: int = 0, **annotations: str) -> dict[str, Any]:
    about = {"name": name, "resourceVersion": str(version), "annotations": dict(annotations)}
    return {"metadata": about, "spec": {"podCIDR": "10.0.0.0/24"}}


def listed(*items: Any, version: str = "10", following: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": following}, "items": list(items)}


def event(kind: str, item: Any) -> dict[str, Any]:
    return {"type": kind, "object": item}


def bookmark(version: int) -> dict[str, Any]:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Play:
    """A client with a script, a sink and a clock; each watch of the script takes so many seconds."""

    server = "https://kube.test"

    def __init__(self, *script: Any, resource: Resource = NODES, lasts: float = 60.0, chance: float = 1.0) -> None:
        self.script = list(script)
        self.lasts = lasts
        self.time = 0.0
        self.asked: list[str] = []
        self.pauses: list[float] = []
        self.state: dict[str, Any] | None = None
        self.lists: list[set[str]] = []
        self.failures: list[tuple[str, int, bool]] = []
        Reflector(self, resource, self, pause=self.pause, clock=lambda: self.time, chance=lambda: chance).run()

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        self.asked.append("list" + "".join(f" {name}={value}" for name, value in query.items() if name != "limit"))
        if "continue" not in query and "limit" in query:
            assert query["limit"] == str(PAGE)
        return self._next()

    def watch(self, path: str, query: Mapping[str, str], *, idle: float, opened: Callable[[], None]) -> Iterator[Any]:
        assert query["allowWatchBookmarks"] == "true"
        assert 300 <= int(query["timeoutSeconds"]) <= 600
        self.asked.append(f"watch {query['resourceVersion']}")
        script = self._next()
        opened()
        for step in script:
            if isinstance(step, Exception):
                raise step
            yield step
        self.time += self.lasts

    def _next(self) -> Any:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return not self.script

    def replaced(self, resource: Resource, objects: dict[str, dict[str, Any]]) -> None:
        self.state = dict(objects)
        self.lists.append(set(objects))

    def changed(self, resource: Resource, name: str, kept: dict[str, Any] | None) -> None:
        assert self.state is not None
        if kept is None:
            del self.state[name]
        else:
            self.state[name] = kept

    def opened(self, resource: Resource) -> None:
        pass

    def alive(self, resource: Resource) -> None:
        pass

    def failed(self, resource: Resource, error: KubernetesError, *, times: int, final: bool) -> None:
        self.failures.append((error.reason, times, final))

    @property
    def names(self) -> set[str]:
        return set(self.state or ())


def test_a_watch_goes_on_from_the_list_and_tells_changes() -> None:
    play = Play(
        listed(node("a"), node("b"), version="7"),
        [event("ADDED", node("c", 8)), event("DELETED", node("a", 9)), event("MODIFIED", node("b", 10))],
    )
    assert play.asked == ["list", "watch 7"]
    assert play.names == {"b", "c"}
    assert play.failures == []


def test_an_object_of_a_list_gets_the_kind_that_the_list_leaves_out() -> None:
    play = Play(listed(node("a")), [])
    assert play.state is not None
    assert (play.state["a"]["kind"], play.state["a"]["apiVersion"]) == ("Node", "v1")


def test_a_list_comes_in_pages() -> None:
    play = Play(listed(node("a"), following="x"), listed(node("b"), following="y"), listed(node("c")), [])
    assert play.asked == ["list", "list continue=x", "list continue=y", "watch 10"]
    assert play.names == {"a", "b", "c"}


def test_pages_that_expire_half_way_make_one_list_without_pages() -> None:
    play = Play(listed(node("gone"), following="x"), EXPIRED, listed(node("b"), version="20"), [])
    assert play.asked == ["list", "list continue=x", "list", "watch 20"]
    assert play.lists == [{"b"}]


def test_a_watch_that_ends_is_resumed_at_once_from_the_last_version() -> None:
    play = Play(listed(version="7"), [event("ADDED", node("a", 8))], [bookmark(30)], [])
    assert play.asked == ["list", "watch 7", "watch 8", "watch 30"]
    assert play.pauses == [0, 0, 0, 0]
    assert play.names == {"a"}


def test_a_watch_that_breaks_off_is_resumed_without_a_list() -> None:
    play = Play(listed(version="7"), [event("ADDED", node("a", 8)), KubernetesError("broken")], [])
    assert play.asked == ["list", "watch 7", "watch 8"]
    assert play.failures == [("broken", 1, False)]


@pytest.mark.parametrize(
    "gone",
    [[EXPIRED], [event("ERROR", {"code": 410, "message": "too old", "reason": "Expired"})]],
    ids=["http", "event"],
)
def test_410_lists_again_and_is_no_failure(gone: list[Any]) -> None:
    play = Play(listed(node("a"), node("b"), version="7"), gone, listed(node("b"), version="40"), [])
    assert play.asked == ["list", "watch 7", "list", "watch 40"]
    assert play.lists == [{"a", "b"}, {"b"}]
    assert play.failures == []


def test_410_over_and_over_is_a_failure_with_growing_pauses() -> None:
    play = Play(*[step for _ in range(4) for step in (listed(version="7"), [EXPIRED])])
    assert play.pauses == [0, 0.5, 1, 2, 4]
    assert [times for _, times, _ in play.failures] == [2, 3, 4]


@pytest.mark.parametrize(
    "bad",
    [
        MalformedError("no JSON"),
        "a text",
        {"type": "ADDED"},
        event("ADDED", {"metadata": {}}),
        event("ADDED", {"metadata": {"name": ""}}),
        event("MODIFIED", {"metadata": {"name": "a"}}),
        event("SURPRISE", node("a", 8)),
        event("BOOKMARK", {}),
        {"type": {"x": 1}, "object": {}},
    ],
)
def test_what_cant_be_read_lists_again_and_takes_nothing_away(bad: Any) -> None:
    play = Play(listed(node("a"), version="7"), [bad], listed(node("a"), node("b"), version="9"), [])
    assert play.asked == ["list", "watch 7", "list", "watch 9"]
    assert play.lists == [{"a"}, {"a", "b"}]
    assert len(play.failures) == 1


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {"items": []},
        {"items": {}, "metadata": {}},
        listed(version=""),
        listed("x"),
        listed({"metadata": {}}),
    ],
)
def test_what_is_no_list_takes_nothing_away(bad: Any) -> None:
    play = Play(listed(node("a"), version="7"), [EXPIRED], bad, listed(node("a"), version="9"), [])
    assert play.lists == [{"a"}, {"a"}]


def test_a_list_of_null_is_an_empty_one() -> None:
    assert Play({"metadata": {"resourceVersion": "3"}, "items": None}).lists == [set()]


def test_a_surprise_doesnt_end_the_thread() -> None:
    play = Play(listed(version="7"), [ZeroDivisionError()], listed(node("a")), [])
    assert play.names == {"a"}
    assert "ZeroDivisionError" in play.failures[0][0]


def test_pauses_double_up_to_the_cap_and_start_anew_after_a_success() -> None:
    down = KubernetesError("down")
    play = Play(*[down] * 9, listed(version="7"), [bookmark(8), down], down, [])
    assert play.pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1, 0]


def test_a_pause_is_random_between_nothing_and_its_limit() -> None:
    drawn = iter([0.0, 0.25, 1.0])
    pauses = Pauses(chance=lambda: next(drawn))
    assert [pauses.next() for _ in range(3)] == [0.0, 0.25, 2.0]
    assert [Pauses(first=1, cap=4, chance=lambda: 1.0).next(least=least) for least in (0, 3, 1e9)] == [1, 4, 601]


def test_pauses_stay_below_the_cap_however_long_it_lasts() -> None:
    pauses = Pauses(chance=lambda: 1.0)
    assert max(pauses.next() for _ in range(5000)) == 30


def test_retry_after_is_the_least_pause() -> None:
    play = Play(RefusedError(429, "too many", retry_after=7), RefusedError(503, "starting", retry_after=2), listed())
    assert play.pauses[1:3] == [7.5, 3]


def test_a_watch_that_ends_at_once_doesnt_make_a_storm() -> None:
    play = Play(listed(version="7"), [], [], [], lasts=0.1)
    assert play.pauses == [0, 0.5, 1, 2]
    assert play.asked == ["list", "watch 7", "watch 7", "watch 7"]


def test_a_version_that_is_refused_over_and_over_is_given_up() -> None:
    # As after the store was put back from a backup: a version of the future is refused for ever, with 504.
    future = RefusedError(504, "Too large resource version")
    play = Play(listed(version="900"), [future], [future], [future], listed(version="20"), [])
    assert play.asked == ["list", "watch 900", "watch 900", "watch 900", "list", "watch 20"]


def test_throttling_never_makes_a_list() -> None:
    busy = RefusedError(429, "too many")
    assert Play(listed(version="7"), *[[busy]] * 6).asked == ["list", *["watch 7"] * 6]


def test_a_server_without_peers_has_to_say_so_three_times() -> None:
    missing = RefusedError(404, "not found")
    play = Play(missing, missing, missing, missing, listed(node("p")), [], resource=PEERS)
    assert play.lists == [set(), set(), {"p"}]
    assert play.pauses == [0, 0.5, 1, 60, 60, 0]
    assert [final for _, _, final in play.failures] == [False, False]


def test_peers_that_vanish_for_a_moment_stay() -> None:
    missing = RefusedError(404, "not found")
    play = Play(listed(node("p"), version="7"), [missing], missing, missing, listed(node("p")), [], resource=PEERS)
    assert play.lists == [{"p"}, {"p"}]


def test_a_server_without_nodes_is_no_empty_one() -> None:
    play = Play(*[RefusedError(404, "not found")] * 5)
    assert play.lists == []
    assert [final for _, _, final in play.failures] == [True] * 5


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (RefusedError(401, ""), True),
        (RefusedError(403, ""), True),
        (RefusedError(302, ""), True),
        (RefusedError(408, ""), False),
        (RefusedError(429, ""), False),
        (RefusedError(500, ""), False),
        (UntrustedError(""), True),
        (KubernetesError(""), False),
        (MalformedError(""), False),
    ],
)
def test_what_waiting_wont_mend_is_final(error: KubernetesError, final: bool) -> None:
    assert Play(error).failures[0][2] is final
