"""The source ``kilo``: each bad input is named where it stands, and word comes when the mesh or the hour says else."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kilo_meshes import LANGUAGE, NOW, Objects, lines, peer_object, ready_node
from meshfw_kilo.clock import Clock
from meshfw_kilo.source import KiloSource

from meshfw import ConfigError, Declaration, Family, MeshfwError, ParseError, Plugins, load_rules, parse_config

MESH: Objects = [
    ready_node("a1", "10.42.0.0/24", "10.0.1.11/24"),
    ready_node("a2", "10.42.1.0/24", "10.0.1.12/24"),
    peer_object(),
]


def written(path: Path, objects: Objects) -> None:
    """A file of objects, put in place in one step."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"kind": "List", "items": objects}))
    new.rename(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    written(tmp_path / "mesh.json", MESH)
    return tmp_path


Make = Callable[..., KiloSource]


@pytest.fixture
def make(place: Path) -> Iterator[Make]:
    opened: list[KiloSource] = []

    def source(**options: Any) -> KiloSource:
        told = {"node": "a1", "objects": "mesh.json", "now": NOW} | {
            key.replace("_", "-"): value for key, value in options.items()
        }
        told = {key: value for key, value in told.items() if value is not None}
        declaration = Declaration(options=told, language=LANGUAGE, file=str(place / "m.toml"), path="source[1]")
        opened.append(KiloSource(declaration))
        return opened[-1]

    yield source
    for made in opened:
        made.close()


def test_a_configuration_gets_the_rules_of_its_node(place: Path) -> None:
    text = f'[[source]]\ntype = "kilo"\nnode = "a2"\nobjects = "mesh.json"\nnow = {NOW}\n'
    plugins = Plugins()
    from meshfw import Language, builtin_extensions

    config = parse_config(text, file=str(place / "m.toml"))
    ruleset = load_rules(config, plugins=plugins, language=Language.of(builtin_extensions()))
    assert '-s 10.42.1.0/24 -m comment --comment "Kilo: jump to KILO-NAT chain" -j KILO-NAT' in lines(
        ruleset, Family.IPV4, "KILO-POSTROUTING"
    )


def test_options_bear_the_names_of_kilos_flags(make: Make) -> None:
    source = make(
        cni=False,
        iptables_forward_rules=True,
        encapsulate="crosssubnet",
        local=True,
        compatibility="cilium",
        mesh_granularity="full",
        subnet="10.9.0.0/16",
        service_cidr=["10.43.0.0/16", "fd00:43::/112"],
        topology_label="rack",
        internal_cidr="10.0.0.0/8",
        interface="kilo0",
        resync_period="30s",
        clean_up=True,
        stale_after=90,
        pod_cidrs="all",
        compact=False,
        input_place="last",
    )
    text = "\n".join(lines(source.load(), Family.IPV4, "KILO-NAT"))
    assert "10.9.0.2/32" in text
    assert "10.43.0.0/16" in text


@pytest.mark.parametrize(
    ("options", "key", "word"),
    [
        ({"node": None}, "source[1]", "node is missing"),
        ({"node": 7}, "source[1].node", "7 is a number"),
        ({"node": "a9"}, "source[1].node", "node a9 isn't there; there are a1, a2"),
        ({"objects": None}, "source[1]", "no cluster is named"),
        ({"kubernetes": True}, "source[1]", "both given"),
        ({"cni": "yes"}, "source[1].cni", "'yes' is a string"),
        ({"encapsulate": "allways"}, "source[1].encapsulate", "did you mean always"),
        ({"compatibility": "calico"}, "source[1].compatibility", "unknown compatibility 'calico'"),
        ({"mesh_granularity": "auto"}, "source[1].mesh-granularity", "'auto'"),
        ({"subnet": "10.4.0.0"}, "source[1].subnet", "'10.4.0.0' is no network"),
        ({"service_cidr": ["10.43.0.0/16", "x"]}, "source[1].service-cidr", "'x' is no network"),
        ({"service_cidr": [7]}, "source[1].service-cidr[1]", "7 is a number"),
        ({"stale_after": 0}, "source[1].stale-after", "0 is no time"),
        ({"pod_cidrs": "both"}, "source[1].pod-cidrs", "'both'"),
        ({"input_place": "middle"}, "source[1].input-place", "'middle'"),
        ({"now": "today"}, "source[1].now", "'today' is no moment"),
        ({"now": True}, "source[1].now", "'True' is no moment"),
        ({"compakt": True}, "source[1].compakt", "did you mean compact"),
        (
            {"now": NOW + 60},
            "source[1].node",
            "node a1 isn't ready: it hasn't checked in since 2023-11-14 22:13:20 UTC",
        ),
        ({"subnet": "10.4.0.0/32"}, "", "10.4.0.0/32 has no address for segment 1"),
    ],
)
def test_a_bad_option_is_named_with_file_and_key(make: Make, place: Path, options: Any, key: str, word: str) -> None:
    with pytest.raises(MeshfwError, match=r".") as caught:
        make(**options).load()
    assert word in str(caught.value)
    if key:
        assert isinstance(caught.value, ConfigError)
        assert (caught.value.file, caught.value.key) == (str(place / "m.toml"), key)
        assert caught.value.expected


@pytest.mark.parametrize("moment", ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "1700000000"])
def test_now_may_be_a_date_with_offset_or_seconds(place: Path, moment: str) -> None:
    text = f'[[source]]\ntype = "kilo"\nnode = "a2"\nobjects = "mesh.json"\nnow = {moment}\n'
    assert load_rules(parse_config(text, file=str(place / "m.toml")), plugins=Plugins(), language=LANGUAGE)


