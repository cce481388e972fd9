"""Kept proofs on every backend: a new process on an unchanged host reads nothing, and whatever was changed is seen."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshfw.backend import Backend, Fingerprint, Outcome, Report, Site
from meshfw.backends.instance import place_of
from meshfw.cli import main
from meshfw.config import parse_config
from meshfw.kernel.command import find, run
from meshfw.kernel.libnftables import Libnftables
from meshfw.model import Family, Ruleset
from meshfw.plugins import Plugins
from meshfw.proofs import Proof, Proofs
from meshfw.reconcile import apply, plan
from meshfw.testing.breakage import tool_against
from meshfw.testing.counting import ProcessCounter, run_counted
from meshfw.testing.gateway import gateway_toml
from meshfw.testing.loopback import delivers
from meshfw.testing.netns import Netns
from meshfw.testing.wrapping import Wrapped
from meshfw.wanted import load_rules
from tests.kernel.test_process_budgets import LANGUAGE, MAKERS, RESTORES

pytestmark = pytest.mark.kernel


class House:
    """A namespace with one backend, and a place for proofs."""

    def __init__(self, name: str, netns: Netns, directory: Path) -> None:
        self.name = name
        self.netns = netns
        self.file = directory / "proofs.json"
        self.ruleset = load_rules(parse_config(gateway_toml()), plugins=Plugins(), language=LANGUAGE)
        self._opened: list[Backend] = []

    def site(self, **options: Any) -> Site:
        return Site(owner="meshfw", language=LANGUAGE, netns=self.netns.path, options=options)

    def fresh(self, **options: Any) -> Backend:
        """A backend as a new process makes it."""
        made = MAKERS[self.name](self.site(**options))
        self._opened.append(made)
        return made

    def proofs(self, release: str = "1") -> Proofs:
        return Proofs(place_of(self.site(), self.name), release=release)

    def apply(self, ruleset: Ruleset | None = None, *, release: str = "1", **options: Any) -> Report:
        """What a new process reports."""
        wanted = self.ruleset if ruleset is None else ruleset
        return apply(self.fresh(**options), wanted, proofs=self.proofs(release))

    def counted(self) -> tuple[Outcome, int]:
        """Outcome and processes of a new process."""
        with ProcessCounter() as counter:
            report = self.apply()
        return report.outcome, counter.count.forks

    def close(self) -> None:
        for held in self._opened:
            held.close()


@pytest.fixture(params=MAKERS)
def house(
    request: pytest.FixtureRequest, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    request.getfixturevalue("requires")("nft", "iptables-legacy-restore", "ip6tables-nft-restore")
    made = House(request.param, netns, directory)
    yield made
    made.close()


# --- nothing changed -----------------------------------------------------------------------------------------


def test_a_new_process_on_an_unchanged_host_starts_none_and_reads_no_rules(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.apply().outcome is Outcome.CHANGED
    asked: list[str] = []
    monkeypatch.setattr(Libnftables, "run", lambda _self, text, **_options: asked.append(text))
    assert house.counted() == (Outcome.IDLE, 0)
    with ProcessCounter() as counter:
        backend = house.fresh()
        assert not plan(backend, house.ruleset, proofs=house.proofs())
    assert counter.count.forks == 0
    assert backend.cache.costs.reads == 0
    assert asked == []
    report = house.apply()
    assert (report.cache, report.plan.lists, report.commits) == ("kept", (), 0)


def test_an_instance_that_has_read_the_rules_goes_by_what_it_read(house: House) -> None:
    house.apply()
    backend, proofs = house.fresh(), house.proofs()
    assert apply(backend, house.ruleset).outcome is Outcome.CLEAN
    assert apply(backend, house.ruleset, proofs=proofs).cache == "hit"
    assert not plan(backend, house.ruleset, proofs=proofs)
    _break_something(house)
    assert plan(backend, house.ruleset, proofs=proofs)


def test_what_somebody_has_to_agree_to_is_read(house: House) -> None:
    house.apply()
    asked: list[int] = []
    report = apply(
        house.fresh(), house.ruleset, agree=lambda snapshot, _todo: asked.append(snapshot.rules), proofs=house.proofs()
    )
    assert report.outcome is Outcome.CLEAN
    assert len(asked) == 1
    assert asked[0] > 0


def test_what_a_plan_found_unchanged_is_known_to_the_next_process(house: House) -> None:
    apply(house.fresh(), house.ruleset)
    assert not plan(house.fresh(), house.ruleset, proofs=house.proofs())
    assert house.counted() == (Outcome.IDLE, 0)


def test_packets_and_others_rules_take_no_proof_away(house: House) -> None:
    house.apply()
    for family in Family:
        delivers(house.netns.path, family)
    tool_against(house.name, house.netns, "meshfw").move_in()
    assert house.counted() == (Outcome.IDLE, 0)


def test_a_proven_instance_goes_on_from_there(house: House) -> None:
    house.apply()
    backend = house.fresh()
    assert apply(backend, house.ruleset, proofs=house.proofs()).cache == "kept"
    with ProcessCounter() as counter:
        assert apply(backend, house.ruleset, proofs=house.proofs()).cache == "hit"
    assert counter.count.forks == 0
    _break_something(house)
    assert apply(backend, house.ruleset, proofs=house.proofs()).outcome is Outcome.CHANGED
    assert house.counted() == (Outcome.IDLE, 0)


# --- something changed ---------------------------------------------------------------------------------------


def _break_something(house: House) -> None:
    breakages = [*tool_against(house.name, house.netns, "meshfw").breakages.values()]
    tuple(breakages[0]())


def test_whatever_somebody_does_to_ours_is_seen_by_the_next_process(house: House) -> None:
    tool = tool_against(house.name, house.netns, "meshfw")
    for name, breakage in tool.breakages.items():
        house.apply()
        assert house.apply().cache == "kept", name
        tuple(breakage())
        assert plan(house.fresh(), house.ruleset, proofs=house.proofs()), name
        assert house.apply().outcome is Outcome.CHANGED, name


def test_another_ruleset_is_not_taken_for_the_proven_one(house: House) -> None:
    house.apply()
    for index, chain in list(enumerate(house.ruleset.chains))[::7]:
        chains = list(house.ruleset.chains)
        chains[index] = msgspec.structs.replace(chain, rules=chain.rules[:-1])
        other = msgspec.structs.replace(house.ruleset, chains=tuple(chains))
        assert plan(house.fresh(), other, proofs=house.proofs()), chain.key
    emptied = msgspec.structs.replace(house.ruleset, attachments=house.ruleset.attachments[1:])
    assert plan(house.fresh(), emptied, proofs=house.proofs())


class WritesMeanwhile(Wrapped):
    """A backend beside which somebody writes just before it tells what stands."""

    def __init__(self, inner: Backend, write: Callable[[], None]) -> None:
        super().__init__(inner)
        self._write = write

    def digest(self) -> str | None:
        """Of what was written."""
        self._write()
        return super().digest()


def test_what_somebody_wrote_after_the_proof_is_not_kept_as_proven(house: House) -> None:
    raced = WritesMeanwhile(house.fresh(), lambda: _break_something(house))
    assert apply(raced, house.ruleset, proofs=house.proofs()).outcome is Outcome.CHANGED
    assert plan(house.fresh(), house.ruleset, proofs=house.proofs())


class Mute(Wrapped):
    """A backend that can't tell."""

    def digest(self) -> str | None:
        """None."""
        return None

    def fingerprint(self) -> Fingerprint | None:
        """None."""
        return None


