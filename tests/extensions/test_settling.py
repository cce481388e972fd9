"""Laws of any typed rule on every backend: a second apply writes nothing, and a fresh instance adopts what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from meshfw.backend import Backend, Site
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.errors import MeshfwError
from meshfw.languages.iptables import parse_rule
from meshfw.model import Chain, Family, Rule, Ruleset
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.judges import by_halves, check, furnish, home, loadable, sample
from tests.kernel.neighbours import MAKERS, OPTIONS, streets

TOGETHER: Final = 10
"""Rules of one chain."""
Made = Callable[[], Backend]


@pytest.fixture
def memory() -> Made:
    kernel = MemoryKernel()
    return lambda: MemoryBackend(Site(owner="meshfw", language=LANGUAGE, options={"kernel": kernel}))


@pytest.fixture(params=["nft", "iptables-nft", "iptables-legacy"])
def real(
    request: pytest.FixtureRequest, kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path
) -> Iterator[tuple[str, Made]]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore", "ipset")
    with streets(kernel_room, tmp_path) as make:
        room = make("nft").room
        furnish(room)
        options = OPTIONS.get(request.param, {})
        site = Site(owner="meshfw", language=LANGUAGE, netns=room.path, options=options)
        yield request.param, lambda: MAKERS[request.param](site)


class Settled:
    """The judge that a backend is of its own work: what it wrote it finds as it was to be."""

    def __init__(self, make: Made, family: Family) -> None:
        self._make = make
        self._family = family
        self.kept = 0

    def __call__(self, held: Sequence[Rule]) -> list[str]:
        """What is wrong with each rule that the backend takes."""
        refused = self._refused(held)
        asked = {index: rule for index, rule in enumerate(held) if index not in refused}
        self.kept += len(asked)
        said = by_halves(self._applied, asked)
        return [said.get(index, "") for index in range(len(held))]

    def _ruleset(self, held: Mapping[int, Rule], together: int = TOGETHER) -> Ruleset:
        chains = []
        for table in {home(rule) for rule in held.values()}:
            mine = [(index, rule) for index, rule in held.items() if home(rule) is table]
            for at in range(0, len(mine), together):
                part = mine[at : at + together]
                rules = tuple(rule for _, rule in part)
                chains.append(Chain(family=self._family, table=table, name=f"r{part[0][0]}", rules=rules))
        return Ruleset(chains=tuple(chains))

    def _refused(self, held: Sequence[Rule]) -> set[int]:
        """The rules that the backend says it can't express."""
        ruleset = self._ruleset(dict(enumerate(held)), together=1)
        with closing(self._make()) as backend:
            where = {item.where.split(",")[0] for item in backend.check(ruleset) if item.refuses}
        return {int(chain.name[1:]) for chain in ruleset.chains if str(chain.key) in where}

    def _applied(self, held: Mapping[int, Rule]) -> str:
        """What goes wrong when all are applied; nothing of them is left."""
        ruleset = self._ruleset(held)
        with closing(self._make()) as backend, closing(self._make()) as fresh:
            try:
                apply(backend, ruleset)
                if apply(backend, ruleset).commits:
                    return "the second apply writes again"
                if apply(fresh, ruleset).commits:
                    return "a fresh instance writes again"
            except MeshfwError as error:
                return f"{type(error).__name__}: {error}"
            finally:
                apply(fresh, Ruleset())
        return ""


def check_settled(make: Made, family: Family, rules: Sequence[Rule]) -> None:
    judge = Settled(make, family)
    check(rules, family, judge)
    assert judge.kept >= len(rules) / 4


@pytest.mark.parametrize("family", Family)
def test_memory_settles_with_any_typed_rule(memory: Made, family: Family) -> None:
    check_settled(memory, family, sample(family))


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_a_kernel_settles_with_any_typed_rule(real: tuple[str, Made], family: Family) -> None:
    name, make = real
    check_settled(make, family, loadable(family, nft="nft" in name))


@pytest.mark.parametrize(
    "rule",
    [
        '-j NFLOG --nflog-prefix "@n tl"',
        "-m comment --comment @web -j LOG --log-prefix @web",
        "-m comment --comment -j -j LOG --log-prefix -j",
    ],
)
def test_memory_takes_no_word_for_a_name(memory: Made, rule: str) -> None:
    held = [parse_rule(rule, family=Family.IPV4, language=LANGUAGE)]
    assert Settled(memory, Family.IPV4)(held) == [""]
