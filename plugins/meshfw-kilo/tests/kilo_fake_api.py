"""A Kubernetes API server for tests: list, watch, patch, put and delete over HTTP or HTTPS, and faults on demand.

Its answers are compared with those of a real server by tests/test_kilo_fake_api.py.
"""

from __future__ import annotations

import copy
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from kilo_fake_store import (
    CRDS,
    KINDS,
    PEERS_CRD,
    Faults,
    Kind,
    Object,
    Refusal,
    Store,
    Watch,
    bookmark,
    details,
    merged,
    patched,
)

MERGES: Final = ("application/merge-patch+json", "application/strategic-merge-patch+json")
EXPIRED: Final = "The resourceVersion for the provided list is too old."

_LOOK: Final = 0.05
"""Seconds after which a watch looks whether anybody still reads it."""


class FakeApi:
    """The server, its store and its faults; a context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, first_version: int = 1, bookmarks: float = 60.0) -> None:
        self.store = Store(version=first_version)
        self.faults = Faults()
        self.bookmarks = bookmarks
        """Seconds of silence after which a watch gets a bookmark."""
        self.progress = False
        """Whether bookmarks tell the store's version, as newer servers do, and not that of the kind's last event."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.watches: list[Watch] = []
        self._ending = False
        self._sockets: set[socket.socket] = set()
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> FakeApi:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Begin to serve, on the port of last time where there was one."""
        api = self

        class Handler(_Handler):
            fake = api

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Nothing: connections are broken on purpose."""

            def finish_request(self, request: Any, client_address: Any) -> None:
                """Talk TLS in the connection's own thread, where a client that never answers holds up nobody."""
                if api._tls is not None:
                    request = api._tls.wrap_socket(request, server_side=True)
                with api.store.moved:
                    api._sockets.add(request)
                try:
                    super().finish_request(request, client_address)
                finally:
                    with api.store.moved:
                        api._sockets.discard(request)
                    request.close()

        self._ending = False
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving, and break what is going on; the store stays."""
        with self.store.moved:
            self._ending = True
            for open_socket in list(self._sockets):
                _broken(open_socket)
            self.store.moved.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def ending(self) -> bool:
        """Whether it is stopping."""
        return self._ending

    def calm(self) -> None:
        """No fault any more."""
        with self.store.moved:
            self.faults = Faults()
            self.store.moved.notify_all()

    def order(self, what: str) -> int:
        """Tell every watch: ``bookmark``, ``end``, ``break``, ``tear`` (break off inside a line), or a raw line.

        How many were told.
        """
        with self.store.moved:
            for watch in self.watches:
                watch.orders.append(what)
            self.store.moved.notify_all()
            return len(self.watches)

    def asked(self, plural: str, *, watch: bool) -> int:
        """How often a resource was listed, or watched."""
        return sum(
            method == "GET" and path.endswith(f"/{plural}") and ("watch" in query) is watch
            for method, path, query in list(self.requests)
        )

    def install_peers(self) -> None:
        """Define Kilo's Peers."""
        self.store.create(CRDS, PEERS_CRD)


