"""Laws of the choice of a backend: the ranks and their ties, what is remembered, and what counts as whose."""

from __future__ import annotations

import errno
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw import BackendError, BackendPlugin, MemoryBackend, Plugins, Presence, Site, hookimpl
from meshfw.errors import KernelError
from meshfw.extensions.language import Language
from meshfw.hookspecs import nothing
from meshfw.plugins.choice import Candidate, Sighting, Verdict, choose, look, standing, unread

SITE = Site(owner="edge", language=Language.of(()))
NOTHING = Presence()
OWN = Presence(own="2 chains in ipv4 filter")


def others(rules: int = 1, tool: str = "") -> Presence:
    return Presence(others=f"{rules} rules in ipv4 nat", rules=rules, tool=tool)


def candidate(
    name: str, automatic: int, found: Presence = NOTHING, *, why_not: str | None = None, unread: str = ""
) -> Candidate:
    return Candidate(name=name, automatic=automatic, presence=found, unavailable=why_not, unread=unread)


def both_ways(*candidates: Candidate, remembered: str = "") -> Verdict:
    """The verdict, which the order in which the candidates come must not change."""
    verdicts = [choose(order, remembered=remembered) for order in itertools.permutations(candidates)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    return verdicts[0]


# --- the ranks ---


def test_a_host_that_nobody_has_touched_gets_the_first_in_rank() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20), candidate("c", 30))
    assert verdict == Verdict("a", "the first in rank that can be used here")


def test_own_rules_come_before_what_was_remembered_what_others_use_and_rank() -> None:
    verdict = both_ways(
        candidate("a", 10), candidate("b", 20, others()), candidate("c", 30, OWN), candidate("d", 40), remembered="d"
    )
    assert verdict == Verdict("c", "rules of ours stand there already (2 chains in ipv4 filter)")


def test_what_auto_took_last_time_comes_before_what_others_use_and_rank() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20, others(99)), candidate("c", 30), remembered="c")
    assert verdict == Verdict("c", "auto took it last time")


def test_what_others_use_comes_before_rank() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20), candidate("c", 30, others(3)))
    assert verdict == Verdict("c", "others use it (3 rules in ipv4 nat)")


def test_of_two_that_others_use_the_one_with_more_rules_is_taken() -> None:
    verdict = both_ways(candidate("a", 10, others(3)), candidate("b", 20, others(17)), candidate("c", 30))
    assert verdict.name == "b"
    assert verdict.reason == "others use it (17 rules in ipv4 nat) more than a (3 rules in ipv4 nat)"


def test_of_two_that_others_use_alike_the_first_in_rank_is_taken() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20, others(3)), candidate("c", 30, others(3)))
    assert verdict.name == "b"
    assert verdict.reason.endswith("as much as c (3 rules in ipv4 nat), and it's before it in rank")


def test_of_two_with_own_rules_the_remembered_one_is_taken_else_the_first_in_rank() -> None:
    two = (candidate("a", 10, OWN), candidate("b", 20, OWN))
    assert both_ways(*two).name == "a"
    assert both_ways(*two, remembered="b").name == "b"
    assert both_ways(*two, candidate("c", 5), remembered="c").name == "a"


def test_own_rules_are_own_rules_whatever_others_have_beside_them() -> None:
    mixed = Presence(own="1 chain in ipv4 nat", others="2 rules in ipv4 nat", rules=2)
    assert both_ways(candidate("a", 10, others(99)), candidate("b", 20, mixed)).name == "b"


@pytest.mark.parametrize(
    ("found", "last", "told"),
    [
        (OWN, "", "a, where rules of ours stand (2 chains in ipv4 filter): gone"),
        (Presence(), "a", "a, which auto took last time: gone"),
        (others(2), "", "a, which others use (2 rules in ipv4 nat): gone"),
        (Presence(), "", "a: gone"),
    ],
)
def test_a_better_one_that_can_not_be_used_is_named_as_passed_over(found: Presence, last: str, told: str) -> None:
    verdict = both_ways(candidate("a", 10, found, why_not="gone"), candidate("b", 20), remembered=last)
    assert verdict == Verdict("b", f"the first in rank that can be used here; passed over: {told}")


