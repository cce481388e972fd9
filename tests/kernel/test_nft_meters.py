"""Laws of meters on nft, of which a table holds one of a name: a rule takes its own along, and two can't share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

import pytest

from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.errors import InexpressibleError, UnsupportedError
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.dump import parse_dump
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import render_rule, render_tables
from meshfw.model import Chain, Family, Ruleset, Table
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
A, B = (f"-m hashlimit --hashlimit-upto 5/s --hashlimit-mode srcip --hashlimit-name {name} -j DROP" for name in "ab")
COUNT = "-m connlimit --connlimit-upto 5 -j DROP"

Chains = Mapping[str, Sequence[str]]


def ruleset(chains: Chains) -> Ruleset:
    return Ruleset(
        chains=tuple(
            Chain(
                family=Family.IPV4,
                table=Table.FILTER,
                name=name,
                rules=tuple(parse_rule(text, family=Family.IPV4, language=LANGUAGE) for text in rules),
            )
            for name, rules in chains.items()
        )
    )


@pytest.fixture
def backend(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[NftBackend]:
    requires("nft")
    with kernel_room() as room, closing(NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=room.path))) as made:
        yield made


CHANGES: list[tuple[Chains, Chains]] = [
    ({"x": [A]}, {"x": [A.replace("DROP", "ACCEPT")]}),
    ({"x": [A]}, {"x": ["-j ACCEPT", A]}),
    ({"x": [A, B]}, {"x": [B, A]}),
    ({"x": [A, "-j ACCEPT"]}, {"x": ["-j ACCEPT", f"-s 10.0.0.1 {A}"]}),
    ({"x": [A], "y": []}, {"x": [], "y": [A]}),
    ({"y": [A], "x": []}, {"y": [], "x": [A]}),
    ({"y": [A], "x": [B]}, {"y": [B], "x": [A]}),
    ({"x": [A]}, {"y": [A]}),
    ({"x": [COUNT], "y": ["-j ACCEPT"]}, {"x": ["-j ACCEPT"], "y": [COUNT]}),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_rule_that_moves_takes_its_meter_along(backend: NftBackend, old: Chains, new: Chains) -> None:
    for wanted in (old, new, old):
        assert apply(backend, ruleset(wanted)).commits == 1
        assert apply(backend, ruleset(wanted)).commits == 0


@pytest.mark.parametrize("rule", [A, COUNT])
def test_two_rules_with_one_meter_are_refused_by_name_before_anything_is_written(
    backend: NftBackend, rule: str
) -> None:
    with pytest.raises(UnsupportedError, match=r"z, rule 2 .*is that of ipv4 filter y, rule 1"):
        apply(backend, ruleset({"y": [rule], "z": ["-j ACCEPT", rule]}))
    assert apply(backend, ruleset({"y": [rule]})).commits == 1


def test_a_dump_names_the_second_rule_of_a_meter() -> None:
    lines = ["*filter", ":y - [0:0]", ":z - [0:0]", f"-A y {A}", f"-A z {A}", f"-A z {B}", "COMMIT"]
    lines += [line for line in lines if line != f"-A z {A}"]
    lines[7] = "*mangle"
    lines = [
        line.replace("name a", "name c").replace("name b", "name d") if at > 7 else line
        for at, line in enumerate(lines)
    ]
    dump = parse_dump("\n".join([*lines, ""]), family=Family.IPV4, language=LANGUAGE)
    (untold,) = render_tables(dump, language=LANGUAGE).untold
    assert (untold.chain, untold.number, untold.table) == ("z", 1, Table.FILTER)
    assert "another rule's" in untold.reason


def test_a_dump_names_the_rule_that_shares_its_buckets_with_one_of_another_table() -> None:
    """Each table of nft has a meter of its own, and iptables counts all rules of a name in one table of buckets."""
    lines = ["*mangle", ":y - [0:0]", f"-A y {A}", f"-A y {COUNT}", "COMMIT"]
    lines += ["*filter", *lines[1:2], f"-A y {COUNT}", f"-A y {A}", "COMMIT"]
    dump = parse_dump("\n".join([*lines, ""]), family=Family.IPV4, language=LANGUAGE)
    (untold,) = render_tables(dump, language=LANGUAGE).untold
    assert (untold.chain, untold.number, untold.table) == ("y", 2, Table.FILTER)
    assert untold.reason.startswith("hashlimit a counts together with a rule of another table")


def test_a_rule_holds_one_meter_of_a_name() -> None:
    rule = parse_rule(f"-m connlimit --connlimit-upto 5 {COUNT}", family=Family.IPV4, language=LANGUAGE)
    with pytest.raises(InexpressibleError, match="twice"):
        render_rule(rule, family=Family.IPV4, language=LANGUAGE)
