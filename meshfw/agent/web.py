"""The agent over HTTP: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for whoever looks after it.

It only tells. No client holds it up: each has a thread, at most :data:`CONNECTIONS` at once, and when one more comes
the oldest is hung up on; one that says nothing for :data:`PATIENCE` seconds is as well.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from meshfw.agent.pulse import Doubt
from meshfw.errors import AgentError
from meshfw.printable import whole
from meshfw.settings import Address

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

CONNECTIONS: Final = 16
PATIENCE: Final = 5.0
"""Seconds that a client may be silent, or take nothing of its answer."""
_BODY_MOST: Final = 64 * 1024  # bytes of an unwanted body that are read, so that the refusal gets through
_log = logging.getLogger(__name__)


class WebServer:
    """Answers at an address from a thread of its own, until :meth:`close`; ``address`` has the port it got.

    ``alive`` and ``ready`` are asked for each request, and say why not.

    Raises:
        AgentError: the address can't be had.
    """

    def __init__(
        self, address: Address, *, registry: CollectorRegistry, alive: Doubt, ready: Doubt, patience: float = PATIENCE
    ) -> None:
        self._closing = False
        try:
            self._server = _Server(address, patience)
        except OSError as error:
            raise AgentError(
                f"can't listen at {address}: {error.strerror or error}", remedy="agent.listen names another address"
            ) from error
        self._server.set_app(_application(registry, alive, ready))
        self.address = Address(address.host, self._server.server_port)
        self._thread = threading.Thread(target=self._serve, name="meshfw-web", daemon=True)
        self._thread.start()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more; a second call does nothing."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # which ends a waiting accept()
        self._thread.join(PATIENCE)
        self._server.server_close()
        self._server.hang_up()

    def _serve(self) -> None:
        """Wait for clients without a pause in between: the library's own loop wakes twice a second."""
        while not self._closing:
            try:
                request, client = self._server.get_request()
                self._server.process_request(request, client)
            except (OSError, RuntimeError) as error:  # no descriptor, no thread, or closed
                if not self._closing:
                    _log.warning("nobody is answered over HTTP now: %s", error)
                    time.sleep(0.2)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A threading WSGI server that looks up no names, and keeps no more than so many connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a client that finds no room tries again a second later

    def __init__(self, address: Address, patience: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.patience = patience
        self._open: dict[socket.socket, None] = {}
        self._guard = threading.Lock()
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks for the host's full name, which waits for a name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS else None
            if oldest is not None:
                self._hang_up(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End all connections."""
        with self._guard:
            for request in list(self._open):
                self._hang_up(request)

    def _hang_up(self, request: socket.socket) -> None:
        del self._open[request]
        with suppress(OSError):  # its own thread closes it, and is woken by this
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a client over HTTP went away", exc_info=True)


class _Handler(WSGIRequestHandler):
    """One request; nothing is logged of it, and it's told nothing of what answers."""

    server: _Server
    server_version = "meshfw"

    def setup(self) -> None:
        self.request.settimeout(self.server.patience)
        super().setup()

    def get_stderr(self) -> io.TextIOBase:
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        pass


def _application(registry: CollectorRegistry, alive: Doubt, ready: Doubt) -> WSGIApplication:
    """What answers each path."""
    metrics = make_wsgi_app(registry)
    doubts = {"/healthz": alive, "/readyz": ready}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        _discard(environ)
        if path != "/metrics" and path not in doubts:
            return _plain(environ, start_response, "404 Not Found", f"there are /metrics, {' and '.join(doubts)}")
        if method not in ("GET", "HEAD"):
            return _plain(environ, start_response, "405 Method Not Allowed", "GET or HEAD", Allow="GET, HEAD")
        if path == "/metrics":
            body: list[bytes] = metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
            return body if method == "GET" else []
        doubt = doubts[path]()
        return _plain(environ, start_response, "503 Service Unavailable" if doubt else "200 OK", doubt or "ok")

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return answer(environ, start_response)
        except OSError:  # the client's connection
            raise
        except Exception:  # noqa: BLE001 - a defect must be an answer
            _log.exception("a defect of meshfw in the answer to %s", whole(environ.get("PATH_INFO", "")))
            return _plain(environ, start_response, "500 Internal Server Error", "a defect of meshfw: its log has more")

    return guarded


def _plain(
    environ: WSGIEnvironment, start_response: StartResponse, status: str, text: str, **headers: str
) -> list[bytes]:
    body = f"{whole(text)}\n".encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            *headers.items(),
        ],
    )
    return [body] if environ["REQUEST_METHOD"] != "HEAD" else []


def _discard(environ: WSGIEnvironment) -> None:
    """Read a small body that nobody wants: closing with it unread would reset the connection before the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isascii() and length.isdigit() and 0 < int(length) <= _BODY_MOST:
        environ["wsgi.input"].read(int(length))
