"""Laws of a change on trial: whatever ends whoever made it, what stood before comes back unless it's confirmed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from meshfw.cli import main
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns
from tests.kernel.trials import AT_ONCE as KILLED
from tests.kernel.trials import ENDS, LONG, NEW, OLD, OWNER, SHORT, Host, Terminal, by_name_nft, overdue

pytestmark = pytest.mark.kernel

BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
FULL: Final = os.environ.get("HYPOTHESIS_PROFILE") == "full"
ROUNDS: Final = {"nft": 50, "iptables-nft": 50, "iptables-legacy": 50} if FULL else {"nft": len(ENDS)}
FEW: Final = 3
"""Rounds on the other backends in a run that has to be short."""
AT_ONCE: Final = 4
LATE: Final = 30.0
"""Seconds after its time by which a change has to be undone, however busy the machine is."""


@contextmanager
def opened(backend: str, room: Netns, directory: Path) -> Iterator[Host]:
    """A host, gone with all that is at work there."""
    directory.mkdir(exist_ok=True)
    made = Host(room, backend, directory)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_old_rules_come_back_in_time_however_a_trial_ends(
    backend: str,
    kernel_room: Callable[[], Netns],
    requires: Callable[..., None],
    tmp_path: Path,
) -> None:
    requires("iptables-legacy-restore", "ip6tables-nft-restore", "nft")
    rounds = ROUNDS.get(backend, FEW)

    def play(number: int) -> float:
        end = ENDS[number % len(ENDS)]
        with kernel_room() as room, opened(backend, room, tmp_path / f"{number}") as host:
            if number % 2 == 0:  # else nothing of ours stands before
                host.apply_old()
            before = host.dump()
            host.declare(NEW)
            end(host)
            late = host.late()
            assert host.dump() == before, end.__name__
            return late

    with ThreadPoolExecutor(AT_ONCE) as pool:
        late = list(pool.map(play, range(rounds)))
    assert len(late) == rounds
    assert max(late) < LATE, sorted(late)


@pytest.fixture
def host(
    netns: Netns,
    tmp_path: Path,
    requires: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Host]:
    """A host with nft on which the old rules stand, and the new ones are declared; commands run in this process."""
    requires("iptables-nft-restore", "nft")

    def call(words: Sequence[str]) -> tuple[int, str]:
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr()
        return code, said.out + said.err

    with opened("nft", netns, tmp_path) as made:
        monkeypatch.chdir(tmp_path)
        for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
            monkeypatch.setenv(name, made.environment[name])
        made.call = call
        assert made.meshfw("apply")[0] == 0
        made.declare(NEW)
        yield made


def test_a_change_confirmed_in_time_stays(host: Host) -> None:
    code, said = host.meshfw("apply", "--confirm", LONG)
    assert (code, "'meshfw confirm' keeps it" in said) == (0, True)
    (guard,) = host.guards()
    assert os.getsid(guard) == guard
    new = host.dump()
    code, said = host.meshfw("confirm")
    assert (code, said) == (0, "confirmed: the new rules stay\n")
    host.wait(lambda: not host.guards())
    assert host.dump() == new
    assert host.meshfw("check")[0] == 0
    assert not list(host.state.glob("*.states/hold"))
    assert list(host.state.glob("*.states/*.json"))


def test_an_undone_change_is_held_off(host: Host) -> None:
    before = host.dump()
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    trial = host.pending().trial
    assert host.meshfw("confirm", "--undo") == (0, "undone: the old rules are back\n")
    assert host.dump() == before
    host.wait(lambda: not host.guards())
    (kept,) = host.state.glob("*.states/hold")
    assert json.loads(kept.read_text(encoding="utf-8"))["against"] == trial


def test_nothing_else_is_written_while_a_change_is_on_trial(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    new, stamp = host.dump(), host.register.stamp()
    for words in (["apply"], ["apply", "--confirm", "1s"], ["clean"], ["clean", "--all-backends"]):
        verb = [word for word in words if word != "--all-backends"]
        code, said = host.meshfw(*verb)
        assert code == 1
        assert "is on trial until" in said
        assert "'meshfw confirm --undo' undoes it now" in said
    assert (host.dump(), host.register.stamp()) == (new, stamp)
    code, said = host.meshfw("check")
    assert code == 0
    assert "'meshfw confirm' keeps it" in said


def test_without_a_change_there_is_nothing_to_confirm(host: Host) -> None:
    host.declare(OLD, head="agent.follow = false")
    code, said = host.meshfw("apply", "--confirm", LONG)
    assert (code, said) == (0, "nothing to do (nft)\nso nothing is on trial\n")
    host.declare(OLD)
    code, said = host.meshfw("apply", "--confirm", LONG)
    followed = "an agent that follows the configuration's file may have applied it already (follow = false)"
    assert (code, said) == (0, f"nothing to do (nft)\nso nothing is on trial; {followed}\n")
    assert host.meshfw("apply") == (0, "nothing to do (nft)\n")
    assert (host.register.stamp(), host.guards()) == (None, [])
    code, said = host.meshfw("confirm")
    assert code == 1
    assert "no change of trial waits to be confirmed" in said


def test_what_became_of_a_change_is_told_to_who_comes_too_late(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", "0.2s")[0] == 0
    host.late()
    code, said = host.meshfw("confirm")
    assert code == 1
    assert "the last one was undone at" in said
    assert "it wasn't confirmed in time" in said


def test_a_broken_configuration_keeps_nobody_from_confirming(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    new = host.dump()
    host.declare("[[")
    code, said = host.meshfw("confirm", "--json")
    assert code == 0
    data = json.loads(said)
    assert (data["confirmed"], data["owner"], len(data["warnings"])) == (True, OWNER, 1)
    assert host.dump() == new


def test_a_guard_that_is_told_to_end_undoes_at_once(host: Host) -> None:
    before = host.dump()
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    (guard,) = host.guards()
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(guard, number)
    assert host.dump() != before
    os.kill(guard, signal.SIGTERM)
    host.late()
    assert host.dump() == before


def test_what_a_backend_has_against_the_old_rules_by_now_does_not_keep_them_away(host: Host) -> None:
    host.inside("nft", "flush", "ruleset")
    dropping = NEW.replace('hook = "input"', 'hook = "input", place = "last"')
    host.declare(dropping)
    assert host.meshfw("apply")[0] == 0
    before = host.dump()
    host.declare(OLD)
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    theirs = "table ip theirs { chain input { type filter hook input priority 0 ; }; }"
    host.inside("nft", theirs)
    assert host.meshfw("confirm", "--undo")[0] == 0
    assert host.dump() == theirs_listed(host) + before
    host.declare(dropping)
    code, said = host.meshfw("apply")
    assert (code, "refuses this ruleset" in said) == (1, True), "or this test shows nothing"


def theirs_listed(host: Host) -> str:
    return by_name_nft(host.inside("nft", "list", "table", "ip", "theirs"))


def test_without_a_guard_nothing_is_changed(host: Host) -> None:
    before = host.dump()
    script = "import meshfw.safety.guard as g, sys\nsys.executable = '/bin/false'"
    code, said = host.meshfw("apply", "--confirm", LONG, script=script)
    assert code == 1
    assert "can't be armed" in said
    assert "nothing was changed" in said
    assert (host.dump(), host.register.stamp()) == (before, None)


def test_without_a_place_for_its_record_nothing_is_changed(host: Host) -> None:
    before = host.dump()
    host.state.chmod(0o777)
    code, said = host.meshfw("apply", "--confirm", LONG)
    assert code == 1
    needed = f"{host.state}: a trial needs a state directory that can be written: its directory may be written by"
    assert needed in said
    assert (host.dump(), host.guards()) == (before, [])


def test_a_trial_on_a_read_only_disk_says_what_it_needs(host: Host, requires: Callable[..., None]) -> None:
    requires("unshare", "mount")
    before = host.dump()
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    argv = ("unshare", "--mount", "sh", "-ec", read_only, str(host.state), *host.command("apply", "--confirm", LONG))
    done = subprocess.run(argv, cwd=host.directory, env=host.environment, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    why = f"{host.state}: a trial needs a state directory that can be written: Read-only file system"
    assert done.stderr == f"meshfw: error: {why} (nothing was changed; $STATE_DIRECTORY names another)\n"
    assert (done.returncode, host.dump(), host.guards()) == (1, before, [])


def test_a_record_of_another_boot_is_no_trial_but_holds_its_change_off(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    for guard in host.guards():
        os.kill(guard, signal.SIGKILL)
    pending = host.pending()
    host.register.write(msgspec.structs.replace(pending, boot="another"))
    assert host.register.read() is None
    new = host.dump()
    code, said = host.meshfw("apply")
    assert code == 0
    assert "the machine was restarted before it was confirmed" in said
    assert host.dump() == new
    assert host.register.stamp() is None


def test_a_record_that_can_not_be_believed_is_told_of_and_never_obeyed(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    (record,) = host.state.glob("*.pending")
    record.chmod(0o666)
    new = host.dump()
    code, said = host.meshfw("check")
    assert code == 0
    assert "it may be written by others (it is ignored; remove the file)" in said
    assert host.dump() == new


def test_what_a_user_may_not_read_is_no_trial_of_his_but_root_is_told(
    host: Host, requires: Callable[..., None]
) -> None:
    requires("setpriv", "unshare")
    if os.geteuid() != 0:
        pytest.skip("only root can take the right to read from itself")
    host.state.chmod(0)
    unable = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    code = (
        "from meshfw.safety.pending import *; from meshfw.safety.settling import find_pending; import sys\n"
        "from meshfw.backends.instance import namespace_of\n"
        f"register, warnings = Register(sys.argv[1], owner='{OWNER}', namespace=namespace_of()), []\n"
        "print(find_pending(register, warnings), register.stamp(), *warnings)"
    )

    def told(*before: str) -> str:
        argv = (*before, sys.executable, "-c", code, str(host.state))
        return subprocess.run(argv, env=host.environment, capture_output=True, text=True, check=True).stdout

    assert "Permission denied" in told(*unable)
    assert told(*unable, "unshare", "--user", "--map-root-user") == "None None\n"


def test_a_record_of_another_boot_that_needs_what_is_gone_keeps_no_host_from_its_rules(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    for guard in host.guards():
        os.kill(guard, signal.SIGKILL)
    host.register.write(msgspec.structs.replace(host.pending(), boot="another", backend="gone"))
    code, said = host.meshfw("apply")
    assert code == 0, said
    assert "can't be held off" in said


# --- at a terminal ---


@pytest.mark.parametrize(
    ("keys", "code", "said", "stays"),
    [
        ("\n", 0, "confirmed: the new rules stay", True),
        ("what?\nyes\n", 0, "confirmed: the new rules stay", True),
        ("n\n", 1, "undone: the old rules are back", False),
        ("\x03", 130, "undone: the old rules are back", False),
        ("\x04", 0, "'meshfw confirm' keeps it", True),
    ],
)
def test_the_answer_at_a_terminal_decides(host: Host, keys: str, code: int, said: str, stays: bool) -> None:
    before = host.dump()
    terminal = Terminal(host, "apply", "--confirm", LONG)
    terminal.expect("keep them?")
    terminal.type(keys)
    assert (terminal.end(), said in terminal.said) == (code, True), terminal.said
    assert (host.dump() != before) is stays


def test_no_answer_at_a_terminal_is_no(host: Host) -> None:
    before = host.dump()
    terminal = Terminal(host, "apply", "--confirm", SHORT)
    terminal.expect("keep them?")
    assert terminal.end() == 1
    assert "not confirmed in time: the old rules are back" in terminal.said
    assert host.dump() == before


def test_who_asks_at_a_terminal_sees_what_another_one_decides(host: Host) -> None:
    terminal = Terminal(host, "apply", "--confirm", LONG)
    terminal.expect("keep them?")
    assert host.meshfw("confirm")[0] == 0
    assert terminal.end() == 0
    assert "confirmed: the new rules stay" in terminal.said


# --- probes ---

PORT: Final = 7007
GOING_DARK: Final = """
[[chain]]
name = "input"
attach = { hook = "input" }
rules = ["-i lo -p tcp --dport 7007 -j DROP"]
"""


@pytest.fixture
def listener(host: Host) -> Iterator[socket.socket]:
    """What a probe asks: somebody who takes connections in the host's namespace."""
    with host.room.entered():
        made = socket.create_server(("127.0.0.1", PORT))
    with made:
        yield made


