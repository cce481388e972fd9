"""Laws of the verb ``status``: what the agent says, as text and as data, and an exit code for scripts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfw.agent.control import ControlServer, socket_path
from meshfw.agent.status import Culprit, Drift, Phase, Status
from meshfw.cli import main
from meshfw.cli.status import UNHEALTHY, _span


def well() -> Status:
    """What an agent says that is well, as of now: a suite runs longer than a status is young."""
    now = time.time()
    return Status(
        phase=Phase.WATCHING,
        healthy=True,
        pid=4711,
        version="0.1.0",
        owner="mesh1",
        backend="nft",
        config="meshfw.toml",
        started=now - 90_000,
        reconciled=now - 8,
        changed=now - 4000,
        generation=77,
        rules=1204,
        chains=1,
        outcomes={"idle": 900, "changed": 1},
        events=1,
        drifts=tuple(
            Drift(time=now - 4000 - age, culprits=(Culprit(9, "evil\x1b[2J\n"),), changes=2, lines=("+ a", "+ b"))
            for age in range(5)
        ),
    )


@pytest.fixture(autouse=True)
def _house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfw.config.SYSTEM", str(tmp_path / "none"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    (tmp_path / "meshfw.toml").write_text('owner = "mesh1"\n', encoding="utf-8")


@pytest.fixture
def agent() -> Iterator[Callable[[Any], None]]:
    """An agent that says what it's given."""
    servers = []

    def start(answer: Any) -> None:
        servers.append(ControlServer(socket_path("mesh1"), {"status": lambda _: answer}))

    yield start
    for server in servers:
        server.close()


def test_all_well_is_0_and_told_in_lines(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent(msgspec.to_builtins(well()))
    assert main(["status"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == "mesh1: watching, the rules stand"
    assert "  rules       1204 rules in 1 chain, from the sources" in lines
    assert "  backend     nft in this network namespace, generation 77" in lines
    assert re.fullmatch(r"  looked      \d+ s ago; last change 1 h [67] min ago", lines[3])
    assert "  reconciles  1 changed, 900 idle; 1 foreign write heard of" in lines
    assert "  agent       process 4711, version 0.1.0, up 1 d 1 h, 0 processes spawned" in lines
    assert lines[-1] == "  ... 2 older repairs (-v shows all)"


def test_names_of_strangers_command_no_terminal(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent(msgspec.to_builtins(well()))
    main(["status", "-v"])
    out = capsys.readouterr().out
    assert out.count("  repaired    2 changes by evil\\x1b[2J\\n (process 9), 1 h") == 5
    assert "\x1b" not in out
    assert out.count("  + b\n") == 5


def test_not_well_is_2_with_the_reason_first(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status = msgspec.structs.replace(
        well(),
        healthy=False,
        phase=Phase.BACKING_OFF,
        reason="contended with rival",
        contended="rival (process 3)",
        next_try=time.time() + 100,
        source="last good",
        warnings=("a warning",),
    )
    agent(msgspec.to_builtins(status))
    assert main(["status"]) == UNHEALTHY == 2
    out = capsys.readouterr().out
    assert out.startswith("mesh1: backing off, NOT WELL: contended with rival\n")
    assert "  contended   with rival (process 3)\n" in out
    assert "  next try    in 1 min" in out
    assert "from the last good state\n" in out
    assert "  warning     a warning\n" in out


def test_json_is_all_that_the_agent_says(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status = well()
    agent({**msgspec.to_builtins(status), "of_the_next_version": 1})
    assert main(["status", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data.pop("of_the_next_version") == 1
    assert msgspec.convert(data, Status) == status


def test_before_the_first_look_it_is_not_well(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent(msgspec.to_builtins(Status(owner="mesh1", started=time.time())))
    assert main(["status"]) == UNHEALTHY
    out = capsys.readouterr().out
    assert "starting, NOT WELL: the kernel is not known yet" in out
    assert "  looked      never; last change never" in out


def test_no_agent_is_1_and_says_for_which_owner(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("meshfw: error: no agent runs for owner mesh1 here (nobody answers at ")
    assert main(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "AgentError"


def test_an_agent_of_another_version_is_said_so(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent({"phase": "dancing"})
    assert main(["status"]) == 1
    assert "the agent is of another version than this command: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400, "1 d"), (-5, "0 s")],
)
def test_a_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert _span(seconds) == text
