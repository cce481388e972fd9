"""Laws of the process counter: every process and exec once, threads never, and the counted are left as they were."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshfw.errors import BackendError, CommandError, KernelError
from meshfw.testing import counting
from meshfw.testing.counting import Count, Counted, ProcessCounter, run_counted

NOTHING = Count(0, 0, ())
ROOT = Path(__file__).resolve().parent.parent


def field(task: str | int, name: str) -> str:
    """A field of /proc/TASK/status."""
    text = Path(f"/proc/{task}/status").read_text(encoding="utf-8")
    return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))


def traced_threads() -> list[str]:
    """The threads of this process that somebody traces, or that are stopped."""
    tasks = [f"self/task/{tid}" for tid in os.listdir("/proc/self/task")]
    return [task for task in tasks if field(task, "TracerPid") != "0" or field(task, "State") in "Tt"]


def children() -> set[str]:
    """The processes made by this one that are not reaped yet."""
    lists = [Path(f"/proc/self/task/{tid}/children") for tid in os.listdir("/proc/self/task")]
    return {pid for path in lists for pid in path.read_text(encoding="ascii").split()}


def python(program: str, *arguments: str) -> Counted:
    """The counted run of a Python program by the interpreter itself, not by a shim."""
    return run_counted([sys.executable, "-I", "-S", "-c", program, *arguments])


def sh(program: str) -> Count:
    """The count of a shell program."""
    return run_counted(["/bin/sh", "-c", program]).count


def reap(pid: int) -> int:
    """The exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def spawn(*argv: str) -> int:
    """A child by posix_spawn, not waited for."""
    return os.posix_spawn(argv[0], argv, os.environ)


def fork(*argv: str) -> int:
    """A child by fork that execs a program, or ends at once."""
    with warnings.catch_warnings():
        # Python 3.12 and later: the other threads are the test runner's, and the child calls nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            if argv:
                os.execv(argv[0], argv)  # noqa: S606 - the way under test
        finally:
            os._exit(0)
    return pid


