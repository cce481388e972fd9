"""Rules without a typed value on the iptables backends: written as they are, known again however they are printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.backend import Outcome, Site
from meshfw.backends.iptables import IptablesBackend, iptables_legacy, iptables_nft
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel import nfexpr
from meshfw.kernel.command import run
from meshfw.languages.iptables import parse_rule
from meshfw.model import Chain, Family, Ruleset, Table
from meshfw.reconcile import apply, plan
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import attached, copied

pytestmark = pytest.mark.kernel

UNKNOWN = frozenset({"time", "statistic", "recent", "hashlimit", "dscp", "pkttype", "NFQUEUE"})
"""What this language doesn't know, as every language is without the extensions of others."""
LANGUAGE = Language.of(extension for extension in builtin_extensions() if extension.name not in UNKNOWN)
TEXTS = (
    "-m time --timestart 8:00 -j ACCEPT",
    "-m time --timestart 08:00 -j ACCEPT",
    "-m statistic --mode random --probability 0.8 -j ACCEPT",
    "-m recent --rcheck --name DEFAULT --mask 255.255.255.255 --rsource -j DROP",
    "-m recent --rcheck -j DROP",
    "-p tcp -m hashlimit --hashlimit 5/min --hashlimit-name x -j ACCEPT",
    "-m time --timestart 8:00 -j ACCEPT",
    "-p udp -m dscp --dscp-class AF41 -j NFQUEUE --queue-num 5",
    "-m pkttype --pkt-type broadcast -j DROP",
)
"""Most of which iptables prints otherwise, two of them alike, and one as another is written."""

Make = Callable[[], IptablesBackend]


def ruleset(texts: tuple[str, ...] = TEXTS) -> Ruleset:
    rules = tuple(parse_rule(text, family=Family.IPV4, language=LANGUAGE) for text in texts)
    return attached([Chain(family=Family.IPV4, table=Table.FILTER, name="first", rules=rules)])


@pytest.fixture(params=[iptables_nft, iptables_legacy], ids=["iptables-nft", "iptables-legacy"])
def make(
    request: pytest.FixtureRequest,
    netns: Netns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requires: Callable[..., None],
) -> Make:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    requires("iptables-nft-restore", "iptables-legacy-restore")

    def made() -> IptablesBackend:
        backend: IptablesBackend = request.param(Site(owner="meshfw", language=LANGUAGE, netns=netns.path))
        request.addfinalizer(backend.close)
        return backend

    return made


def test_they_are_written_once_and_known_again(make: Make) -> None:
    backend, wanted = make(), ruleset()
    with ProcessCounter() as counter:
        assert apply(backend, wanted).commits == 1
    assert counter.count.forks == 1
    assert apply(backend, copied(wanted)).outcome is Outcome.CLEAN


def test_a_new_run_adopts_them(make: Make) -> None:
    apply(make(), ruleset())
    assert not plan(make(), ruleset())
    assert apply(make(), ruleset()).outcome is Outcome.CLEAN


@pytest.mark.parametrize("damage", ["gone", "garbage", "another's"])
def test_without_what_was_learned_a_new_run_writes_them_once_more(make: Make, tmp_path: Path, damage: str) -> None:
    apply(make(), ruleset())
    (kept,) = (tmp_path / "run").glob("spellings-*")
    if damage == "gone":
        kept.unlink()
    elif damage == "garbage":
        kept.write_bytes(b'{"ipv4": 5')
    else:
        kept.chmod(0o666)
    assert apply(make(), ruleset()).outcome is Outcome.CHANGED
    if damage != "another's":
        assert apply(make(), ruleset()).outcome is Outcome.CLEAN


def test_an_edit_behind_our_back_is_no_other_spelling(make: Make, netns: Netns) -> None:
    backend = make()
    apply(backend, ruleset())
    with_other = list(TEXTS)
    with_other[0] = "-m time --timestart 9:00 -j ACCEPT"
    apply(make(), ruleset(tuple(with_other)))
    assert apply(backend, ruleset()).outcome is Outcome.CHANGED
    assert not plan(make(), ruleset())


def test_other_spellings_of_one_rule_may_change_places(make: Make) -> None:
    backend = make()
    apply(backend, ruleset())
    turned = ruleset(TEXTS[::-1])
    apply(backend, turned)
    assert apply(backend, turned).outcome is Outcome.IDLE
    assert not plan(make(), turned)


def test_forms_of_a_newer_iptables_are_known_again_by_their_bytes(
    make: Make, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
    if backend.name == "iptables-legacy":
        return  # its bytes are iptables' own, all of which it tells
    monkeypatch.setattr(nfexpr, "_KNOWN", nfexpr._KNOWN - {"limit"})  # as if nobody here had ever seen one
    monkeypatch.setattr(nfexpr, "_judged", nfexpr._judged.__wrapped__)  # nor remembered one
    wanted = ruleset(("-s 192.0.2.1 -j ACCEPT", "-m limit --limit 5/sec -j ACCEPT"))
    apply(backend, wanted)
    assert apply(make(), copied(wanted)).outcome is Outcome.CLEAN
    with netns.entered():
        run(("iptables-nft", "-I", "meshfw-first", "2", "-m", "limit", "--limit", "7/sec"), timeout=20)
    assert apply(make(), copied(wanted)).outcome is Outcome.CHANGED
    assert not plan(make(), wanted)
    for kept in (tmp_path / "run").iterdir():
        kept.unlink()
    assert apply(make(), copied(wanted)).outcome is Outcome.CHANGED, "nothing told that they are ours"
    assert apply(make(), copied(wanted)).outcome is Outcome.CLEAN
