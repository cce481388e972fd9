"""What becomes of rules when their writer is killed at any moment, or interrupted by its user."""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from meshfw.errors import PartialCommitError
from meshfw.model import Family
from meshfw.reconcile import apply
from tests.kernel.damage import ONE, OTHER, House, Text

pytestmark = pytest.mark.kernel

ROOT: Final = Path(__file__).resolve().parents[2]
FULL: Final = settings.get_current_profile_name() == "full"
KILLS: Final = 34 if FULL else 12
"""For each variant and way of killing: 204 in all, or 72 in a short run, whose moments are spread as wide."""
WAYS: Final = ("the writer alone", "its tool before it", "the writer alone, and at once there is the next one")
MEASURED: Final = 6


class Writers:
    """Processes that write one ruleset and the other, one at a time."""

    def __init__(self, home: House) -> None:
        self._order = f"{home.variant} {home.room.path}\n"
        argv = (sys.executable, "-m", "tests.kernel.writer")
        self._source = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def close(self) -> None:
        """End the program that forks them."""
        self._source.communicate()

    def begin(self) -> int:
        """The number of a fresh one."""
        assert self._source.stdin is not None
        self._source.stdin.write(self._order)
        self._source.stdin.flush()
        return int(self._line())

    def ended(self) -> None:
        """Wait until it's gone."""
        assert self._line() == "gone\n"

    def _line(self) -> str:
        assert self._source.stdout is not None
        return self._source.stdout.readline()


def children(process: int) -> list[int]:
    """The processes that another has started and not waited for yet."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                fields = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
                if int(fields.split()[1]) == process:
                    found.append(int(name))
    return found


def killed(writers: Writers, process: int, way: str) -> list[int]:
    """Kill a writer; descriptors of the tools that outlive it, which become readable as each ends."""
    os.kill(process, signal.SIGSTOP)
    orphans = []
    for child in children(process):
        with suppress(ProcessLookupError):
            orphans.append(os.pidfd_open(child))
            if way == "its tool before it":
                os.kill(child, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    writers.ended()
    return orphans


def awaited(orphans: list[int]) -> None:
    """Wait for the ends of processes."""
    for descriptor in orphans:
        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)


def texts_of(home: House) -> tuple[Text, Text, float]:
    """The lines of both rulesets, and how long it takes to make one of the other."""
    with home.backend() as backend:
        apply(backend, ONE)
        one = home.own()
        apply(backend, OTHER)
        other = home.own()
        start = time.monotonic()
        for _ in range(MEASURED // 2):
            apply(backend, ONE)
            apply(backend, OTHER)
        return one, other, (time.monotonic() - start) / MEASURED


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_writer_leaves_each_table_old_or_new(home: House, way: str) -> None:
    one, other, duration = texts_of(home)
    foreign = home.foreign()
    seed = secrets.randbits(32)
    random_ = random.Random(seed)  # noqa: S311 - a number to repeat the test with, no secret
    moments = [4 * duration * (number + random_.random()) / KILLS for number in range(KILLS)]
    random_.shuffle(moments)
    writers = Writers(home)
    try:
        for number, moment in enumerate(moments):
            where = f"seed {seed}, kill {number}, {moment:.4f} s after its start"
            process = writers.begin()
            time.sleep(moment)
            orphans = killed(writers, process, way)
            wanted = random_.choice((ONE, OTHER))
            if "at once" in way:
                with home.backend() as backend:
                    apply(backend, wanted)
            awaited(orphans)
            left = home.own()
            for key in sorted({*one, *other, *left}):
                held = left.get(key, ())
                assert held in (one.get(key, ()), other.get(key, ())), f"{where}: {key} is neither old nor new"
            if "at once" in way and home.variant == "legacy":  # nf_tables has no lock that outlives its holder
                assert not home.planned(wanted), f"{where}: a tool that outlived its writer undid the next one's work"
            with home.backend() as backend:
                apply(backend, wanted)
            home.assert_held(wanted)
            assert home.foreign() == foreign, where
    finally:
        writers.close()


# --- interrupts --------------------------------------------------------------------------------------------

MOMENTS: Final = {
    "before anything": "",
    "after the first table": """sed '/^COMMIT/q' "$input" | real; """,
    "after everything": 'real < "$input"; ',
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("family", Family)
def test_an_interrupt_is_put_back_and_goes_on_to_its_user(
    home: House, monkeypatch: pytest.MonkeyPatch, family: Family, moment: str
) -> None:
    with home.backend() as backend:
        apply(backend, ONE)
        before = home.saved()
        script = f"if [ $call = 1 ]; then {MOMENTS[moment]} kill -INT $PPID; sleep 60; fi"
        with home.damage(monkeypatch, {family: script}), pytest.raises(KeyboardInterrupt):
            apply(backend, OTHER)
        assert home.saved() == before
        apply(backend, OTHER)
    home.assert_held(OTHER)


def test_an_interrupt_while_putting_back_is_mended_by_the_next_apply(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with home.backend() as backend:
        apply(backend, ONE)
        one = home.own()
        apply(backend, OTHER)
        other = home.own()
        script = "if [ $call = 2 ]; then kill -INT $PPID; sleep 60; fi"
        scripts = {Family.IPV4: script, Family.IPV6: "exit 1"}
        with home.damage(monkeypatch, scripts), pytest.raises(PartialCommitError) as caught:
            apply(backend, ONE)
        assert isinstance(caught.value.second, KeyboardInterrupt)
        left = home.own()
        assert all(left.get(key, ()) in (one.get(key, ()), other.get(key, ())) for key in {*one, *other})
        apply(backend, OTHER)
    home.assert_held(OTHER)