@contextmanager
def spawning_threads(number: int) -> Iterator[None]:
    """Threads that start processes without a pause."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            reap(spawn("/bin/true"))

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def need_user_namespaces() -> None:
    """The end of a test where the system makes no user namespaces: a failure in CI, else a skip."""
    if subprocess.run(["unshare", "-r", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        message = "no user namespaces here; sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=1000"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


async def asynchronous() -> None:
    process = await asyncio.create_subprocess_exec("/bin/true")
    await process.wait()


# --- exact counts ---


def test_nothing_started_counts_nothing() -> None:
    with ProcessCounter() as counter:
        sum(range(1000))
    assert counter.count == NOTHING
    assert run_counted(["/bin/true"]).count == NOTHING


def test_threads_are_no_processes() -> None:
    with ProcessCounter() as counter:
        threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counter.count == NOTHING


def test_threads_of_descendants_are_no_processes() -> None:
    program = "import threading as t; [x.start() for x in [t.Thread(target=print) for _ in range(8)]]"
    with ProcessCounter() as counter:
        subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, stdout=subprocess.DEVNULL)
    assert (counter.count.forks, counter.count.execs) == (1, 1)


WAYS: dict[str, tuple[Callable[[], object], int, int]] = {
    "posix_spawn": (lambda: reap(spawn("/bin/true")), 1, 1),
    "subprocess": (lambda: subprocess.run(["/bin/true"], check=True), 1, 1),
    "subprocess with pipes": (lambda: subprocess.run(["/bin/cat"], check=True, input=b"x", capture_output=True), 1, 1),
    "asyncio": (lambda: asyncio.run(asynchronous()), 1, 1),
    "fork": (lambda: reap(fork()), 1, 0),
    "fork and exec": (lambda: reap(fork("/bin/true")), 1, 1),
    "fork and failed exec": (lambda: reap(fork("/dev/null")), 1, 0),
    "shell": (lambda: subprocess.run(["/bin/sh", "-c", "/bin/true; :"], check=True), 2, 2),
    "nested shells": (lambda: subprocess.run(["/bin/sh", "-c", "(:); (/bin/true; :); /bin/true; :"], check=True), 5, 3),
    "replaced shell": (lambda: subprocess.run(["/bin/sh", "-c", "exec /bin/true"], check=True), 1, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_start_a_process_counts_once(way: str) -> None:
    start, forks, execs = WAYS[way]
    with ProcessCounter() as counter:
        for _ in range(3):
            start()
    assert (counter.count.forks, counter.count.execs) == (3 * forks, 3 * execs)


def test_threads_that_start_processes_at_once_lose_none() -> None:
    def work(number: int) -> None:
        for turn in range(5):
            reap(spawn("/bin/true", f"{number}-{turn}"))

    with ProcessCounter() as counter:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    count = counter.count
    assert (count.forks, count.execs) == (40, 40)
    wanted = [("/bin/true", f"{number}-{turn}") for number in range(8) for turn in range(5)]
    assert collections.Counter(count.commands) == collections.Counter(wanted)


def test_threads_older_than_the_block_are_counted_in_it() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        reap(spawn("/bin/true"))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with ProcessCounter() as counter:
        go.set()
        done.wait()
    thread.join()
    assert (counter.count.forks, counter.count.execs) == (1, 1)


def test_another_process_that_runs_already_is_counted_in_place_of_this_one() -> None:
    program = "import subprocess, sys\nfor line in sys.stdin:\n    subprocess.run(['/bin/true'])\n    print(flush=True)"
    pipe = subprocess.PIPE
    with subprocess.Popen((sys.executable, "-c", program), stdin=pipe, stdout=pipe) as other:

        def once() -> None:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(b"\n")
            other.stdin.flush()
            assert other.stdout.readline()

        once()
        with ProcessCounter(pid=other.pid) as counter:
            reap(spawn("/bin/true"))
            once()
            once()
        once()
        assert field(other.pid, "TracerPid") == "0"
        other.communicate()
    assert counter.count == Count(2, 2, (("/bin/true",),) * 2)


def test_a_thread_made_while_the_block_begins_is_in_it() -> None:
    over, wanted, done = threading.Event(), threading.Event(), threading.Event()

    def runner() -> None:
        # Hands over to a new thread all the time, so that one is being made whenever the tracer looks.
        if wanted.is_set():
            wanted.clear()
            reap(spawn("/bin/true"))
            done.set()
        if not over.is_set():
            threading.Thread(target=runner).start()

    threads = threading.active_count()
    threading.Thread(target=runner).start()
    try:
        for _ in range(30):
            with ProcessCounter() as counter:
                done.clear()
                wanted.set()
                assert done.wait(20)
            assert (counter.count.forks, counter.count.execs) == (1, 1)
            assert field("self", "TracerPid") == "0"
    finally:
        over.set()
        while threading.active_count() > threads:
            time.sleep(0.001)


def test_only_the_block_counts() -> None:
    reap(spawn("/bin/true"))
    with ProcessCounter() as counter:
        reap(spawn("/bin/true", "inside"))
    reap(spawn("/bin/true"))
    assert counter.count == Count(1, 1, (("/bin/true", "inside"),))


def test_what_has_begun_at_the_end_of_the_block_is_counted() -> None:
    for _ in range(20):
        with ProcessCounter() as counter:
            pid = spawn("/bin/true")
        assert (counter.count.forks, counter.count.execs) == (1, 1)
        assert reap(pid) == 0


def test_a_process_made_without_a_signal_is_a_process() -> None:
    # clone(2) without SIGCHLD in its flags is reported as threads are, and is none.
    program = """
import ctypes, os
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
libc = ctypes.CDLL(None)
pid = libc.syscall(ctypes.c_long(clone), *[ctypes.c_ulong(0)] * 5)
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0x40000000)
"""
    assert python(program) == Counted(Count(1, 0, ()), 0, "", "")


def test_a_process_that_a_new_thread_becomes_is_one_exec() -> None:
    # The exec ends all other threads, and the thread takes over the number of the first (execve(2)).
    program = """
