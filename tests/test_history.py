"""Laws of the history: what was applied is found again, damage is passed over, numbers are never used twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfw.errors import StateError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.history import History, Hold
from meshfw.model import ACCEPT, Chain, Comment, Family, Rule, Ruleset, Table
from meshfw.states import State, digest

LANGUAGE = Language.of(builtin_extensions())


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that everything is kept in."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


def history(owner: str = "meshfw", netns: str | None = "blue", *, keep: int = 10) -> History:
    return History(owner, netns, LANGUAGE, keep=keep)


def ruleset(name: str) -> Ruleset:
    rule = Rule(matches=(Comment(name),), target=ACCEPT)
    return Ruleset(chains=(Chain(family=Family.IPV4, table=Table.FILTER, name="main", rules=(rule,)),))


def state(name: str, **named: Any) -> State:
    made = State(owner="meshfw", backend="nft", netns="blue", ruleset=ruleset(name) if name else Ruleset())
    return msgspec.structs.replace(made, **named)


def numbers(kept: History) -> list[int]:
    return [entry.number for entry in kept.entries()]


def damage(kept: History, number: int) -> Path:
    path = Path(kept.directory, f"{number:06}.json")
    path.write_bytes(path.read_bytes().replace(b"apply", b"amply").replace(b'"nft"', b'"tfn"'))
    return path


def test_what_was_recorded_is_found_again() -> None:
    one, two = state("one", time=1.0, reason="apply"), state("two", time=2.0, reason="again")
    assert [history().record(one), history().record(two)] == [1, 2]
    kept = history()
    assert [(entry.number, entry.summary.reason, entry.summary.rules) for entry in kept.entries()] == [
        (1, "apply", 1),
        (2, "again", 1),
    ]
    assert (kept.load(1), kept.load(2), kept.last()) == (one, two, two)
    newest, before = kept.newest(), kept.before(2)
    assert newest is not None
    assert before is not None
    assert (newest.number, before.number, kept.before(1)) == (2, 1, None)
    assert kept.notes == []


def test_nothing_recorded_is_nothing_found(room: Path) -> None:
    kept = history()
    assert (kept.entries(), kept.newest(), kept.last(), kept.held(), kept.notes) == ((), None, None, None, [])
    kept.release()
    assert not room.exists()
    with pytest.raises(StateError, match=r"there is no state 1 .no state is kept in"):
        kept.load(1)


def test_the_same_again_is_not_kept_twice() -> None:
    kept = history()
    assert [kept.record(state(name)) for name in ("one", "one", "two", "one")] == [1, 1, 2, 3]
    assert kept.record(state("one", backend="iptables-nft")) == 4


def test_at_most_so_many_are_kept_and_numbers_go_on() -> None:
    kept = history(keep=3)
    assert [kept.record(state(str(count))) for count in range(6)] == [1, 2, 3, 4, 5, 6]
    assert numbers(kept) == [4, 5, 6]
    with pytest.raises(StateError, match=r"there is no state 3 .kept are 4, 5, 6"):
        kept.load(3)


def test_what_is_held_is_never_pruned() -> None:
    kept = history(keep=2)
    kept.record(state("held"))
    kept.hold(1, against="x")
    for count in range(4):
        kept.record(state(str(count)))
    assert numbers(kept) == [1, 4, 5]
    assert kept.held() == Hold(1, "x")
    kept.release()
    assert kept.held() is None
    kept.record(state("more"))
    assert numbers(kept) == [5, 6]


def test_an_owner_and_a_namespace_have_a_history_of_their_own() -> None:
    history().record(state("one"))
    for other in (history("other"), history(netns="green"), history(netns=None)):
        assert (other.entries(), other.notes) == ((), [])


def test_nothing_is_kept_under_a_name_that_soon_lapses(room: Path) -> None:
    kept = history(netns="/proc/1/ns/net")
    assert kept.why_not
    for write in (lambda: kept.record(state("one")), lambda: kept.hold(1, against="")):
        with pytest.raises(StateError, match="no lasting name"):
            write()
    kept.release()
    assert (kept.entries(), kept.last(), kept.held()) == ((), None, None)
    assert not room.exists()


def test_only_root_can_read_it(room: Path) -> None:
    kept = history()
    kept.record(state("one"))
    kept.hold(1, against="")
    assert room.stat().st_mode & 0o777 == Path(kept.directory).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in Path(kept.directory).iterdir()} == {0o600}


# --- damage ---


def test_a_damaged_state_is_passed_over_and_told_of() -> None:
    kept = history()
    for name in ("one", "two", "three"):
        kept.record(state(name, reason="apply"))
    path = damage(kept, 3)
    assert numbers(kept) == [1, 2]
    assert kept.last() == kept.load(2)
    assert kept.notes == [f"{path} is ignored: its checksum doesn't fit its content: it was changed or damaged"]
    with pytest.raises(StateError, match=rf"{path}: its checksum doesn't fit"):
        kept.load(3)
    assert kept.record(state("two")) == 4  # not the damaged one's number, and the newest was another


@pytest.mark.parametrize("spoil", ["empty", "directory", "open", "link", "other owner's"])
def test_whatever_a_file_is_it_is_passed_over(spoil: str, tmp_path: Path) -> None:
    kept = history()
    kept.record(state("one"))
    kept.record(state("two"))
    path = Path(kept.directory, "000002.json")
    if spoil == "open":
        path.chmod(0o666)
    elif spoil == "other owner's":
        other = state("two", owner="other")
        path.unlink()
        Path(History("other", "blue", LANGUAGE).directory).mkdir()
        History("other", "blue", LANGUAGE).record(other)
        Path(History("other", "blue", LANGUAGE).directory, "000001.json").rename(path)
    else:
        path.unlink()
        if spoil == "empty":
            path.touch()
        elif spoil == "directory":
            path.mkdir()
        else:
            path.symlink_to("000001.json")
    assert numbers(kept) == [1]
    assert kept.last() == kept.load(1)
    assert len(kept.notes) == 1
    assert kept.record(state("three")) == 3


def test_a_directory_that_others_may_write_to_is_not_believed(room: Path) -> None:
    kept = history()
    kept.record(state("one"))
    for directory in (Path(kept.directory), room):
        directory.chmod(0o777)
        assert (kept.entries(), kept.last()) == ((), None)
        assert "may be written by others" in kept.notes[-1]
        with pytest.raises(StateError, match="may be written by others"):
            kept.record(state("two"))
        directory.chmod(0o700)
    assert numbers(kept) == [1]


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"number": 9, "against": ""}', b'{"number": 1}'])
def test_a_damaged_hold_holds_nothing(content: bytes) -> None:
    kept = history()
    kept.record(state("one"))
    kept.hold(1, against="x")
    Path(kept.directory, "hold").write_bytes(content)
    assert kept.held() is None
    assert "hold is ignored" in kept.notes[0]


def test_a_hold_of_a_damaged_state_holds_nothing() -> None:
    kept = history()
    kept.record(state("one", reason="apply"))
    kept.hold(1, against="x")
    damage(kept, 1)
    assert kept.held() is None


def test_what_a_killed_writer_left_goes_with_the_next_state() -> None:
    kept = history()
    kept.record(state("one"))
    left = Path(kept.directory, ".000002.json.0123.new")
    left.touch()
    kept.record(state("two"))
    assert not left.exists()


def test_a_directory_that_can_not_be_made_is_an_error_with_its_path(room: Path) -> None:
    room.write_text("a file")
    with pytest.raises(StateError, match=str(room)):
        history().record(state("one"))


# --- what the newest says ---


def test_after_nothing_is_wanted_there_is_no_last_state() -> None:
    kept = history()
    kept.record(state("one"))
    kept.record(state("", reason="clean"))
    assert kept.last() is None
    assert numbers(kept) == [1, 2]
    assert kept.load(1).ruleset == ruleset("one")


def test_an_entry_knows_the_digest_of_its_ruleset() -> None:
    kept = history()
    kept.record(state("one"))
    assert kept.entries()[0].summary.digest == digest(ruleset("one"))


# --- several at once ---

WRITER = """
import sys
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.history import History
from meshfw.model import *
from meshfw.states import State

kept = History("meshfw", "blue", Language.of(builtin_extensions()), keep=100)
for count in range(12):
    rule = Rule(matches=(Comment(f"{sys.argv[1]} {count}"),))
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="main", rules=(rule,))
    print(kept.record(State(owner="meshfw", backend="nft", netns="blue", ruleset=Ruleset(chains=(chain,)))))
"""


def test_two_writers_at_once_never_get_one_number() -> None:
    start = [sys.executable, "-c", WRITER]
    running = [
        subprocess.Popen([*start, name], stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for name in "ab"
    ]
    found: list[int] = []
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        found += map(int, out.split())
    assert sorted(found) == list(range(1, 25))
    kept = history()
    assert numbers(kept) == sorted(found)
    assert kept.notes == []
