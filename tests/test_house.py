"""Laws of the house: who imports whom, what a name, a docstring, a suppression and a sentence look like."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshfw
from meshfw import hookspecs

ROOT = Path(__file__).resolve().parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
CODE = ("meshfw", "plugins", "tests", "benchmarks")
PRUNED = {"__pycache__", "build", "dist"}  # and every dot directory but .ci
MODULE_LINES = 400

# Modules longer than MODULE_LINES, each with the reason why it is one module all the same.
LONG: dict[str, str] = {}


def files(*tops: str) -> list[Path]:
    """The project's own files below some of its directories (all of them: ``.``), in a fixed order."""
    found = []
    for top in tops:
        for directory, names, leaves in os.walk(ROOT / top):
            names[:] = [n for n in names if n == ".ci" or not (n in PRUNED or n.startswith(".") or "egg-info" in n)]
            found += [Path(directory, leaf) for leaf in leaves]
    return sorted(found)


def python_files(*tops: str) -> list[Path]:
    """The Python modules below some of the project's directories."""
    return [path for path in files(*tops) if path.suffix == ".py"]


def relative(path: Path) -> str:
    """A path as a person names it: below the checkout."""
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter's run; it writes no bytecode, so that what it writes is what the code writes."""
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run((sys.executable, *arguments), cwd=cwd, env=env, capture_output=True, text=True, check=False)


# --- imports ---

LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"


def test_imports_go_one_way() -> None:
    done = python("-c", LINT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("model.py", "import meshfw.plan", "Imports go one way"),
        ("backends/__init__.py", "import meshfw.reconcile", "Imports go one way"),
        ("stray.py", "import meshfw.errors", "Imports go one way"),
        ("backend.py", "import meshfw.source\n", "No room imports"),
        ("cli/__init__.py", "import meshfw.kernel.command", "Only backends"),
        ("sources/__init__.py", "import meshfw.kernel.command", "Only backends"),
        ("languages/__init__.py", "import socket", "The pure rooms"),
        ("errors.py", "import subprocess", "The pure rooms"),
    ],
)
def test_a_wrong_import_breaks_its_contract(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "meshfw", tmp_path / "meshfw")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "meshfw" / module
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")
    if module == "backend.py":  # a cycle needs its other half
        with (tmp_path / "meshfw/source.py").open("a", encoding="utf-8") as other:
            other.write("\nimport meshfw.backend\n")
    done = python("-c", LINT, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^{contract}.* BROKEN", done.stdout, re.MULTILINE), done.stdout + done.stderr


PUBLIC = re.compile(r"meshfw|meshfw\.(?:iptables|model|reconcile|testing)(?:\.\w+)*")


def test_plugins_import_public_names_alone() -> None:
    found = []
    for path in python_files("plugins", "tests/plugin_example", "tests/golden/new_plugin"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                found += [f"{relative(path)}: {a.name}" for a in node.names if a.name.split(".")[0] == "meshfw"]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "meshfw":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                private = [name for name in names if any(part.startswith("_") for part in name.split("."))]
                unlisted = [a.name for a in node.names if node.module == "meshfw" and a.name not in meshfw.__all__]
                if private or unlisted or not PUBLIC.fullmatch(node.module or ""):
                    found += [f"{relative(path)}: {name}" for name in names]
    assert [line for line in found if not re.fullmatch(r".*: meshfw", line)] == []


def importers(wanted: str) -> list[str]:
    """The modules of meshfw that import a library or a room, anywhere in the file."""
    found = []
    for path in python_files("meshfw"):
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name == wanted or name.startswith(f"{wanted}.") for name in names):
                found.append(relative(path))
    return sorted(set(found))


def test_one_room_starts_processes() -> None:
    outside = [path for path in importers("subprocess") if not path.startswith("meshfw/testing/")]
    assert outside == ["meshfw/kernel/command.py"]


# Runs in a fresh interpreter: imports every module while an audit hook listens, then says what it heard.
LISTENER = """
import json, logging, os, pkgutil, signal, sys
loud = ("subprocess.", "socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.putenv",
        "os.unsetenv", "os.chdir", "os.remove", "os.mkdir", "os.rename", "_thread.start_new_thread", "urllib.")
heard, listening = [], True
def hook(event, arguments):
    if not listening:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    loads = event == "ctypes.dlopen" and arguments[0] is not None
    if event.startswith(loud) or writes or loads:
        heard.append(f"{event} {arguments!r}")
def state():
    return [dict(os.environ), os.getcwd(), [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
            [str(h) for h in logging.getLogger().handlers], os.umask(os.umask(0o22)), list(sys.path)]
__EXTRA__
before = state()
sys.addaudithook(hook)
import meshfw
names = [m.name for m in pkgutil.walk_packages(meshfw.__path__, "meshfw.", onerror=lambda name: heard.append(name))]
for name in names:
    __import__(name)
after = state()
listening = False
json.dump({"names": names, "heard": heard, "changed": [[a, b] for a, b in zip(before, after) if a != b]}, sys.stdout)
"""


def test_importing_everything_has_no_side_effect() -> None:
    done = python("-c", LISTENER.replace("__EXTRA__", ""))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "meshfw.model" in said["names"]
    assert "meshfw.__main__" in said["names"]  # importing it runs nothing either
    assert (said["heard"], said["changed"]) == ([], [])


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import os; os.environ['MESHFW_TEST'] = '1'", "os.putenv"),
        ("import ctypes; ctypes.CDLL('libc.so.6')", "ctypes.dlopen"),
        ("open('/dev/null', 'w').close()", "open"),
    ],
)
def test_the_listener_hears_side_effects(statement: str, event: str) -> None:
    planted = f"sys.addaudithook(hook)\n{statement}\n"
    heard = json.loads(python("-c", LISTENER.replace("__EXTRA__", planted)).stdout)["heard"]
    assert [line for line in heard if line.startswith(event)]


