"""A conformance report to publish: which laws hold of a backend or source, which are narrowed and why, tried how often.

It is written by pytest, whatever ran the laws: ``--meshfw-report FILE.md`` (or ``.json``) takes in every test class of
:class:`~meshfw.testing.conformance.BackendLaws` and :class:`~meshfw.testing.sources.SourceLaws` that was collected. A
law that wasn't run is said not to have been run, one that a subclass has in words of its own is said to be that, and
nothing that failed in any part counts as held.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypedDict

import msgspec
import pytest

__all__ = ["Conformance", "Finding", "Outcome", "Published", "Subject", "as_json", "as_markdown", "origin_of"]

_PROPERTY: Final = "meshfw-law"
_KIT: Final = "meshfw.testing."
_FORMATS: Final = (".md", ".json")
_TOOL_SECONDS: Final = 10.0


class Outcome(StrEnum):
    """What became of a law."""

    HELD = "held"
    """Tried, and not broken."""
    NARROWED = "narrowed"
    """Not tried, for the reason: the subject doesn't promise it, or its tests offer no means to try it."""
    OWN_WORDS = "in words of its own"
    """The subject's tests have a test of their own in its place, which passed."""
    SKIPPED = "skipped"
    """Not tried, since the host lacks something."""
    NOT_RUN = "not run"
    """Left out of the run."""
    FAILED = "failed"
    """Broken, or a failure around it."""


class Origin(TypedDict):
    """Which distribution something comes from."""

    distribution: str
    version: str


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is about: a backend or source, where it comes from, and what it says that it can do.

    ``scope`` says on what less than everything all laws are tried.
    """

    kind: str
    name: str
    distribution: str = ""
    version: str = ""
    capabilities: Mapping[str, Any] = {}
    differences: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One law in a report: what became of it, why, why it asked for less, and how many cases it was tried on."""

    law: str
    says: str
    outcome: Outcome
    reason: str = ""
    eased: tuple[str, ...] = ()
    cases: int = 0


