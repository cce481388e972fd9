"""The agent's own door: a unix socket on which root, or the agent's own user, asks it and tells it what to do.

One request and one answer per connection, each a JSON object on one line. Whoever connects is known by the kernel's own
word (SO_PEERCRED, unix(7)), and a stranger gets a refusal rather than silence. No client can hold the agent up: each
has a thread, few at once, a bounded request and a bounded time.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any, Final

from meshfw.backends.instance import runtime_file
from meshfw.errors import AgentError, MeshfwError
from meshfw.files.kept import OddFileError, only_keeper

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What a command does: it gets the request without the command's name, and gives the answer."""

REQUEST_MOST: Final = 64 * 1024
"""The longest request, in bytes."""
ANSWER_MOST: Final = 64 * 1024 * 1024
"""The longest answer that a client takes, in bytes."""
PATIENCE: Final = 5.0
"""Seconds in which a request must have come whole, and its answer been taken."""
_GLANCE: Final = 1.0
"""Seconds for the answer of an agent that may not be there."""
CLIENTS: Final = 16
"""Clients at once; the next ones wait until one of these has its answer."""
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
_log = logging.getLogger(__name__)


def socket_path(owner: str, netns: str | None = None) -> str:
    """Where the agent of an owner in a network namespace has its socket, beside the instance lock."""
    return runtime_file(owner, netns, "agent")


class ControlServer:
    """The socket at ``path`` with a thread that answers on it, until :meth:`close`.

    ``handlers`` has a function for each command; it's called in a thread of its client's. A MeshfwError that it raises
    is the answer. Only root and this process's own user are answered.

    Raises:
        AgentError: another agent answers at that path.
        OSError: no socket can be made there.
    """

    def __init__(self, path: str, handlers: Mapping[str, Handler], *, patience: float = PATIENCE) -> None:
        self.path = path
        self._handlers = dict(handlers)
        self._patience = patience
        self._room = threading.BoundedSemaphore(CLIENTS)
        self._closing = False
        self._socket = _bound(path)
        self._file = os.stat(path)
        self._thread = threading.Thread(target=self._accept, name="meshfw-control", daemon=True)
        self._thread.start()

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more, and take the socket's file away; a second call does nothing."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):
            if os.path.samestat(self._file, os.lstat(self.path)):  # another agent's may be there by now
                os.unlink(self.path)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which ends a waiting accept()
        self._thread.join(self._patience)
        self._socket.close()

    def _accept(self) -> None:
        while not self._closing:
            self._room.acquire()
            try:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), name="meshfw-control-client", daemon=True).start()
            except (OSError, RuntimeError) as error:  # no descriptor, no thread, or closed
                self._room.release()
                if not self._closing:
                    _log.warning("the control socket takes nobody now: %s", error)
                    time.sleep(0.2)

    def _serve(self, client: socket.socket) -> None:
        try:
            with closing(client):
                end = time.monotonic() + self._patience
                answer = self._answer(client, end)
                client.settimeout(self._patience)
                client.sendall(_line(answer))
        except OSError as error:
            _log.debug("a client of the control socket went away: %s", error)
        finally:
            self._room.release()

    def _answer(self, client: socket.socket, end: float) -> Mapping[str, Any]:
        refusal = _refusal(client)
        if refusal:
            return {"error": refusal}
        try:
            request = json.loads(_read_line(client, end, most=REQUEST_MOST))
        except TimeoutError:
            return {"error": f"no whole request came within {self._patience:g} s"}
        except (ValueError, RecursionError) as error:
            return {"error": f"that is no request: {error}"}
        command = request.pop("command", None) if isinstance(request, dict) else None
        handler = self._handlers.get(command) if isinstance(command, str) else None
        if handler is None:
            return {"error": f"there is no command {command!r}; there are {', '.join(sorted(self._handlers))}"}
        try:
            return {"answer": handler(request)}
        except MeshfwError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - a defect must be an answer, not the end of a thread
            _log.exception("a defect of meshfw in the command %s", command)
            return {"error": f"{type(error).__name__}: {error} (a defect of meshfw; the agent's log has more)"}


def _refusal(client: socket.socket) -> str:
    """Why a client gets no answer; empty where it's root or our own user."""
    data = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    if user in (0, os.geteuid()):
        return ""
    return f"user {user} may not ask the agent; root and user {os.geteuid()} may"