def test_a_backend_that_can_not_tell_keeps_and_believes_nothing(house: House) -> None:
    apply(Mute(house.fresh()), house.ruleset, proofs=house.proofs())
    assert not house.file.exists()
    house.apply()
    assert apply(Mute(house.fresh()), house.ruleset, proofs=house.proofs()).outcome is Outcome.CLEAN


# --- the file ------------------------------------------------------------------------------------------------

DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "empty": lambda _text: b"",
    "cut off": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: b"\xff" + text,
    "another version": lambda text: text.replace(b'"version":1', b'"version":2'),
    "a digest of the kernel with one digit turned": lambda text: _turned(text, b'"kernel":"'),
    "a digest of the rules with one digit turned": lambda text: _turned(text, b'"wanted":"'),
    "another place": lambda text: text.replace(b" meshfw ", b" meshfx "),
    "more in it than there should be": lambda text: text.replace(b'"kernel"', b'"more":1,"kernel"'),
    "of another kind": lambda _text: b"[]",
    "far too long": lambda text: text + b" " * (1 << 20),
}


def _turned(text: bytes, before: bytes) -> bytes:
    at = text.index(before) + len(before)
    return text[:at] + (b"0" if text[at : at + 1] != b"0" else b"1") + text[at + 1 :]


def test_a_damaged_file_costs_a_reading_and_no_more(house: House) -> None:
    house.apply()
    whole = house.file.read_bytes()
    for name, damage in DAMAGES.items():
        house.file.write_bytes(damage(whole))
        outcome, processes = house.counted()
        assert outcome is Outcome.CLEAN, name
        assert processes == 2 * RESTORES[house.name], name
        assert house.counted() == (Outcome.IDLE, 0), name
    house.file.chmod(0o666)
    assert house.apply().outcome is Outcome.CLEAN
    assert house.apply().outcome is Outcome.IDLE
    house.file.rename(house.file.with_name("elsewhere"))
    house.file.symlink_to("elsewhere")
    assert house.apply().outcome is Outcome.CLEAN
    house.file.parent.chmod(0o777)
    assert house.apply().outcome is Outcome.CLEAN


