"""Laws of the conformance report: what is in it was so, whatever ran the tests, and what failed never looks held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from meshfw.testing.book import LAWS
from meshfw.testing.reporting import Conformance, Finding, Outcome, Published, Subject, as_markdown
from meshfw.testing.source_laws import SOURCE_LAWS

ROOT = Path(__file__).resolve().parent.parent

MEMORY = """
import pytest
from meshfw import MemoryBackend, MemoryKernel, Site
from meshfw.testing.conformance import BackendLaws
from meshfw.testing.lab import law


class TestMine(BackendLaws):
    examples = 1
    most = 2
    tools = ("no-such-tool",)

    @pytest.fixture
    def make_backend(self, language):
        options = {"kernel": MemoryKernel(), "native_sets": False}
        return lambda owner: MemoryBackend(Site(owner=owner, language=language, options=options))

    # body
"""


def environment() -> dict[str, str]:
    """What a pytest of its own runs under: this checkout's meshfw, and none of the outer one's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {"PYTHONPATH": str(ROOT)}


def reported(folder: Path, text: str, *words: str, suffix: str = "json") -> tuple[int, str]:
    """The exit code of pytest over one test module with a report, and the report's text."""
    (folder / "test_mine.py").write_text(text, encoding="utf-8")
    report = folder / f"report.{suffix}"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "meshfw.testing.fixtures", "-p", "no:cacheprovider")
    done = subprocess.run(
        (*command, "-c", os.devnull, "--rootdir", folder, folder, "--meshfw-report", report, *words),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"conformance report: {report}" in done.stdout, done.stdout + done.stderr
    return done.returncode, report.read_text(encoding="utf-8")


def only(text: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The one part of a report, and its findings by law."""
    (made,) = json.loads(text)["reports"]
    return made, {finding["law"]: finding for finding in made["findings"]}


FEW = ("-k", "protocol_is_kept or order_is_kept or packets_meet or dropped_line or catalogue")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_report_says_what_held_what_is_narrowed_and_what_was_not_run(tmp_path: Path, workers: str) -> None:
    code, text = reported(tmp_path, MEMORY, *FEW, "-n", workers)
    assert code == 0
    made, findings = only(text)
    assert list(findings) == [law.name for law in LAWS]
    told = {name: finding["outcome"] for name, finding in findings.items() if finding["outcome"] != "not run"}
    assert told == {
        "protocol_is_kept": "held",
        "order_is_kept": "held",
        "packets_meet_the_rules_in_order": "narrowed",
        "dropped_line_is_caught": "held",
    }
    assert findings["packets_meet_the_rules_in_order"]["reason"] == "no packet meets the backend's rules"
    assert findings["dropped_line_is_caught"]["eased"] == ["with 2 of what it goes through at most"]
    assert findings["order_is_kept"]["cases"] == 5
    assert findings["packets_meet_the_rules_in_order"]["cases"] == 0
    subject = made["subject"]
    assert (subject["kind"], subject["name"], subject["distribution"]) == ("backend", "memory", "meshfw")
    assert subject["differences"] == ["opaque: True", "native_sets: False", "kernel: False"]
    assert subject["scope"] == ["with sets turned into rules"]
    assert made["tool_versions"]["no-such-tool"].startswith("unknown: ")


def test_what_failed_in_any_part_never_looks_held(tmp_path: Path) -> None:
    body = '''
    def test_order_is_kept(self, lab):
        assert False, "a failure | of its own"

    def test_protocol_is_kept(self, lab):
        """A test of its own in the law's place."""

    @pytest.mark.xfail(reason="for later")
    def test_new_instance_adopts(self, lab):
        assert False

    @pytest.fixture
    def falls(self):
        yield
        raise RuntimeError("late")

    def test_second_apply_writes_nothing(self, falls, lab):
        self.hold(next(law for law in self.laws if law.name == "second_apply_writes_nothing"), lab)

    @pytest.fixture
    def missing(self):
        pytest.skip("no such tool")

    def test_counters_survive(self, missing, lab):
        pass

    @pytest.fixture
    def broken(self):
        raise RuntimeError("early")

    def test_intruder_is_noticed(self, broken, lab):
        pass
'''
    names = ("order_is_kept", "protocol_is_kept", "new_instance_adopts", "second_apply", "counters", "intruder")
    code, text = reported(tmp_path, MEMORY.replace("    # body\n", body), "-k", " or ".join(names))
    assert code == 1
    _, findings = only(text)
    told = {name: (f["outcome"], f["reason"]) for name, f in findings.items() if f["outcome"] != "not run"}
    assert told == {
        "order_is_kept": ("failed", "AssertionError: a failure | of its own"),
        "protocol_is_kept": ("in words of its own", ""),
        "new_instance_adopts": ("failed", "expected: for later"),
        "second_apply_writes_nothing": ("failed", "in its teardown: RuntimeError: late"),
        "counters_survive": ("skipped", "no such tool"),
        "intruder_is_noticed": ("failed", "RuntimeError: early"),
    }


def test_a_backend_that_could_not_be_made_is_in_the_report_all_the_same(tmp_path: Path) -> None:
    text = MEMORY.replace("        options =", "        raise RuntimeError('none')\n        options =")
    code, written = reported(tmp_path, text, "-k", "order_is_kept")
    assert code == 1
    made, findings = only(written)
    assert made["subject"]["name"] == "of test_mine.TestMine"
    assert findings["order_is_kept"]["outcome"] == "failed"


def test_without_tests_of_laws_the_report_says_so(tmp_path: Path) -> None:
    code, text = reported(tmp_path, "def test_nothing():\n    pass\n", suffix="md")
    assert code == 0
    assert text.startswith("# Conformance\n\nMade by meshfw ")
    assert text.endswith("No law of a backend or source was run.\n")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("report.txt", "expected a name that ends in .md or .json"),
        ("nowhere/report.md", "its directory isn't there; expected one that is"),
    ],
)
def test_a_report_that_could_not_be_written_is_refused_before_any_test_runs(
    tmp_path: Path, name: str, problem: str
) -> None:
    command = (sys.executable, "-m", "pytest", "-p", "meshfw.testing.fixtures", "--meshfw-report", name)
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"--meshfw-report {name}: {problem}" in done.stderr


def test_markdown_has_every_law_and_reason() -> None:
    findings = [Finding(law=law.name, says=law.says, outcome=Outcome.HELD, cases=3) for law in SOURCE_LAWS[1:]]
    findings.append(
        Finding(law=SOURCE_LAWS[0].name, says="", outcome=Outcome.FAILED, reason="a | b\nc", eased=("with less",))
    )
    subject = Subject(kind="source", name="X", distribution="meshfw-x", version="1", scope=("in ipv4 alone",))
    made = Conformance(subject=subject, tests="t", findings=tuple(findings))
    text = as_markdown(Published(meshfw="1", python="2", kernel="3", date="4", reports=(made,)))
    assert "## The source X of meshfw-x 1\n\nOf 11 laws 10 held, 1 failed, as `t` ran them.\n" in text
    assert "| protocol is kept | failed |  | a \\| b c; with less |\n" in text
    assert "\nEvery law is tried in ipv4 alone.\n" in text
    assert text.count(" | held | 3 |") == 10
    assert textwrap.dedent(text) == text