def test_a_date_without_offset_is_refused(place: Path) -> None:
    text = '[[source]]\ntype = "kilo"\nnode = "a2"\nobjects = "mesh.json"\nnow = 2023-11-14T22:13:20\n'
    with pytest.raises(ConfigError, match=r"source\[1\]\.now.*with offset"):
        load_rules(parse_config(text, file=str(place / "m.toml")), plugins=Plugins(), language=LANGUAGE)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "holds no object"),
        (b"---\n---\n", "holds no object"),
        (b"\xff", "byte 0 is no UTF-8"),
        (b"kind: Node\nmetadata: [", "line 3, column 1"),
        (b"a: b: c\n", "line 1, column 5"),
        (b"kind: Node\nmetadata: {name: x, annotations: {a: 2023-99-99}}\n", "month must be in 1..12"),
        (b"just text\n", "document: str in place of an object"),
        (b"kind: Node\n---\n- x\n", "document 2[1]: str in place of an object"),
        (b"kind: Node\nmetadata: {name: a1, annotations: {kilo.squat.ai/location: 7}}\n", "[kilo.squat.ai/location]"),
        (b"&x\nkind: List\nitems: [*x]\n", "lists in lists"),
        (b"[" * 5000, "nest"),
        (b"&a [*a]", "list in place of an object"),
    ],
)
def test_a_bad_file_is_named_with_its_place(make: Make, place: Path, content: bytes, word: str) -> None:
    (place / "mesh.yaml").write_bytes(content)
    with pytest.raises((ConfigError, ParseError)) as caught:
        make(objects="mesh.yaml").load()
    assert word in str(caught.value)
    assert str(place / "mesh.yaml") in str(caught.value)


def test_a_node_that_is_not_ready_by_an_unreadable_annotation_is_told_which(make: Make, place: Path) -> None:
    (place / "mesh.yaml").write_text(
        "kind: Node\nmetadata: {name: a1, annotations: {kilo.squat.ai/endpoint: nowhere}}\n"
    )
    with pytest.raises(ConfigError, match=r"it has no endpoint .*; Node a1: endpoint: 'nowhere' is passed over"):
        make(objects="mesh.yaml").load()


def test_json_that_is_none_and_a_missing_file_are_named(make: Make, place: Path) -> None:
    (place / "bad.json").write_text('{"kind": "List",\n "items": [}')
    with pytest.raises(ParseError, match=r"bad\.json, line 2, column 12"):
        make(objects="bad.json").load()
    with pytest.raises(ConfigError, match=r"none\.json: it can't be read: No such file"):
        make(objects="none.json").load()


def test_yaml_documents_and_a_list_say_the_same(make: Make, place: Path) -> None:
    (place / "mesh.yaml").write_text("\n---\n".join(json.dumps(item) for item in MESH))
    (place / "list.yaml").write_text(json.dumps({"kind": "List", "items": MESH}))
    (place / "bare.json").write_text(json.dumps(MESH))
    wanted = make().load()
    for form in ("mesh.yaml", "list.yaml", "bare.json"):
        assert make(objects=form).load() == wanted, form


def test_yaml_may_leave_numbers_without_quotes(make: Make, place: Path) -> None:
    text = "\n---\n".join(json.dumps(item) for item in MESH)
    assert f'"{NOW - 1}"' in text or f'"{NOW}"' in text
    (place / "mesh.yaml").write_text(text.replace(f'"{NOW}"', f"{NOW}").replace(f'"{NOW - 1}"', f"{NOW - 1}"))
    assert make(objects="mesh.yaml").load() == make().load()


def test_service_cidrs_are_a_list_or_have_commas_in_between(make: Make) -> None:
    wanted = make(**{"service-cidr": ["10.43.0.0/16", "fd00:43::/112"]}).load()
    assert make(**{"service-cidr": "10.43.0.0/16,fd00:43::/112"}).load() == wanted
    assert make(**{"service-cidr": ""}).load() == make().load() != wanted
    with pytest.raises(ConfigError, match="service-cidr: '' is no network"):
        make(**{"service-cidr": "10.43.0.0/16,"})


