"""The verb ``status``: how the agent is, by its own word."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime

import msgspec

from meshfw.agent.control import ask, socket_path
from meshfw.agent.status import Drift, Status
from meshfw.cli.output import counted, one_line, print_json
from meshfw.config import Config, find_config, load_config
from meshfw.errors import AgentError

UNHEALTHY = 2
"""The exit code when the agent says that not all is well."""


def run(arguments: Namespace) -> int:
    """0 when all is well, :data:`UNHEALTHY` when the agent says that it isn't."""
    if arguments.dashboard:
        from meshfw.agent.dashboard import dashboard

        print(dashboard(), end="")
        return 0
    path = find_config(arguments.config)
    owner = (Config() if path is None else load_config(path)).owner
    answer = ask(socket_path(owner, arguments.netns), "status", owner=owner)
    try:
        status = msgspec.convert(answer, Status)
    except msgspec.ValidationError as error:
        raise AgentError(f"the agent is of another version than this command: {error}", remedy="restart it") from error
    if arguments.json:
        print_json(answer)
    else:
        for line in _lines(status, time.time(), verbose=arguments.verbose):
            print(one_line(line))
    return 0 if status.healthy and not status.problem else UNHEALTHY


def _lines(status: Status, now: float, *, verbose: bool) -> Iterator[str]:
    """The answer for people, a line each; the first says all in a glance."""
    stands = f"the rules stand, but {status.problem}" if status.problem else "the rules stand"
    verdict = stands if status.healthy else f"NOT WELL: {status.reason or 'the kernel is not known yet'}"
    yield f"{status.owner}: {status.phase}, {verdict}"
    for label, text in _facts(status, now):
        yield f"  {label:<12}{text}"
    shown = status.drifts if verbose else status.drifts[:3]
    for drift in shown:
        yield from _drift(drift, now, verbose=verbose)
    if len(status.drifts) > len(shown):
        yield f"  ... {counted(len(status.drifts) - len(shown), 'older repair')} (-v shows all)"


def _facts(status: Status, now: float) -> Iterator[tuple[str, str]]:
    yield "rules", f"{counted(status.rules, 'rule')} in {counted(status.chains, 'chain')}, from {_source(status)}"
    generation = f", generation {status.generation}" if status.generation else ""
    yield "backend", f"{status.backend or 'none yet'} in {status.netns or 'this network namespace'}{generation}"
    yield "looked", f"{_ago(status.reconciled, now)}; last change {_ago(status.changed, now)}"
    if status.next_try > now:
        yield "next try", f"in {_span(status.next_try - now)}"
    if status.contended:
        yield "contended", f"with {status.contended}"
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(status.outcomes.items())) or "none yet"
    yield "reconciles", f"{outcomes}; {counted(status.events, 'foreign write')} heard of"
    spawned = "1 process" if status.processes == 1 else f"{status.processes} processes"
    yield (
        "agent",
        f"process {status.pid}, version {status.version}, up {_span(now - status.started)}, {spawned} spawned",
    )
    if status.config:
        yield "config", status.config
    for warning in status.warnings:
        yield "warning", warning


def _source(status: Status) -> str:
    return {"sources": "the sources", "last good": "the last good state"}.get(
        status.source, "the state before the one that was undone" if status.source == "held" else status.source
    )


def _drift(drift: Drift, now: float, *, verbose: bool) -> Iterator[str]:
    who = " and ".join(dict.fromkeys(map(str, drift.culprits))) or "somebody unknown"
    yield f"  {'repaired':<12}{counted(drift.changes, 'change')} by {who}, {_ago(drift.time, now)}"
    for line in drift.lines if verbose else drift.lines[:1]:
        yield f"  {'':<12}{line}"


def _ago(moment: float, now: float) -> str:
    """How long ago a moment was; with its date when that is more than a day."""
    if not moment:
        return "never"
    span = _span(max(now - moment, 0.0))
    if now - moment < 86400:
        return f"{span} ago"
    return f"{span} ago ({datetime.fromtimestamp(moment).astimezone().isoformat(' ', 'seconds')})"


def _span(seconds: float) -> str:
    """A time in its two largest units."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