class Conformance(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one subject; ``tests`` is the class whose tests ran."""

    subject: Subject
    tests: str
    findings: tuple[Finding, ...]
    tool_versions: Mapping[str, str] = {}

    def count(self, outcome: Outcome) -> int:
        """How many laws ended so."""
        return sum(finding.outcome is outcome for finding in self.findings)


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report: what it was made with, on which system, and one part for each subject."""

    meshfw: str
    python: str
    kernel: str
    date: str
    reports: tuple[Conformance, ...]


def origin_of(thing: object) -> Origin:
    """The distribution of a backend or source: the plugin's whose module it's from, or meshfw itself."""
    from importlib.metadata import PackageNotFoundError, entry_points, version

    from meshfw import __version__

    top = type(thing).__module__.partition(".")[0]
    if top == "meshfw":
        return Origin(distribution="meshfw", version=__version__)
    for entry in entry_points(group="meshfw"):
        if entry.module.partition(".")[0] == top and entry.dist is not None:
            return Origin(distribution=entry.dist.name, version=entry.dist.version)
    try:
        return Origin(distribution=top, version=version(top))
    except PackageNotFoundError:
        return Origin(distribution="", version="")


# --- what one test leaves ----------------------------------------------------------------------------------


class _Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a test of a law leaves, wherever it ran: enough to put the report together from it."""

    tests: str
    kind: str
    law: str
    own: bool
    narrowed: str = ""
    eased: tuple[str, ...] = ()
    cases: int = 0
    subject: Subject | None = None


def _law_of(item: pytest.Item) -> Any:
    """The law that a test is named after; None for any other test."""
    laws = getattr(getattr(item, "cls", None), "laws", None)
    if not isinstance(laws, tuple):
        return None
    name = getattr(item, "originalname", item.name).removeprefix("test_")
    return next((law for law in laws if getattr(law, "name", "") == name), None)


def _left(item: pytest.Item, law: Any) -> _Left:
    cls: Any = item.cls  # type: ignore[attr-defined]  # a test of a class has it
    named = {"tests": f"{cls.__module__}.{cls.__qualname__}", "kind": str(cls.kind), "law": law.name}
    bringer = next(held for held in cls.__mro__ if f"test_{law.name}" in vars(held))
    own = not bringer.__module__.startswith(_KIT)
    lab = getattr(item, "funcargs", {}).get("lab")
    if lab is None:
        return _Left(**named, own=own)
    return _Left(
        **named,
        own=own,
        narrowed="" if own else law.narrowed(lab) or "",
        eased=() if own else law.eased(lab),
        cases=lab.tried,
        subject=item.instance.subject(lab),  # type: ignore[attr-defined]  # a test of a class has it
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attaches what the test of a law leaves, in the process that ran it."""
    made = yield
    law = _law_of(item) if item.config.getoption("meshfw_report") else None
    if law is not None and call.when in ("setup", "call") and (call.when == "call" or not made.passed):
        made.user_properties.append((_PROPERTY, msgspec.json.encode(_left(item, law)).decode()))
    return made


# --- the option --------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that asks for a report."""
    parser.getgroup("meshfw").addoption(
        "--meshfw-report",
        dest="meshfw_report",
        metavar="FILE",
        default=None,
        help="write a conformance report of every backend and source whose laws are run: FILE.md or FILE.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begins a report where one is asked for, in the process that hears of all tests."""
    path = config.getoption("meshfw_report")
    if path is None:
        return
    if os.path.splitext(path)[1] not in _FORMATS:
        raise pytest.UsageError(f"--meshfw-report {path}: expected a name that ends in {' or '.join(_FORMATS)}")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):  # said before the tests run, not after
        raise pytest.UsageError(f"--meshfw-report {path}: its directory isn't there; expected one that is")
    if not hasattr(config, "workerinput"):  # pytest-xdist's workers send what their tests leave
        config.pluginmanager.register(Reporter(os.path.abspath(path)), "meshfw-reporter")


class Reporter:
    """The collector of what tests leave; it writes the report when the last one has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._left: dict[str, dict[str, tuple[_Left, Outcome, str]]] = {}
        self._subjects: dict[str, Subject] = {}
        self._names: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes in what one part of one test left; a failure in a later part outweighs what was before."""
        for name, value in report.user_properties:
            if name == _PROPERTY:
                left = msgspec.json.decode(str(value), type=_Left)
                self._names[report.nodeid] = (left.tests, left.law)
                if left.subject is not None:
                    self._subjects[left.tests] = left.subject
                self._left.setdefault(left.tests, {})[left.law] = (left, *_outcome(report, left))
        known = self._names.get(report.nodeid)
        if known is not None and report.failed and report.when == "teardown":
            left, outcome, before = self._left[known[0]][known[1]]
            reason = before if outcome is Outcome.FAILED else f"in its teardown: {_reason(report)}"
            self._left[known[0]][known[1]] = (left, Outcome.FAILED, reason)

    def pytest_sessionfinish(self) -> None:
        """Writes the report."""
        made = tuple(self._conformance(tests) for tests in sorted(self._left))
        published = Published(**_surroundings(), reports=made)
        text = as_json(published) if self._path.endswith(".json") else as_markdown(published)
        with open(self._path, "w", encoding="utf-8") as file:
            file.write(text)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says where the report is."""
        terminalreporter.write_line(f"conformance report: {self._path}")

    def _conformance(self, tests: str) -> Conformance:
        left = self._left[tests]
        kind = next(iter(left.values()))[0].kind
        subject = self._subjects.get(tests) or Subject(kind=kind, name=f"of {tests}")  # none was made
        return Conformance(
            subject=subject,
            tests=tests,
            findings=tuple(_finding(law, left.get(law.name)) for law in book_of(subject.kind)),
            tool_versions={tool: _version(tool) for tool in subject.tools},
        )


def book_of(kind: str) -> Sequence[Any]:
    """The laws of backends, or of sources."""
    if kind == "source":
        from meshfw.testing.source_laws import SOURCE_LAWS

        return SOURCE_LAWS
    from meshfw.testing.book import LAWS

    return LAWS


def _finding(law: Any, left: tuple[_Left, Outcome, str] | None) -> Finding:
    if left is None:
        return Finding(law=law.name, says=law.says, outcome=Outcome.NOT_RUN)
    held, outcome, reason = left
    return Finding(law=law.name, says=law.says, outcome=outcome, reason=reason, eased=held.eased, cases=held.cases)


def _outcome(report: pytest.TestReport, left: _Left) -> tuple[Outcome, str]:
    if report.failed:
        return Outcome.FAILED, _reason(report)
    if hasattr(report, "wasxfail"):
        return Outcome.FAILED, f"expected: {report.wasxfail}"
    if report.skipped:
        return (Outcome.NARROWED, left.narrowed) if left.narrowed else (Outcome.SKIPPED, _reason(report))
    return (Outcome.OWN_WORDS, "") if left.own else (Outcome.HELD, "")


def _reason(report: pytest.TestReport) -> str:
    """The last line of what went wrong, or why a test was skipped."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longrepr or "")
    return text.strip().splitlines()[0] if text.strip() else ""


def _surroundings() -> dict[str, str]:
    from meshfw import __version__

    system = os.uname()
    return {
        "meshfw": __version__,
        "python": platform.python_version(),
        "kernel": f"{system.sysname} {system.release} {system.machine}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _version(tool: str) -> str:
    """What a tool says of its version, in one line."""
    from meshfw.errors import MeshfwError
    from meshfw.kernel.command import run

    try:
        said = run((tool, "--version"), timeout=_TOOL_SECONDS, check=False).stdout.strip()
    except MeshfwError as error:
        return f"unknown: {error}"
    return said.splitlines()[0] if said else "unknown"


# --- the report as text ------------------------------------------------------------------------------------


def as_json(published: Published) -> str:
    """The report for programs."""
    return msgspec.json.format(msgspec.json.encode(published), indent=2).decode() + "\n"


def as_markdown(published: Published) -> str:
    """The report for people."""
    lines = [
        "# Conformance",
        "",
        f"Made by meshfw {published.meshfw} with Python {published.python} on {published.kernel}, {published.date}.",
    ]
    if not published.reports:
        lines += ["", "No law of a backend or source was run."]
    for made in published.reports:
        lines += ["", *_section(made)]
    return "".join(f"{line}\n" for line in lines)


def _section(made: Conformance) -> list[str]:
    subject = made.subject
    origin = f" of {subject.distribution} {subject.version}" if subject.distribution else ""
    counts = ", ".join(f"{made.count(outcome)} {outcome}" for outcome in Outcome if made.count(outcome))
    lines = [
        f"## The {subject.kind} {subject.name}{origin}",
        "",
        f"Of {len(made.findings)} laws {counts}, as `{made.tests}` ran them.",
    ]
    if made.tool_versions:
        lines += ["", *(f"* {tool}: {version}" for tool, version in made.tool_versions.items())]
    if subject.capabilities:
        lines += ["", "| capability | is |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(_shown(value))} |" for name, value in subject.capabilities.items()]
    if subject.scope:
        lines += ["", f"Every law is tried {', '.join(subject.scope)}."]
    if subject.left_out:
        lines += ["", "Rules that it refuses, of those that the laws are tried on:", ""]
        lines += [f"* `{text}`" for text in subject.left_out]
    lines += ["", "| law | | cases | |", "|---|---|--:|---|"]
    for finding in made.findings:
        why = "; ".join((*([finding.reason] if finding.reason else []), *finding.eased))
        cases = str(finding.cases) if finding.cases else ""
        lines.append(f"| {finding.law.replace('_', ' ')} | {finding.outcome} | {cases} | {_cell(why)} |")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _cell(text: str) -> str:
    """A text as a cell of a table holds it."""
    return text.replace("|", "\\|").replace("\n", " ")
