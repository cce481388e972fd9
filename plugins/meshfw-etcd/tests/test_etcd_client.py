"""Laws of the client, on a real server: compare-and-set, watches, compaction, endpoints in turn, who may ask."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from meshfw_etcd.client import Access, Client
from meshfw_etcd.errors import CompactedError, DeniedError, EtcdError, UncertainError, UnreachableError, WatchEndedError
from meshfw_etcd.keys import Keys, behind
from meshfw_etcd.messages import Batch, Delete, Get, Put, Unchanged
from meshfw_etcd.pulse import Pulse
from meshfw_etcd.testing import Server

from meshfw import ConfigError


@pytest.fixture(scope="module")
def server(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    requires("etcd")
    with Server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.access)
    yield client
    client.txn([], [Delete("/", "0")])
    client.close()


def told(batches: Iterator[Batch], count: int) -> list[tuple[int, str, bool]]:
    """The next changes of a watch: which key's, its value, and whether it's gone."""
    found: list[tuple[int, str, bool]] = []
    while len(found) < count:
        batch = next(batches)
        found += [(batch.watch, change.pair.value.decode(), change.deleted) for change in batch.changes]
    return found


def test_what_was_put_is_read_at_a_revision(client: Client) -> None:
    revision = client.put("/a", b"\x00\xff")
    pair = client.get("/a")
    assert pair is not None
    assert (pair.value, pair.mod_revision, pair.version) == (b"\x00\xff", revision, 1)
    assert client.get("/b") is None


def test_a_range_ends_behind_its_prefix(client: Client) -> None:
    keys = Keys("t/")
    for key in (keys.node("a"), keys.node("b"), keys.common, "t/nodes0"):
        client.put(key, b"x")
    found = client.range(keys.nodes, behind(keys.nodes), bare=True)
    assert [(pair.key.decode(), pair.value) for pair in found.pairs] == [("t/nodes/a", b""), ("t/nodes/b", b"")]


def test_only_one_of_two_who_read_the_same_replaces_it(client: Client) -> None:
    assert client.replace("/a", b"1", expected=0)
    assert not client.replace("/a", b"2", expected=0)
    pair = client.get("/a")
    assert pair is not None
    assert client.replace("/a", b"3", expected=pair.mod_revision)
    assert not client.replace("/a", b"4", expected=pair.mod_revision)


def test_a_transaction_does_all_or_the_other(client: Client) -> None:
    client.put("/a", b"1")
    done = client.txn([Unchanged("/a", 1)], [Put("/b", b"2"), Delete("/a")], otherwise=[Get("/a"), Get("/b")])
    assert not done.succeeded
    assert [[pair.value for pair in pairs] for pairs in done.found] == [[b"1"], []]


def test_one_stream_tells_of_several_keys_from_a_revision_on(client: Client, server: Server) -> None:
    first = client.put("/a", b"1")
    client.put("/a", b"2")
    watching = client.watch({"/a": first, "/b": first})
    batches = iter(watching)
    assert told(batches, 2) == [(0, "1", False), (0, "2", False)]
    client.txn([], [Delete("/a"), Put("/b", b"3")])
    assert sorted(told(batches, 2)) == [(0, "", True), (1, "3", False)]
    watching.close()
    with pytest.raises(WatchEndedError):
        list(batches)


def test_a_watch_is_ended_from_another_thread(client: Client) -> None:
    watching = client.watch({"/a": 0})
    batches = iter(watching)
    assert next(batches).opened
    ended: list[EtcdError] = []

    def read() -> None:
        try:
            list(batches)
        except EtcdError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    watching.close()
    thread.join(10)
    assert [type(error) for error in ended] == [WatchEndedError]


def test_a_compacted_revision_is_an_error_of_its_own(client: Client) -> None:
    first = client.put("/a", b"1")
    last = client.put("/a", b"2")
    client.compact(last)
    with pytest.raises(CompactedError) as caught:
        list(client.watch({"/a": first}))
    assert caught.value.oldest == last


def test_endpoints_are_tried_in_turn(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it takes connections, and says nothing
        port = deaf.getsockname()[1]
        access = Access(endpoints=("http://127.0.0.1:1", f"http://127.0.0.1:{port}", server.endpoint), timeout=0.2)
        client = Client(access, spread=False)
        assert client.get("/nothing") is None
        assert client.endpoint in server.endpoint
        client.close()


def test_where_nobody_answers_each_endpoint_says_why() -> None:
    client = Client(Access(endpoints=("http://127.0.0.1:1", "http://[::1]:1")), spread=False)
    with pytest.raises(UnreachableError) as caught:
        client.get("/a")
    assert [text.partition(": ")[0] for text in caught.value.failures] == ["127.0.0.1:1", "[::1]:1"]


def test_a_transaction_whose_answer_is_lost_is_not_sent_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        client = Client(Access(endpoints=(place, "http://127.0.0.1:1"), timeout=0.1), spread=False)
        with pytest.raises(UncertainError):
            client.replace("/a", b"", expected=0)


def test_what_the_store_refuses_is_told_in_its_words(client: Client) -> None:
    with pytest.raises(EtcdError, match="request is too large"):
        client.put("/a", bytes(2_000_000))
    client.put("/a", b"the connection goes on")


def test_a_server_that_is_no_etcd_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            plug, _ = other.accept()
            with plug:
                plug.recv(4096)
                plug.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        client = Client(Access(endpoints=(f"http://127.0.0.1:{other.getsockname()[1]}",)))
        with pytest.raises(EtcdError, match="is that etcd 3"):
            client.get("/a")
        thread.join()
        client.close()


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:2379", "ftp://a:1", "http://localhost:x", "http://:1", "http://localhost/v3"]
)
def test_an_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no endpoint"):
        Client(Access(endpoints=(text,)))


def test_a_restarted_server_is_asked_on_a_new_connection(
    requires: Callable[..., None], loopback: None, tmp_path: Path
) -> None:
    requires("etcd")
    with Server(tmp_path) as server:
        client = Client(server.access)
        client.put("/a", b"1")
        server.kill()
        with pytest.raises(UnreachableError):
            client.get("/a")
        server.start()
        pair = client.get("/a")
        assert pair is not None
        assert pair.value == b"1"
        client.close()


def test_users_are_known_by_a_token_that_is_asked_for_again(
    requires: Callable[..., None], loopback: None, tmp_path: Path
) -> None:
    requires("etcd")
    with Server(tmp_path) as server, ExitStack() as stack:
        nobody = stack.enter_context(Client(server.access))
        for path, message in (
            ("/v3/auth/user/add", {"name": "root", "password": "secret"}),
            ("/v3/auth/role/add", {"name": "root"}),
            ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
            ("/v3/auth/enable", {}),
        ):
            nobody._ask(path, message, dict)
        with pytest.raises(DeniedError, match="give user and password-file"):
            nobody.get("/a")

        def user(name: str, word: str) -> Client:
            password = tmp_path / f"{name}-{word}"
            password.write_text(f"{word}\n")
            access = Access(endpoints=(server.endpoint,), user=name, password_file=str(password))
            return stack.enter_context(Client(access))

        root = user("root", "secret")
        root.put("/a", b"1")
        for over in ("over.1", "over.2"):  # as after its time
            root._token = over
            root.put("/a", b"2")
            root._token = over
            watching = root.watch({"/a": 1})
            assert next(iter(watching)).opened
            watching.close()
        with pytest.raises(DeniedError, match="authentication failed"):
            user("root", "wrong").get("/a")
        root._ask("/v3/auth/user/add", {"name": "other", "password": "x"}, dict)
        other = user("other", "x")
        with pytest.raises(DeniedError, match="permission denied"):
            other.get("/a")
        with pytest.raises(DeniedError, match="permission denied"):
            other.watch({"/a": 1})
        with pytest.raises(DeniedError, match="permission denied"):
            Pulse(Keys().pulse("a"), lasts=60).beat(other)
        root._ask("/v3/auth/role/add", {"name": "node"}, dict)
        own = {"permType": "READWRITE", "key": Keys().pulse("a").encode()}
        root._ask("/v3/auth/role/grant", {"name": "node", "perm": own}, dict)
        root._ask("/v3/auth/user/grant", {"user": "other", "role": "node"}, dict)
        pulse = Pulse(Keys().pulse("a"), lasts=60)
        for _ in range(2):
            pulse.beat(other)
        pair = root.get(Keys().pulse("a"))
        assert pair is not None
        assert pair.version == 1
