"""The wire to one endpoint: its connection, what an answer holds, and what a refusal means."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from meshfw import ConfigError
from meshfw_etcd.errors import DeniedError, EtcdError
from meshfw_etcd.messages import ErrorAnswer

Answer = TypeVar("Answer")
_PORT: Final = 2379
_DENIED: Final = frozenset({7, 16})
_PASSING: Final = frozenset({4, 14})
"""gRPC's codes (grpc.io, "Status codes") for what another endpoint may do, or this one later: timeout, unavailable."""
_TOKEN_OVER: Final = ("invalid auth token", "auth store is old", "user name is empty")
_STRANGER: Final = "authentication failed"
"""Parts of what etcd says (api/v3rpc/rpctypes/error.go) where the code alone doesn't tell."""
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds and tries (tcp(7)) after which a peer that went away without a word is known to be gone."""


class UnsentError(ConnectionError):
    """No connection: whatever was to be sent wasn't."""


class PassingError(EtcdError):
    """A refusal that another endpoint may not make."""


class TokenOverError(EtcdError):
    """A refusal of the token, or of the lack of one."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a member of the store listens."""

    host: str
    port: int
    secure: bool = False

    @classmethod
    def of(cls, text: str) -> Endpoint:
        """The endpoint that a text names.

        Raises:
            ConfigError: it names none.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or _PORT
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.username is not None or parts.password is not None:  # which no message must repeat
            raise ConfigError("an endpoint has a user in it", key="endpoints", expected="user and password-file")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            expected = "http://HOST:PORT or https://HOST:PORT"
            raise ConfigError(f"{text!r} is no endpoint", key="endpoints", expected=expected)
        return cls(parts.hostname, port, parts.scheme == "https")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def connected(self, timeout: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
        """A connection that was just made; ``timeout`` is in seconds, for each step of an exchange.

        Raises:
            UnsentError: nobody is there, or it isn't who it should be.
        """
        if self.secure:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout, context=tls
            )
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise UnsentError(error.strerror or str(error)) from error
        plug = connection.sock
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            plug.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection


def stale(plug: socket.socket) -> bool:
    """Whether an idle connection is over: nothing should come before anything was asked."""
    poll = select.poll()
    poll.register(plug, select.POLLIN)
    return bool(poll.poll(0))


def tls_context(*, ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Whom we trust, and who we are; without a CA file the system's are trusted.

    Raises:
        ConfigError: a file that can't be read or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{ca_file}: {_said(error)}", key="ca-file", expected="certificates in PEM form") from error
    # Python 3.13 asks more of an authority's form than etcd does, and than most that were made by hand have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file or None)
        except OSError as error:
            files = " and ".join(filter(None, (cert_file, key_file)))
            raise ConfigError(
                f"{files}: {_said(error)}", key="cert-file", expected="a certificate and its key"
            ) from error
    return context


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def decoded(content: bytes, kind: type[Answer], end: Endpoint) -> Answer:
    """An answer of a kind; int64 comes as strings, so numbers are taken from those.

    Raises:
        EtcdError: it's something else, as from a server that isn't etcd.
    """
    try:
        return msgspec.json.decode(content, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EtcdError(
            f"the answer can't be understood: {error}", endpoint=str(end), remedy="is that etcd 3?"
        ) from error


def refusal(content: bytes, status: int, end: Endpoint) -> EtcdError:
    """The error that an answer means which isn't 200."""
    try:
        said = msgspec.json.decode(content, type=ErrorAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ErrorAnswer(message=f"HTTP status {status}", code=14 if status >= 500 else 0)
    text = said.message or said.error or f"HTTP status {status}"
    return meant(text, said.code, str(end))


def meant(text: str, code: int, endpoint: str) -> EtcdError:
    """The error that a text and a code of gRPC's mean."""
    if any(part in text for part in _TOKEN_OVER):
        return TokenOverError(text, endpoint=endpoint, remedy="it asks for a user and a password")
    if code in _DENIED or _STRANGER in text:
        return DeniedError(text, endpoint=endpoint)
    return (PassingError if code in _PASSING else EtcdError)(text, endpoint=endpoint)
