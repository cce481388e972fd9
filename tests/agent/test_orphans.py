"""Laws of process 1 and its orphans; tests/kernel/test_container.py has one that really is process 1."""

from __future__ import annotations

import subprocess

import pytest

from meshfw.agent.orphans import bury_orphans


def test_who_is_not_process_1_takes_no_process_s_end_away() -> None:
    with subprocess.Popen(["true"]) as child:
        assert bury_orphans() == 0
        assert child.wait() == 0


def test_process_1_buries_all_that_have_ended_and_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [(7, 0), (9, 256), (0, 0)]
    monkeypatch.setattr("os.getpid", lambda: 1)
    monkeypatch.setattr("os.waitpid", lambda *_: ends.pop(0))
    assert bury_orphans() == 2
    assert ends == []