def test_a_worse_one_that_can_not_be_used_is_not_worth_a_word() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20, why_not="gone"), candidate("c", 5, why_not="late"))
    assert verdict == Verdict("a", "the first in rank that can be used here; passed over: c: late")


def test_where_nothing_can_be_used_each_says_why() -> None:
    assert choose([candidate("b", 20, OWN, why_not="y"), candidate("a", 10, why_not="x")]) == Verdict(
        None, "b: y\n  a: x"
    )
    assert choose([]) == Verdict(None, "no backend has a rank")


def test_two_ways_of_one_tool_in_use_are_a_warning_whatever_is_taken() -> None:
    ways = (candidate("b", 20, others(3, "iptables")), candidate("c", 30, others(17, "iptables")))
    told = "each command shows its own rules alone, and packets meet all of them"
    warning = f"others use iptables in 2 ways at once, {{}}: {told}"
    larger = "c (17 rules in ipv4 nat) and b (3 rules in ipv4 nat)"
    verdict = both_ways(candidate("a", 10), *ways)
    assert (verdict.name, verdict.warnings) == ("c", (warning.format(larger),))
    assert "more than b" in verdict.reason
    assert both_ways(candidate("a", 10, OWN), *ways).warnings == (warning.format(larger),)
    assert both_ways(candidate("a", 10, others(5)), ways[0]).warnings == ()


def test_a_remembered_backend_that_is_gone_is_a_warning() -> None:
    verdict = both_ways(candidate("a", 10), candidate("b", 20), remembered="gone")
    assert verdict.name == "a"
    assert verdict.warnings == ("auto took gone last time, and it's none of the backends that auto may take now",)


@pytest.mark.parametrize(("found", "last"), [(NOTHING, ""), (NOTHING, "a"), (others(9), "")])
def test_auto_is_in_doubt_where_another_that_can_be_used_could_not_be_read(found: Presence, last: str) -> None:
    verdict = both_ways(candidate("a", 10, found), candidate("b", 20, unread="busy"), remembered=last)
    assert (verdict.name, verdict.doubt) == ("a", "what stands in b can't be told: busy")


def test_auto_is_sure_of_rules_of_ours_and_of_what_can_not_be_read_where_nothing_better_may_stand() -> None:
    busy = candidate("b", 20, unread="busy")
    assert both_ways(candidate("a", 10, OWN), busy).doubt == ""
    assert both_ways(candidate("a", 10), busy, remembered="b") == Verdict("b", "auto took it last time")
    assert both_ways(candidate("a", 10), candidate("b", 20, why_not="gone", unread="busy")).doubt == ""


candidates = st.builds(
    lambda name, rank, own, rules, broken: Candidate(
        name=name,
        automatic=rank,
        presence=Presence(own=own, others="some" if rules else "", rules=rules),
        unavailable="x" if broken else None,
    ),
    st.sampled_from("abcdef"),
    st.integers(0, 3),
    st.sampled_from(["", "chains"]),
    st.integers(0, 3),
    st.booleans(),
)


@given(st.lists(candidates, unique_by=lambda entry: entry.name), st.sampled_from(["", *"abcdef"]))
def test_only_what_can_be_used_is_taken_and_nothing_better_is_left(found: list[Candidate], last: str) -> None:
    def worth(entry: Candidate) -> tuple[bool, bool, int, int]:
        own, before = bool(entry.presence.own), entry.name == last
        used = 1 + entry.presence.rules if entry.presence.others and not own and not before else 0
        return own, before, used, -entry.automatic

    verdict = choose(found, remembered=last)
    usable = {entry.name: worth(entry) for entry in found if entry.unavailable is None}
    if verdict.name is None:
        assert not usable
    else:
        assert usable[verdict.name] == max(usable.values())


# --- what plugins tell ---


