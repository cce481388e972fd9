"""Exact counts of the processes that a program, or a block of this process, starts.

A tracer follows every task by ptrace(2) and takes down each new process and each exec as the kernel reports it.
Nothing is missed: a task stands still until its event was taken down. No privilege is needed but what ptrace asks for
(REMEDY), so ``unshare -rn`` is fine. What is traced already or traces by itself can't be counted, and an ordinary
user's setuid programs run without their privileges. A block costs 25 ms and each process in it 0.3 ms more: count in
one pass, measure time in another. Of a program named by a pyenv shim the shim's own 40 processes count, too.

The first half of this file is the tracer's program, the second half starts it. The tracer is a process of its own
because its wait(2) for all tracees would take the exit codes of our own children, and it's spawned, not forked,
because a fork beside threads can hang. It runs without site-packages, to start quickly.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress

__all__ = ["Count", "Counted", "ProcessCounter", "run_counted"]

_CONT, _DETACH, _GETEVENTMSG = 7, 17, 0x4201  # linux/ptrace.h
_SEIZE, _INTERRUPT, _LISTEN = 0x4206, 0x4207, 0x4208
_EVENT_EXEC, _EVENT_STOP = 4, 128
# PTRACE_O_TRACEFORK, VFORK, CLONE and EXEC. Not EXITKILL: a tracer's death has to free its tracees, not end them.
_OPTIONS = 0x02 | 0x04 | 0x08 | 0x10
_PEEK = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_LAST_CALL = 2.0  # seconds for tasks to stop once more; one that waits for its vfork child can't before that execs


class _Tracer:
    """What one count follows, and what it has taken down so far."""

    def __init__(self, line: int, patience: float) -> None:
        self.line = line  # the socket to the one who counts; once tracing, its end or a byte on it means stop
        self.patience = patience  # seconds
        self.tasks: set[int] = set()
        self.unproven: set[int] = set()  # attached to, and not yet stopped since
        self.forks = 0
        self.commands: list[list[str]] = []
        self.leaving = False
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        clock = self.libc if hasattr(self.libc, "timer_create") else ctypes.CDLL("librt.so.1")  # before glibc 2.34
        self.settime, self.timer = clock.timer_settime, ctypes.c_void_p()
        event = struct.pack("Pii48x", 0, signal.SIGKILL, 0)  # sigevent(3type), SIGEV_SIGNAL
        if clock.timer_create(time.CLOCK_MONOTONIC, event, ctypes.byref(self.timer)) == -1:
            raise OSError(ctypes.get_errno(), "no timer")
        # SIGCHLD, of which there is one for each stop of a tracee, ends the poll for the line.
        self.alarm, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # it may be blocked in who spawned this
        self.poller = select.poll()
        self.poller.register(line, select.POLLIN)
        self.poller.register(self.alarm, select.POLLIN)

    def watch(self, pid: int, tids: set[int]) -> dict[str, object]:
        """Follow threads of a process (all, when none is named) until told to stop; the report of what was seen."""
        if os.readlink("/proc/self") != str(os.getpid()):
            raise OSError(errno.ESRCH, "/proc shows another pid namespace than ours: mount one (unshare --mount-proc)")
        if not os.read(self.line, 1):  # sent when the process has allowed this one to trace it
            raise OSError(errno.ECANCELED, "the counted process gave up")
        self.stay_alive()
        self.seize(pid, tids)
        _say(self.line, {"ready": True})
        self.follow()
        self.let_go()
        return {"forks": self.forks, "execs": len(self.commands), "commands": self.commands}

    def stay_alive(self) -> None:
        """Put off our own death by a timer: a tracer that hangs, or was stopped, would leave its tracees frozen."""
        at = struct.pack("qqqq", 0, 0, int(self.patience), int(self.patience % 1 * 1e9))  # struct itimerspec
        self.settime(self.timer, 0, at, None)

    def seize(self, pid: int, tids: set[int]) -> None:
        """Attach to threads; to all, if none is named, those that are made meanwhile included."""
        known: set[int] = set()
        deadline = time.monotonic() + _LAST_CALL
        while True:
            listed = tids or {int(name) for name in os.listdir(f"/proc/{pid}/task")}
            # The list ends early if a thread ends while it's read; the number of threads tells. Held threads make
            # held threads: when those of the list are all, no other can come.
            if listed <= known and len(listed) >= (len(tids) or int(_field(pid, b"Threads"))):
                return
            known |= {tid for tid in listed - known if self.attach(tid)}
            while self.unproven and (left := deadline - time.monotonic()) > 0 and self.turn(left):
                pass

    def attach(self, tid: int) -> bool:
        """Whether a thread is held now, or has ended and needs no hold; False when it's gone."""
        try:
            try:
                self.ask(_SEIZE, tid, _OPTIONS)
                # It may be in the midst of a clone that began free and will end so; after one stop it isn't.
                self.unproven.add(tid)
                self.ask(_INTERRUPT, tid)
            except PermissionError as error:
                holder, state = int(_field(tid, b"TracerPid")), _field(tid, b"State")
                if holder not in {0, os.getpid()}:
                    raise OSError(error.errno, f"process {holder} traces this one already") from error
                if not holder and state not in {b"Z", b"X"}:
                    raise
        except (FileNotFoundError, ProcessLookupError):
            return False
        self.tasks.add(tid)  # a thread, as we know already: no new process
        return True

    def follow(self, deadline: float = math.inf) -> None:
        """Take down and continue until no task is left, or until told to stop or out of time."""
        while (left := deadline - time.monotonic()) > 0 and self.turn(left):
            pass

    def turn(self, left: float) -> bool:
        """Take one change, or wait for one for some seconds; False when no task is left, or when told to stop."""
        self.stay_alive()
        try:
            # Seen, but not yet taken: a task that was killed before its first stop is still in /proc. A tracer sees
            # every tracee's changes (Linux 4.7, wait(2)), those of threads and of clones without SIGCHLD too.
            change = os.waitid(os.P_ALL, 0, _PEEK)
        except ChildProcessError:
            return False
        if change is not None:
            self.step(change.si_pid)
            left = 0  # no waiting, but a busy block must be able to end, too
        for descriptor, _ in self.poller.poll(math.ceil(1000 * min(left, self.patience / 4))):
            if descriptor == self.line:
                return False
            os.read(self.alarm, 4096)
        return True

    def step(self, tid: int) -> None:
        """Take one change of a task: count the task if it's new, continue it if it stopped."""
        if tid not in self.tasks:
            # It stops once or dies, whatever becomes of its maker, whose own event thus says nothing more.
            self.tasks.add(tid)
            self.forks += int(_field(tid, b"Tgid")) == tid  # else it's a thread
        found, status = os.waitpid(tid, os.WNOHANG)
        self.unproven.discard(found)
        if found and os.WIFSTOPPED(status):
            with suppress(ProcessLookupError):  # killed meanwhile: its end is the next change
                self.pass_on(tid, status >> 16, os.WSTOPSIG(status))
        elif found:
            self.tasks.discard(tid)

    def pass_on(self, tid: int, event: int, number: int) -> None:
        """Let a stopped task go on as if it had not been traced: with its signal, or stopped if it's to be."""
        if event == _EVENT_EXEC:
            self.note_exec(tid)
        delivered = 0 if event else number
        if self.leaving:
            self.ask(_DETACH, tid, delivered)
            self.tasks.discard(tid)  # only now: the end of one that was killed instead must not count as a new task
        elif event == _EVENT_STOP and number in _GROUP_STOPS:
            self.ask(_LISTEN, tid)
        else:
            self.ask(_CONT, tid, delivered)

    def note_exec(self, tid: int) -> None:
        """Take down an exec's arguments, as the new program has them."""
        former = ctypes.c_ulong(tid)
        with suppress(ProcessLookupError):  # killed this moment: nothing to ask, but it did exec
            self.ask(_GETEVENTMSG, tid, ctypes.addressof(former))
        if former.value != tid:  # a later thread of the process: it goes on under the number of the first
            self.tasks.discard(former.value)
        with open(f"/proc/{tid}/cmdline", "rb") as file:
            self.commands.append([os.fsdecode(word) for word in file.read().split(b"\0")[:-1]])

    def let_go(self) -> None:
        """Stop each task once more and detach from it, in the state in which it would be without us."""
        self.poller.unregister(self.line)
        self.leaving = True
        for tid in tuple(self.tasks):
            with suppress(ProcessLookupError):
                self.ask(_INTERRUPT, tid)
        # An exec on its way reports before it stops for the interrupt, and a new process that is still unknown
        # stops by itself: what has begun is counted before it goes free.
        self.follow(time.monotonic() + _LAST_CALL)

    def ask(self, request: int, tid: int, data: int = 0) -> None:
        """One ptrace(2) request without an address; OSError as the kernel refuses it."""
        if self.libc.ptrace(request, tid, None, data) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _field(tid: int, name: bytes) -> bytes:
    """One of the fields of /proc/TID/status (proc_pid_status(5)): Tgid is the process a task is part of."""
    with open(f"/proc/{tid}/status", "rb", buffering=0) as file:
        return file.read(65536).partition(b"\n" + name + b":")[2].split(None, 1)[0]