def test_another_release_or_other_options_believe_no_proof(house: House) -> None:
    house.apply()
    assert house.apply(release="2").outcome is Outcome.CLEAN
    assert house.apply(release="2").outcome is Outcome.IDLE
    assert house.apply(release="2", adopt=True).outcome is Outcome.CLEAN
    assert house.apply(release="2", adopt=True).outcome is Outcome.IDLE


@pytest.mark.parametrize("house", ["iptables-legacy", "iptables-nft"], indirect=True)
def test_another_tool_believes_no_proof(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.apply()
    tools = tmp_path / "bin"
    tools.mkdir()
    name = f"{house.name}-restore"
    shutil.copy(os.path.realpath(find(name) or ""), tools / name)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert house.apply().outcome is Outcome.CLEAN
    assert house.apply().outcome is Outcome.IDLE


def test_proofs_of_many_places_are_kept_side_by_side_and_the_oldest_go(house: House) -> None:
    house.apply()
    for number in range(250):
        Proofs(f"nowhere {number}", release="1")._write(Proof("0", "0"))
        if number == 150:
            assert house.counted() == (Outcome.IDLE, 0)
    kept = json.loads(house.file.read_bytes())["proofs"]
    assert len(kept) == 200
    assert "nowhere 249" in kept
    assert "nowhere 0" not in kept


# --- the command line ----------------------------------------------------------------------------------------


def configuration(size: int) -> str:
    """So many rules in both families together."""
    rules = [
        f'"-s {address} -p udp -m udp --dport {1 + number % 60000} -j ACCEPT"'
        for number in range(size // 2)
        for address in (f"10.{number >> 8 & 255}.{number & 255}.1", f"fd00:{number:x}::1")
    ]
    return (
        '[[chain]]\nname = "fw"\nattach = [{ hook = "input" }]\nrules = [\n"-i lo -j ACCEPT",\n"-s @known -j RETURN",\n'
        + ",\n".join(rules)
        + ']\n[[set]]\nname = "known"\nelements = ["192.0.2.0/24", "2001:db8::/32"]\n'
    )


def flush(house: House) -> None:
    """Somebody empties the chain."""
    by_nft, by_iptables = ("nft", "flush chain ip meshfw filter-fw"), (house.name, "-w", "-F", "meshfw-fw")
    with house.netns.entered():
        run(by_nft if house.name == "nft" else by_iptables, timeout=60)


Verb = Callable[..., tuple[int, int]]
"""Exit code and processes of a verb."""


def assert_quiet(house: House, verb: Verb) -> None:
    each = RESTORES[house.name]
    assert verb("apply") == (0, 2 * each)
    for words in (("apply",), ("check",), ("plan", "--transaction")):
        assert verb(*words) == (0, 0), words
    flush(house)
    assert verb("check")[0] == 2


def test_verbs_on_an_unchanged_host_start_no_process(house: House, tmp_path: Path) -> None:
    (tmp_path / "meshfw.toml").write_text(configuration(10), encoding="utf-8")

    def verb(*words: str) -> tuple[int, int]:
        options = ("--config", str(tmp_path / "meshfw.toml"), "--backend", house.name, "--netns", house.netns.path)
        with ProcessCounter() as counter:
            code = main([*words, *options])
        return code, counter.count.forks

    assert_quiet(house, verb)
    assert verb("plan")[0] == 2
    assert verb("apply")[0] == 0
    assert verb("check") == verb("plan") == (0, 0)


def test_what_is_applied_by_a_proof_alone_is_in_the_history(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meshfw.toml").write_text(configuration(10), encoding="utf-8")
    place = ["--config", str(tmp_path / "meshfw.toml"), "--netns", house.netns.path]

    def states() -> int:
        capsys.readouterr()
        assert main(["history", "--json", *place]) == 0
        return len(json.loads(capsys.readouterr().out)["states"])

    for directory in ("one", "two"):
        (tmp_path / directory).mkdir(mode=0o700)
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / directory))
        assert main(["apply", "--backend", house.name, *place]) == 0
        if states() == 0:
            pytest.skip("this namespace has no lasting name")
    assert states() == 1
    assert main(["apply", "--backend", house.name, "-v", *place]) == 0
    assert "cache: kept" in capsys.readouterr().out


def test_new_processes_on_an_unchanged_host_start_none(house: House, tmp_path: Path) -> None:
    (tmp_path / "meshfw.toml").write_text(configuration(1000), encoding="utf-8")

    def verb(*words: str) -> tuple[int, int]:
        options = ("--config", str(tmp_path / "meshfw.toml"), "--backend", house.name, "--netns", house.netns.path)
        counted = run_counted((sys.executable, "-m", "meshfw", *words, *options), timeout=120)
        return counted.returncode, counted.count.forks

    assert_quiet(house, verb)
