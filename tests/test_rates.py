"""Laws of the rates: which rule counted what between two looks, wherever it stands by then."""

from __future__ import annotations

import pytest

from meshfw import ChainKey, Family, Rule, Table
from meshfw.cli.rates import Rate, busiest, list_rates, rule_rates, shortened
from meshfw.model import ACCEPT, Network
from meshfw.snapshot import ObservedList, ObservedRule, Snapshot

KEY = ChainKey(Family.IPV4, Table.FILTER, "web")
OTHER = ChainKey(Family.IPV6, Table.FILTER, "web")
ONE, TWO = (Rule(source=Network.parse(f"192.0.2.{number}"), target=ACCEPT) for number in (1, 2))


def seen(*rules: tuple[Rule | None, int, int], key: ChainKey = KEY, handles: tuple[int, ...] = ()) -> Snapshot:
    held = tuple(
        ObservedRule(rule, "" if rule else "odd", packets, octets, handles[at] if handles else 0)
        for at, (rule, packets, octets) in enumerate(rules)
    )
    return Snapshot({key: ObservedList(key, held)})


def rates(before: Snapshot, after: Snapshot, seconds: float = 2.0) -> list[tuple[float, float]]:
    return [(rate.packet_rate, rate.byte_rate) for rate in rule_rates(before, after, seconds=seconds)]


def test_a_rate_is_what_was_counted_by_the_time() -> None:
    (rate,) = rule_rates(seen((ONE, 10, 100)), seen((ONE, 14, 500)), seconds=2.0)
    assert (rate.packets, rate.bytes, rate.packet_rate, rate.byte_rate) == (14, 500, 2.0, 200.0)
    assert (rate.key, rate.position) == (KEY, 1)


def test_a_rule_that_moved_keeps_its_rate() -> None:
    before, after = seen((ONE, 10, 10), (TWO, 20, 20)), seen((TWO, 24, 24), (ONE, 12, 12))
    assert rates(before, after) == [(2.0, 2.0), (1.0, 1.0)]


def test_equal_rules_are_told_apart_by_their_order_or_their_handle() -> None:
    assert rates(seen((ONE, 1, 1), (ONE, 5, 5)), seen((ONE, 3, 3), (ONE, 5, 5))) == [(1.0, 1.0), (0.0, 0.0)]
    before = seen((ONE, 1, 1), (ONE, 5, 5), handles=(7, 8))
    assert rates(before, seen((ONE, 7, 7), handles=(8,))) == [(1.0, 1.0)]


def test_a_new_rule_counts_from_nothing() -> None:
    assert rates(Snapshot(), seen((ONE, 4, 8))) == [(2.0, 4.0)]
    assert rates(seen((ONE, 4, 8)), Snapshot()) == []


def test_counters_that_began_again_make_no_negative_rate() -> None:
    assert rates(seen((ONE, 1000, 9000)), seen((ONE, 6, 60))) == [(3.0, 30.0)]


def test_a_rule_of_somebody_else_counts_like_any() -> None:
    (rate,) = rule_rates(seen((None, 1, 1)), seen((None, 3, 1)), seconds=1.0)
    assert (rate.packet_rate, rate.text(lambda rule, family: "never")) == (2.0, "odd")


def test_a_list_has_the_sum_of_its_rules() -> None:
    rules = rule_rates(seen((ONE, 0, 0), (TWO, 0, 0)), seen((ONE, 2, 20), (TWO, 4, 40)), seconds=2.0)
    assert list_rates(rules) == (Rate(KEY, 0, None, 6, 60, 3.0, 30.0),)


def test_the_busiest_comes_first_and_ties_have_an_order() -> None:
    def rate(position: int, packets: float, octets: float, total: int = 0) -> Rate:
        return Rate(KEY, position, ObservedRule(ONE), total, total, packets, octets)

    rows = [rate(1, 1.0, 50.0), rate(2, 3.0, 9.0), rate(3, 0.0, 0.0), rate(4, 0.0, 0.0, 7), rate(5, 0.0, 0.0)]
    assert [row.position for row in busiest(rows, by="packets")] == [2, 1, 4, 3, 5]
    assert [row.position for row in busiest(rows, by="bytes", most=2)] == [1, 2]
    assert busiest(rows, by="packets") == busiest(rows[::-1], by="packets")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.04, "0.0"),
        (7, "7"),
        (9.949, "9.9"),
        (9.96, "10"),
        (999.4, "999"),
        (999.5, "1.0k"),
        (12_345, "12k"),
        (999_500, "1.0M"),
        (5e15, "5000T"),
    ],
)
def test_a_number_has_three_digits_at_most(number: float, text: str) -> None:
    assert shortened(number) == text


def test_data_says_where_and_what() -> None:
    (rate,) = rule_rates(Snapshot(), seen((ONE, 1, 2), key=OTHER), seconds=1.0)
    assert rate.data(lambda rule, family: f"{family} rule") == {
        "family": "ipv6",
        "table": "filter",
        "chain": "web",
        "position": 1,
        "rule": "ipv6 rule",
        "packets": 1,
        "bytes": 2,
        "packets_per_second": 1.0,
        "bytes_per_second": 2.0,
    }