def _say(line: int, message: dict[str, object]) -> None:
    """Send a message: one line of JSON."""
    with open(line, "wb", closefd=False) as file:
        file.write(json.dumps(message).encode() + b"\n")


def _trace(line: int, patience: float, pid: int, tids: set[int]) -> None:
    """The tracer's life; its end, whatever the reason, frees every task that it still holds."""
    try:
        report = _Tracer(line, patience).watch(pid, tids)
    except Exception as error:  # noqa: BLE001 - told to the one who counts, whatever it is
        report = {"error": getattr(error, "strerror", None) or repr(error), "errno": getattr(error, "errno", None) or 0}
    with suppress(OSError):  # nobody listens any more
        _say(line, report)
    os._exit(0)


if __name__ == "__main__":  # the tracer ends here: what follows needs packages that it does without
    _trace(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), {int(word) for word in sys.argv[4:]})

import socket  # noqa: E402 - the tracer starts without what stands from here on
import subprocess  # noqa: E402 - as above
import threading  # noqa: E402 - as above
from collections.abc import Mapping, Sequence  # noqa: E402 - as above

import msgspec  # noqa: E402 - as above

from meshfw.errors import BackendError, KernelError  # noqa: E402 - as above
from meshfw.kernel.command import run  # noqa: E402 - as above

