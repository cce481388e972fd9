"""Cells, peers and trials, each measured in a process of its own, with a time that it may take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from benchmarks.cell import Request
from benchmarks.peers import PeerRequest
from benchmarks.results import Cell, PeerCell, Trial
from benchmarks.trials import TrialRequest

AnyRequest = Request | PeerRequest | TrialRequest
AnyResult = Cell | PeerCell | Trial

_MODULES: Final[dict[type[AnyRequest], tuple[str, type[AnyResult]]]] = {
    Request: ("benchmarks.cell", Cell),
    PeerRequest: ("benchmarks.peers", PeerCell),
    TrialRequest: ("benchmarks.trials", Trial),
}
_LAST_CALL: Final = 60.0
"""Seconds for a process that was told to end to take its namespaces along."""


class CellError(Exception):
    """Something that couldn't be measured, and what its process said."""


class TooLongError(CellError):
    """Something that wasn't measured to its end, because it took longer than it may."""


def where(request: AnyRequest) -> str:
    """What is asked for, in words."""
    match request:
        case Request():
            return f"{request.subject}, {request.scenario}, {request.rules:,} rules"
        case PeerRequest():
            return f"{request.peer}, {request.scenario}, {request.rules:,} rules"
        case TrialRequest():
            return f"{request.subject}, trial {request.trial}, {request.rules:,} rules"


Running = set["subprocess.Popen[bytes]"]
"""The processes that measure just now."""


def measure(request: AnyRequest, *, limit: float, running: Running | None = None) -> AnyResult:
    """What was asked for, measured in a process of its own that may take ``limit`` seconds."""
    module, kind = _MODULES[type(request)]
    if isinstance(request, TrialRequest):
        limit += request.longest
    with (
        subprocess.Popen(
            (sys.executable, "-m", module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # so that whatever it has started can be ended with it
        ) as process,
        _among(process, running),
    ):
        try:
            answer, said = process.communicate(msgspec.json.encode(request), timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            raise TooLongError(f"{where(request)}: no end after {limit:g} s") from None
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        words = said.decode(errors="replace").strip()
        raise CellError(f"{where(request)}: {words or f'exit code {process.returncode}'}")
    return msgspec.json.decode(answer, type=kind)


@contextmanager
def _among(process: subprocess.Popen[bytes], running: Running | None) -> Iterator[None]:
    """A block in which a process is one of those that run."""
    held: Running = set() if running is None else running
    held.add(process)
    try:
        yield
    finally:
        held.discard(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process and all that it has started, so that it cleans up; kill them if it doesn't."""
    for number in (signal.SIGINT, signal.SIGKILL):
        _signal(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_LAST_CALL)
            return


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def measure_all(
    wanted: Sequence[AnyRequest], *, at_once: int, limit: float
) -> tuple[list[AnyResult], list[str], list[str]]:
    """The results, notes of what took longer than it may, and errors; says on standard error how far it is.

    More than one ``at_once`` disturb each other's times, but not each other's counts.
    """
    found: list[AnyResult] = []
    notes, errors = [], []
    running: Running = set()
    with ThreadPoolExecutor(at_once) as workers:
        waiting = [workers.submit(measure, request, limit=limit, running=running) for request in wanted]
        try:
            for number, (request, future) in enumerate(zip(wanted, waiting, strict=True), 1):
                print(f"[{number}/{len(wanted)}] {where(request)}", file=sys.stderr, flush=True)
                try:
                    found.append(future.result())
                except TooLongError as error:
                    notes.append(str(error))
                except CellError as error:
                    errors.append(str(error))
        except BaseException:  # such as Ctrl-C: what runs isn't waited for, but cleans up
            workers.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                _signal(process, signal.SIGINT)
            raise
    return found, notes, errors