import os, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
threading.Thread(target=os.execv, args=("/bin/echo", ["echo", "here"])).start()
time.sleep(60)
"""
    assert python(program) == Counted(Count(0, 1, (("echo", "here"),)), 0, "here\n", "")


def test_arguments_are_kept_byte_for_byte() -> None:
    odd = ("/bin/true", "", "two words", "new\nline", os.fsdecode(b"\xff\xfe"), "ä", "")
    with ProcessCounter() as counter:
        reap(spawn(*odd))
    assert counter.count.commands == (odd,)


def test_a_script_is_one_exec_with_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    script.chmod(0o755)
    with ProcessCounter() as counter:
        subprocess.run([script, "x"], check=True)
    assert counter.count == Count(1, 1, (("/bin/sh", str(script), "x"),))


def test_commands_come_in_the_order_of_their_execs() -> None:
    assert sh("/bin/true 1; /bin/true 2; /bin/true 3; :").commands == tuple(("/bin/true", n) for n in "123")


WORKLOAD = """
import os, subprocess
for _ in range(5):
    subprocess.run(["/bin/true"])
    subprocess.run(["/bin/sh", "-c", "(:); /bin/true; exec /bin/true"])
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""


def test_strace_counts_the_same(requires: Callable[..., None], tmp_path: Path) -> None:
    requires("strace")
    argv = [sys.executable, "-I", "-S", "-c", WORKLOAD]
    # -ff writes one file for each task; the workload has no threads.
    strace = ["strace", "-ff", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o", str(tmp_path / "task")]
    subprocess.run([*strace, *argv], check=True)
    files = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    execs = [line for text in files for line in text.splitlines() if line.endswith(" = 0")]
    count = run_counted(argv).count
    assert (count.forks, count.execs) == (len(files) - 1, len(execs) - 1)  # both saw the program itself
    assert (count.forks, count.execs) == (25, 20)


def test_the_rootless_can_count(requires: Callable[..., None]) -> None:
    requires("unshare")
    need_user_namespaces()
    program = """
import subprocess
from meshfw.testing.counting import ProcessCounter, run_counted
with ProcessCounter() as counter:
    subprocess.run(["/bin/sh", "-c", "/bin/true; :"])
other = run_counted(["/bin/sh", "-c", "/bin/true; :"]).count
print(counter.count.forks, counter.count.execs, other.forks, other.execs)
"""
    argv = ["unshare", "-rn", sys.executable, "-c", program]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("2 2 1 1\n", "")


def test_processes_in_other_namespaces_count(requires: Callable[..., None]) -> None:
    requires("unshare")
    need_user_namespaces()
    # unshare runs the shell in a child, which is process 1 of its own pid namespace.
    count = run_counted(["unshare", "-rpf", "/bin/sh", "-c", "/bin/true x; :"]).count
    assert count == Count(2, 2, (("/bin/sh", "-c", "/bin/true x; :"), ("/bin/true", "x")))


def test_a_proc_of_another_pid_namespace_is_refused_by_name(requires: Callable[..., None]) -> None:
    requires("unshare")
    need_user_namespaces()
    program = "from meshfw.testing.counting import ProcessCounter; ProcessCounter().__enter__()"
    argv = ["unshare", "-rpf", sys.executable, "-c", program]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT)
    assert "KernelError: count processes: /proc shows another pid namespace" in done.stderr


def test_a_process_that_may_not_be_traced_says_what_is_needed(requires: Callable[..., None]) -> None:
    # A process that is not dumpable (prctl(2), PR_SET_DUMPABLE) is closed to all without CAP_SYS_PTRACE.
    requires("unshare")  # setpriv is of the same package
    need_user_namespaces()
    program = """
import ctypes, sys
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
from meshfw.testing.counting import ProcessCounter
ProcessCounter().__enter__()
"""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    argv = ["unshare", "-r", *drop, sys.executable, "-c", program]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT)
    assert "KernelError: count processes: Operation not permitted (ptrace must be allowed" in done.stderr


# --- a counted program is the same program ---


def test_a_program_gets_its_input_and_environment() -> None:
    argv = ["/bin/sh", "-c", 'read word; echo "$word $MARK"; echo no >&2; exit 3']
    done = run_counted(argv, input=b"in\n", env={"MARK": "x"})
    assert done == Counted(NOTHING, 3, "in x\n", "no\n")


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BackendError, match="not installed"):
        run_counted(["meshfw-no-such-program"])
    assert traced_threads() == []


