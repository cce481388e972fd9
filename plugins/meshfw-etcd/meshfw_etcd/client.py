"""A client of etcd v3 over its JSON gateway: ranges, puts, transactions and watches, from the standard library alone.

A request is one POST (etcd's documentation, "gRPC gateway"). Several endpoints are tried in turn, beginning with the
one that answered last; a user's token is asked for when it's needed and again when it's over. A client belongs to one
thread; a :class:`meshfw_etcd.stream.Watching` may be closed from any.
"""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from meshfw import ConfigError
from meshfw_etcd.errors import DeniedError, UncertainError, UnreachableError
from meshfw_etcd.messages import (
    AuthAnswer,
    Decided,
    Delete,
    Found,
    Get,
    GrantAnswer,
    Operation,
    Pair,
    Put,
    PutAnswer,
    RangeAnswer,
    RenewAnswer,
    TxnAnswer,
    Unchanged,
)
from meshfw_etcd.stream import Watching
from meshfw_etcd.wire import (
    Endpoint,
    PassingError,
    TokenOverError,
    UnsentError,
    decoded,
    meant,
    refusal,
    stale,
    tls_context,
)

T = TypeVar("T")
_LARGEST: Final = 1 << 28
"""Bytes of one answer at most: whoever isn't etcd mustn't fill the memory."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a store: endpoints as ``http://HOST:PORT`` or ``https://HOST:PORT``, and who asks.

    ``password_file`` is read each time a token is asked for, so that a password may change. ``timeout`` is in seconds,
    for each endpoint.
    """

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password_file: str = ""
    timeout: float = 5.0