def probing(probe: str) -> str:
    return f"[safety]\nprobe = {probe}\nattempts = 1\ntimeout = 0.5"


def test_a_probe_that_fails_after_a_change_undoes_it(host: Host, listener: socket.socket) -> None:
    before = host.dump()
    host.declare(GOING_DARK, head=probing(f'["tcp 127.0.0.1:{PORT}", "ping ::1", ["/bin/true"]]'))
    code, said = host.meshfw("apply", "--json")
    assert code == 1
    error = json.loads(said[: said.rindex("}") + 1])["error"]
    assert error["type"] == "RolledBackError"
    assert error["failures"] == [f"tcp 127.0.0.1:{PORT}: no answer within 0.5 s"]
    assert "the change was undone and the old rules are back" in error["message"]
    assert (host.dump(), host.register.stamp(), host.guards()) == (before, None, [])
    undone = host.register.undone()
    assert undone is not None
    assert undone.reason == "a probe failed"
    assert list(host.state.glob("*.states/hold"))


def test_a_probe_that_fails_already_does_not_count(host: Host) -> None:
    host.declare(GOING_DARK, head=probing(f'["tcp 127.0.0.1:{PORT}", "ping 127.0.0.1"]'))
    code, said = host.meshfw("apply")
    assert code == 0
    assert f"since it fails before it already: tcp 127.0.0.1:{PORT}: Connection refused" in said
    assert host.meshfw("check")[0] == 0