def plugins(*offers: BackendPlugin) -> Plugins:
    """The plugins of one that takes part and brings these."""
    thing = SimpleNamespace(meshfw_backends=lambda: offers)
    hooked = type("Brings", (), {"meshfw_backends": hookimpl(lambda self: thing.meshfw_backends())})()
    entry = SimpleNamespace(name="brings", load=lambda: hooked, dist=None)
    return Plugins(True, find=lambda: [entry])  # type: ignore[list-item]  # as much of an entry point as is used


def offer(name: str, automatic: int | None = None, **fields: Any) -> BackendPlugin:
    return BackendPlugin(name=name, factory=MemoryBackend, summary="", automatic=automatic, **fields)


def test_a_plugin_needs_not_tell_what_stands() -> None:
    quiet = offer("x")
    assert look(quiet, SITE) == Sighting(quiet)
    assert nothing(SITE) == Presence()


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        (lambda site: 1 / 0, "its look at the rules failed: ZeroDivisionError: division by zero"),
        (lambda site: None, "its look at the rules gave None, which is no Presence"),
    ],
)
def test_a_broken_look_is_nothing_known_and_says_why(looks: Any, reason: str) -> None:
    broken = offer("x", presence=looks)
    assert look(broken, SITE) == Sighting(broken, unread=reason)


def test_a_refused_look_says_it_in_the_backend_s_words() -> None:
    def refuse(site: Site) -> Presence:
        raise BackendError("no such table", remedy="look elsewhere")

    assert look(offer("x", presence=refuse), SITE).unread == "no such table (look elsewhere)"


@pytest.mark.parametrize(
    ("number", "denied"), [(errno.EACCES, True), (errno.EPERM, True), (errno.EAGAIN, False), (errno.EPROTO, False)]
)
def test_only_a_look_without_the_privilege_is_denied_for_good(number: int, denied: bool) -> None:
    def refuse(site: Site) -> Presence:
        raise KernelError("read names: refused", errno=number)

    seen = offer("b", 20, presence=refuse)
    found = look(seen, SITE)
    assert found == Sighting(seen, unread="read names: refused", denied=denied)
    verdict = plugins().automatic([Sighting(offer("a", 10)), found])
    assert (verdict.name, bool(verdict.doubt)) == ("a", not denied)


def test_a_look_gets_the_site_of_its_backend() -> None:
    seen: list[Site] = []

    def tell(site: Site) -> Presence:
        seen.append(site)
        return OWN

    brought = plugins(offer("x", 1, presence=tell))
    verdict = brought.automatic(brought.look(lambda offer: Site(owner=offer.name, language=SITE.language)))
    assert verdict == Verdict("x", "rules of ours stand there already (2 chains in ipv4 filter)")
    assert [site.owner for site in seen] == ["x"]


def test_auto_by_itself_looks_at_nothing() -> None:
    def tell(site: Site) -> Presence:
        raise AssertionError("it looked")

    assert plugins(offer("x", 1, presence=tell)).automatic().name == "x"


def test_what_stands_elsewhere_leaves_out_the_place_that_is_shared() -> None:
    first, second, third = (
        Sighting(offer(name, place=place), OWN) for name, place in (("first", ""), ("second", "first"), ("third", ""))
    )
    free = Sighting(offer("free"), others())
    found = (first, second, third, free)
    assert standing(found) == (first, second, third)
    assert standing(found, beside=first.offer) == standing(found, beside=second.offer) == (third,)
    assert standing(found, beside=third.offer) == (first, second)
    assert standing(found, beside=free.offer) == (first, second, third)


def test_what_could_not_be_read_counts_where_it_can_be_used_in_another_place() -> None:
    first, second = (Sighting(offer(name, place=place), unread="busy") for name, place in (("a", ""), ("b", "a")))
    gone = Sighting(offer("gone", unavailable=lambda: "no tools"), unread="busy")
    found = (first, second, gone, Sighting(offer("free"), OWN))
    assert unread(found) == (first, second)
    assert unread(found, beside=first.offer) == unread(found, beside=second.offer) == ()
    assert unread(found, beside=gone.offer) == (first, second)