class Client:
    """A store as one thread asks it; the connection is made when it's needed, and made again when it was lost.

    ``spread``: begin with any endpoint, so that not every node begins with the first.

    Raises:
        ConfigError: an endpoint that is none, or certificates that can't be read.
    """

    def __init__(self, access: Access, *, spread: bool = True) -> None:
        if not access.endpoints:
            raise ConfigError("no endpoint is given", key="endpoints", expected="http://HOST:PORT or https://HOST:PORT")
        self._access = access
        self._ends = [Endpoint.of(text) for text in access.endpoints]
        if spread:
            random.shuffle(self._ends)
        self._tls = None
        if any(end.secure for end in self._ends):
            self._tls = tls_context(ca_file=access.ca_file, cert_file=access.cert_file, key_file=access.key_file)
        self._kept: tuple[Endpoint, http.client.HTTPConnection] | None = None
        self._token = ""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The endpoint that is asked first: the one that answered last."""
        return str(self._ends[0])

    def close(self) -> None:
        """Give the connection back; the next request makes another one."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    # --- requests ---

    def get(self, key: str) -> Pair | None:
        """A key's value; None where it isn't there."""
        pairs = self.range(key).pairs
        return pairs[0] if pairs else None

    def range(self, key: str, end: str = "", *, bare: bool = False) -> Found:
        """A key, or the keys from it up to ``end``, at one revision; linearizable. ``bare``: without their values.

        Raises:
            EtcdError: as every request: UnreachableError, DeniedError, or what the store says.
        """
        answer = self._ask("/v3/kv/range", _range(Get(key, end, bare)), RangeAnswer)
        return Found(answer.header.revision, answer.kvs)

    def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """Write a value whatever was there; the revision that it made."""
        return self._ask("/v3/kv/put", _put(Put(key, value, lease)), PutAnswer).header.revision

    def grant(self, seconds: int) -> int:
        """A lease of so many seconds: keys that are put with it go when it ends, unless it is renewed."""
        return self._ask("/v3/lease/grant", {"TTL": str(seconds)}, GrantAnswer).ID

    def renew(self, lease: int) -> bool:
        """Have a lease last as long as when it was granted; False where it's gone."""
        answer = self._ask("/v3/lease/keepalive", {"ID": str(lease)}, RenewAnswer)
        if answer.error is not None:
            raise meant(answer.error.message, answer.error.grpc_code, self.endpoint)
        return answer.result is not None and answer.result.TTL > 0

    def revoke(self, lease: int) -> None:
        """End a lease, and its keys with it."""
        self._ask("/v3/lease/revoke", {"ID": str(lease)}, PutAnswer)

    def txn(
        self, checks: Sequence[Unchanged], then: Sequence[Operation], *, otherwise: Sequence[Operation] = ()
    ) -> Decided:
        """Do ``then`` where every check holds and else ``otherwise``, at one revision; 128 operations of each at most.

        Raises:
            UncertainError: the answer was lost, so that it may have taken place.
            EtcdError: as every request.
        """
        message = {
            "compare": [
                {"key": check.key.encode(), "target": "MOD", "result": "EQUAL", "mod_revision": str(check.mod_revision)}
                for check in checks
            ],
            "success": [_operation(item) for item in then],
            "failure": [_operation(item) for item in otherwise],
        }
        harmless = all(isinstance(item, Get) for item in (*then, *otherwise))
        answer = self._ask("/v3/kv/txn", message, TxnAnswer, repeatable=harmless)
        ranges = (item.response_range for item in answer.responses)
        found = tuple(item.kvs for item in ranges if item is not None)
        return Decided(answer.succeeded, answer.header.revision, found)

    def replace(self, key: str, value: bytes, *, expected: int) -> bool:
        """Write a value if the key was written last at that revision (0: isn't there); whether it was."""
        return self.txn([Unchanged(key, expected)], [Put(key, value)]).succeeded

    def compact(self, revision: int) -> None:
        """Forget the history before a revision."""
        self._ask("/v3/kv/compaction", {"revision": str(revision)}, PutAnswer)

    def watch(self, keys: Mapping[str, int]) -> Watching:
        """Word of every change of some keys, each from a revision on, in one stream; a batch's place counts the keys.

        Raises:
            EtcdError: as every request. That a revision is compacted is told by the stream.
        """
        body = b"\n".join(_watch(key, revision, number) for number, (key, revision) in enumerate(keys.items(), 1))
        return self._at_some_end(lambda end: self._stream(end, body), repeatable=True)

    # --- one request, at each endpoint in turn ---

    def _ask(self, path: str, message: Mapping[str, Any], kind: type[T], *, repeatable: bool = True) -> T:
        body = msgspec.json.encode(message)
        return self._at_some_end(lambda end: decoded(self._exchange(end, path, body), kind, end), repeatable=repeatable)

    def _at_some_end(self, send: Callable[[Endpoint], T], *, repeatable: bool) -> T:
        failures = []
        for _ in range(len(self._ends)):
            end = self._ends[0]
            try:
                return self._with_token(end, send)
            except (OSError, http.client.HTTPException, PassingError) as error:
                self.close()
                text = error.reason if isinstance(error, PassingError) else str(error) or type(error).__name__
                if not repeatable and not isinstance(error, UnsentError):
                    raise UncertainError(f"the answer to a transaction was lost: {text}", endpoint=str(end)) from error
                failures.append(f"{end}: {text}")
                self._ends.append(self._ends.pop(0))
        raise UnreachableError(failures)

    def _with_token(self, end: Endpoint, send: Callable[[Endpoint], T]) -> T:
        """What an endpoint answers to the user; a token that is over is asked for again, once."""
        if not self._access.user:
            try:
                return send(end)
            except TokenOverError as error:
                raise DeniedError(error.reason, endpoint=str(end), remedy="give user and password-file") from None
        if self._token:
            try:
                return send(end)
            except TokenOverError:
                pass
        self._authenticate(end)
        try:
            return send(end)
        except TokenOverError as error:
            self._token = ""
            raise DeniedError(error.reason, endpoint=str(end)) from None

    def _authenticate(self, end: Endpoint) -> None:
        path, self._token = self._access.password_file, ""
        try:
            with open(path, encoding="utf-8") as file:
                password = file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise DeniedError(f"the password can't be read: {path}: {why}", endpoint=str(end)) from error
        body = msgspec.json.encode({"name": self._access.user, "password": password})
        self._token = decoded(self._exchange(end, "/v3/auth/authenticate", body), AuthAnswer, end).token

    def _exchange(self, end: Endpoint, path: str, body: bytes) -> bytes:
        response = self._post(self._connected(end), path, body)
        content = response.read(_LARGEST)
        if not response.isclosed():
            self.close()
        if response.status != HTTPStatus.OK:
            raise refusal(content, response.status, end)
        return content

    def _connected(self, end: Endpoint) -> http.client.HTTPConnection:
        if self._kept is not None and (self._kept[0] != end or self._kept[1].sock is None or stale(self._kept[1].sock)):
            self.close()
        if self._kept is None:
            self._kept = end, end.connected(self._access.timeout, self._tls)
        return self._kept[1]

    def _stream(self, end: Endpoint, body: bytes) -> Watching:
        connection = end.connected(self._access.timeout, self._tls)
        plug = connection.sock
        try:
            response = self._post(connection, "/v3/watch", body)
            if response.status != HTTPStatus.OK:
                raise refusal(response.read(_LARGEST), response.status, end)
        except BaseException:
            connection.close()
            raise
        return Watching(connection, response, plug=plug, end=end)

    def _post(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        connection.request("POST", path, body, headers)
        return connection.getresponse()


# --- as the gateway spells it: bytes as base64, int64 as strings ---------------------------------------------


def _range(item: Get) -> dict[str, Any]:
    end = {"range_end": item.end.encode()} if item.end else {}
    return {"key": item.key.encode(), "keys_only": item.bare, **end}


def _put(item: Put) -> dict[str, Any]:
    return {"key": item.key.encode(), "value": item.value, **({"lease": str(item.lease)} if item.lease else {})}


def _operation(item: Operation) -> dict[str, Any]:
    match item:
        case Put():
            return {"request_put": _put(item)}
        case Get():
            return {"request_range": _range(item)}
        case Delete():
            end = {"range_end": item.end.encode()} if item.end else {}
            return {"request_delete_range": {"key": item.key.encode(), **end}}


def _watch(key: str, revision: int, number: int) -> bytes:
    request = {"key": key.encode(), "start_revision": str(revision), "watch_id": str(number), "progress_notify": True}
    return msgspec.json.encode({"create_request": request})