def test_a_change_that_its_probes_like_waits_to_be_confirmed_all_the_same(host: Host, listener: socket.socket) -> None:
    host.declare(NEW, head=probing('["/bin/sh", "-c", "exit 0"]'))
    assert host.meshfw("apply", "--confirm", LONG)[0] == 0
    assert host.meshfw("confirm")[0] == 0


def test_an_idle_apply_asks_no_probe_and_spawns_nothing(host: Host, tmp_path: Path) -> None:
    told = tmp_path / "told"
    host.declare(NEW, head=probing(f'["/usr/bin/touch", "{told}"]'))
    assert host.meshfw("apply")[0] == 0
    assert told.exists()
    told.unlink()
    with ProcessCounter() as counter:
        assert host.meshfw("apply", "--confirm", LONG)[0] == 0
        assert host.meshfw("apply") == (0, "nothing to do (nft)\n")
        assert host.meshfw("check")[0] == 0
    assert counter.count.forks == 0
    assert not told.exists()


def test_a_change_interrupted_while_it_is_probed_is_undone(host: Host, tmp_path: Path) -> None:
    before = host.dump()
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\n[ -e {tmp_path}/once ] && kill -TERM $PPID && sleep 30\ntouch {tmp_path}/once\n")
    script.chmod(0o755)
    host.declare(NEW, head=f'[safety]\nprobe = ["{script}"]\nattempts = 1\ntimeout = 20')
    host.call = None
    code, said = host.meshfw("apply")
    assert (code, said) == (143, "meshfw: ended by signal 15\n")
    assert (host.dump(), host.register.stamp()) == (before, None)


def test_a_change_that_could_not_be_undone_is_undone_by_whoever_comes_next(host: Host) -> None:
    before = host.dump()
    host.declare(NEW, head=probing('["/bin/true"]'))
    script = """
import meshfw.safety.trial as trial
from meshfw.errors import BackendError, RolledBackError
def full(*_, **__):
    raise BackendError("no room", backend="nft")
def fails(_):
    raise RolledBackError(["gone dark"])
trial.put_back, trial._Trial.probe = full, fails
"""
    code, said = host.meshfw("apply", script=script)
    assert (code, "that couldn't be undone: nft: no room" in said) == (1, True)
    assert host.dump() != before
    host.meshfw("check")
    assert host.dump() == before


def test_who_is_killed_while_its_change_is_probed_leaves_it_to_the_next_one(host: Host) -> None:
    before = host.dump()
    host.declare(NEW, head=probing('["/bin/true"]'))
    script = f"import meshfw.safety.trial as t\nt._SPARE = 0.1\ndef die(_):\n    {KILLED}\nt._Trial.probe = die"
    assert host.meshfw("apply", script=script)[0] == -signal.SIGKILL
    assert host.dump() != before
    overdue(host)
    assert host.dump() == before
