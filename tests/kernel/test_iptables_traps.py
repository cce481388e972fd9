"""Traps of the iptables tools: each shown on the bare tool, where it still has it, and how ours keeps out of it."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from meshfw.backends.iptables_text import edit_lines
from meshfw.errors import CommandError
from meshfw.kernel.command import Completed, run
from meshfw.kernel.netlink import Nfnetlink
from meshfw.model import Family, Ruleset
from meshfw.plan import diff
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns
from meshfw.testing.wrapping import Recording
from tests.edits import Items, new_rule, old_rules
from tests.kernel.damage import ONE, OTHER, VARIANTS, House, house

pytestmark = pytest.mark.kernel

SCRIPTS: Final = 150
CHUNK: Final = 25
SEGMENTATION_FAULT: Final = (139, -11)


@pytest.fixture
def home(
    request: pytest.FixtureRequest, requires: Callable[..., None], kernel_room: Callable[[], Netns], tmp_path: Path
) -> Iterator[House]:
    variant: str = request.param
    requires(f"iptables-{variant}-restore", f"ip6tables-{variant}-restore", "nft")
    with house(variant, kernel_room, tmp_path) as made:
        yield made


both = pytest.mark.parametrize("home", VARIANTS, indirect=True)
nf_tables = pytest.mark.parametrize("home", ["nft"], indirect=True)


def tried(home: House, text: str, *, family: Family = Family.IPV4, options: tuple[str, ...] = ()) -> Completed:
    """What became of an input of the bare tool."""
    argv = (home.tool(family, "-restore"), "--noflush", "-w", "10", *options)
    with home.room.entered():
        return run(argv, timeout=60, input=text.encode(), check=False)


# --- edits by position -------------------------------------------------------------------------------------


@nf_tables
@pytest.mark.parametrize("first", ["-R X 1 -j DROP", "-I X 1 -j DROP", "-A X -j DROP"])
def test_a_fresh_rule_replaced_ends_the_bare_tool(home: House, first: str) -> None:
    home.restore("*filter\n:X - [0:0]\n-A X -j RETURN\n-A X -j RETURN\nCOMMIT\n", [Family.IPV4])
    at = 3 if first.startswith("-A") else 1
    done = tried(home, f"*filter\n{first}\n-R X {at} -j ACCEPT\nCOMMIT\n")
    # A tool that has been mended does it.
    assert done.returncode in (0, *SEGMENTATION_FAULT)


@both
def test_random_edits_are_carried_out_as_they_were_meant(home: House) -> None:
    seed = secrets.randbits(32)
    random_ = random.Random(seed)  # noqa: S311 - a number to repeat the test with, no secret
    for start in range(0, SCRIPTS, CHUNK):
        scripts = {f"meshfw-{number}": drawn(random_) for number in range(start, start + CHUNK)}
        made = "".join(
            f":{chain} - [0:0]\n" + "".join(f"-A {chain} {rule}\n" for rule in old_rules(length))
            for chain, (length, _) in scripts.items()
        )
        home.restore(f"*filter\n{made}COMMIT\n", [Family.IPV4])
        lines = [line for chain, (length, items) in scripts.items() for line in edit_lines(chain, length, items)]
        text = "".join(f"{line}\n" for line in lines)
        done = tried(home, f"*filter\n{text}COMMIT\n")
        assert done.returncode == 0, f"seed {seed}: {done.stderr}"
        listed = home.iptables(Family.IPV4, "-S").splitlines()
        for chain, (length, items) in scripts.items():
            wanted = [text or old_rules(length)[position - 1] for position, text in items]
            held = [line.removeprefix(f"-A {chain} ") for line in listed if line.startswith(f"-A {chain} ")]
            assert held == wanted, f"seed {seed}, {chain}"


def drawn(random_: random.Random) -> tuple[int, Items]:
    """An old length, and what is wanted."""
    length = random_.randrange(9)
    items: Items = [(position, "") for position in range(1, length + 1) if random_.random() < 0.5]
    for number in range(random_.randrange(9)):
        items.insert(random_.randrange(len(items) + 1), (0, new_rule(number + 1)))
    return length, items


NUMBERED: Final = re.compile(r"-[IDR] (\S+) \d+\b")
BARE: Final = re.compile(r":(\S+) - \[0:0\]")


def transactions(home: House) -> list[str]:
    """The inputs that were committed on the way through several states, foreign rules beside."""
    with home.backend() as inner:
        backend = Recording(inner)
        for wanted in (ONE, OTHER, Ruleset(), OTHER, ONE):
            apply(backend, wanted)
        home.iptables(Family.IPV4, "-I", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
        home.iptables(Family.IPV6, "-D", "meshfw-fw", "2")
        home.iptables(Family.IPV6, "-F", "FORWARD")
        apply(backend, OTHER)
        return [step.input for transaction in backend.transactions for step in transaction.steps]


@both
def test_built_in_chains_are_edited_by_value_alone(home: House) -> None:
    texts = transactions(home)
    assert texts
    for text in texts:
        assert all(name.startswith(("meshfw-", "meshfw.")) for name in NUMBERED.findall(text)), text
        assert not re.search(r"^-C |^-[FXPZ](?: [A-Z]+)?$", text, re.MULTILINE), text


@both
def test_a_chain_that_stands_is_not_named_as_one_that_comes(home: House) -> None:
    home.restore("*filter\n:X - [0:0]\n-A X -j RETURN\nCOMMIT\n", [Family.IPV4])
    home.restore("*filter\n:X - [0:0]\nCOMMIT\n", [Family.IPV4])
    assert "-A X" not in home.iptables(Family.IPV4, "-S", "X"), "naming a chain empties it: that is the trap"
    with home.backend() as inner:
        for wanted in (ONE, OTHER, ONE, Ruleset(), OTHER):
            standing = {line.split()[0][1:] for lines in home.own().values() for line in lines if line[0] == ":"}
            backend = Recording(inner)
            apply(backend, wanted)
            named = {name for one in backend.transactions for step in one.steps for name in BARE.findall(step.input)}
            assert not named & standing


# --- what the tools make of rules of nft's -----------------------------------------------------------------

LIES: Final = ("ip saddr { 192.0.2.4, 192.0.2.8 } accept", "ip saddr vmap { 192.0.2.4 : accept }", "counter accept")
INCOMPATIBLE: Final = ("ct state new accept", "fib saddr type local accept")
UNREADABLE: Final = ("meta cpu 1 accept", "ip length 5 accept")


@nf_tables
def test_the_bare_tool_tells_half_of_a_rule_and_all_is_well(home: House) -> None:
    home.restore("*filter\n:X - [0:0]\nCOMMIT\n", [Family.IPV4])
    home.run("nft", "add", "rule", "ip", "filter", "X", LIES[0])
    listed = home.iptables(Family.IPV4, "-S", "X").splitlines()
    assert listed[0] == "-N X"
    assert all(line == "-A X -j ACCEPT" for line in listed[1:])  # a mended tool says nothing, or the truth
    home.run("nft", "add", "rule", "ip", "filter", "X", INCOMPATIBLE[0])
    assert "-A X" not in home.run("iptables-nft-save", "-t", "filter")


@nf_tables
@pytest.mark.parametrize("native", [*LIES[:2], *INCOMPATIBLE, *UNREADABLE])
@pytest.mark.parametrize("known", [True, False], ids=["an instance that knew it", "a fresh instance"])
@pytest.mark.parametrize(
    ("verb", "chain"),
    [
        ("add", "meshfw-fw"),
        ("insert", "meshfw-fw"),
        ("add", "meshfw.input.first"),
        ("insert", "meshfw-going"),
        ("add", "meshfw-going"),
    ],
)
def test_a_rule_of_nfts_in_a_chain_of_ours_is_noticed_and_goes(
    home: House, native: str, known: bool, verb: str, chain: str
) -> None:
    with home.backend() as knowing, home.backend() as fresh:
        apply(knowing, ONE)
        before = home.saved()
        home.run("nft", verb, "rule", "ip", "filter", chain, native)
        backend = knowing if known else fresh
        assert plan(backend, ONE), "it isn't noticed"
        apply(backend, ONE)
        assert home.saved() == before
        home.run("nft", verb, "rule", "ip", "filter", chain, native)
        apply(backend, OTHER)
    home.assert_held(OTHER)


@nf_tables
def test_a_lie_that_reads_like_the_truth_is_noticed(home: House) -> None:
    rule = "-j ACCEPT"
    home.restore(f"*filter\n:X - [0:0]\n-A X {rule}\nCOMMIT\n", [Family.IPV4])
    with home.backend() as backend:
        apply(backend, ONE)
        handle = re.findall(r"jump meshfw-fw # handle (\d+)", home.run("nft", "-a", "list", "ruleset", "ip"))[0]
        native = "ip saddr { 192.0.2.4, 192.0.2.8 } counter jump meshfw-fw"
        home.run("nft", "replace", "rule", "ip", "filter", "meshfw.input.first", "handle", handle, native)
        assert "-A meshfw.input.first -j meshfw-fw" in home.iptables(Family.IPV4, "-S", "meshfw.input.first")
        assert plan(backend, ONE), "it believes what iptables says"
        with home.backend() as fresh:
            assert plan(fresh, ONE), "it believes what iptables says"
        apply(backend, ONE)
    assert "ip saddr" not in home.run("nft", "list", "chain", "ip", "filter", "meshfw.input.first")


@nf_tables
@pytest.mark.parametrize("native", [*LIES, *INCOMPATIBLE, *UNREADABLE])
@pytest.mark.parametrize("chain", ["INPUT", "THEIRS"])
def test_what_iptables_can_not_read_elsewhere_is_left_as_it_is(home: House, native: str, chain: str) -> None:
    home.run("nft", "add", "rule", "ip", "filter", chain, native)

    def theirs() -> str:
        text = home.run("nft", "-a", "list", "chain", "ip", "filter", chain)
        return "\n".join(line for line in text.splitlines() if "meshfw" not in line)

    before = theirs()
    with home.backend() as backend:
        for wanted in (ONE, OTHER, ONE):
            apply(backend, wanted)
            assert theirs() == before
        home.iptables(Family.IPV4, "-D", "meshfw-fw", "2")
        apply(backend, ONE)
    home.assert_held(ONE)
    with home.backend() as fresh:
        apply(fresh, OTHER)
        assert theirs() == before
        apply(fresh, Ruleset())
    assert theirs() == before


# --- counters, generations, warnings -----------------------------------------------------------------------


@nf_tables
def test_counters_are_kept_where_the_tool_can_set_them(home: House) -> None:
    line = "*filter\n:X - [0:0]\n-A X -c 3 102 -j ACCEPT\nCOMMIT\n"
    home.restore(line)
    assert "-c 3 102" in home.iptables(Family.IPV4, "-S", "X", "-v")
    mended = "-c 3 102" in home.iptables(Family.IPV6, "-S", "X", "-v")
    with home.backend() as backend:
        assert backend.capabilities.counters_move == frozenset({Family.IPV4})
        apply(backend, ONE)
        todo = diff(backend.observe().snapshot, OTHER)
        notes = backend.compile(todo).notes
    assert mended or any("ip6tables-nft-restore can't set counters" in note for note in notes)
    assert not any("ipv4" in note and "can't set counters" in note for note in notes)


@nf_tables
def test_two_tables_are_two_generations_and_a_question_is_none(home: House) -> None:
    with home.backend() as backend, Nfnetlink(home.room.path) as netlink:
        apply(backend, ONE)
        before = netlink.generation()
        changed = tried(home, "*filter\n-A THEIRS -j DROP\nCOMMIT\n*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n")
        assert (changed.returncode, netlink.generation()) == (0, before + 2)
        asked = tried(home, "*filter\n-S meshfw-fw\n-S meshfw-going\nCOMMIT\n*nat\n-S meshfw-out\nCOMMIT\n")
        assert (asked.returncode, netlink.generation()) == (0, before + 2)
        apply(backend, OTHER)  # two tables of two families
        assert netlink.generation() == before + 6
        apply(backend, OTHER)
        assert netlink.generation() == before + 6


@nf_tables
def test_a_warning_about_legacy_tables_is_no_error(home: House) -> None:
    home.run("iptables-legacy", "-w", "10", "-A", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
    with home.room.entered():
        listed = run(("iptables-nft", "-S"), timeout=60)
    assert "legacy tables present" in listed.stderr
    with home.backend() as backend:
        for wanted in (ONE, OTHER, Ruleset(), ONE):
            apply(backend, wanted)
    home.assert_held(ONE)
    assert "192.0.2.1" in home.run("iptables-legacy-save", "-t", "filter")


# --- rules of others that hold on to chains of ours --------------------------------------------------------


@both
@pytest.mark.parametrize("wanted", [OTHER, Ruleset()], ids=["another", "nothing"])
def test_a_chain_that_others_lead_to_stays_with_everything_else_and_is_named(home: House, wanted: Ruleset) -> None:
    with home.backend() as backend:
        apply(backend, ONE)
        home.iptables(Family.IPV6, "-A", "THEIRS", "-j", "meshfw-going")
        before = home.saved()
        with pytest.raises(CommandError) as caught:
            apply(backend, wanted)
        assert "a rule of somebody else leads to chain meshfw-going, which is to go: remove it" in str(caught.value)
        assert "put back: ipv4" in str(caught.value)
        assert home.saved() == before
        home.iptables(Family.IPV6, "-D", "THEIRS", "-j", "meshfw-going")
        apply(backend, wanted)
    home.assert_held(wanted)
