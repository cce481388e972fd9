"""The node's pod networks in its CNI configuration: what is changed, what is kept, and nobody reads half a file."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kilo_conflists import OTHER, V4, V6, ipam_of, kilos
from kilo_meshes import FULL
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.cni import keep_pod_cidrs, with_pod_cidrs

from meshfw import ConfigError, MeshfwError, ParseError


def cidrs(*texts: str) -> list[Cidr]:
    return [cidr for text in texts if (cidr := Cidr.parse(text)) is not None]


ONE = cidrs("10.42.0.0/24")
NEW, NEW_SET = cidrs("fd00:43::/64"), [{"subnet": "fd00:43::/64"}]
BOTH = cidrs("10.42.0.0/24", "fd00:42::/64")


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ({}, ONE, [[V4]]),
        ({}, BOTH, [[V4], [V6]]),
        ({}, BOTH[::-1], [[V4], [V6]]),
        ({"ranges": []}, ONE, [[V4]]),
        ({"ranges": [[OTHER]]}, ONE, [[V4]]),
        ({"ranges": [[V6]]}, ONE, [[V6], [V4]]),  # of a family that the node has no network of
        ({"ranges": [[OTHER], [V6]]}, ONE, [[V4], [V6]]),
        ({"ranges": [[OTHER], [V6]]}, BOTH, [[V4], [V6]]),
        ({"ranges": [[OTHER | {"rangeStart": "10.42.7.9"}]]}, ONE, [[V4]]),
        ({"ranges": [[V4, OTHER]]}, ONE, [[V4]]),
        ({"ranges": [[V4], [OTHER]]}, ONE, [[V4]]),
        ({"ranges": [[V6], [V4 | {"gateway": "10.42.0.9"}]]}, NEW, [NEW_SET, [V4 | {"gateway": "10.42.0.9"}]]),
        ({"subnet": "10.42.7.0/24"}, ONE, [[V4]]),
        ({"subnet": "10.42.0.0/24", "gateway": "10.42.0.9"}, BOTH, [[V4 | {"gateway": "10.42.0.9"}], [V6]]),
        ({"subnet": "10.42.0.0/24", "ranges": [[V4]]}, ONE, [[V4]]),  # host-local would take no two of a family
    ],
)
def test_each_family_gets_one_range_of_the_node(before: Any, wanted: list[Cidr], after: Any) -> None:
    config = kilos(**before, routes=[{"dst": "0.0.0.0/0"}])
    original = copy.deepcopy(config)
    made = with_pod_cidrs(config, wanted)
    assert config == original
    assert made is not None
    assert sorted(ipam_of(made)["ranges"], key=str) == sorted(after, key=str)
    assert {key: value for key, value in ipam_of(made).items() if key != "ranges"} == {
        "type": "host-local",
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    assert made | {"plugins": None} == original | {"plugins": None}
    assert made["plugins"][1] == original["plugins"][1]
    assert list(made["plugins"][0]) == list(original["plugins"][0])
    assert with_pod_cidrs(made, wanted) is None


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ({"ranges": [[V4]]}, ONE),
        ({"ranges": [[V4], [V6]]}, ONE),
        ({"ranges": [[V6], [V4]]}, BOTH),
        ({"ranges": [[{"subnet": "10.42.0.9/24", "rangeStart": "10.42.0.7"}]]}, ONE),
        ({"ranges": [[{"subnet": "fd00:42:0:0::/64"}], [V4]]}, BOTH),
        ({"subnet": "10.42.0.0/24", "rangeStart": "10.42.0.7"}, ONE),
    ],
)
def test_what_says_the_same_is_left_alone(before: Any, wanted: list[Cidr]) -> None:
    assert with_pod_cidrs(kilos(**before), wanted) is None


def test_only_host_locals_ipam_is_changed_in_whatever_plugin() -> None:
    config = kilos()
    static = {"type": "static", "addresses": [{"address": "10.0.0.1/8"}], "ranges": [[OTHER]]}
    config["plugins"] += [
        {"type": "macvlan", "ipam": static},
        {"type": "x", "ipam": {"type": "host-local"}},
        {"ipam": 7},
    ]
    made = with_pod_cidrs(config, ONE)
    assert made is not None
    assert made["plugins"][2]["ipam"] == static
    assert made["plugins"][3]["ipam"] == {"type": "host-local", "ranges": [[V4]]}
    assert made["plugins"][4] == {"ipam": 7}


def test_a_single_plugin_is_a_configuration_as_well() -> None:
    single = {"cniVersion": "0.4.0", "name": "x", "type": "bridge", "ipam": {"type": "host-local"}, "own": 1}
    assert with_pod_cidrs(single, ONE) == single | {"ipam": {"type": "host-local", "ranges": [[V4]]}}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, ""),
        ({"name": "x"}, ""),
        ({"plugins": {}}, "plugins"),
        ({"plugins": []}, "plugins"),
        ({"plugins": [7]}, "plugins[1]"),
        ({"plugins": [{"type": "portmap"}]}, "plugins"),
        ({"plugins": [{"type": "x", "ipam": {"type": "dhcp"}}]}, "plugins"),
        (kilos(ranges={}), "plugins[1].ipam.ranges"),
        (kilos(ranges=[7]), "plugins[1].ipam.ranges[1][1].subnet"),
        (kilos(ranges=[[]]), "plugins[1].ipam.ranges[1]"),
        (kilos(ranges=[[V4], [V6, {"subnet": "x"}]]), "plugins[1].ipam.ranges[2][2].subnet"),
        (kilos(subnet="x"), "plugins[1].ipam[1].subnet"),
        ({"type": "bridge", "ipam": {"type": "host-local", "ranges": 7}}, "ipam.ranges"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_key(config: Any, key: str, tmp_path: Path) -> None:
    path = tmp_path / "10-kilo.conflist"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        keep_pod_cidrs(str(path), ONE)
    assert (caught.value.file, caught.value.key) == (str(path), key)
    assert caught.value.expected
    assert path.read_text() == json.dumps(config)


RANGE = st.sampled_from((V4, V6, OTHER, {"subnet": "fd00:43::/64", "gateway": "fd00:43::1"}))
SETS = st.lists(st.lists(RANGE, min_size=1, max_size=2), max_size=3)
OLD = st.sampled_from(({}, V4, OTHER, V6))


@settings(max_examples=500 if FULL else 50, deadline=None)
@given(SETS, OLD, st.sampled_from((ONE, BOTH, BOTH[1:])))
def test_a_second_time_changes_nothing_and_each_family_has_its_network(
    ranges: Any, old: Any, wanted: list[Cidr]
) -> None:
    config = kilos(ranges=ranges, **old)
    made = with_pod_cidrs(config, wanted) or config
    assert with_pod_cidrs(made, wanted) is None
    ipam = ipam_of(made)
    held = [*ipam.get("ranges", []), *([[ipam]] if "subnet" in ipam else [])]
    for cidr in wanted:
        mine = [entry for entry in held if (":" in entry[0]["subnet"]) == (":" in str(cidr))]
        assert [[item["subnet"] for item in entry] for entry in mine] == [[str(cidr)]]


# --- the file ----------------------------------------------------------------------------------------------


@pytest.fixture
def conflist(tmp_path: Path) -> Path:
    path = tmp_path / "10-kilo.conflist"
    path.write_text(json.dumps(kilos()))
    return path


def test_a_file_is_replaced_whole_and_keeps_mode_and_owner(conflist: Path) -> None:
    conflist.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(conflist, 12, 34)
    before = conflist.stat()
    with conflist.open() as reader:
        assert keep_pod_cidrs(str(conflist), ONE)
        assert json.loads(reader.read()) == kilos()  # who has it open reads on in the old one
    after = conflist.stat()
    assert after.st_ino != before.st_ino
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert ipam_of(json.loads(conflist.read_text()))["ranges"] == [[V4]]
    assert os.listdir(conflist.parent) == [conflist.name]


def test_a_file_that_says_it_already_is_not_touched(conflist: Path) -> None:
    conflist.write_text(json.dumps(kilos(ranges=[[V4]])))
    before = conflist.stat()
    conflist.parent.chmod(0o555)
    assert not keep_pod_cidrs(str(conflist), ONE)
    assert conflist.stat() == before
    conflist.parent.chmod(0o755)


def test_a_symbolic_link_stays_one(conflist: Path) -> None:
    link = conflist.parent / "link.conflist"
    link.symlink_to(conflist.name)
    assert keep_pod_cidrs(str(link), ONE)
    assert link.is_symlink()
    assert ipam_of(json.loads(conflist.read_text()))["ranges"] == [[V4]]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "line 1, column 1"),
        (b'{"plugins": [', "line 1, column 14"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[]", "no object"),
    ],
)
def test_a_file_that_is_no_json_is_refused_by_its_place(conflist: Path, content: bytes, word: str) -> None:
    conflist.write_bytes(content)
    with pytest.raises((ConfigError, ParseError)) as caught:
        keep_pod_cidrs(str(conflist), ONE)
    assert word in str(caught.value)
    assert str(conflist) in str(caught.value)
    assert conflist.read_bytes() == content


def test_a_missing_file_or_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        keep_pod_cidrs(str(tmp_path / "none"), ONE)
    with pytest.raises(ConfigError, match="Is a directory"):
        keep_pod_cidrs(str(tmp_path), ONE)


def test_a_write_of_somebody_else_in_the_same_moment_is_kept(conflist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, writes = os.fsync, [kilos(dns={"a": 1}), kilos(dns={"a": 2})]

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if writes:
            new = conflist.with_suffix(".theirs")
            new.write_text(json.dumps(writes.pop(0)))
            new.rename(conflist)

    monkeypatch.setattr(os, "fsync", fsync)
    assert keep_pod_cidrs(str(conflist), ONE)
    assert ipam_of(json.loads(conflist.read_text())) == {"type": "host-local", "dns": {"a": 2}, "ranges": [[V4]]}
    assert os.listdir(conflist.parent) == [conflist.name]
    writes += [kilos(dns={"a": number}) for number in range(99)]
    with pytest.raises(MeshfwError, match="somebody else keeps writing it"):
        keep_pod_cidrs(str(conflist), cidrs("10.42.9.0/24"))
    assert os.listdir(conflist.parent) == [conflist.name]


def test_a_failed_write_leaves_the_old_file_alone(conflist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        keep_pod_cidrs(str(conflist), ONE)
    assert json.loads(conflist.read_text()) == kilos()
    assert os.listdir(conflist.parent) == [conflist.name]


def test_who_reads_while_it_is_written_finds_a_whole_file(conflist: Path) -> None:
    done = threading.Event()
    broken: list[str] = []

    def read() -> None:
        while not done.is_set():
            text = conflist.read_text()
            try:
                assert json.loads(text)["name"] == "kilo"
            except (ValueError, AssertionError):
                broken.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        keep_pod_cidrs(str(conflist), cidrs(f"10.42.{number}.0/24"))
    done.set()
    reader.join()
    assert broken == []


HOST_LOCAL = "/usr/lib/cni/host-local"


def addresses(config: dict[str, Any], data: Path) -> list[str]:
    """What host-local itself gives to a new pod."""
    plugin = copy.deepcopy(config["plugins"][0]) | {"cniVersion": config["cniVersion"], "name": config["name"]}
    plugin["ipam"]["dataDir"] = str(data)
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": data.name,
        "CNI_NETNS": "/x",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    done = subprocess.run([HOST_LOCAL], input=json.dumps(plugin), env=env, capture_output=True, text=True, check=True)
    return [entry["address"] for entry in json.loads(done.stdout)["ips"]]


def test_host_local_itself_gives_one_address_of_each_family(requires: Callable[..., None], tmp_path: Path) -> None:
    requires(HOST_LOCAL)
    mixed = kilos(subnet="10.42.7.0/24", ranges=[[V4]])
    assert addresses(mixed, tmp_path / "before") == ["10.42.7.2/24", "10.42.0.2/24"]
    made = with_pod_cidrs(mixed, BOTH)
    assert made is not None
    assert addresses(made, tmp_path / "after") == ["10.42.0.2/24", "fd00:42::2/64"]