def test_help_imports_nothing_heavy() -> None:
    done = python("-X", "importtime", "-m", "meshfw", "--help")
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "meshfw.cli" in imported
    heavy = {"asyncio", "ctypes.util", "hypothesis", "importlib.metadata", "pytest", "rich", "matplotlib"}
    assert imported & heavy == set()


# --- names ---

VAGUE = re.compile(r"(?:^|_)(?:utils?|helpers?|commons?|managers?|base|misc)(?:_|$)")


def test_no_module_has_a_name_that_says_nothing() -> None:
    paths = {relative(path) for path in python_files(*CODE)}
    assert [path for path in sorted(paths) if any(VAGUE.search(Path(part).stem) for part in path.split("/"))] == []


def test_no_class_has_a_name_that_says_nothing() -> None:
    vague = re.compile(r"^_?(?:Base[A-Z]|Abstract[A-Z]).*|.*(?:Utils?|Helpers?|Manager|Base)$")
    names = [
        f"{relative(path)}: {node.name}"
        for path in python_files(*CODE)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and vague.match(node.name)
    ]
    assert names == []


def test_modules_fit_in_a_reading() -> None:
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in python_files("meshfw", "plugins")}
    too_long = {path for path, length in lengths.items() if length > MODULE_LINES}
    assert too_long == set(LONG), "LONG names the exceptions, no more and no fewer"
    assert all(len(reason.split()) > 3 for reason in LONG.values())


# --- public names ---


def test_public_names_are_sorted() -> None:
    # The order that ruff keeps (RUF022): constants, then classes, then the rest.
    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert meshfw.__all__
    assert list(meshfw.__all__) == sorted(set(meshfw.__all__), key=rank)


def test_every_public_name_is_there_and_documented() -> None:
    bare = [name for name in meshfw.__all__ if not inspect.getdoc(getattr(meshfw, name))]
    assert bare == []


def definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """The public functions and classes of a module, and the public methods of those classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in parsed(path).body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield f"{relative(path)}:{node.lineno} {node.name}", node


def test_every_public_function_and_class_is_documented() -> None:
    found = [
        (where, node)
        for path in python_files("meshfw", "plugins")
        if "tests" not in path.parts
        for where, node in definitions(path)
    ]
    assert found
    bare = [
        where
        for where, node in found
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not ast.get_docstring(node)
    ]
    assert bare == []


def test_every_module_opens_with_a_sentence() -> None:
    opening = {relative(path): ast.get_docstring(parsed(path)) or "" for path in python_files(*CODE)}
    assert [path for path, text in opening.items() if not re.match(r".*\.(\n\n|$)", text, re.DOTALL)] == []


def test_every_hook_is_documented_and_tested() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("meshfw_")]
    assert hooks
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tests = "".join(
        p.read_text(encoding="utf-8") for p in python_files("tests", "plugins") if p.name != "test_house.py"
    )
    assert [name for name in hooks if name not in readme] == []
    assert [name for name in hooks if name not in tests] == []


# --- suppressions ---

CODES = (
    r":\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*|\[[\w, -]+\]|:[^#]*?(?=\s-|\s#|$)"  # of ruff; of mypy; the words of others
)
SUPPRESSION = re.compile(rf"#\s*(?:noqa|type:\s*ignore|pragma|nosec|fmt|ruff|mypy)\b(?:{CODES})?")


def unreasoned(source: str) -> list[str]:
    """The comments that switch a check off and don't say why in at least two words."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and SUPPRESSION.match(token.string):
            reason = SUPPRESSION.sub("", token.string)
            if len(re.findall(r"[A-Za-z]{2,}", reason)) < 2:
                found.append(f"{token.start[0]}: {token.string}")
    return found


