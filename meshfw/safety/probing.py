"""Probes at work: each is asked several times, in the network namespace that the rules are in, all side by side."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from meshfw.backends.instance import entered, run
from meshfw.errors import MeshfwError
from meshfw.probe import PAUSE, Probe, ProbeKind, Probing
from meshfw.safety.ping import ping

_SIGN: Final = 0.5
"""Seconds between two signs of life while probes are asked."""
_SAID: Final = 200
"""Characters of what a program said that a message shows."""


class Failure(msgspec.Struct, frozen=True):
    """A probe that failed each time, and why the last time."""

    probe: Probe
    reason: str

    def __str__(self) -> str:
        return f"{self.probe}: {self.reason}"


def failures(
    probing: Probing, probes: Sequence[Probe], netns: str | None, *, meanwhile: Callable[[], object] = lambda: None
) -> tuple[Failure, ...]:
    """The probes that fail whenever they are tried, in their order; at once where none is given.

    It takes at most as long as one probe with all its attempts, which may be minutes: ``meanwhile`` is called all
    along, so that whoever waits can say that he isn't stuck.
    """
    reasons: dict[int, str] = {}

    def tried(index: int) -> None:
        reasons[index] = _tried(probing, probes[index], netns)

    threads = [
        threading.Thread(target=tried, args=(index,), name=f"meshfw-probe-{index}", daemon=True)
        for index in range(len(probes))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_SIGN)
            meanwhile()
    return tuple(Failure(probe, reasons[index]) for index, probe in enumerate(probes) if reasons[index])


def _tried(probing: Probing, probe: Probe, netns: str | None) -> str:
    reason = ""
    for attempt in range(probing.attempts):
        if attempt:
            time.sleep(PAUSE)
        try:
            with entered(netns):
                reason = _ASK[probe.kind](probe, probing.timeout)
        except (MeshfwError, OSError) as error:
            reason = str(error)
        if not reason:
            return ""
    return reason


def _ping(probe: Probe, timeout: float) -> str:
    return ping(probe.host, timeout=timeout)


def _tcp(probe: Probe, timeout: float) -> str:
    """Why no connection came about; a name is looked up within the same time, which the resolver knows nothing of."""
    found: list[tuple[socket.AddressFamily, Any]] = []
    errors: list[OSError] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(probe.host, probe.port, type=socket.SOCK_STREAM)
            found.extend((answer[0], answer[4]) for answer in answers)
        except OSError as error:
            errors.append(error)

    end = time.monotonic() + timeout
    resolver = threading.Thread(target=look_up, name="meshfw-resolver", daemon=True)
    resolver.start()
    resolver.join(timeout)
    if errors:
        return errors[0].strerror or str(errors[0])
    reason = f"no answer within {timeout:g} s"
    for family, address in tuple(found):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as channel:
                channel.settimeout(max(end - time.monotonic(), 0.001))
                channel.connect(address)
                return ""
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except OSError as error:
            reason = error.strerror or str(error)
    return reason


def _command(probe: Probe, timeout: float) -> str:
    done = run(probe.argv, timeout=timeout, check=False)
    if done.returncode == 0:
        return ""
    said = " ".join((done.stderr or done.stdout).split())[:_SAID]
    end = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{end}: {said}" if said else end


_ASK: Final[dict[ProbeKind, Callable[[Probe, float], str]]] = {
    ProbeKind.PING: _ping,
    ProbeKind.TCP: _tcp,
    ProbeKind.COMMAND: _command,
}