def _broken(connection: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Gone(Exception):  # noqa: N818 - the connection's end, not an error
    """The connection is broken on purpose."""


class _Unknown(Exception):  # noqa: N818 - the server's answer, not an error of its own
    """The path is none of the server's."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    fake: FakeApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's own name
        """Nothing."""

    def finish(self) -> None:
        """Close both directions, although the connection may be broken."""
        with suppress(OSError):
            super().finish()
        self.rfile.close()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fake = self.fake
        fake.requests.append((self.command, parts.path, query))
        try:
            if fake.faults.hangs:
                with fake.store.moved:
                    fake.store.moved.wait_for(lambda: fake.ending() or not fake.faults.hangs)
            if fake.faults.answers:
                code, headers, text = fake.faults.answers.pop(0)
                self._answer(code, text, {"Content-Type": "application/json", **headers})
                return
            if fake.ending():
                raise _Gone
            self._right(parts.path, query, body)
        except Refusal as refusal:
            self._json(refusal.code, refusal.status)
        except _Unknown:
            self._answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
        except (_Gone, OSError):
            self.close_connection = True
            _broken(self.connection)

    def _right(self, path: str, query: dict[str, str], body: bytes) -> None:
        tokens = self.fake.faults.tokens
        if tokens is not None and self.headers.get("Authorization", "") not in {f"Bearer {token}" for token in tokens}:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        kind, name = self._resource(path)
        verb = self._verb(name, query)
        if (verb, kind.plural) in self.fake.faults.forbidden:
            message = (
                f'{kind.title} is forbidden: User "system:serviceaccount:kilo:meshfw" cannot {verb} resource '
                f'"{kind.plural}" in API group "{kind.group}" at the cluster scope'
            )
            raise Refusal(403, "Forbidden", message, {"kind": kind.plural})
        if verb == "watch":
            self._watch(kind, query)
        elif verb == "list":
            self._json(200, self._list(kind, query))
        else:
            code, answer = self._one(verb, kind, name, body)
            self._json(code, answer)

    def _resource(self, path: str) -> tuple[Kind, str]:
        for kind in KINDS:
            if self.fake.store.known(kind) and (path == kind.path or path.startswith(f"{kind.path}/")):
                return kind, unquote(path[len(kind.path) + 1 :])
        raise _Unknown

    def _verb(self, name: str, query: dict[str, str]) -> str:
        verb = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.command]
        if verb == "get" and not name:
            return "watch" if query.get("watch") in ("true", "1") else "list"
        return verb

    def _one(self, verb: str, kind: Kind, name: str, body: bytes) -> tuple[int, Object]:
        store = self.fake.store
        if verb == "get":
            return 200, copy.deepcopy(store.get(kind, name))
        if verb == "delete":
            item = store.delete(kind, name)
            about = details(kind, name, uid=item["metadata"]["uid"])
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
        sent = json.loads(body)
        if verb == "create":
            agent = self.headers.get("User-Agent", "").split("/")[0]
            return 201, store.create(kind, sent, manager=agent or "unknown")
        if verb == "update":
            return 200, store.update(kind, name, lambda _: sent)
        if self.headers.get("Content-Type") in MERGES:
            return 200, store.update(kind, name, lambda item: merged(item, sent))
        return 200, store.update(kind, name, lambda item: patched(item, sent))

    # --- list ---

    def _list(self, kind: Kind, query: dict[str, str]) -> Object:
        store = self.fake.store
        with store.moved:
            exact = query.get("resourceVersionMatch") == "Exact"
            start, version = "", str(store.version)
            if "continue" in query:
                version, _, start = query["continue"].partition("/")
                if self.fake.faults.expire_pages > 0 or int(version) < store.oldest:
                    self.fake.faults.expire_pages -= 1
                    raise Refusal(410, "Expired", "The provided continue parameter is too old")
            elif exact and int(query["resourceVersion"]) <= store.oldest:
                raise Refusal(410, "Expired", EXPIRED)
            names = sorted(name for name in store.objects[kind] if name > start)
            most = int(query.get("limit") or 0) or len(names)
            about: Object = {"resourceVersion": version}
            if kind.custom:
                about["continue"] = ""
            if len(names) > most:
                about |= {"continue": f"{version}/{names[most - 1]}", "remainingItemCount": len(names) - most}
            items = [copy.deepcopy(store.objects[kind][name]) for name in names[:most]]
            if not kind.custom:
                for item in items:
                    del item["kind"], item["apiVersion"]
            return {"kind": f"{kind.kind}List", "apiVersion": kind.version, "metadata": about, "items": items}

    # --- watch ---

    def _watch(self, kind: Kind, query: dict[str, str]) -> None:
        store, fake = self.fake.store, self.fake
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        end = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        with store.moved:
            seen = int(query.get("resourceVersion") or store.version)
            watch = Watch(kind, seen)
            if seen < store.oldest:
                message = f"too old resource version: {seen} ({store.oldest})"
                self._event("ERROR", Refusal(410, "Expired", message).status)
                self._end()
                return
            fake.watches.append(watch)
            store.moved.notify_all()
        try:
            self._tell(watch, end=end, bookmarks=query.get("allowWatchBookmarks") in ("true", "1"))
        finally:
            with store.moved:
                fake.watches.remove(watch)

    def _tell(self, watch: Watch, *, end: float, bookmarks: bool) -> None:
        store, fake = self.fake.store, self.fake
        quiet = time.monotonic() + fake.bookmarks
        while True:
            with store.moved:
                wait = min(end - time.monotonic(), quiet - time.monotonic(), _LOOK)
                store.moved.wait_for(lambda: fake.ending() or watch.orders or self._news(watch), wait)
                orders, news = list(watch.orders), self._news(watch)
                watch.orders.clear()
                watch.seen = news[-1][0] if news else watch.seen
                version = store.version if fake.progress else max(watch.seen, store.last_of(watch.kind))
                gone = not store.known(watch.kind)
            self._stop_without_reader()
            for _, kind, item in news:
                self._event(kind, item)
            now = time.monotonic()
            if bookmarks and (now >= quiet or "bookmark" in orders) and not fake.faults.mute:
                self._event("BOOKMARK", bookmark(watch.kind, version))
            if news or now >= quiet:
                quiet = now + fake.bookmarks
            for order in orders:
                self._obey(order)
            if "end" in orders or gone or now >= end:
                self._end()
                return
            if fake.ending():
                raise _Gone

    def _stop_without_reader(self) -> None:
        try:
            if not socket.socket.recv(self.connection, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise _Gone
        except BlockingIOError:
            pass

    def _obey(self, order: str) -> None:
        if order == "break":
            raise _Gone
        if order == "tear":
            half = b'{"type":"MODIFIED","object":{"kind":"No'
            self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
            self.wfile.flush()
            raise _Gone
        if order.startswith(("{", "[", "!")):
            self._chunk(order.encode() + b"\n")

    def _news(self, watch: Watch) -> list[tuple[int, str, Object]]:
        if self.fake.faults.mute:
            return []
        events = [event for event in self.fake.store.events if event.version > watch.seen and event.kind == watch.kind]
        return [(event.version, event.type, event.item) for event in events]

    def _event(self, kind: str, item: Object) -> None:
        self._chunk(json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def _chunk(self, text: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _json(self, code: int, answer: Object) -> None:
        self._answer(code, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self, code: int, text: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()
