"""The command ``meshfw-kilo cni``: what it says, how it ends, and that it goes on whatever comes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kilo_conflists import OTHER, V4, V6, ipam_of, kilos
from kilo_meshes import node_object
from meshfw_kilo.cli import main


@pytest.fixture
def conflist(tmp_path: Path) -> Path:
    path = tmp_path / "10-kilo.conflist"
    path.write_text(json.dumps(kilos()))
    return path


SPEC = {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24", "fd00:42::/64"]}


def nodes(path: Path, spec: Any = None) -> Path:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(node_object("n1", spec=spec or SPEC)))
    new.rename(path)
    return path


def test_the_command_writes_once_and_says_so(
    conflist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cni", "--node", "n1", "--objects", str(nodes(tmp_path / "nodes.json")), "--conflist", str(conflist)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{conflist}: 10.42.0.0/24, fd00:42::/64 written\n"
    assert ipam_of(json.loads(conflist.read_text()))["ranges"] == [[V4], [V6]]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{conflist}: 10.42.0.0/24, fd00:42::/64 stands there already\n"


def test_the_command_names_what_is_wrong(conflist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(nodes(tmp_path / "nodes.json"))
    more = ["--conflist", str(conflist)]
    assert main(["cni", "--node", "n9", "--objects", file, *more]) == 1
    assert "there is no Node n9" in capsys.readouterr().err
    nodes(tmp_path / "nodes.json", {"podCIDR": ""})
    assert main(["cni", "--node", "n1", "--objects", file, *more]) == 1
    assert "Node n1 has no pod network yet" in capsys.readouterr().err
    assert main(["cni", "--node", "n1", "--objects", str(tmp_path / "none"), *more]) == 1
    assert "none: it can't be read" in capsys.readouterr().err
    assert json.loads(conflist.read_text()) == kilos()


@pytest.mark.parametrize(
    "arguments", [[], ["cni"], ["cni", "--node", "x"], ["cni", "--node", "x", "--kubernetes", "--objects", "y"]]
)
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: meshfw-kilo" in capsys.readouterr().err


@pytest.fixture
def watching(conflist: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    code = "import sys; from meshfw_kilo.cli import main; sys.exit(main())"
    file = nodes(tmp_path / "nodes.json")
    command = [sys.executable, "-c", code, "cni", "--node", "n1", "--objects", str(file), "--conflist", str(conflist)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--watch"], stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def ranges_in(conflist: Path) -> Any:
    return ipam_of(json.loads(conflist.read_text())).get("ranges")


def test_watching_follows_both_files_and_outlives_errors(
    watching: subprocess.Popen[str], conflist: Path, tmp_path: Path
) -> None:
    until(lambda: ranges_in(conflist) == [[V4], [V6]])
    nodes(tmp_path / "nodes.json", {"podCIDR": "10.42.7.0/24"})
    until(lambda: ranges_in(conflist) == [[OTHER], [V6]])
    (tmp_path / "nodes.json").write_text("{")
    assert watching.stderr is not None
    assert "nodes.json, line 1" in watching.stderr.readline()
    nodes(tmp_path / "nodes.json")
    until(lambda: ranges_in(conflist) == [[V4], [V6]])
    new = conflist.with_suffix(".theirs")
    new.write_text(json.dumps(kilos()))
    new.rename(conflist)
    until(lambda: ranges_in(conflist) == [[V4], [V6]])
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
    assert watching.stderr.read() == ""
