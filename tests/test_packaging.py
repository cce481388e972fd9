"""Laws of the distribution: what the wheel and the sdist hold, and that the installed wheel runs."""

from __future__ import annotations

import email
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path, PurePosixPath

import pytest

from meshfw.service.units import AGENT, RESTORE
from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION: str = PROJECT["version"]


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command; a failure shows everything that it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from that sdist."""
    for tool in ("build", "hatchling"):
        if importlib.util.find_spec(tool) is None:
            cannot_run(f"not installed: {tool}", "pip install --editable '.[test]'")
    out = tmp_path_factory.mktemp("dist")
    # Without isolation, so that no network is needed. `build` builds the wheel from the sdist's own files.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The one wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist_names(dist: Path) -> set[str]:
    """The paths in the sdist, below its top directory."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"meshfw-{VERSION}.dist-info/METADATA"))


def sources(*tops: str) -> set[str]:
    """The Python files of the checkout below some of its directories."""
    return {str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*.py")}


def test_wheel_holds_the_package_with_its_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert sources("meshfw") | {"meshfw/py.typed"} <= names
    assert {f"meshfw/service/{name}" for name in ("hardening.conf", AGENT, RESTORE)} <= names
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "meshfw/authoring").rglob("*.tmpl")}
    assert len(templates) > 10
    assert templates | {"meshfw/testing/README.md"} <= names
    assert {name.split("/")[0] for name in names} == {"meshfw", f"meshfw-{VERSION}.dist-info"}
    assert not any("__pycache__" in name for name in names)


def test_sdist_holds_all_that_a_distributor_needs_to_build_and_test(sdist_names: set[str]) -> None:
    files = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/setup", "meshfw/py.typed"}
    assert files | sources("meshfw", "tests", "benchmarks") <= sdist_names


def test_sdist_holds_nothing_that_a_tool_left_behind(sdist_names: set[str]) -> None:
    assert not [name for name in sdist_names if ".venv" in name or "cache" in name or ".hypothesis" in name]


def test_metadata_says_licence_versions_and_dependencies(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["License-Expression"] == "Apache-2.0"
    assert said["License-File"] == "LICENSE"
    assert {part.strip() for part in said["Requires-Python"].split(",")} == {">=3.11", "<3.14"}
    required = {line.split(";")[0].rstrip() for line in said.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert {line.split(">")[0] for line in required} == {"msgspec", "pluggy", "prometheus-client", "rich"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that holds the wheel; its dependencies are those of the tests."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=home)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    # A path line adds the tests' packages, yet not the .pth files among them: no editable meshfw slips in.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return home / "bin"


def test_installed_wheel_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert VERSION in run(installed / "meshfw", "--version", cwd=tmp_path)
    assert VERSION in run(installed / "python", "-m", "meshfw", "--version", cwd=tmp_path)


def test_installed_wheel_is_what_those_commands_ran(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import meshfw; print(meshfw.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_installed_wheel_holds_every_public_name(installed: Path, tmp_path: Path) -> None:
    code = "import meshfw; print(*[getattr(meshfw, name) for name in meshfw.__all__], sep='\\n')"
    assert run(installed / "python", "-c", code, cwd=tmp_path)
