"""Laws of a plugin from outside: a distribution of its own, installed for real, works by configuration alone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """
plugins = ["meshfw-notebook"]
backend.use = "notebook"
backend.notebook.file = "page.json"

[[chain]]
name = "input"
attach = { hook = "input" }
rules = ["-m link --link 1 -j DROP", { link = { not = 2 }, protocol = "tcp", dport = 22, target = "ACCEPT" }]

[[source]]
type = "blocklist"
file = "blocked.txt"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the example plugin; all else it sees is the checkout's."""
    if importlib.util.find_spec("hatchling") is None:
        cannot_run("not installed: hatchling", "pip install --editable '.[test]'")
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    site = Path(
        run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).stdout.strip()
    )
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", "--no-deps", "--no-index")
    # A copy is installed: a build would leave its traces in the checkout.
    copy = home / "example"
    copy.mkdir()
    for path in (ROOT / "tests" / "plugin_example").iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    done = run(*pip, "--no-build-isolation", copy, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return interpreter


def run(*command: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment without this interpreter's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | extra
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "blocked.txt").write_text("192.0.2.0/24\n2001:db8::7\n", encoding="utf-8")
    return tmp_path


def test_an_installed_backend_is_chosen_by_configuration(python: Path, house: Path) -> None:
    first = run(python, "-m", "meshfw", "apply", cwd=house)
    assert first.returncode == 0, first.stderr
    assert "(notebook)" in first.stdout
    page = json.loads((house / "page.json").read_text(encoding="utf-8"))
    assert "-m link --link 1 -j DROP" in page["ipv4"]
    assert "-p tcp" in page["ipv6"]
    assert "! --link 2" in page["ipv6"]
    assert "2001:db8::7" in page["ipv6"]
    assert "192.0.2.0/24" in page["ipv4"]


def test_a_new_process_adopts_what_the_installed_backend_keeps(python: Path, house: Path) -> None:
    assert run(python, "-m", "meshfw", "plan", cwd=house).returncode == 2
    assert run(python, "-m", "meshfw", "apply", cwd=house).returncode == 0
    done = run(python, "-m", "meshfw", "plan", cwd=house)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to do (notebook)\n", "")
    assert run(python, "-m", "meshfw", "clean", cwd=house).returncode == 0
    assert json.loads((house / "page.json").read_text(encoding="utf-8")) == {"ipv4": "", "ipv6": ""}


def test_backends_lists_an_installed_one_with_its_distribution(python: Path, tmp_path: Path) -> None:
    done = run(python, "-m", "meshfw", "backends", "--json", cwd=tmp_path)
    listed = {item["name"]: item for item in json.loads(done.stdout)["backends"]}
    assert listed["notebook"]["distribution"] == "meshfw-notebook 1.2.3"
    assert json.loads(done.stdout)["auto"]["name"] != "notebook"
    printed = run(python, "-m", "meshfw", "backends", cwd=tmp_path).stdout
    assert re.search(r"^  notebook +meshfw-notebook 1\.2\.3  rules in a file", printed, re.MULTILINE)


def test_an_installed_plugin_hears_of_every_reconcile(python: Path, house: Path) -> None:
    for _ in range(2):
        run(python, "-m", "meshfw", "apply", cwd=house, MESHFW_NOTEBOOK_JOURNAL="journal")
    assert (house / "journal").read_text(encoding="utf-8").splitlines() == ["notebook: changed", "notebook: clean"]


def test_an_installed_plugin_that_nobody_chose_changes_nothing(python: Path, tmp_path: Path) -> None:
    text = '[[chain]]\nname = "a"\nrules = ["-m link --link 1 -j DROP"]\n'
    (tmp_path / "meshfw.toml").write_text(text, encoding="utf-8")
    done = run(python, "-m", "meshfw", "show", "--wanted", "--nft", cwd=tmp_path)
    assert done.returncode == 1
    assert "match link has no typed value" in done.stderr
    (tmp_path / "meshfw.toml").write_text(f'plugins = ["notebook"]\n{text}', encoding="utf-8")
    done = run(python, "-m", "meshfw", "show", "--wanted", "--nft", cwd=tmp_path)
    assert "meta iiftype 1 counter drop" in done.stdout


def test_the_refusal_of_an_installed_backend_names_file_and_key(python: Path, tmp_path: Path) -> None:
    text = 'backend = "notebook"\n[[chain]]\nname = "a"\nrules = ["-j ACCEPT"]\n'
    (tmp_path / "meshfw.toml").write_text(text, encoding="utf-8")
    done = run(python, "-m", "meshfw", "apply", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "meshfw: error: meshfw.toml: backend.notebook.file: no file is named; expected the path of a file to write\n"
    )


def test_starting_without_foreign_names_scans_no_distributions(python: Path, tmp_path: Path) -> None:
    (tmp_path / "meshfw.toml").write_text('[[chain]]\nname = "a"\n', encoding="utf-8")
    code = "import sys; from meshfw.cli import main; main(['plan', '--backend', 'memory'])\n"
    code += "print([m for m in ('importlib.metadata', 'meshfw_notebook', 'rich') if m in sys.modules])"
    done = run(python, "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_an_installed_verb_is_one_like_all_others(python: Path, house: Path) -> None:
    early = run(python, "-m", "meshfw", "leaf", "--json", cwd=house)
    assert early.returncode == 1
    assert "no page is written yet" in json.loads(early.stdout)["error"]["message"]
    assert "Traceback" not in early.stderr
    run(python, "-m", "meshfw", "apply", cwd=house)
    assert "2001:db8::7" in run(python, "-m", "meshfw", "leaf", "--family", "ipv6", cwd=house).stdout
    listed = run(python, "-m", "meshfw", "--verbs", cwd=house).stdout
    assert re.search(r"^leaf +print the page  \[notebook \(from meshfw-notebook 1\.2\.3\)\]$", listed, re.MULTILINE)
    wrong = run(python, "-m", "meshfw", "laef", cwd=house)
    assert "there is no verb 'laef' (did you mean leaf?)" in wrong.stderr