REMEDY = (
    "ptrace must be allowed: no debugger, strace or other counter on this process, kernel.yama.ptrace_scope below 2, "
    "a container that permits ptrace"
)
_PR_SET_PTRACER = 0x59616D61  # linux/prctl.h


class Count(msgspec.Struct, frozen=True):
    """Processes made (by fork, vfork or clone; threads are none), execs, and each exec's arguments, in order.

    The arguments are those of /proc/PID/cmdline right after the exec: a script's begin with its interpreter.
    """

    forks: int
    execs: int
    commands: tuple[tuple[str, ...], ...]


class Counted(msgspec.Struct, frozen=True):
    """What a program left: the count of what it started, its exit code (negative: its signal), and its output.

    Output and arguments that are not UTF-8 are kept with surrogate escapes.
    """

    count: Count
    returncode: int
    stdout: str
    stderr: str


def run_counted(
    argv: Sequence[str], *, input: bytes | None = None, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> Counted:
    """A program's run, with the count of what it and its descendants started until it ended and closed its output.

    The program's own process and its first exec are not counted. It is found and run as ``kernel.command.run``
    does that: ``input`` is its standard input (nothing, not ours, when None), ``env`` is added to our own
    environment, ``timeout`` is in seconds. Raises BackendError when it is not installed, CommandError when it was
    killed at its time limit, and KernelError when it can't be started or followed.
    """
    # Only this thread is followed, so what other threads start meanwhile is not taken for the program's.
    with ProcessCounter(everything=False) as counter:
        done = run(argv, timeout=timeout, input=input, env=env, check=False)
    whole = counter.count
    if not (whole.forks and whole.execs):
        raise KernelError(f"{argv[0]} was not seen to start", remedy=REMEDY)
    started = Count(whole.forks - 1, whole.execs - 1, whole.commands[1:])
    return Counted(started, done.returncode, done.stdout, done.stderr)


class ProcessCounter:
    """A block whose processes are counted: all that this process's threads start in it, and their descendants.

    ::

        with ProcessCounter() as counter:
            backend.observe()
        assert counter.count.forks == 0

    Counted is each process whose start had returned when the block ended, and each exec that had begun by then;
    what runs on is let go, so wait in the block for what is to be counted whole. A block can't wait for *any*
    child until there is none, since the tracer is one; and a process can be in one block at a time. A system call
    that a signal may interrupt may be interrupted at both ends of the block. ``everything=False`` follows the calling
    thread alone, and ``pid`` another process in place of this one. A tracer that hangs is ended after ``timeout``
    seconds. Entering raises KernelError when the process can't be traced; leaving, when the count was lost, unless the
    block raised itself.
    """

    def __init__(self, *, everything: bool = True, pid: int | None = None, timeout: float = 30.0) -> None:
        self._pid, self._everything, self._timeout = pid, everything, timeout
        self._owner = 0
        self._tracing: _Tracing | None = None
        self._count: Count | None = None

    @property
    def count(self) -> Count:
        """What was counted; BackendError before the block has ended, or when the count was lost."""
        if self._count is None:
            raise BackendError("there is no count: the block has not ended, or its tracer was lost")
        return self._count

    def __enter__(self) -> ProcessCounter:
        if self._tracing is not None:
            raise BackendError("this counter is in a block already", remedy="make a ProcessCounter for each block")
        self._owner, self._count = os.getpid(), None
        tids = () if self._everything or self._pid else (threading.get_native_id(),)
        tracing = _Tracing(tids, pid=self._pid or self._owner, timeout=self._timeout)
        try:
            tracing.begin()
        except BaseException:
            tracing.close()
            raise
        self._tracing = tracing
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        tracing, self._tracing = self._tracing, None
        if tracing is None:
            return
        if os.getpid() != self._owner:  # a fork of the block that leaves it, too
            tracing.process.returncode = 0  # no child of this process: nothing to wait for
            tracing.hang_up()
            return
        try:
            self._count = tracing.finish()
        except KernelError:
            if error is None:
                raise
        finally:
            tracing.close()


class _Tracing:
    """A tracer at work on a process, or on some threads of it, and the line to it."""

    def __init__(self, tids: Sequence[int], *, pid: int, timeout: float) -> None:
        self.timeout = timeout
        self.line, theirs = socket.socketpair()
        self.line.settimeout(timeout)
        self.answers = self.line.makefile("rb")
        program = (sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(__file__))
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own interpreter on this file
                    (*program, *map(str, (theirs.fileno(), timeout, pid, *tids))),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is for the block, whose end then ends the tracer
                )
            except OSError as error:
                self.hang_up()
                raise KernelError(f"start a tracer: {error.strerror}", errno=error.errno or 0) from error

    def begin(self) -> None:
        """Let the tracer attach to the process, and wait until it has."""
        # Under Yama a child may trace us only by our leave (PR_SET_PTRACER(2const)); elsewhere this is EINVAL.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(self.process.pid), *[ctypes.c_ulong(0)] * 3)
        self.ask()

    def finish(self) -> Count:
        """Stop the tracer, which lets this process go, and return what it has counted."""
        return msgspec.convert(self.ask(), Count)

    def ask(self) -> object:
        """The tracer's next message; KernelError when it could not trace, or doesn't answer any more."""
        try:
            self.line.sendall(b".")
            answer = self.answers.readline()
        except TimeoutError as error:
            raise KernelError(f"the tracer gave no answer in {self.timeout:g} s") from error
        except OSError:  # it ended and our word was left unread
            answer = b""
        if not answer.endswith(b"\n"):
            raise KernelError("the tracer ended without a report: it was killed, or could not start")
        message = json.loads(answer)
        if "error" in message:
            remedy = REMEDY if message["errno"] == errno.EPERM else ""
            raise KernelError(f"count processes: {message['error']}", errno=message["errno"], remedy=remedy)
        return message

    def close(self) -> None:
        """End the tracer, if it has not ended by itself: the kernel lets go what a dead tracer held."""
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        self.answers.close()
        self.line.close()
