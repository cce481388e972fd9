"""Laws of large plans: new chains come in parts where nothing leads to them, and then all is switched over at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import settings

import meshfw
from meshfw.backend import Outcome
from meshfw.backends import nft_loading
from meshfw.errors import BackendError, ConcurrentChangeError
from meshfw.model import Attachment, Chain, Family, Hook, Policy, Ruleset, Set, Table
from meshfw.plan import diff
from meshfw.reconcile import apply, plan
from meshfw.snapshot import Snapshot
from meshfw.testing.netns import Netns
from tests.kernel.test_nft import Room, assert_holds, rule, wanted

pytestmark = pytest.mark.kernel

FULL: Final = settings.get_current_profile_name() == "full"
ROOT: Final = Path(meshfw.__file__).parents[1]


@pytest.fixture
def room(netns: Netns, requires: Callable[..., None]) -> Iterator[Room]:
    requires("nft")
    made = Room(netns)
    yield made
    made.close()


def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, so that small rulesets come in several."""
    monkeypatch.setattr(nft_loading, "RULES_MAX", 7)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts for a whole test."""
    smaller(monkeypatch)


def large(count: int, *, policy: Policy = Policy.DROP) -> Ruleset:
    """A ruleset of so many rules in each family: in chains of a hundred, and all of them again in one."""
    chains, attachments, sets = [], [], []
    for family in Family:
        net = "10.4" if family is Family.IPV4 else "fd00:4"
        dot = "." if family is Family.IPV4 else ":"
        texts = [f"-s {net}{dot}{at // 250}{dot if dot == '.' else '::'}{at % 250} -j ACCEPT" for at in range(count)]
        size = max(1, min(100, count // 3))
        names = [f"part{at}" for at in range(0, count // 2, size)]
        for at, name in enumerate(names):
            held = tuple(rule(text, family) for text in texts[at * size : (at + 1) * size])
            chains.append(Chain(family=family, table=Table.FILTER, name=name, rules=held))
        rest = tuple(rule(text, family) for text in texts[len(names) * size :])
        jumps = (rule("-s @some -j rest", family), *(rule(f"-j {name}", family) for name in names))
        chains += [
            Chain(family=family, table=Table.FILTER, name="rest", rules=rest),
            Chain(family=family, table=Table.FILTER, name="fw", rules=jumps),
        ]
        sets.append(Set.of(family, "some", [f"{net}{dot}9{dot if dot == '.' else '::'}9"]))
        attachments.append(Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="fw", policy=policy))
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


@pytest.mark.usefixtures("parts")
def test_new_chains_come_in_parts_and_the_last_one_switches_over(room: Room) -> None:
    ruleset, backend = large(40), room.backend()
    transaction = backend.compile(diff(Snapshot(), ruleset))
    texts = [step.input for step in transaction.steps]
    assert len(texts) > 5
    assert all(text.count("accept") <= 8 for text in texts)
    assert ["hook input" in text for text in texts] == [False] * (len(texts) - 1) + [True]
    before = room.generation()
    report = apply(backend, ruleset)
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert room.generation() == before + len(texts)
    assert_holds(room, ruleset)
    assert apply(backend, ruleset).outcome is Outcome.IDLE
    assert apply(backend, Ruleset()).commits == 1
    assert room.netlink.tables() == ()


@pytest.mark.usefixtures("parts")
def test_what_comes_in_parts_beside_old_rules_leaves_them_until_the_end(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, backend = wanted(), large(40), room.backend()
    apply(backend, old)
    run, seen = backend._nft.run, []

    def watched(text: str, **options: Any) -> str:
        seen.append(room.listing("chain ip meshfw filter.input.first"))
        return run(text, **options)

    monkeypatch.setattr(backend._nft, "run", watched)
    apply(backend, new)
    monkeypatch.undo()
    smaller(monkeypatch)
    assert len(seen) > 5
    assert all("policy drop" in listing and "jump filter-fw" in listing for listing in seen)
    assert_holds(room, new)


class BrokenError(Exception):
    """What no part of ours raises."""


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("base", [Ruleset(), wanted()], ids=["nothing", "other rules"])
@pytest.mark.parametrize(
    ("at", "error"),
    [*((at, BackendError("no")) for at in (0, 1, 4, -1)), *((at, BrokenError()) for at in (0, 1, 4))],
)
def test_a_failure_in_between_leaves_the_old_rules_alone(
    room: Room, monkeypatch: pytest.MonkeyPatch, base: Ruleset, error: Exception, at: int
) -> None:
    backend, new = room.backend(), large(30)
    apply(backend, base)
    observed = backend.observe()
    listing = room.listing()
    transaction = backend.compile(diff(observed.snapshot, new))
    count, run = 0, backend._nft.run
    failing = at if at >= 0 else len(transaction.steps) - 1

    def failed(text: str, **options: Any) -> str:
        nonlocal count
        count += 1
        if count == failing + 1:
            if isinstance(error, BrokenError):
                run(text, **options)  # a signal is met when the library is done
            raise error
        return run(text, **options)

    monkeypatch.setattr(backend._nft, "run", failed)
    with pytest.raises((BackendError, BrokenError)) as caught:
        backend.commit(transaction, based_on=observed.fingerprint)
    monkeypatch.undo()
    smaller(monkeypatch)
    assert room.listing() == listing
    assert isinstance(caught.value, BrokenError) or failing == 0 or "nothing was changed" in str(caught.value)
    assert apply(backend, new).outcome is Outcome.CHANGED
    assert_holds(room, new)


@pytest.mark.usefixtures("parts")
def test_somebody_who_takes_the_table_away_in_between_is_noticed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, new = room.backend(), large(30)
    run, texts = backend._nft.run, []

    def disturbed(text: str, **options: Any) -> str:
        texts.append(text)
        if len(texts) == 3:
            room.nft("delete table ip meshfw")
        return run(text, **options)

    monkeypatch.setattr(backend._nft, "run", disturbed)
    found = backend.compile(diff(Snapshot(), new))
    with pytest.raises(ConcurrentChangeError):
        backend.commit(found, based_on=backend.fingerprint())
    monkeypatch.undo()
    smaller(monkeypatch)
    assert apply(backend, new).outcome is Outcome.CHANGED
    assert_holds(room, new)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    "text", ["delete table ip meshfw", "flush chain ip meshfw filter-part0", "add table ip theirs"]
)
@pytest.mark.parametrize("at", [1, 5])
def test_whatever_others_do_between_the_parts_all_is_held_at_the_end(
    room: Room, monkeypatch: pytest.MonkeyPatch, text: str, at: int
) -> None:
    backend, new = room.backend(), large(30)
    apply(backend, wanted())
    run, parts = backend._nft.run, []

    def disturbed(given: str, **options: Any) -> str:
        if options.get("handles") is False:  # it is a commit
            parts.append(given)
            if len(parts) == at + 1:
                room.nft(text)
        return run(given, **options)

    monkeypatch.setattr(backend._nft, "run", disturbed)
    assert apply(backend, new).outcome is Outcome.CHANGED
    assert len(parts) > at
    assert_holds(room, new)


@pytest.mark.usefixtures("parts")
def test_a_table_that_a_part_made_again_is_ours(room: Room) -> None:
    new, backend = large(30), room.backend()
    steps = backend.compile(diff(Snapshot(), new)).steps
    for step in steps[:3]:
        room.nft(step.input)
    room.nft("delete table ip meshfw")
    room.nft(steps[3].input)  # and a kill
    assert room.netlink.tables("ip")
    assert apply(room.backend(), new).outcome is Outcome.CHANGED
    assert_holds(room, new)


@pytest.mark.usefixtures("parts")
def test_a_chain_that_was_loaded_in_part_is_loaded_on(room: Room) -> None:
    new = large(60)
    backend = room.backend()
    transaction = backend.compile(diff(Snapshot(), new))
    for step in transaction.steps[:4]:
        room.nft(step.input)
    observed = room.backend().observe()
    rest = backend.compile(diff(observed.snapshot, new))
    assert len(rest.steps) > 5
    assert all(step.input.count("accept") <= 8 for step in rest.steps)
    before = room.generation()
    assert apply(backend, new).commits == 1
    assert_holds(room, new)
    assert room.generation() == before + len(rest.steps), "a step that changes nothing isn't counted, another's may be"


def test_a_chain_that_packets_meet_is_never_edited_in_parts(room: Room, parts: None) -> None:
    short, backend = large(30), room.backend()
    apply(backend, short)
    (fw,) = (chain for chain in short.chains if chain.name == "rest" and chain.family is Family.IPV4)
    longer = msgspec.structs.replace(fw, rules=(*fw.rules, *(rule(f"-s 10.9.9.{at} -j DROP") for at in range(120))))
    chains = tuple(longer if chain.key == fw.key else chain for chain in short.chains)
    found = backend.compile(plan(room.backend(), msgspec.structs.replace(short, chains=chains)))
    assert len(found.steps) == 1


# --- a sudden end ---

VICTIM: Final = """
import sys
from meshfw.backend import Site
from meshfw.backends import nft_loading
from meshfw.backends.nft import NftBackend
from meshfw.reconcile import apply
from tests.kernel.test_nft import LANGUAGE
from tests.kernel.test_nft_loading import large
nft_loading.RULES_MAX = 40
ruleset = large(500)
backend = NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
apply(backend, ruleset)
"""


def test_a_kill_in_between_leaves_the_old_rules_and_the_next_run_goes_on(room: Room) -> None:
    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    old, new = wanted(), large(500)
    backend = room.backend()
    partial = 0
    for _ in range(20 if FULL else 3):
        apply(backend, old)
        argv = (sys.executable, "-c", VICTIM, room.netns.path)
        with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdin is not None
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            before, wait = room.generation(), chance.randrange(2, 25)
            victim.stdin.write("\n")
            victim.stdin.flush()
            until = time.monotonic() + 20
            while room.generation() < before + wait and time.monotonic() < until:
                pass
            os.kill(victim.pid, signal.SIGKILL)
        listing = room.listing()
        switched = "filter-rest" in room.listing("chain ip meshfw filter-fw")
        partial += "chain filter-part0" in listing and not switched
        if not switched:
            kept = {key: held for key, held in backend.observe().snapshot.lists.items() if key in _keys(old)}
            assert not diff(Snapshot(kept, backend.observe().snapshot.sets), old).lists
        assert apply(backend, new).outcome in (Outcome.CHANGED, Outcome.CLEAN)
        assert_holds(room, new)
    assert partial, "a kill met a load in between"


def _keys(ruleset: Ruleset) -> set[Any]:
    return {chain.key for chain in ruleset.chains} | {item.key for item in ruleset.dispatchers()}


# --- without privileges ---

ORDINARY: Final = """
import os, sys
from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.kernel import libnftables
from meshfw.reconcile import apply
from tests.kernel.test_nft import LANGUAGE
from tests.kernel.test_nft_loading import large
libnftables._BUFFER = 212_992  # what net.core.wmem_max is where nobody has raised it
backend = NftBackend(Site(owner="meshfw", language=LANGUAGE))
ruleset = large(int(sys.argv[1]))
report = apply(backend, ruleset)
again = apply(NftBackend(Site(owner="meshfw", language=LANGUAGE)), ruleset)
print(report.outcome, report.commits, again.outcome, backend.observe().snapshot.rules > 2 * int(sys.argv[1]))
"""


def test_ten_thousand_rules_fit_through_the_smallest_of_send_buffers(requires: Callable[..., None]) -> None:
    requires("nft", "unshare")
    count = "5000" if FULL else "1000"  # in each family
    argv = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", ORDINARY, count)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["changed", "1", "clean", "True"]
