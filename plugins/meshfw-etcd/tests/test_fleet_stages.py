"""Laws of the stages of a roll-out and of what acknowledgements say: values alone, no store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshfw_etcd.documents import Ack
from meshfw_etcd.judging import judge
from meshfw_etcd.stages import Canaries, Size, route, stages_of

from meshfw import ConfigError

NAMES = st.lists(st.from_regex(r"n[0-9]{1,3}", fullmatch=True), unique=True, max_size=40)
SIZES = st.lists(st.builds(Size, st.integers(1, 60), st.booleans()), max_size=4)


@given(healthy=NAMES, named=NAMES, sizes=SIZES, release=st.integers(1, 99))
def test_stages_grow_and_hold_each_node_once(
    healthy: list[str], named: list[str], sizes: list[Size], release: int
) -> None:
    everybody = len({*healthy, *named})
    way = route(healthy, release=release, canaries=Canaries(tuple(named)), sizes=sizes, everybody=everybody)
    assert list(way.ends) == sorted(set(way.ends))
    assert len(set(way.order)) == len(way.order) == (way.ends[-1] if way.ends else 0)
    assert set(way.order) <= {*healthy, *named}
    if named:
        assert way.tried(0) == tuple(named)


@given(healthy=NAMES, release=st.integers(1, 99))
def test_the_same_nodes_are_chosen_whatever_their_order(healthy: list[str], release: int) -> None:
    sizes = stages_of("2,50%,100%")
    ways = {
        route(names, release=release, canaries=Canaries(), sizes=sizes, everybody=len(names))
        for names in (healthy, healthy[::-1])
    }
    assert len(ways) == 1


def test_shares_are_rounded_up_and_equal_stages_are_one() -> None:
    names = [f"n{number}" for number in range(5)]
    way = route(names, release=1, canaries=Canaries(), sizes=stages_of("1,10%,50%,100%"), everybody=5)
    assert way.ends == (1, 3)
    way = route(names, release=1, canaries=Canaries.of("2"), sizes=stages_of("100%"), everybody=5)
    assert way.ends == (2,)


def test_another_release_is_tried_by_other_nodes_first() -> None:
    names = [f"n{number}" for number in range(100)]
    first = {
        route(names, release=release, canaries=Canaries(), sizes=stages_of("1,100%"), everybody=100).order[0]
        for release in range(1, 30)
    }
    assert len(first) > 15


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,10%", "the last stage is 10%; expected 100% at the end"),
        ("x", "'x' is no number of nodes"),
        ("", "'' is no number of nodes"),
        ("0,100%", "a stage has no node"),
        ("101%", "'101%' is no number of nodes"),
        ("1.5,100%", "'1.5' is no number of nodes"),
        ("-1,100%", "'-1' is no number of nodes"),
    ],
)
def test_stages_that_cannot_be_meant_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stages_of(text)
    assert f"--stages: {reason}" in str(caught.value)


@pytest.mark.parametrize("text", ["", " , ", "0", "a/b", "a b", "0%", "../x"])
def test_canaries_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--canaries: "):
        Canaries.of(text)


def applied(release: int, digest: str = "d") -> Ack:
    return Ack(release=release, state="applied", digest=digest, holds=release)


def failed(release: int) -> Ack:
    return Ack(release=release, state="failed", error="no", digest="d")


def test_a_node_that_speaks_of_another_release_is_missing_and_one_with_another_text_failed() -> None:
    acks = {"a": applied(2), "b": applied(1), "c": applied(2, "other"), "e": failed(2)}
    verdict = judge(acks, ("a", "b", "c", "d", "e"), release=2, digest="d")
    assert (verdict.applied, verdict.missing, sorted(verdict.failed)) == (("a",), ("b", "d"), ["c", "e"])
    assert verdict.bad.startswith("2 nodes failed at it: c: it acknowledged another text")


def test_a_node_without_the_release_that_newly_fails_speaks_against_it() -> None:
    verdict = judge({"a": applied(2), "b": failed(1)}, ("a",), release=2, digest="d")
    assert "1 node without it fail since it began: b: no" in verdict.bad
    assert judge({"a": applied(2), "b": failed(1)}, ("a",), release=2, digest="d", failing=("b",)).bad == ""


@pytest.mark.parametrize("before", [(), ("a",)])
def test_a_canary_is_judged_by_what_it_says_of_this_release_alone(before: tuple[str, ...]) -> None:
    assert judge({"a": failed(1)}, ("a",), release=2, digest="d", failing=before).missing == ("a",)
    assert judge({"a": failed(2)}, ("a",), release=2, digest="d", failing=before).failed == {"a": "no"}


def test_a_later_release_than_this_one_speaks_against_it() -> None:
    assert judge({"a": applied(3)}, ("b",), release=2, digest="d").bad == "somebody else published release 3 in between"
