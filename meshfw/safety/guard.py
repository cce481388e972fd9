"""The guard: a process of its own that undoes a change unless somebody confirms it, whatever becomes of who made it.

It's ready before the change is made: it has read the record, loaded all code and looked at the kernel. It depends on
neither a terminal nor another process; told to end before its time (SIGTERM), it undoes the change at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Final

from meshfw.backends.instance import detach, namespace_of, namespace_path, only_writer
from meshfw.backends.remembered import state_directory
from meshfw.errors import BackendError, PendingError
from meshfw.safety.pending import Pending, Register, Stamp, Undone, at, clock
from meshfw.safety.settling import OVERDUE, Undoing

ARMED: Final = b"armed"
"""What it says when it's ready."""
_PATIENCE: Final = 60.0
"""Seconds that whoever starts it waits for that."""
_LOOK: Final = 0.25
"""Seconds between two looks at clock and record: no timer of poll(2) counts a suspended machine's time."""
_LOCK: Final = 600.0
"""Seconds that it waits for another writer before it counts as one more failed try."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries of undoing."""
ENDED: Final = "its guard was told to end before it was confirmed"


def arm(pending: Pending) -> int:
    """The process number of a guard that is ready to undo a change that was registered, and that nobody made yet.

    Raises:
        BackendError: it can't be started, or says that it couldn't undo.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = detach(
                [sys.executable, "-P", "-m", __name__, pending.owner, pending.netns or "", pending.token, str(writer)],
                # The same modules and plugins as here, wherever they came from; -P: not from where somebody stands.
                env={"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)},
                inherit=[writer],
            )
        finally:
            os.close(writer)
        said = _heard(reader)
    finally:
        os.close(reader)
    if said != ARMED:
        reason = said.decode(errors="replace") or "it ended, or wasn't ready in time"
        raise BackendError(f"the guard of the change can't be armed: {reason}", remedy="nothing was changed")
    return pid


def _heard(reader: int) -> bytes:
    """All that a process says before it closes its end; nothing if that takes too long."""
    said = b""
    end = time.monotonic() + _PATIENCE
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        chunk = os.read(reader, 4096)
        if not chunk:
            return said
        said += chunk
    return b""


# --- the process itself ------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """The exit code of a guard: 0 when its change was confirmed, or is undone."""
    owner, netns, token, line = argv
    ending: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ending.append(number)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    try:
        undoing, stamp = _ready(owner, netns, token)
        said = ARMED
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
        undoing, stamp, said = None, None, str(error).encode() or repr(error).encode()
    with suppress(OSError):  # who waited may have been killed: then there is the more to guard
        os.write(int(line), said)
    os.close(int(line))
    if undoing is None:
        return 1
    register, deadline = undoing.register, undoing.pending.deadline
    while (left := deadline - clock()) > 0 and not ending:
        if register.stamp() != stamp:
            return 0
        time.sleep(min(_LOOK, left))
    _undo(undoing, stamp, reason=ENDED if ending else OVERDUE)
    return 0


def _ready(owner: str, netns: str, token: str) -> tuple[Undoing, Stamp]:
    """What undoes the change of a token, and the stamp of its record."""
    if netns:
        # Kept open: neither its name nor the process that it is named by has to last.
        held = os.open(namespace_path(netns), os.O_RDONLY | os.O_CLOEXEC)
        netns = f"/proc/self/fd/{held}"
    namespace = namespace_of(netns or None)
    register = Register(state_directory(), owner=owner, namespace=namespace)
    stamp, pending = register.stamp(), register.read()
    if pending is None or pending.token != token:
        raise PendingError("its record isn't there")
    undoing = Undoing(register, pending, netns=netns or None)
    undoing.rehearse()
    return undoing, stamp


def _undo(undoing: Undoing, stamp: Stamp, *, reason: str) -> None:
    """Undo the change, unless that was done or it was confirmed; an error is told, and it's tried again for ever."""
    pause, tries = _FIRST_PAUSE, 0
    while True:
        try:
            with only_writer(undoing.site, timeout=_LOCK):
                if undoing.register.stamp() == stamp:
                    undoing.carry_out(reason)
                    _log(f"the change of {at(undoing.pending.begun)} was undone: {reason}")
            return
        except Exception as error:  # noqa: BLE001 - nobody else is there to try again
            tries += 1
            _log(f"the change of {at(undoing.pending.begun)} isn't undone yet: {error}")
            undoing.register.tell(
                Undone(time=time.time(), reason=reason, trial=undoing.pending.trial, error=str(error), tries=tries)
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _log(text: str) -> None:
    """Tell the system's log (syslog(3)): this process has no other place."""
    import syslog

    syslog.openlog("meshfw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, text.replace("\n", " "))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
