"""HTTP with the API server: one connection for each request, a time limit on every wait, an end that can be forced."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote, urlencode, urlsplit

import msgspec

from meshfw_kilo.kubernetes_access import Access, KubernetesError, UntrustedError

CONNECT: Final = 10.0
"""Seconds to make a connection."""
ANSWER: Final = 30.0
"""Seconds without a byte of an answer."""
_LINE: Final = 16 << 20
"""Bytes of one event at most: etcd takes objects of 1.5 MiB."""
_ANSWER: Final = 512 << 20
"""Bytes of one answer at most."""
_LONGEST_WORD: Final = 300


class RefusedError(KubernetesError):
    """The server answered, and not as we asked: its HTTP status (or an ERROR event's code), its own words.

    ``retry_after`` are the seconds after which it wants to be asked again, 0 where it doesn't say.
    """

    def __init__(
        self, code: int, message: str, *, server: str = "", remedy: str = "", why: str = "", retry_after: float = 0
    ) -> None:
        super().__init__(f"{message} [{code}{f' {why}' if why else ''}]", server=server, remedy=remedy)
        self.code = code
        self.message = message
        self.why = why
        """Its reason in one word of Kubernetes, such as Expired or Forbidden; empty where it gave none."""
        self.retry_after = retry_after


class MalformedError(KubernetesError):
    """The server's answer is none of Kubernetes: it may have told of something that we couldn't read."""


class Closed(Exception):  # noqa: N818 - no error: we were told to end
    """The client is closed, by another thread."""


class _Connection(http.client.HTTPConnection):
    """A connection whose socket its client knows from the first moment on, so that another thread can end it."""

    def __init__(self, client: Client, access: Access, timeout: float) -> None:
        parts = urlsplit(access.server)
        super().__init__(parts.hostname or "", parts.port or (443 if access.secure else 80), timeout=timeout)
        self._client = client
        self._access = access

    def connect(self) -> None:
        """Connect to the first of the host's addresses that takes it; with TLS, after its certificate is verified."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, address) in enumerate(found, 1):
            connected = self._made(socket.socket(family, kind, protocol))
            try:
                self._client.holds(connected)
                self._connect(connected, address)
                self.sock = connected
                return
            except OSError as error:
                connected.close()
                if number == len(found) or isinstance(error, ssl.SSLError):
                    raise
            except BaseException:
                connected.close()
                raise

    def _made(self, plain: socket.socket) -> socket.socket:
        """A socket that isn't connected yet, with TLS where it's wanted."""
        if not self._access.secure:
            return plain
        try:
            name = self._access.name_to_verify or self.host
            return self._access.context().wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise

    def _connect(self, made: socket.socket, address: Any) -> None:
        made.settimeout(CONNECT)
        try:
            made.connect(address)
            if isinstance(made, ssl.SSLSocket):
                made.do_handshake()
        except TimeoutError as error:  # which has no number, unlike an answer that doesn't come
            raise TimeoutError(errno.ETIMEDOUT, "it doesn't answer") from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(self.timeout)


class Client:
    """Reads from one API server; one thread reads, and any may close it, which ends a read that waits."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._access.server

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        """What the server answers, out of JSON.

        Raises:
            KubernetesError: it can't be reached, refuses (RefusedError), or answers something else (MalformedError).
        """
        with self._answer(path, query, ANSWER) as answer:
            text = answer.read(_ANSWER + 1)
        if len(text) > _ANSWER:
            raise MalformedError("an answer without end", server=self.server)
        return self._decoded(text)

    def watch(self, path: str, query: Mapping[str, str], *, idle: float, opened: Callable[[], None]) -> Iterator[Any]:
        """The lines of an answer that goes on, out of JSON each, until the server ends it; ``opened`` is called first.

        Raises:
            KubernetesError: as for :meth:`get`, and where it breaks off or nothing comes for ``idle`` seconds.
        """
        with self._answer(path, query, idle) as answer:
            opened()
            while line := answer.readline(_LINE + 1):
                if not line.endswith(b"\n"):
                    if len(line) > _LINE:
                        raise MalformedError("an event without end", server=self.server)
                    raise KubernetesError("the connection broke off inside an event", server=self.server)
                if line.strip():
                    yield self._decoded(line)

    def close(self) -> None:
        """End what is being read, from any thread, and refuse to read again."""
        with self._lock:
            self._closed = True
            self._cut()

    def cut(self) -> None:
        """End what is being read, as if the connection had broken."""
        with self._lock:
            self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            # The plain socket's own method: SSLSocket's takes the TLS away under the feet of the thread that reads.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def holds(self, connected: socket.socket | None) -> None:
        """Take note of the socket that is in use now."""
        with self._lock:
            self._socket = connected
            if self._closed and connected is not None:
                raise Closed

    def _decoded(self, text: bytes) -> Any:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise MalformedError(f"what came isn't JSON: {error}", server=self.server) from error

    @contextmanager
    def _answer(self, path: str, query: Mapping[str, str], idle: float) -> Iterator[http.client.HTTPResponse]:
        if self._closed:
            raise Closed
        connection, answer = _Connection(self, self._access, idle), None
        try:
            answer = self._asked(connection, path, query)
            yield answer
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate isn't trusted: {error.verify_message}"
            raise self._unless_closed(UntrustedError(reason, server=self.server)) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unless_closed(KubernetesError(_told(error, idle), server=self.server)) from error
        except MalformedError as error:  # the last of what came may be cut in the middle
            raise self._unless_closed(error) from None
        finally:
            self.holds_none()
            if answer is not None:
                answer.close()
            connection.close()

    def holds_none(self) -> None:
        """Take note that no socket is in use."""
        with self._lock:
            self._socket = None

    def _unless_closed(self, error: KubernetesError) -> Exception:
        return Closed() if self._closed else error

    def _asked(self, connection: _Connection, path: str, query: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer, once its head is there; asked a second time where the token was changed meanwhile."""
        token = self._access.token.read()
        answer = self._sent(connection, path, query, token)
        if answer.status == 401:
            renewed = self._access.token.read()
            if renewed != token:
                answer.close()
                answer = self._sent(connection, path, query, renewed)
        if answer.status == 200:
            return answer
        with closing(answer):
            raise self._refusal(answer, path, query)

    def _sent(
        self, connection: _Connection, path: str, query: Mapping[str, str], token: str
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "meshfw-kilo", "Connection": "close"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.close()
        connection.request("GET", f"{urlsplit(self.server).path}{path}?{urlencode(query)}", headers=headers)
        return connection.getresponse()

    def _refusal(self, answer: http.client.HTTPResponse, path: str, query: Mapping[str, str]) -> RefusedError:
        text = b""
        with suppress(OSError, http.client.HTTPException):
            text = answer.read(1 << 16)
        try:
            said = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            said = {"message": text.decode("utf-8", "replace")}
        return refused(
            said if isinstance(said, Mapping) else {},
            server=self.server,
            code=answer.status,
            remedy=_remedy(answer.status, path, watch="watch" in query),
            retry_after=_retry_after(answer.getheader("Retry-After")),
        )


def refused(
    status: Mapping[str, Any], *, server: str, code: int = 0, remedy: str = "", retry_after: float = 0
) -> RefusedError:
    """The error that a Status of Kubernetes tells of (meta/v1 Status)."""
    number = status.get("code")
    message = str(status.get("message") or "it gives no reason").strip()
    return RefusedError(
        code or (number if isinstance(number, int) else 500),
        message if len(message) <= _LONGEST_WORD else f"{message[: _LONGEST_WORD - 3]}...",
        server=server,
        remedy=remedy,
        why=str(status.get("reason") or "")[:_LONGEST_WORD],
        retry_after=retry_after,
    )


def _remedy(code: int, path: str, *, watch: bool) -> str:
    resource = unquote(path).rsplit("/", 1)[-1]
    if code == 403:
        needed = "nodes: list, watch; peers.kilo.squat.ai: list, watch"
        return f"its account may not {'watch' if watch else 'list'} {resource}: a ClusterRole has to allow {needed}"
    if code == 401:
        return "the token or the client certificate isn't accepted"
    if 300 <= code < 400:
        return "redirections aren't followed: name the API server itself"
    return ""


def _retry_after(value: str | None) -> float:
    """Seconds; the header has them, or a date (RFC 9110, 10.2.3), which counts as one second's wait."""
    if value is None:
        return 0
    if value.strip().isdecimal():
        return float(value)
    try:
        parsedate_to_datetime(value)
    except ValueError:
        return 0
    return 1


def _told(error: OSError | http.client.HTTPException, idle: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it can't be reached: {error.strerror}" if error.errno else f"no word from it for {idle:g} s"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"its name isn't known: {error.strerror}"
    if isinstance(error, OSError):
        return f"it can't be reached: {error.strerror or error}"
    return f"the connection broke off ({type(error).__name__})"
