"""Laws of the agent over HTTP: what each path answers, and that no client holds it up."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshfw.agent.metrics import Metrics
from meshfw.agent.pulse import Pulse
from meshfw.agent.status import Status
from meshfw.agent.web import CONNECTIONS, WebServer
from meshfw.errors import AgentError
from meshfw.settings import Address

pytestmark = pytest.mark.usefixtures("loopback")


class Doubts:
    """What the two health checks say."""

    alive = ready = ""


@pytest.fixture
def doubts() -> Doubts:
    return Doubts()


@pytest.fixture
def server(doubts: Doubts) -> Iterator[WebServer]:
    metrics = Metrics(version="1.2.3")
    metrics.status(Status(rules=7))
    with WebServer(
        Address("127.0.0.1", 0),
        registry=metrics.registry,
        alive=lambda: doubts.alive,
        ready=lambda: doubts.ready,
        patience=1.0,
    ) as server:
        yield server


def ask(
    server: WebServer, path: str, method: str = "GET", body: bytes | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8"), dict(answer.getheaders())
    finally:
        connection.close()


def test_metrics_are_what_prometheus_reads(server: WebServer) -> None:
    status, text, headers = ask(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["meshfw_rules"].samples[0].value == 7


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz?verbose"])
def test_well_is_200(server: WebServer, path: str) -> None:
    assert ask(server, path)[:2] == (200, "ok\n")


def test_unwell_is_503_with_the_reason_on_one_line(server: WebServer, doubts: Doubts) -> None:
    doubts.alive = "late"
    doubts.ready = "contended with x\x1b[2J\n\udcff"
    assert ask(server, "/healthz")[:2] == (503, "late\n")
    assert ask(server, "/readyz")[:2] == (503, "contended with x\\x1b[2J\\n\\udcff\n")


@pytest.mark.parametrize("path", ["/", "/metrics.txt", "/metrics2", "/%00"])
def test_any_other_path_is_404(server: WebServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_any_other_method_is_405_and_told_what_may_be(server: WebServer, path: str, method: str) -> None:
    status, _, headers = ask(server, path, method, b"x" * 30_000)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/none"])
def test_head_has_no_body(server: WebServer, path: str) -> None:
    with socket.create_connection((server.address.host, server.address.port), timeout=30) as client:
        client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.0 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data", [b"\r\n", b"nonsense\r\n\r\n", b"GET /\x00 HTTP/9\r\n\r\n", b"G" * 70_000, b"\xff\xff\r\n"]
)
def test_what_is_no_request_does_no_harm(server: WebServer, data: bytes) -> None:
    with socket.create_connection((server.address.host, server.address.port), timeout=30) as client:
        try:
            client.sendall(data)
            while client.recv(65536):
                pass
        except ConnectionError:
            pass
    assert ask(server, "/healthz")[0] == 200


def hung_up(client: socket.socket) -> bool:
    """Whether the other side ends the connection without a word."""
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


def test_silent_clients_hold_nobody_up(server: WebServer) -> None:
    place = (server.address.host, server.address.port)
    silent = [socket.create_connection(place, timeout=30) for _ in range(3 * CONNECTIONS)]
    try:
        for client in silent:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        begun = time.monotonic()
        assert ask(server, "/healthz")[0] == 200
        assert time.monotonic() - begun < 20
        # Those there are too many of are hung up on at once, the others when their time is over.
        assert all(hung_up(client) for client in silent)
    finally:
        for client in silent:
            client.close()


def test_connections_are_few(server: WebServer) -> None:
    place = (server.address.host, server.address.port)
    before = threading.active_count()
    silent = [socket.create_connection(place, timeout=30) for _ in range(3 * CONNECTIONS)]
    try:
        assert ask(server, "/healthz")[0] == 200
        deadline = time.monotonic() + 20
        while threading.active_count() > before + CONNECTIONS and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before + CONNECTIONS
    finally:
        for client in silent:
            client.close()


def test_a_defect_is_500_and_the_next_one_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    def crash() -> str:
        raise ZeroDivisionError

    metrics = Metrics(version="1")
    with WebServer(Address("127.0.0.1", 0), registry=metrics.registry, alive=crash, ready=str) as server:
        assert ask(server, "/healthz")[0] == 500
        assert "ZeroDivisionError" in caplog.text
        assert ask(server, "/readyz")[0] == 200


def test_ipv6_is_an_address_like_any(doubts: Doubts) -> None:
    metrics = Metrics(version="1")
    with WebServer(Address("::1", 0), registry=metrics.registry, alive=str, ready=str) as server:
        assert ask(server, "/healthz")[0] == 200


def test_an_address_in_use_is_said_with_its_key(server: WebServer) -> None:
    metrics = Metrics(version="1")
    with pytest.raises(AgentError, match=r"can't listen at 127\.0\.0\.1:\d+: .*in use \(agent\.listen names another"):
        WebServer(server.address, registry=metrics.registry, alive=str, ready=str)


def test_after_the_end_nobody_answers_and_no_thread_is_left() -> None:
    before = threading.active_count()
    server = WebServer(Address("127.0.0.1", 0), registry=Metrics(version="1").registry, alive=str, ready=str)
    server.close()
    server.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/healthz")


def test_nothing_is_printed_of_a_request(server: WebServer, capfd: pytest.CaptureFixture[str]) -> None:
    ask(server, "/metrics")
    ask(server, "/none")
    assert capfd.readouterr() == ("", "")


def test_a_late_pulse_is_doubted_and_a_new_beat_mends_it() -> None:
    pulse = Pulse(grace=0.0)
    pulse.beat(-5.0)
    assert pulse.doubt() == "the loop is late by 5 s"
    pulse.beat(60.0)
    assert pulse.doubt() == ""