def test_what_was_passed_over_is_told(make: Make, place: Path) -> None:
    bad = peer_object("bad", publicKey="short")
    late = ready_node("late", "10.42.7.0/24", at=NOW - 61)
    written(place / "mesh.json", [*MESH, bad, late])
    source = make()
    source.load()
    assert [line.split(":")[0] for line in source.warnings] == ["Peer bad", "Node late is left out"]
    text = f'[[source]]\ntype = "kilo"\nnode = "a2"\nobjects = "mesh.json"\nnow = {NOW}\n'
    told: list[str] = []
    load_rules(parse_config(text, file=str(place / "m.toml")), plugins=Plugins(), language=LANGUAGE, warnings=told)
    assert [warning.split(":")[0] for warning in told] == ["source[1]", "source[1]"]


# --- word of changes ---------------------------------------------------------------------------------------


def readable(source: Any, seconds: float = 0.0) -> bool:
    return bool(select.select([source], [], [], seconds)[0])


def hears(changes: Any, seconds: float = 10.0) -> bool:
    """Whether there is word of another ruleset within a time; neighbours of the file may wake it for nothing."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if readable(changes, left) and changes.drain():
            return True
    return False


def now_mesh(*, at: int | None = None, more: Objects | None = None) -> Objects:
    seen = int(time.time()) if at is None else at
    own = ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", at=int(time.time()))
    return [own, ready_node("a2", "10.42.1.0/24", "10.0.1.12/24", at=seen), *(more or [])]


def test_a_changed_file_is_told_and_read(make: Make, place: Path) -> None:
    written(place / "mesh.json", now_mesh())
    source = make(now=None)
    changes = source.changes()
    assert changes is not None
    before = source.load()
    assert not hears(changes, 0.05)
    written(place / "mesh.json", now_mesh(more=[peer_object()]))
    assert hears(changes)
    assert source.load() != before


def test_nodes_that_check_in_change_nothing(make: Make, place: Path) -> None:
    written(place / "mesh.json", now_mesh(at=int(time.time()) - 30))
    source = make(now=None)
    changes = source.changes()
    assert changes is not None
    before = source.load()
    written(place / "mesh.json", now_mesh())
    assert readable(changes, 5)
    assert not hears(changes, 0.05)
    assert source.load() is before


def test_a_node_that_no_longer_checks_in_is_told_by_the_clock(make: Make, place: Path) -> None:
    written(place / "mesh.json", now_mesh(at=int(time.time()) - 58))
    source = make(now=None)
    changes = source.changes()
    assert changes is not None
    before = source.load()
    assert "10.42.1.0/24" in "\n".join(lines(before, Family.IPV4, "KILO-NAT"))
    assert hears(changes)
    after = source.load()
    assert "10.42.1.0/24" not in "\n".join(lines(after, Family.IPV4, "KILO-NAT"))
    assert not hears(changes, 0.05)


def test_a_broken_file_is_told_and_its_error_raised_by_the_load(make: Make, place: Path) -> None:
    source = make()
    changes = source.changes()
    assert changes is not None
    before = source.load()
    (place / "mesh.json").write_text("{")
    assert hears(changes)
    with pytest.raises(ParseError):
        source.load()
    written(place / "mesh.json", MESH)
    assert source.load() == before


def test_a_closed_source_gives_its_descriptors_back(make: Make) -> None:
    count = len(os.listdir("/proc/self/fd"))
    source = make(now=None)
    changes = source.changes()
    assert source.changes() is changes
    source.close()
    source.close()
    assert len(os.listdir("/proc/self/fd")) == count
    assert changes is not None
    assert changes.fileno() == -1


# --- the clock ---


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    yield made
    made.close()


def test_a_clock_tells_of_a_moment_once(clock: Clock) -> None:
    assert not readable(clock)
    assert not clock.drain()
    moment = int(time.time()) + 1
    clock.tell_at(moment)
    assert readable(clock, 5)
    assert time.time() >= moment
    assert clock.drain()
    assert not readable(clock)
    clock.tell_at(moment)  # again, since it's over
    assert readable(clock, 5)


def test_a_clock_tells_at_once_of_what_is_over_and_never_of_what_was_taken_back(clock: Clock) -> None:
    clock.tell_at(1)
    assert readable(clock, 5)
    clock.tell_at(None)
    assert not readable(clock)
    clock.tell_at(-5)
    assert readable(clock, 5)


def test_a_closed_clock_stays_closed(clock: Clock) -> None:
    clock.close()
    clock.close()
    clock.tell_at(1)
    assert clock.fileno() == -1
