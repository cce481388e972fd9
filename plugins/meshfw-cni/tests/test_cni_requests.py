"""Laws of the protocol: what a runtime is answered, whatever it asks; no kernel is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshfw_cni.problems import CniError
from meshfw_cni.request import read_request
from meshfw_cni.runtime import Answer, call
from meshfw_cni.versions import SUPPORTED, converted

OURS: Final = (sys.executable, "-m", "meshfw_cni.main")
PLACE: Final = {"CNI_CONTAINERID": "pod", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0"}
RESULT: Final = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cni0", "mac": "0a:58:0a:2a:00:01"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
    "ips": [{"address": "10.42.0.2/24", "interface": 1}, {"address": "fd00:42::2/64", "interface": 1}],
}
CONFIG: Final = {"cniVersion": "1.0.0", "name": "blue", "type": "meshfw-cni", "backend": "nft", "prevResult": RESULT}


def asked(command: str, config: dict[str, Any], variables: dict[str, str] | None = None) -> Answer:
    return call(command, OURS, config, variables=PLACE if variables is None else variables)


@pytest.mark.parametrize("config", [{"cniVersion": "1.1.0"}, {"cniVersion": "9.9.9"}])
def test_version_lists_what_is_spoken(config: dict[str, Any]) -> None:
    assert asked("VERSION", config).value == {**config, "supportedVersions": list(SUPPORTED)}


def test_version_imports_nothing_of_meshfw(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "meshfw_cni.main"],
        input="{}",
        env={**os.environ, "CNI_COMMAND": "VERSION"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {name for name in imported if name.split(".")[0] in ("meshfw", "msgspec", "argparse")}


def test_an_addition_looks_for_no_plugins_and_imports_no_rules_that_it_does_not_write() -> None:
    script = "import json, sys, meshfw_cni.commands, meshfw_cni.firewall as f; f.Firewall('/x', tell=print); "
    script += "json.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    heavy = {
        "argparse",
        "asyncio",
        "importlib.metadata",
        "subprocess",
        "rich",
        "tomllib",
        "meshfw.extensions.hashlimit",
    }
    assert not modules & heavy
    assert sum(name.startswith("meshfw.extensions.") for name in modules) < 16


BAD: Final[dict[str, tuple[str, dict[str, Any], int]]] = {
    "no version": ("ADD", {"cniVersion": None}, 1),
    "unknown version": ("ADD", {"cniVersion": "0.2.0"}, 1),
    "no CHECK in 0.3.1": ("CHECK", {"cniVersion": "0.3.1"}, 1),
    "no GC in 1.0.0": ("GC", {}, 1),
    "no prevResult": ("ADD", {"prevResult": None}, 7),
    "prevResult of another version": ("ADD", {"prevResult": {"cniVersion": "7.0.0"}}, 1),
    "prevResult is a list": ("ADD", {"prevResult": []}, 7),
    "ips of something else": ("ADD", {"prevResult": {"ips": ["10.0.0.1/8"]}}, 7),
    "no address": ("ADD", {"prevResult": {"ips": [{}]}}, 7),
    "bad address": ("ADD", {"prevResult": {"ips": [{"address": "10.0.0.300/8"}]}}, 7),
    "a mask with gaps": ("ADD", {"prevResult": {"ips": [{"address": "10.0.0.3/255.0.255.0"}]}}, 7),
    "no name": ("ADD", {"name": None}, 7),
    "bad name": ("ADD", {"name": "a b"}, 7),
    "mistyped key": ("ADD", {"polcy": "isolate"}, 7),
    "unknown policy": ("ADD", {"policy": "drop"}, 7),
    "ipMasq is a string": ("ADD", {"ipMasq": "yes"}, 7),
    "bad pod network": ("ADD", {"podNetworks": ["10.0.0.0/33"]}, 7),
    "relative directory": ("ADD", {"dataDir": "state"}, 7),
    "GC without a list": ("GC", {"cniVersion": "1.1.0"}, 7),
    "GC with a bad list": ("GC", {"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"ifname": "eth0"}]}, 7),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_configuration_is_refused_by_its_number_and_key(name: str, tmp_path: Path) -> None:
    command, changes, code = BAD[name]
    config = {**CONFIG, "dataDir": str(tmp_path), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(CniError) as raised:
        read_request(command, PLACE, config)
    assert raised.value.code == code, raised.value
    named = [key for key in changes if key in str(raised.value) or command == "CHECK"]
    assert named or code == 1 or name == "GC without a list", raised.value
    assert os.listdir(tmp_path) == []


def test_errors_are_objects_on_standard_output_of_the_asked_version() -> None:
    answer = asked("ADD", {**CONFIG, "prevResult": None})
    assert (answer.code, answer.value["code"], answer.value["cniVersion"]) == (1, 7, "1.0.0")
    assert "Traceback" not in answer.log
    for variables, words in (
        ({**PLACE, "CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({**PLACE, "CNI_IFNAME": "eth0/1"}, "CNI_IFNAME"),
        ({**PLACE, "CNI_NETNS": ""}, "CNI_NETNS"),
    ):
        answer = asked("ADD", CONFIG, variables)
        assert answer.problem == 4
        assert words in answer.value["msg"]
    assert asked("FROB", CONFIG).problem == 4
    for text, code in (("{", 6), ("[]", 7), ("", 6)):
        done = subprocess.run(
            OURS, input=text, capture_output=True, text=True, env={**os.environ, "CNI_COMMAND": "ADD"}, check=False
        )
        assert (done.returncode, json.loads(done.stdout)["code"]) == (1, code)


def test_a_wrong_key_does_not_keep_a_pod_from_being_deleted(tmp_path: Path) -> None:
    config = {**CONFIG, "dataDir": str(tmp_path / "none"), "polcy": 1, "ipMasq": "yes", "prevResult": "?"}
    assert asked("DEL", config, {"CNI_CONTAINERID": "pod", "CNI_IFNAME": "eth0"}) == Answer(0, None, "")
    assert os.listdir(tmp_path) == [], "nothing was known, so nothing was made"


@pytest.mark.parametrize("version", SUPPORTED)
def test_results_are_written_in_the_asked_version(version: str) -> None:
    newest = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "x", "mtu": 1400, "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.2/8", "interface": 0}, {"version": "6", "address": "fd00::2/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "scope": 0}],
        "dns": {"nameservers": ["10.0.0.1"]},
        "vendor": {"own": 1},
    }
    made = converted(newest, version)
    old = version < "1.0.0"
    assert made["cniVersion"] == version
    assert [entry.get("version") for entry in made["ips"]] == (["4", "6"] if old else [None, None])
    assert ("mtu" in made["interfaces"][0]) == (version == "1.1.0")
    assert ("scope" in made["routes"][0]) == (version == "1.1.0")
    assert made["vendor"] == {"own": 1}
    assert made["dns"] == newest["dns"]
    assert converted(made, version) == made


SOME: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["10.0.0.1/8", "isolate", "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["address", "name", "sandbox"]), inner),
    max_leaves=6,
)
KEYS: Final = st.sampled_from(
    [
        "ipMasq",
        "policy",
        "backend",
        "dataDir",
        "lockTimeout",
        "podNetworks",
        "name",
        "cniVersion",
        "x",
        "cni.dev/attachments",
    ]
)


@given(
    command=st.sampled_from(["ADD", "DEL", "CHECK", "STATUS", "GC"]),
    changes=st.dictionaries(KEYS, SOME, max_size=3),
    result=st.dictionaries(st.sampled_from(["ips", "interfaces", "routes", "cniVersion"]), SOME) | SOME,
)
def test_whatever_is_asked_is_a_request_or_an_error_with_a_number(command: str, changes: Any, result: Any) -> None:
    config = {**CONFIG, "cniVersion": "1.1.0", **changes, "prevResult": result}
    try:
        made = read_request(command, PLACE, config)
    except CniError as error:
        known = error.code in {1, 4, 7} and bool(error.message)
    else:
        known = made.command == command
    assert known
