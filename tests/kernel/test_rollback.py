"""Laws of going back, on real kernels: to any kept state, to what stood before the first, and after a reboot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from meshfw.applying import BEFORE, put, to_restore, writing
from meshfw.backend import Outcome
from meshfw.errors import BackendError, UnsupportedError
from meshfw.model import Ruleset
from meshfw.states import digest
from meshfw.testing.counting import ProcessCounter
from meshfw.workshop import Workshop
from tests.kernel.inn import Inn

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = "-s 10.0.0.1/32 -j ACCEPT", "-s 10.0.0.2/32 -j ACCEPT", "-s 10.0.0.3/32 -j DROP"


def workshop(inn: Inn) -> Workshop:
    return Workshop(Namespace(config=None, backend=None, netns=inn.name))


def declared(inn: Inn) -> str:
    return digest(workshop(inn).rules())


def applied(inn: Inn, *rules: str) -> None:
    inn.declare(*rules)
    inn("apply")


def test_every_changed_state_is_recorded_and_what_stood_before_the_first(inn: Inn) -> None:
    assert "no state is kept" in inn("history").out
    applied(inn, ONE)
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply")]
    inn("apply")
    applied(inn, ONE, TWO)
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply"), (3, 2, "apply")]
    listed = inn("history").out.splitlines()
    assert [line.split()[0] for line in listed] == ["1", "2", "3"]
    assert inn.backend in listed[2]


def test_a_rollback_goes_to_the_state_before_and_back_again(inn: Inn) -> None:
    applied(inn, ONE)
    before = inn.everything()
    applied(inn, ONE, TWO)
    after = inn.everything()
    said = inn("rollback")
    assert "state 2 (apply) stands again; the agent keeps it until" in said.out
    assert inn.everything() == before
    assert inn.states()[-1] == (4, 1, "rollback to 2")
    held = workshop(inn).history.held()
    assert held is not None
    assert (held.number, held.against) == (4, declared(inn))
    assert "(held)" in inn("history").out
    # There and back: what is declared then is nothing to be held.
    assert "which is what's declared" in inn("rollback").out
    assert inn.everything() == after
    assert workshop(inn).history.held() is None


def test_a_rollback_goes_to_any_kept_state(inn: Inn) -> None:
    for rules in ((ONE,), (ONE, TWO), (ONE, TWO, THREE)):
        applied(inn, *rules)
    data = inn("rollback", "2", "--json").data
    assert (data["from"], data["to"], data["number"], data["held"]) == (4, 2, 5, True)
    assert inn.rules() == [ONE]
    # A second one keeps in mind what is declared, not what the first one went to.
    inn("rollback", "3")
    held = workshop(inn).history.held()
    assert held is not None
    assert (held.number, held.against) == (6, declared(inn))


def test_what_stood_before_the_first_apply_comes_back(inn: Inn) -> None:
    inn.tool("iptables-nft -A INPUT -s 10.9.9.9 -j DROP")
    untouched = inn.everything()
    applied(inn, ONE)
    said = inn("rollback")
    assert "state 1 has no rules: nothing of inn's will stand" in said.err
    assert inn.everything() == untouched
    assert inn.rules() == []
    assert "no rules" not in inn("rollback").err


def test_an_older_meshfw_s_rules_come_back_too(inn: Inn) -> None:
    applied(inn, ONE, THREE)
    before = inn.everything()
    for path in Path(workshop(inn).history.directory).iterdir():
        path.unlink()
    applied(inn, TWO)
    assert inn.states() == [(1, 2, BEFORE), (2, 1, "apply")]
    inn("rollback")
    assert inn.everything() == before


def test_an_apply_ends_the_hold(inn: Inn) -> None:
    applied(inn, ONE)
    applied(inn, TWO)
    inn("rollback")
    inn("apply")
    assert inn.rules() == [TWO]
    assert workshop(inn).history.held() is None


def test_a_rollback_needs_no_source(inn: Inn) -> None:
    applied(inn, ONE)
    applied(inn, TWO)
    text = (inn.directory / "meshfw.toml").read_text(encoding="utf-8")
    inn("apply")
    (inn.directory / "meshfw.toml").write_text(text.replace(TWO, "--nonsense"), encoding="utf-8")
    inn("apply", code=1)
    inn("rollback")
    assert inn.rules() == [ONE]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "there is nothing to go back to (no state is kept in "),
        (("7",), "there is nothing to go back to (no state is kept in "),
        (("0",), "'0' is no number of a state"),
        (("-1",), "'-1' is no number of a state"),
        (("last",), "'last' is no number of a state"),
    ],
)
def test_what_is_not_there_can_not_be_gone_back_to(inn: Inn, argv: tuple[str, ...], message: str) -> None:
    inn.declare(ONE)
    said = inn("rollback", *argv, code=1)
    assert message in said.err
    assert inn.rules() == []


def test_a_damaged_state_is_passed_over_and_can_not_be_asked_for(inn: Inn) -> None:
    for rule in (ONE, TWO, THREE):
        applied(inn, rule)
    path = Path(workshop(inn).history.directory, "000003.json")
    path.write_bytes(path.read_bytes()[:-40])
    said = inn("rollback", "3", code=1)
    assert f"{path}: it is cut off" in said.err
    assert "there is no state 9 (kept are 1, 2, 4)" in inn("rollback", "9", code=1).err
    assert inn.rules() == [THREE]
    said = inn("rollback")
    assert f"{path} is ignored: it is cut off" in said.err
    assert inn.rules() == [ONE]


def test_a_refused_rollback_leaves_hold_and_rules(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    for rule in (ONE, TWO, THREE):
        applied(inn, rule)

    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedError(inn.backend, ["no"])

    for before in (None, 5):
        monkeypatch.setattr("meshfw.reconcile.checked", refuse)
        inn("rollback", "2", code=1)
        monkeypatch.undo()
        monkeypatch.chdir(inn.directory)
        monkeypatch.setenv("STATE_DIRECTORY", str(inn.directory / "state"))
        held = workshop(inn).history.held()
        assert (held.number if held else None) == before
        if before is None:
            inn("rollback", "3")
    assert inn.rules() == [TWO]


def test_no_more_states_are_kept_than_the_configuration_says(inn: Inn) -> None:
    for rule in (ONE, TWO, THREE, ONE):
        inn.declare(rule, extra="history.keep = 2")
        inn("apply")
    assert [number for number, _, _ in inn.states()] == [4, 5]
    inn.declare(ONE, extra="history.keep = 1")
    assert "history.keep: 1 is out of range; expected a whole number from 2 to 1000" in inn("apply", code=1).err


def test_what_can_not_be_recorded_is_applied_all_the_same(inn: Inn) -> None:
    (inn.directory / "state").write_text("no directory", encoding="utf-8")
    inn.declare(ONE)
    said = inn("apply")
    assert "not kept for a rollback: " in said.err
    assert inn.rules() == [ONE]


def test_recording_what_stood_before_spawns_nothing(inn: Inn) -> None:
    inn.declare(ONE)
    counts = []
    for _ in range(2):  # the second time the history has states, and what stood before isn't asked for
        shop = workshop(inn)
        wanted = shop.rules()
        with writing(shop, timeout=10) as backend, ProcessCounter() as counter:
            assert put(shop, backend, wanted, reason="apply").report.outcome is Outcome.CHANGED
        counts.append(counter.count.forks)
        inn.reboot()
    assert counts[0] == counts[1]
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply")]


# --- after a reboot ---


def test_a_reboot_brings_back_what_was_applied_last(inn: Inn) -> None:
    applied(inn, ONE)
    applied(inn, ONE, THREE)
    before = inn.everything()
    inn.reboot()
    (inn.directory / "meshfw.toml").write_text('owner = "inn"\n[[chain]]\nname = 3\n', encoding="utf-8")
    inn("restore")  # auto takes the backend that it was applied by; the sources aren't read
    assert inn.everything() == before
    assert inn.states()[-1] == (3, 2, "apply")
    assert "nothing to do" in inn("restore").out


def test_a_reboot_brings_back_what_is_held(inn: Inn) -> None:
    applied(inn, ONE)
    applied(inn, TWO)
    inn("rollback")
    inn.reboot()
    inn("restore")
    assert inn.rules() == [ONE]


def test_where_nothing_is_wanted_nothing_is_restored(inn: Inn) -> None:
    inn.declare(ONE)
    empty = inn.everything()
    assert "nothing to restore: no state is kept" in inn("restore").out
    assert inn("restore", "--json").data["outcome"] == "idle"
    inn("apply")
    inn("apply")
    inn("rollback")
    inn("clean")
    assert inn.states()[-1] == (3, 0, "rollback to 1")  # which says already that nothing is wanted
    inn.reboot()
    assert "nothing to restore" in inn("restore").out
    assert inn.everything() == empty


def test_after_a_clean_nothing_is_wanted_and_a_rollback_brings_it_back(inn: Inn) -> None:
    applied(inn, ONE)
    inn("clean")
    assert inn.states()[-1] == (3, 0, "clean")
    assert to_restore(workshop(inn).history) is None
    inn("rollback")
    assert inn.rules() == [ONE]


BROKEN = {
    "no TOML": ("[[", "not valid TOML"),
    "no text": ("\udcff", "is not UTF-8"),
    "agent": ("agent.resinc = 5", "agent.resinc: unknown key"),
    "safety": ("safety.probe = 5", "safety.probe: 5 is"),
    "history": ("history.keep = 1", "history.keep: 1 is out of range"),
    "table": ("[agnet]", "agnet: unknown key"),
    "family": ('ipv6 = "of"', "ipv6: "),
    "owner": ('owner = "Inn"', "owner: "),
    "plugin": ('plugins = ["nowhere"]', "nowhere"),
    "backend": ('backend.use = "ntf"', "backend: "),
    "options": ("backend.{0}.isolatd = true", "unknown option 'isolatd'"),
    "whose options": ("backend.ntf.isolated = true", "backend.ntf"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_no_mistake_in_the_configuration_keeps_a_host_from_its_rules(inn: Inn, text: str, message: str) -> None:
    applied(inn, ONE)
    before = inn.everything()
    inn.reboot()
    lines = [text.format(inn.backend)]
    if "owner" not in text:
        lines.insert(0, 'owner = "inn"')
    (inn.directory / "meshfw.toml").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    said = inn("restore")
    assert f"({inn.backend})" in said.out
    assert "restored for inn without the configuration, which can't be used: " in said.err
    assert message.format(inn.backend) in said.err
    inn.declare(ONE)
    assert inn.everything() == before
    assert inn.rules() == [ONE]
    assert inn.states()[-1] == (2, 1, "apply")


def test_a_restore_without_configuration_knows_whose_rules_or_says_whose_they_may_be(inn: Inn) -> None:
    path = inn.directory / "meshfw.toml"
    path.write_text("[[", encoding="utf-8")
    assert "not valid TOML" in inn("restore", code=1).err  # nothing is kept of anybody
    applied(inn, ONE)
    path.write_text(path.read_text(encoding="utf-8").replace('"inn"', '"annex"'), encoding="utf-8")
    inn("apply")
    inn.reboot()
    path.write_text("[[", encoding="utf-8")
    said = inn("restore", code=1)
    assert "not valid TOML" in said.err
    assert "whose rules to restore: states are kept of annex, inn" in said.err
    path.write_text('owner = "annex"', encoding="utf-8")
    inn("clean")  # who wants nothing leaves no doubt about the other one
    path.write_text("[[", encoding="utf-8")
    inn("restore")
    inn.declare(ONE)
    assert inn.rules() == [ONE]
    inn("clean")
    inn.reboot()
    empty = inn.everything()
    path.write_text("[[", encoding="utf-8")
    assert "whose rules to restore: states are kept of annex, inn" in inn("restore", code=1).err
    assert inn.everything() == empty


def test_a_configuration_that_is_gone_keeps_no_host_from_its_rules(inn: Inn) -> None:
    applied(inn, ONE)
    inn.reboot()
    assert "there is no backend 'ntf'" in inn("restore", "--config", "nowhere.toml", "--backend", "ntf", code=1).err
    assert "nowhere.toml: can't be read" in inn("restore", "--config", "nowhere.toml").err
    assert inn.rules() == [ONE]


def test_states_of_another_namespace_are_not_restored_here(inn: Inn) -> None:
    applied(inn, ONE)
    (inn.directory / "meshfw.toml").write_text("[[", encoding="utf-8")
    inn.name += "-next-door"
    os.symlink(inn.room.path, inn.name)
    assert "not valid TOML" in inn("restore", code=1).err


def test_what_a_backend_has_against_a_state_without_its_options_is_a_warning(inn: Inn) -> None:
    if inn.backend != "nft":
        pytest.skip("only nft has an option that lets a ruleset pass")
    theirs = "table ip theirs { chain input { type filter hook input priority 0; }; }"
    inn.tool(f"nft {theirs}")
    inn.declare(ONE, policy="drop")
    path = inn.directory / "meshfw.toml"
    text = path.read_text(encoding="utf-8").replace(
        'backend = "nft"', "backend.use = 'nft'\nbackend.nft.isolated = true"
    )
    path.write_text(text.replace('hook = "input"', 'hook = "input", place = "last"'), encoding="utf-8")
    inn("apply")
    before = inn.everything()
    inn.reboot()
    inn.tool(f"nft {theirs}")
    path.write_text("[[", encoding="utf-8")
    inn("restore")
    assert inn.everything() == before


def test_a_damaged_last_state_gives_way_to_the_one_before(inn: Inn) -> None:
    applied(inn, ONE)
    applied(inn, TWO)
    path = Path(workshop(inn).history.directory, "000003.json")
    path.write_bytes(b"")
    inn.reboot()
    said = inn("restore")
    assert f"{path} is ignored: it is cut off" in said.err
    assert inn.rules() == [ONE]


def test_rules_that_stand_in_another_backend_stop_a_restore(inn: Inn) -> None:
    applied(inn, ONE)
    inn.reboot()
    other = "nft" if inn.backend != "nft" else "iptables-nft"
    inn("apply", "--backend", other)
    before = inn.everything()
    assert f"rules of inn stand in {other}" in inn("restore", "--backend", inn.backend, code=1).err
    assert inn.everything() == before


# --- the ruleset of what stands ---


def test_what_stands_means_a_ruleset_to_which_nothing_leads(inn: Inn) -> None:
    sets = '[[set]]\nname = "peers"\nelements = ["10.1.0.0/16", "10.2.3.4"]\n'
    inn.declare("-s @peers -p tcp --dport 22 -j ACCEPT", "-m limit --limit 5/min -j LOG", ONE, policy="drop")
    with (inn.directory / "meshfw.toml").open("a", encoding="utf-8") as file:
        file.write(sets)
    inn("apply")
    shop = workshop(inn)
    with shop.backend() as backend:
        meaning = backend.observe().snapshot.meaning()
    assert meaning.notes == ()
    with writing(shop, timeout=10) as backend:
        report = put(shop, backend, meaning.ruleset, reason="again").report
    assert report.outcome is Outcome.CLEAN
    assert shop.history.load(shop.history.entries()[-1].number).ruleset == meaning.ruleset
    assert meaning.ruleset != Ruleset()


def test_somebody_killed_while_he_records_leaves_a_history_that_works(inn: Inn) -> None:
    applied(inn, ONE)
    code = (
        "import os, sys; from meshfw.files import kept\n"
        "kept.os.rename = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "from meshfw.cli import main; main(sys.argv[1:])"
    )
    inn.declare(TWO)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "apply", "--netns", inn.name]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == -9
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply")]
    inn("apply")  # finds the kernel as it should be, and records what nobody had
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply"), (3, 1, "apply")]
    assert json.loads(Path(workshop(inn).history.directory, "000003.json").read_bytes())["version"] == 1


def test_a_writer_elsewhere_is_refused_before_anything_is_read(inn: Inn) -> None:
    applied(inn, ONE)
    other = "nft" if inn.backend != "nft" else "iptables-nft"
    shop = Workshop(Namespace(config=None, backend=other, netns=inn.name))
    with pytest.raises(BackendError, match="rules of inn stand in"), writing(shop, timeout=10):
        pass
