"""The only place that spawns processes: an argument list in, text out, always with a time limit; or one let go.

Counting, faking and timeouts thus exist once. There is no shell and no ``preexec_fn`` (it forces fork:
62 ms for a parent of 1 GiB instead of 0.8); a process meant for another network namespace is started by a
thread that is in it (netns.entered), since a child inherits the namespace of the thread that starts it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from meshfw.errors import BackendError, CommandError
from meshfw.kernel.netns import refused

if TYPE_CHECKING:  # at run time it's imported by the first process, not by every start of the command line
    import subprocess

# Where administrators' tools live that an ordinary user's or cron's PATH leaves out (Debian Policy 9.1.1).
_ADMIN_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")

_DEBIAN_PACKAGES = (
    ("iptables", "iptables"),
    ("ip6tables", "iptables"),
    ("xtables", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("conntrack", "conntrack"),
    ("ipset", "ipset"),
    ("unshare", "util-linux"),
    ("wg", "wireguard-tools"),
    ("dot", "graphviz"),
)


class Completed(msgspec.Struct, frozen=True):
    """What a process left: its output and error text, and its exit code (negative: the signal that ended it).

    ``pid`` is the number that it had.
    """

    stdout: str
    stderr: str
    returncode: int
    pid: int = 0


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    inherit: Sequence[int] = (),
    check: bool = True,
    remedy: str = "",
) -> Completed:
    """The result of one process, run to its end within ``timeout`` seconds.

    ``input`` is its standard input (nothing, not ours, when None); ``env`` is added to our own environment;
    ``inherit`` are descriptors of ours that it gets as they are, so that a lock lasts as long as it does.
    Output that is not UTF-8 is kept with surrogate escapes, so that it can be handed back byte for byte.
    Raises CommandError for a non-zero exit (unless ``check`` is False) and, whatever ``check`` says, for a
    process killed at its time limit; BackendError for a tool that is not installed, with ``remedy`` or the
    Debian package as the way out; KernelError when the system can't start a process.
    """
    import subprocess

    executable = _find(argv[0], env, remedy)
    try:
        process = subprocess.Popen(
            argv,
            executable=executable,
            # no standard input of ours: an interactive tool must end, not wait for a person
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            # a group of its own: distributions wrap these tools in scripts, and what must die is the tool
            process_group=0,
            pass_fds=inherit,
        )
    except OSError as error:
        raise refused(error, f"start {executable}", remedy=remedy) from error
    except ValueError as error:  # a NUL in an argument or variable
        raise BackendError(f"{argv[0]} can't be started: {error}") from error
    watchdog = _Watchdog(process, timeout)
    with process:
        try:
            stdout, stderr = process.communicate(input)
        except BaseException:
            _end(process)
            raise
        finally:
            watchdog.cancel()
    if watchdog.bit:
        said = f"killed after {timeout:g} s without an end\n{_text(stderr)}"
        raise CommandError(argv, returncode=-signal.SIGKILL, stderr=said, remedy=remedy)
    if check and process.returncode != 0:
        raise CommandError(argv, returncode=process.returncode, stderr=_text(stderr), remedy=remedy)
    return Completed(_text(stdout), _text(stderr), process.returncode, process.pid)


def detach(argv: Sequence[str], *, env: Mapping[str, str] | None = None, inherit: Sequence[int] = ()) -> int:
    """The number of a process that goes on without us: no terminal, no stream and no group of it is ours.

    It stands apart by setsid(2), so that no signal meant for our terminal or group reaches it, is in the root
    directory, and reads and writes nothing but the descriptors of ours that it gets by ``inherit``. ``env`` is
    added to our environment. Its end is waited for as long as we are there, so that it leaves no dead entry.
    Raises BackendError for a program that isn't installed; KernelError when the system can't start a process.
    """
    import subprocess
    import threading

    executable = _find(argv[0], env, "")
    try:
        process = subprocess.Popen(
            argv,
            executable=executable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=None if env is None else {**os.environ, **env},
            cwd="/",
            start_new_session=True,
            pass_fds=inherit,
        )
    except OSError as error:
        raise refused(error, f"start {executable}") from error
    threading.Thread(target=process.wait, name="meshfw-detached", daemon=True).start()
    return process.pid


class _Watchdog:
    """Kills a process with all it started when its time is over, unless it's cancelled before; ``bit``: it did.

    A time limit of :mod:`subprocess` itself waits for the end by polling with ever longer pauses, which would add
    milliseconds to a process that takes two.
    """

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        import threading

        self.bit = False
        self._process = process
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Let it be."""
        self._timer.cancel()

    def _bite(self) -> None:
        self.bit = True
        _end(self._process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all it started."""
    if process.returncode is None:  # not waited for yet: until then the number can't belong to somebody else
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def find(tool: str, *, env: Mapping[str, str] | None = None) -> str | None:
    """The path of a tool as ``run`` would start it, or None: PATH first, then the administrators' directories."""
    if "/" in tool:
        return tool if os.access(tool, os.X_OK) else None
    path = (env or {}).get("PATH", os.environ.get("PATH", os.defpath))
    for directory in (*path.split(":"), *_ADMIN_DIRECTORIES):
        candidate = os.path.join(directory, tool)
        # relative directories are left out: what root runs must not depend on where it stands
        if os.path.isabs(directory) and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    return None


def _find(tool: str, env: Mapping[str, str] | None, remedy: str) -> str:
    path = find(tool, env=env)
    if path is None:
        raise BackendError(f"{tool} is not installed", remedy=remedy or _install_line(tool))
    return path


def _install_line(tool: str) -> str:
    name = os.path.basename(tool)
    for stem, package in _DEBIAN_PACKAGES:
        if name == stem or name.startswith(f"{stem}-"):
            return f"apt-get install {package}"
    return ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