def test_every_suppression_says_why() -> None:
    found = [f"{relative(p)}:{line}" for p in python_files(*CODE, ".ci") for line in unreasoned(p.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("comment", "reasoned"),
    [
        ("# noqa", False),
        ("# noqa: S603", False),
        ("# noqa: S603, S607", False),
        ("# type: ignore[arg-type]", False),
        ("# pragma: no cover", False),
        ("# type: ignore[misc]  # noqa: S603", False),
        ("# noqa: S603 - the argument list is ours", True),
        ("# noqa: S603, S607 the argument list is ours", True),
        ("# type: ignore[arg-type]  # the library's stub is wrong", True),
        ("# pragma: no cover - only on old kernels", True),
        ("# a plain comment", True),
    ],
)
def test_a_suppression_without_a_reason_is_found(comment: str, reasoned: bool) -> None:
    assert (unreasoned(f"x = 1  {comment}\n") == []) is reasoned


# --- prose ---

# The hosts that the project's text may name. Sources of facts and standards; everything else is somebody's machine.
HOSTS = re.compile(
    r"HOST|127\.0\.0\.1|(?:.*\.)?(?:example(?:\.(?:com|org|net))?|invalid|test|localhost|apache\.org|kernel\.org|netfilter\.org"
    r"|keepachangelog\.com|semver\.org|rfc-editor\.org|ietf\.org|iana\.org|man7\.org|debian\.org/doc|github\.com)"
)
ROOTS = {"bin", "dev", "etc", "lib", "opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var"}
STORES = {"meshfw", "v3"}  # not of a file system: the keys in etcd, and the paths of its gateway
ABSOLUTE = re.compile(r"(?:^|[\s\"'`(=])/([A-Za-z][\w.-]*)/", re.MULTILINE)
HOST = re.compile(r"https?://([\w.-]+)|(?<![\w.@-])((?:[a-z0-9-]+\.)+(?:org|com))\b(?!\()")


def foreign(text: str) -> list[str]:
    """What a project's text must not name: places of one machine, and hosts that aren't a source of facts."""
    places = [f"/{root}/" for root in ABSOLUTE.findall(text) if root not in ROOTS | STORES]
    hosts = [plain or linked for linked, plain in HOST.findall(text)]
    return places + [host for host in hosts if not HOSTS.fullmatch(host)]


def prose() -> Iterator[tuple[Path, str]]:
    """Each text file of the project with its text; not this one, which has to hold what it looks for."""
    for path in files("."):
        if path == Path(__file__).resolve():
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a plot, or a golden of raw bytes


def test_text_names_no_place_or_host_of_one_machine() -> None:
    found = [f"{relative(path)}: {name}" for path, text in prose() for name in foreign(text) if path.name != "LICENSE"]
    assert found == []


@pytest.mark.parametrize(
    "text", ["see /home/me/notes", '"/srv/data/x"', "https://mirror.internal/simple", "from packages.acme.org"]
)
def test_a_place_or_host_of_one_machine_is_found(text: str) -> None:
    assert foreign(text)


@pytest.mark.parametrize("text", ["/etc/meshfw/meshfw.toml", "10.0.0.0/8 and/or 5/minute", "https://netfilter.org/x"])
def test_a_place_that_every_machine_has_is_no_finding(text: str) -> None:
    assert foreign(text) == []


def test_text_speaks_of_the_project_alone() -> None:
    # pytest's word for a fixture's lifetime is the one use that is left.
    about_its_making = re.compile(r"(?<!scope=\")\bsessions?\b(?!\")", re.IGNORECASE)
    found = [
        f"{relative(path)}: {match.group()}" for path, text in prose() for match in about_its_making.finditer(text)
    ]
    assert found == []


def test_changelog_and_package_say_the_same_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert first is not None
    assert first.group(1) == VERSION
    done = python("-m", "meshfw", "--version")
    assert done.returncode == 0, done.stderr
    assert VERSION in done.stdout


@pytest.mark.parametrize("module", ["errors", "model", "plan", "reconcile", "backend", "source", "hookspecs", "config"])
def test_rooms_of_the_house_are_there(module: str) -> None:
    assert importlib.import_module(f"meshfw.{module}").__doc__
