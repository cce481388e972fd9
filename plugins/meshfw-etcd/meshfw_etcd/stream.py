"""The stream of a watch: one JSON object a line, until it is closed by either side."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from meshfw_etcd.errors import CompactedError, EtcdError, WatchEndedError
from meshfw_etcd.messages import Batch, Change, WatchAnswer, WatchResult
from meshfw_etcd.wire import Endpoint, decoded, meant

_LONGEST: Final = 1 << 26
"""Bytes of a line at most."""


class Watching:
    """Word of changes as they come, from a watch that was asked for; :meth:`close` may be called from any thread."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        *,
        plug: socket.socket,
        end: Endpoint,
    ) -> None:
        self._connection = connection
        self._response = response
        self._plug = plug
        self._end = end
        self._read = False
        try:
            self._first = self._message()  # with it a refusal comes, while the whole request can be made again
        except BaseException:
            self._give_back()
            raise
        plug.settimeout(None)  # silence is no error from now on: whoever waits decides for how long

    def close(self) -> None:
        """End it; whoever reads it gets its end."""
        with suppress(OSError):
            socket.socket.shutdown(self._plug, socket.SHUT_RDWR)  # the plain one, which wakes a reader under TLS too
        if not self._read:
            self._give_back()

    def _give_back(self) -> None:
        self._response.close()
        self._connection.close()
        self._plug.close()

    def __iter__(self) -> Iterator[Batch]:
        """What it tells, message by message.

        Raises:
            CompactedError: a revision that was asked for is gone; no change is told of twice or lost silently.
            WatchEndedError: the stream ended, which says nothing about the keys.
            EtcdError: the store refuses to go on.
        """
        self._read = True
        try:
            yield self._first
            while True:
                yield self._message()
        finally:
            self._give_back()

    def _message(self) -> Batch:
        while True:
            answer = decoded(self._line(), WatchAnswer, self._end)
            if answer.error is not None:
                raise meant(answer.error.message, answer.error.grpc_code, str(self._end))
            if answer.result is not None:
                return self._batch(answer.result)

    def _line(self) -> bytes:
        try:
            line = self._response.readline(_LONGEST)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WatchEndedError(f"the watch broke off: {error}", endpoint=str(self._end)) from error
        if not line.endswith(b"\n"):
            raise WatchEndedError("the watch ended", endpoint=str(self._end))
        return line

    def _batch(self, result: WatchResult) -> Batch:
        if result.compact_revision:
            raise CompactedError(result.compact_revision, endpoint=str(self._end))
        if result.canceled:
            raise self._ended(result.cancel_reason)
        changes = tuple(Change(event.kv, event.type == "DELETE") for event in result.events)
        # Each watch of a stream has the place of its key as its number, from 1 on: 0 would be left out.
        return Batch(result.watch_id - 1, result.header.revision, changes, result.created)

    def _ended(self, reason: str) -> EtcdError:
        code = 7 if "permission denied" in reason.lower() or "PermissionDenied" in reason else 0
        return meant(f"the watch was refused: {reason or 'no reason is given'}", code, str(self._end))