def _bound(path: str) -> socket.socket:
    """A listening socket at a path, in place of one that nobody answers at any more."""
    directory, name = os.path.split(path)
    try:
        with only_keeper(directory):  # two agents that start at once don't take away each other's socket
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _clear(folder, name, path)
                return _listening(folder, name)
            finally:
                os.close(folder)
    except OddFileError as error:
        raise AgentError(
            f"no control socket in {directory}: {error}", remedy="only root or this user may write there"
        ) from error


def _listening(folder: int, name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Through the descriptor: a path of more than 107 bytes fits no address (unix(7)). The socket's file gets its
        # mode from the socket's own, which the umask of other threads' files has no part in.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(_short(folder, name))
        os.chmod(name, 0o600, dir_fd=folder)
        listener.listen(CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(folder: int, name: str, path: str) -> None:
    """Take away a socket that nobody listens on; AgentError where somebody does, or where it's something else."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AgentError(f"{path} is no socket", remedy="take it away")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(_short(folder, name))
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            return
        except BlockingIOError:  # its queue is full: there is somebody
            pass
    raise AgentError(f"another agent answers at {path}", remedy="end that one first, or give this one another owner")


def _short(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"


# --- the client's side -------------------------------------------------------------------------------------


def ask(path: str, command: str, *, timeout: float = PATIENCE, owner: str = "", **arguments: Any) -> dict[str, Any]:
    """What the agent at ``path`` answers to a command within ``timeout`` seconds.

    Raises:
        AgentError: nobody is there, it takes too long, it refuses, or what it says is no answer.
    """
    end = time.monotonic() + timeout
    try:
        with closing(_connected(path, timeout)) as agent:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was heard: the answer is there
                agent.sendall(_line({"command": command, **arguments}))
            answer = json.loads(_read_line(agent, end, most=ANSWER_MOST))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        whose = f" for owner {owner}" if owner else ""
        root = "" if os.geteuid() == 0 else "; one of root's answers to root"
        raise AgentError(
            f"no agent runs{whose} here (nobody answers at {path})", remedy=f"'meshfw agent' starts one{root}"
        ) from error
    except PermissionError as error:
        raise AgentError(f"{path} is not for this user", remedy="ask as root, or as the agent's user") from error
    except TimeoutError as error:
        raise AgentError(f"the agent didn't answer within {timeout:g} s", remedy="its log may say why") from error
    except OSError as error:
        raise AgentError(f"the agent at {path} can't be asked: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AgentError(f"what answers at {path} is no agent: {error}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("answer", {}), dict):
        raise AgentError(f"what answers at {path} is no agent")
    if "error" in answer:
        raise AgentError(f"the agent refused: {answer['error']}")
    found: dict[str, Any] = answer.get("answer", {})
    return found


def running(owner: str, netns: str | None) -> int:
    """The process number of the agent that keeps an owner's rules in a namespace; 0 where none answers."""
    try:
        answer = ask(socket_path(owner, netns), "status", timeout=_GLANCE, owner=owner)
    except (MeshfwError, OSError):
        return 0
    number = answer.get("pid")
    return number if isinstance(number, int) else 0


def refuse_second(owner: str, netns: str | None, remedy: str) -> None:
    """Refuse what an agent that runs would undo, or do as well: AgentError, with what to do."""
    number = running(owner, netns)
    if number:
        raise AgentError(f"an agent keeps the rules of {owner} here (process {number})", remedy=remedy)


def wake(owner: str, netns: str | None) -> None:
    """Have an agent look at once, where one runs."""
    with suppress(MeshfwError, OSError):
        ask(socket_path(owner, netns), "reconcile", timeout=_GLANCE, owner=owner)


def _connected(path: str, timeout: float) -> socket.socket:
    directory, name = os.path.split(path)
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            agent.settimeout(timeout)
            agent.connect(_short(folder, name))
        except BaseException:
            agent.close()
            raise
        return agent
    finally:
        os.close(folder)


# --- the lines ---------------------------------------------------------------------------------------------


def _line(value: Mapping[str, Any]) -> bytes:
    """A JSON object on one line, in ASCII: names of strangers may hold what is no text."""
    return json.dumps(value, default=str).encode("ascii") + b"\n"


def _read_line(peer: socket.socket, end: float, *, most: int) -> bytes:
    """What comes up to a newline or the end; TimeoutError after the time ``end``, ValueError if it's too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        peer.settimeout(left)
        part = peer.recv(65536)
        head, newline, _ = part.partition(b"\n")
        parts.append(head)
        size += len(head)
        if size > most:
            raise ValueError(f"it has more than {most} bytes")
        if newline or not part:
            return b"".join(parts)
