"""Laws of the agent's socket: who is answered, what is refused, and that no client holds it up."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshfw import BackendError
from meshfw.agent.control import CLIENTS, REQUEST_MOST, ControlServer, ask, socket_path
from meshfw.backends.instance import only_root_of_users
from meshfw.errors import AgentError
from meshfw.testing.netns import Netns


def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"got": dict(request)}


def refuse(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise BackendError("not now", remedy="later")


def crash(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"never": 1 // 0}


HANDLERS = {"echo": echo, "refuse": refuse, "crash": crash}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "meshfw-4-1.agent")


@pytest.fixture
def server(path: str) -> Iterator[ControlServer]:
    with ControlServer(path, HANDLERS, patience=0.5) as server:
        yield server


def raw(path: str, data: bytes) -> dict[str, Any]:
    """What is answered to bytes, with the sending side closed behind them."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        found = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
    assert isinstance(found, dict)
    return found


def test_a_command_gets_its_handlers_answer(server: ControlServer) -> None:
    assert ask(server.path, "echo", deep={"er": [1]}) == {"got": {"deep": {"er": [1]}}}
    assert ask(server.path, "echo") == {"got": {}}


def test_names_that_are_no_text_pass(server: ControlServer) -> None:
    odd = "\udcff\x1b[2J\n\u202e"
    assert ask(server.path, "echo", name=odd) == {"got": {"name": odd}}


def test_an_answer_may_be_long(server: ControlServer) -> None:
    assert len(ask(server.path, "echo", text="x" * 60_000)["got"]["text"]) == 60_000


def test_a_refusal_is_an_answer(server: ControlServer) -> None:
    with pytest.raises(AgentError, match=r"^the agent refused: not now \(later\)$"):
        ask(server.path, "refuse")
    with pytest.raises(AgentError, match="there is no command 'nothing'; there are crash, echo, refuse"):
        ask(server.path, "nothing")