def test_a_program_is_killed_at_its_time_limit() -> None:
    before, start = children(), time.monotonic()
    with pytest.raises(CommandError) as caught:
        run_counted(["/bin/sh", "-c", "/bin/sleep 60; :"], timeout=0.3)
    assert caught.value.returncode == -signal.SIGKILL
    assert time.monotonic() - start < 20
    assert traced_threads() == []
    assert children() <= before


def test_other_threads_are_no_descendants_of_a_program() -> None:
    with spawning_threads(2):
        assert sh("/bin/true; :") == Count(1, 1, (("/bin/true",),))


def test_signals_reach_the_traced() -> None:
    program = """
import os, signal
seen = []
for number in (signal.SIGUSR1, signal.SIGTRAP, signal.SIGCHLD, signal.SIGCONT, signal.SIGRTMIN):
    signal.signal(number, lambda number, frame: seen.append(int(number)))
    os.kill(os.getpid(), number)
print(seen)
"""
    numbers = [signal.SIGUSR1, signal.SIGTRAP, signal.SIGCHLD, signal.SIGCONT, signal.SIGRTMIN]
    assert python(program) == Counted(NOTHING, 0, f"{[int(number) for number in numbers]}\n", "")


@pytest.mark.parametrize("name", ["TERM", "TRAP", "KILL"])
def test_a_signal_ends_the_traced_as_it_would_without(name: str) -> None:
    with ProcessCounter() as counter:
        pid = spawn("/bin/sleep", "60")
        os.kill(pid, signal.Signals[f"SIG{name}"])
        assert reap(pid) == -signal.Signals[f"SIG{name}"]
    assert counter.count.forks == 1


def test_a_stopped_child_stays_stopped_until_it_is_continued() -> None:
    with ProcessCounter() as counter:
        pid = spawn("/bin/sleep", "60")
        os.kill(pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        os.kill(pid, signal.SIGCONT)
        assert os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1])
        os.kill(pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        time.sleep(0.05)
        assert field(pid, "State") in "Tt"
    assert (counter.count.forks, counter.count.execs) == (1, 1)
    assert field(pid, "TracerPid") == "0"
    deadline = time.monotonic() + 20
    while field(pid, "State") != "T" and time.monotonic() < deadline:  # from one kind of stop to the other
        time.sleep(0.001)
    assert field(pid, "State") == "T"
    os.kill(pid, signal.SIGCONT)
    assert os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1])
    os.kill(pid, signal.SIGTERM)
    assert reap(pid) == -signal.SIGTERM


def test_what_outlives_the_block_goes_on() -> None:
    with ProcessCounter() as counter:
        process = subprocess.Popen(["/bin/sh", "-c", "read line; /bin/true; exit 7"], stdin=subprocess.PIPE)
    assert (counter.count.forks, counter.count.execs) == (1, 1)
    assert field(process.pid, "TracerPid") == "0"
    process.communicate(b"\n")
    assert process.returncode == 7


# --- nothing is left behind ---


def test_an_error_in_the_block_is_raised_again_and_frees_all() -> None:
    before = children()
    with pytest.raises(ZeroDivisionError), ProcessCounter() as counter:  # noqa: PT012 - where it is raised is the law
        reap(spawn("/bin/true"))
        _ = 1 // 0
    assert counter.count.forks == 1
    assert traced_threads() == []
    assert children() == before


def test_a_killed_tracer_frees_all_and_loses_the_count() -> None:
    before = children()
    with pytest.raises(KernelError, match="without a report"), ProcessCounter() as counter:  # noqa: PT012 - as above
        os.kill(int(field("self", "TracerPid")), signal.SIGKILL)
        for _ in range(5):
            assert reap(spawn("/bin/true")) == 0
        assert traced_threads() == []
    with pytest.raises(BackendError, match="no count"):
        _ = counter.count
    assert children() == before


def test_a_tracer_killed_at_work_frees_all() -> None:
    for _ in range(5):
        with spawning_threads(4):
            with pytest.raises(KernelError), ProcessCounter():  # noqa: PT012 - the tracer dies inside
                time.sleep(0.05)
                os.kill(int(field("self", "TracerPid")), signal.SIGKILL)
            assert traced_threads() == []


