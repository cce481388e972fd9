"""The fake API server answers as a real one did, whose recorded answers are compared with its own.

``MESHFW_TEST_KUBERNETES=http://127.0.0.1:8001`` (as ``kubectl proxy`` gives it) runs the same against a real server, an
empty one made for tests: Nodes a1, a2, g1 and g2, two Peers and Kilo's definition of Peers are created there and
deleted. The recordings are looked for beside the checkout, or in ``MESHFW_KUBERNETES_RECORDINGS``.
"""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from kilo_fake_api import FakeApi
from kilo_fake_store import CRDS, NODES, PEERS, Kind

REAL: Final = os.environ.get("MESHFW_TEST_KUBERNETES", "")
BESIDE: Final = Path(__file__).parents[3].parent / "shared/kilo/k8s-recorded"
RECORDINGS: Final = Path(os.environ.get("MESHFW_KUBERNETES_RECORDINGS") or BESIDE)
FIRST: Final = 9282  # so that even the versions come out as recorded
MERGE: Final = "application/strategic-merge-patch+json"

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recorded answers: {RECORDINGS} isn't there")


class Caller:
    """Asks a server, fake or real."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self._host, timeout=20)
        connection.putrequest(method, path, skip_accept_encoding=True)  # no User-Agent, as when it was recorded
        text = b"" if body is None else json.dumps(body).encode()
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(len(text)))
        connection.endheaders(text)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def lines(self, path: str, most: int) -> list[Any]:
        connection = http.client.HTTPConnection(self._host, timeout=90)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        found: list[Any] = []
        while len(found) < most and (line := answer.readline()):
            found.append(json.loads(line))
        answer.close()
        connection.close()
        return found


class Scene:
    """A server with the objects of the recording, and the recorded changes made to them, in their order."""

    def __init__(self, caller: Caller, fake: FakeApi | None) -> None:
        self.caller = caller
        self.fake = fake
        self.answers: dict[str, tuple[int, Any]] = {}
        self.lines: dict[str, list[Any]] = {}

    def play(self) -> None:
        for name in ("crd-get", "nodes-list", "peers-list", "notfound-404"):
            self._replay(name)
        versions = {
            kind: self.answers[f"{kind.plural}-list"][1]["metadata"]["resourceVersion"] for kind in (NODES, PEERS)
        }
        for name in ("node-patch-merge", "node-jsonpatch"):
            self._replay(name)
        self.caller.ask("DELETE", f"{NODES.path}/g1")
        self._replay("peer-put", latest=True)
        self._replay("peer-put-conflict")
        self.caller.ask("DELETE", f"{PEERS.path}/office")
        self._replay("peer-invalid-422")
        for kind, most in ((NODES, 5), (PEERS, 2)):
            query = f"?watch=true&allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion={versions[kind]}"
            self.lines[f"{kind.plural}-watch"] = self.caller.lines(f"{kind.path}{query}", most)
        if self.fake is not None:
            self.fake.store.forget()
        self._replay("watch-too-old-410")
        self.lines["nodes-watch-rv1"] = self.caller.lines(f"{NODES.path}?watch=true&resourceVersion=1", 1)

    def _replay(self, name: str, *, latest: bool = False) -> None:
        asked = recorded(name)
        body = asked["request_body"]
        if latest or (name == "peer-put-conflict" and REAL):
            now = self.caller.ask("GET", f"{PEERS.path}/laptop")[1]["metadata"]
            stale = str(int(now["resourceVersion"]) - (0 if latest else 1))
            body["metadata"] = {**now, "resourceVersion": stale}
        kind = asked["content_type"] or "application/json"
        self.answers[name] = self.caller.ask(asked["method"], asked["path"], body, kind)


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))


def recorded_lines(name: str) -> list[Any]:
    text = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def wishes(kind: Kind) -> list[Any]:
    """The objects of a recorded list as they were asked for: without what the server adds."""
    found = []
    for item in recorded(f"{kind.plural}-list")["body"]["items"]:
        about = {name: value for name, value in item["metadata"].items() if name in ("name", "annotations", "labels")}
        spec = {name: value for name, value in item["spec"].items() if name != "taints"}
        found.append({"apiVersion": kind.version, "kind": kind.kind, "metadata": about, "spec": spec})
    return found


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    crd = recorded("crd-get")["body"]
    crd = {**crd, "metadata": {name: crd["metadata"][name] for name in ("name", "annotations")}}
    del crd["status"]
    if REAL:
        caller = Caller(REAL)
        wanted = [(CRDS, crd), *((NODES, item) for item in wishes(NODES)), *((PEERS, item) for item in wishes(PEERS))]
        try:
            for kind, body in wanted:
                assert caller.ask("POST", kind.path, body)[0] == 201, f"{REAL} isn't empty"
            found = Scene(caller, None)
            found.play()
            yield found
        finally:
            for kind, body in reversed(wanted):
                caller.ask("DELETE", f"{kind.path}/{body['metadata']['name']}")
        return
    with FakeApi(first_version=FIRST, bookmarks=0.05) as fake:
        fake.store.create(CRDS, crd, manager="OpenAPI-Generator")
        for kind in (NODES, PEERS):
            for item in wishes(kind):
                fake.store.create(kind, item)
        found = Scene(Caller(fake.url), fake)
        found.play()
        yield found


def comparable(found: Any) -> Any:
    """An answer without what can't be the same twice: identities and times, and a real server's versions."""
    if isinstance(found, list):
        return [comparable(item) for item in found]
    if not isinstance(found, dict):
        return found
    passing = {"uid", "time", "creationTimestamp", "lastTransitionTime", *(["resourceVersion"] if REAL else [])}
    made = {}
    for name, value in found.items():
        if name in passing and isinstance(value, str):
            made[name] = "(one)"
        elif name == "message" and isinstance(value, str):
            made[name] = re.sub(r"\(\d+\)$", "(version)", value)
        else:
            made[name] = comparable(value)
    return made


ANSWERS = (
    "crd-get nodes-list peers-list notfound-404 node-patch-merge node-jsonpatch peer-put peer-put-conflict "
    "peer-invalid-422 watch-too-old-410"
).split()
WATCHES = "nodes-watch nodes-watch-rv1 peers-watch".split()


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_as_recorded(scene: Scene, name: str) -> None:
    wanted = recorded(name)
    code, body = scene.answers[name]
    assert code == wanted["status"]
    if name == "crd-get":  # made before the rest, at a time that the recording doesn't tell
        wanted["body"]["metadata"]["resourceVersion"] = body["metadata"]["resourceVersion"]
    assert comparable(body) == comparable(wanted["body"])


@pytest.mark.parametrize("name", WATCHES)
def test_the_watch_is_as_recorded(scene: Scene, name: str) -> None:
    assert comparable(scene.lines[name]) == comparable(recorded_lines(name))


def test_every_recording_is_compared() -> None:
    assert {path.stem for path in RECORDINGS.iterdir()} == {*ANSWERS, *WATCHES}