def test_a_defect_is_an_answer_and_the_next_one_is_answered(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AgentError, match=r"ZeroDivisionError.*a defect of meshfw"):
        ask(server.path, "crash")
    assert "ZeroDivisionError" in caplog.text
    assert ask(server.path, "echo") == {"got": {}}


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{", b"[]\n", b"\xff\n", b'{"command": 1}\n', b"[" * 50_000, b"x" * (REQUEST_MOST + 1)]
)
def test_what_is_no_request_is_refused(server: ControlServer, data: bytes) -> None:
    assert set(raw(server.path, data)) == {"error"}
    assert ask(server.path, "echo") == {"got": {}}


def test_one_who_says_nothing_is_told_so_in_time(server: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(server.path)
        client.sendall(b'{"command"')
        assert "no whole request came within" in json.loads(client.recv(65536))["error"]


def test_silent_clients_hold_nobody_up_for_long(server: ControlServer) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(2 * CLIENTS)]
    try:
        for client in silent[:CLIENTS]:
            client.connect(server.path)
        assert ask(server.path, "echo", timeout=30) == {"got": {}}
    finally:
        for client in silent:
            client.close()


def test_several_clients_are_answered_at_once(path: str) -> None:
    together = threading.Barrier(4)

    def meet(request: Mapping[str, Any]) -> Mapping[str, Any]:
        together.wait(timeout=30)
        return {"met": True}

    answers: list[Mapping[str, Any]] = []
    with ControlServer(path, {"meet": meet}):
        clients = [threading.Thread(target=lambda: answers.append(ask(path, "meet", timeout=60))) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert answers == [{"met": True}] * 4


def test_the_socket_is_its_users_alone(server: ControlServer) -> None:
    status = os.stat(server.path)
    assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o600)


def test_the_umask_has_no_part_in_that(path: str) -> None:
    before = os.umask(0)
    try:
        with ControlServer(path, HANDLERS):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    finally:
        os.umask(before)


def as_user(number: int, ask_: Callable[[], str]) -> str:
    """What a function says as another user, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            os.write(writer, ask_().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child makes system calls and ends
@pytest.mark.skipif(os.geteuid() != 0 or only_root_of_users(), reason="only root can be somebody else")
def test_a_stranger_gets_a_refusal_even_past_the_mode() -> None:
    import shutil
    import tempfile

    directory = tempfile.mkdtemp()  # pytest's own are closed to other users
    try:
        path = os.path.join(directory, "a.agent")

        def say() -> str:
            try:
                return str(ask(path, "echo", timeout=10))
            except AgentError as error:
                return str(error)

        with ControlServer(path, HANDLERS):
            os.chmod(directory, 0o755)  # noqa: S103 - opened on purpose
            assert "is not for this user (ask as root" in as_user(65534, say)
            os.chmod(path, 0o666)  # noqa: S103 - so that the kernel's word alone is left
            expected = "the agent refused: user 65534 may not ask the agent; root and user 0 may"
            assert {as_user(65534, say) for _ in range(20)} == {expected}  # whoever of the two is faster
    finally:
        shutil.rmtree(directory)


def test_a_socket_that_nobody_answers_at_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(AgentError, match="no agent runs"):
        ask(path, "echo")
    with ControlServer(path, HANDLERS):
        assert ask(path, "echo") == {"got": {}}
    assert not os.path.exists(path)


def test_a_second_agent_is_refused_and_takes_nothing_away(server: ControlServer) -> None:
    with pytest.raises(AgentError, match="another agent answers at"):
        ControlServer(server.path, HANDLERS)
    assert ask(server.path, "echo") == {"got": {}}


def test_what_is_no_socket_stays(path: str) -> None:
    Path(path).write_text("precious", encoding="utf-8")
    with pytest.raises(AgentError, match="is no socket"):
        ControlServer(path, HANDLERS)
    assert Path(path).read_text(encoding="utf-8") == "precious"


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AgentError, match="may be written by others"):
        ControlServer(str(tmp_path / "a"), HANDLERS)


def test_the_end_takes_only_its_own_socket_away(path: str) -> None:
    first = ControlServer(path, HANDLERS)
    os.unlink(path)
    with ControlServer(path, HANDLERS):
        first.close()
        first.close()
        assert ask(path, "echo") == {"got": {}}


def test_without_an_agent_that_is_said_with_the_owner(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"^no agent runs for owner mesh1 here .*'meshfw agent' starts one"):
        ask(str(tmp_path / "none"), "status", owner="mesh1")
    with pytest.raises(AgentError, match="no agent runs"):
        ask(str(tmp_path / "no" / "directory"), "status")


def test_an_agent_that_hangs_is_given_up(path: str) -> None:
    released = threading.Event()

    def hang(request: Mapping[str, Any]) -> Mapping[str, Any]:
        released.wait(timeout=30)
        return {}

    with ControlServer(path, {"hang": hang}):
        with pytest.raises(AgentError, match=r"within 0\.1 s"):
            ask(path, "hang", timeout=0.1)
        released.set()


@pytest.mark.parametrize("said", [b"", b"hello\n", b"[]\n", b'{"answer": 3}\n'])
def test_what_is_no_agent_is_said_so(path: str, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def speak() -> None:
            client, _ = other.accept()
            with client:
                client.recv(100)
                client.sendall(said)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(AgentError, match="is no agent"):
            ask(path, "status")
        speaker.join()


def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir(mode=0o700)
    with ControlServer(str(deep / "a.agent"), HANDLERS):
        assert ask(str(deep / "a.agent"), "echo") == {"got": {}}


@pytest.mark.kernel
def test_each_owner_and_namespace_has_a_socket_of_its_own(
    netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    paths = {socket_path("mesh1"), socket_path("mesh2"), socket_path("mesh1", netns.path)}
    assert len(paths) == 3
    assert {os.path.dirname(path) for path in paths} == {str(tmp_path)}
    assert socket_path("mesh1") in paths
