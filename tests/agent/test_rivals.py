"""Laws of the two counts that end a quarrel: pauses grow while a rival goes on, and what never holds is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.agent.rivals import Convergence, Rivalry
from meshfw.agent.status import Culprit
from meshfw.settings import AgentSettings

DOCKER = Culprit(pid=7, command="dockerd")


def quarrel(rivalry: Rivalry, *, seconds: float, every: float) -> tuple[list[float], list[str]]:
    """The moments of our repairs, and the contentions told, beside a rival who undoes at once whatever we repair."""
    now, repairs, told = 0.0, [], []
    while now <= seconds:
        if now >= rivalry.not_before:
            repairs.append(now)
            told += [name] if (name := rivalry.repaired(now, [DOCKER])) else []
        now += every
    return repairs, told


@pytest.mark.parametrize("luck", [0.0, 0.5, 0.999])
def test_a_rival_at_ten_a_second_costs_ten_repairs_a_minute_at_most_and_is_told_once(luck: float) -> None:
    repairs, told = quarrel(Rivalry(AgentSettings(), chance=lambda: luck), seconds=60, every=0.1)
    assert 4 <= len(repairs) <= 10
    assert told == ["dockerd"]


def test_the_first_repairs_are_made_at_once() -> None:
    repairs, _ = quarrel(Rivalry(AgentSettings(rival_limit=3)), seconds=0.5, every=0.1)
    assert repairs == pytest.approx([0.0, 0.1, 0.2])


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
def test_pauses_grow_to_the_longest_and_stay_there(chances: list[float]) -> None:
    luck = iter(chances * 50)
    rivalry = Rivalry(AgentSettings(rival_limit=1, back_off=1, back_off_longest=20), chance=lambda: next(luck))
    now, shortest = 0.0, []
    for _ in range(12):
        rivalry.repaired(now, [DOCKER])
        shortest.append(rivalry.not_before - now)
        now = rivalry.not_before
    for number, pause in enumerate(shortest):
        least = min(20, 2.0**number)
        assert least <= pause + 1e-6 < least * 1.5 + 1e-3


def test_seldom_repairs_make_no_rival() -> None:
    repairs, told = quarrel(Rivalry(AgentSettings(rival_limit=3, rival_window=60)), seconds=600, every=31)
    assert (len(repairs), told) == (20, [])


def test_a_rival_who_rests_is_none_any_more_and_the_next_repair_is_made_at_once() -> None:
    rivalry = Rivalry(AgentSettings(rival_limit=2, rival_window=60))
    for now in (0.0, 0.1):
        rivalry.repaired(now, [DOCKER])
    assert rivalry.name == "dockerd"
    calm = rivalry.next_change
    assert calm is not None
    assert (rivalry.calmed(calm - 1), rivalry.name) == ("", "dockerd")
    assert (rivalry.calmed(calm), rivalry.name, rivalry.not_before) == ("dockerd", "", 0.0)
    assert rivalry.repaired(calm + 1, [DOCKER]) == ""


def test_who_comes_back_within_the_time_finds_the_pauses_as_long_as_they_were() -> None:
    rivalry = Rivalry(AgentSettings(rival_limit=1, back_off=1), chance=lambda: 0.0)
    rivalry.repaired(0.0, [DOCKER])
    rivalry.repaired(50.0, [DOCKER])
    assert rivalry.not_before == pytest.approx(52.0)


def test_a_person_who_speaks_ends_every_pause() -> None:
    rivalry = Rivalry(AgentSettings(rival_limit=1))
    rivalry.repaired(1000.0, [DOCKER])
    rivalry.forgive()
    assert (rivalry.name, rivalry.not_before, rivalry.next_change) == ("", 0.0, None)


def test_the_rival_is_who_undid_most_and_unknown_ones_are_called_so() -> None:
    rivalry = Rivalry(AgentSettings(rival_limit=4))
    for name in ("ufw", "dockerd", "dockerd"):
        rivalry.repaired(0.0, [Culprit(1, name)])
    assert rivalry.repaired(0.0, [Culprit(1, "ufw"), Culprit(2, "dockerd")]) == "dockerd"
    silent = Rivalry(AgentSettings(rival_limit=1))
    assert silent.repaired(0.0, []) == "somebody unknown"


def test_the_same_change_so_many_times_in_a_row_is_given_up() -> None:
    convergence = Convergence(3)
    assert [convergence.made("x", explained=False) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("between", ["another change", "somebody heard", "nothing to change"])
def test_what_explains_a_repair_begins_the_count_anew(between: str) -> None:
    convergence = Convergence(3)
    for _ in range(2):
        convergence.made("x", explained=False)
    if between == "another change":
        convergence.made("y", explained=False)
    elif between == "nothing to change":
        convergence.held()
    assert not convergence.made("x", explained=between == "somebody heard")
    assert not convergence.made("x", explained=False)
