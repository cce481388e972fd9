"""Laws over rules that nobody here wrote: the figures of ``python -m tests.corpus``, none below what it has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.corpus import Figure, needed, vectors
from tests.corpus.differences import TRANSLATIONS, translation_difference
from tests.corpus.kernel import kernel_figures
from tests.corpus.text import language_figures

pytestmark = needed

# What has been reached, and at least of how many rows: a share of nothing proves nothing.
LANGUAGE = {
    "realworld: parsed without opaque": (1.0, 4100),
    "realworld: canonical text is what iptables saves": (1.0, 4100),
    "realworld: what iptables saves means the same": (1.0, 4100),
    "iptables_t: parsed without opaque": (1.0, 2100),
    "iptables_t: canonical text is what iptables saves": (1.0, 2100),
    "iptables_t: what iptables saves means the same": (1.0, 2100),
    "iptables_t: refused as upstream and kernel do": (0.98, 800),
    "realworld_rejects: refused": (0.97, 300),
    "equiv: equal": (1.0, 1480),
    "nearmiss: different": (1.0, 2000),
}
KERNEL = {
    "realworld: can be said in nft": (0.965, 4100),
    "realworld: what is said loads": (1.0, 4000),
    "realworld: what is loaded reads back as the rule": (1.0, 4000),
    "realworld: listed as iptables' own, where that is native": (1.0, 1600),
    "iptables_t: can be said in nft": (0.75, 2100),
    "iptables_t: what is said loads": (1.0, 1550),
    "iptables_t: what is loaded reads back as the rule": (1.0, 1550),
    "iptables_t: listed as iptables' own, where that is native": (1.0, 120),
    "txlate: as upstream expects": (1.0, 190),
    "dumps: back from iptables-legacy as they were": (1.0, 230),
    "dumps: back from iptables-nft as they were": (1.0, 230),
}


def check(figures: Iterator[Figure], kept: dict[str, tuple[float, int]]) -> None:
    found = {figure.name: figure for figure in figures}
    assert found.keys() == kept.keys()
    few = {name: found[name].of for name, (_, of) in kept.items() if found[name].of < of}
    assert few == {}
    below = {name: found[name].rest[:10] for name, (share, _) in kept.items() if found[name].share < share}
    assert below == {}


def test_every_figure_of_the_language_is_kept() -> None:
    check(language_figures(), LANGUAGE)


@pytest.mark.kernel
def test_every_figure_of_the_kernel_is_kept(requires: Callable[..., None]) -> None:
    requires("nft", "iptables-legacy-restore", "iptables-nft-restore")
    check(kernel_figures(), KERNEL)


def test_every_difference_on_purpose_is_met() -> None:
    met = {translation_difference(vector["argv"]) for vector in vectors("txlate.jsonl") if vector.get("argv")}
    assert {words for words, _ in TRANSLATIONS} - met == set()