def test_the_error_of_the_block_goes_before_a_lost_count() -> None:
    with pytest.raises(ZeroDivisionError), ProcessCounter():  # noqa: PT012 - as above
        os.kill(int(field("self", "TracerPid")), signal.SIGKILL)
        _ = 1 // 0


def test_a_tracer_that_hangs_is_given_up_in_time() -> None:
    before, start = children(), time.monotonic()
    # This process gets a SIGCHLD for its stopped child and stands still, since the one to pass it on is stopped.
    with pytest.raises(KernelError), ProcessCounter(timeout=1.0):
        os.kill(int(field("self", "TracerPid")), signal.SIGSTOP)
    assert time.monotonic() - start < 20
    assert traced_threads() == []
    assert children() == before


def test_a_tracer_that_is_late_is_given_up() -> None:
    before = children()
    with pytest.raises(KernelError, match="no answer"), ProcessCounter(timeout=0.001):
        pytest.fail("a process started in a millisecond")
    assert children() == before
    assert traced_threads() == []


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.2])  # seconds: before, while and after the tracer attaches
def test_an_interrupt_while_the_block_begins_leaves_nothing(monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    def interrupted(tracing: counting._Tracing) -> None:
        tracing.line.sendall(b".")
        time.sleep(delay)
        raise KeyboardInterrupt

    before = children()
    monkeypatch.setattr(counting._Tracing, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt), ProcessCounter():
        pytest.fail("the block began")
    assert children() == before
    assert traced_threads() == []


def test_a_busy_block_ends_in_time() -> None:
    with spawning_threads(4):
        with ProcessCounter(timeout=20) as counter:
            time.sleep(0.2)
        assert traced_threads() == []
    assert counter.count.forks > 4
    # A process that was just made when the block ended has not come to its exec.
    assert counter.count.forks - 4 <= counter.count.execs <= counter.count.forks


def test_two_hundred_blocks_leave_nothing() -> None:
    def held() -> tuple[set[str], list[str], set[str]]:
        return children(), os.listdir("/proc/self/fd"), set(os.listdir("/proc/self/task"))

    before = held()
    for _ in range(200):
        with ProcessCounter() as counter:
            reap(spawn("/bin/true"))
        assert (counter.count.forks, counter.count.execs) == (1, 1)
    after = held()
    assert after[:2] == before[:2]
    assert after[2] <= before[2], "a thread more; one less may be an earlier test's that ended"
    assert traced_threads() == []


def test_a_fork_may_leave_the_block_by_itself() -> None:
    with ProcessCounter() as counter:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in fork() above
            pid = os.fork()
        if pid == 0:
            try:
                counter.__exit__(None, None, None)
                os._exit(7)
            finally:
                os._exit(1)
        assert reap(pid) == 7
        reap(spawn("/bin/true"))
    assert (counter.count.forks, counter.count.execs) == (2, 1)


def test_a_second_counter_names_the_first() -> None:
    with ProcessCounter() as counter:
        tracer = field("self", "TracerPid")
        with pytest.raises(KernelError, match=f"process {tracer} traces this one already") as caught, ProcessCounter():
            pytest.fail("two tracers for one process")
        assert caught.value.remedy
    assert counter.count.forks == 1  # the tracer that was refused


def test_there_is_no_count_before_the_end() -> None:
    with ProcessCounter() as counter:
        with pytest.raises(BackendError, match="no count"):
            _ = counter.count
        with pytest.raises(BackendError, match="already"):
            counter.__enter__()
    assert counter.count == NOTHING


def test_a_counter_counts_each_block_anew() -> None:
    counter = ProcessCounter()
    for _ in range(2):
        with counter:
            reap(spawn("/bin/true"))
        assert counter.count.forks == 1


def test_blocked_signals_of_the_caller_do_no_harm() -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    try:
        with ProcessCounter() as counter:
            reap(spawn("/bin/true"))
        assert sh("/bin/true; :").execs == 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert counter.count.forks == 1


def test_counting_is_json_for_machines() -> None:
    import msgspec

    count = sh("/bin/true a; :")
    assert json.loads(msgspec.json.encode(count)) == {"forks": 1, "execs": 1, "commands": [["/bin/true", "a"]]}
