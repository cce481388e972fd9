"""The law book of rule sources, run on the built-in ones and the example plugin's; and broken ones that it catches."""

from __future__ import annotations

import importlib.util
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import pytest

from meshfw import (
    Chain,
    Changes,
    ConfigError,
    Declaration,
    Family,
    FileChanges,
    Language,
    MeshfwError,
    Ruleset,
    Table,
    builtin_extensions,
    parse_rule,
)
from meshfw.sources.dump import DumpSource
from meshfw.sources.rules import RulesSource
from meshfw.sources.script import ScriptSource
from meshfw.testing.source_laws import SOURCE_LAWS, Factory, Fault, SourceLab
from meshfw.testing.sources import SourceLaws

LANGUAGE = Language.of(builtin_extensions())
EXAMPLE = Path(__file__).resolve().parent / "plugin_example" / "meshfw_notebook.py"


class FileLaws(SourceLaws):
    """The laws on a source of one file ``rules``, whose option, text and other text a subclass has."""

    option: str
    text: str
    other: str
    broken: str
    line: str = ""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        made = tmp_path / "rules"
        made.write_text(self.text, encoding="utf-8")
        return made

    @pytest.fixture
    def declaration(self, file: Path, language: Language) -> Declaration:
        return Declaration(options={self.option: "rules"}, language=language, file=str(file.parent / "meshfw.toml"))

    @pytest.fixture
    def change(self, file: Path) -> Callable[[], None]:
        def replace() -> None:
            new = file.with_name("new")
            new.write_text(self.other, encoding="utf-8")
            os.replace(new, file)

        return replace

    @pytest.fixture
    def noise(self, file: Path) -> Callable[[], None]:
        return lambda: file.with_name("neighbour").touch()

    @pytest.fixture
    def faults(self, file: Path) -> Mapping[str, Fault]:
        def written(text: str) -> Callable[[], None]:
            def write() -> None:
                file.write_text(text, encoding="utf-8")

            return write

        mend = written(self.text)
        return {
            "no file": Fault(file.unlink, mend, names=str(file)),
            "no rules": Fault(written(self.broken), mend, names=f"{file}{self.line}"),
        }


class TestDumpSource(FileLaws):
    option = "ipv6"
    text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    other = text.replace("22", "443")
    broken = text.replace("-j ACCEPT", "-j")
    line = ", line 3"

    @pytest.fixture
    def factory(self) -> Factory:
        return DumpSource


class TestScriptSource(FileLaws):
    option = "file"
    text = "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n"
    other = text + text.replace("22", "443")
    broken = text + "iptables -D INPUT 7\n"
    line = ", line 2"

    @pytest.fixture
    def factory(self) -> Factory:
        return ScriptSource


class TestRulesSource(SourceLaws):
    @pytest.fixture
    def factory(self) -> Factory:
        return RulesSource

    @pytest.fixture
    def declaration(self, language: Language) -> Declaration:
        tables = tomllib.loads('[[chain]]\nname = "in"\nattach = { hook = "input" }\nrules = ["-i lo -j ACCEPT"]\n')
        return Declaration(options={}, language=language, tables=tables)

    def test_what_is_narrowed_is_what_a_configuration_alone_can_tell(self, lab: SourceLab) -> None:
        assert [law.name for law in SOURCE_LAWS if law.narrowed(lab)] == [
            "change_is_loaded",
            "lack_of_an_answer_is_an_error",
            "word_of_changes_keeps_quiet",
            "change_is_told",
            "drain_says_no_only_when_sure",
        ]


def notebook() -> ModuleType:
    """The example plugin's module."""
    spec = importlib.util.spec_from_file_location("meshfw_notebook", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestExampleSource(FileLaws):
    option = "file"
    text = "192.0.2.0/24\n2001:db8::7\n"
    other = "192.0.2.0/24\n"
    broken = "192.0.2.300\n"

    @pytest.fixture
    def factory(self) -> Factory:
        made: Factory = notebook().Blocklist
        return made


# --- mutants: each breaks one promise, and the law of it says so -------------------------------------------


class Sound:
    """A source of one file whose lines are rules of an IPv4 chain."""

    def __init__(self, declaration: Declaration) -> None:
        settings = declaration.settings()
        self.name = declaration.beside(settings.required("file", expected="a file"))
        self.refuse(settings.finish)
        self._changes: FileChanges | None = None

    def refuse(self, check: Callable[[], None]) -> None:
        check()

    def lines(self) -> list[str]:
        try:
            with open(self.name, encoding="utf-8") as file:
                return file.read().splitlines()
        except OSError as error:
            raise ConfigError(f"can't be read: {error.strerror}", file=self.name) from error

    def load(self) -> Ruleset:
        rules = tuple(parse_rule(line, family=Family.IPV4, language=LANGUAGE) for line in self.lines())
        return Ruleset(chains=(Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=rules),))

    def changes(self) -> Changes | None:
        if self._changes is None:
            self._changes = FileChanges([self.name])
        return self._changes

    def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None


class Nameless(Sound):
    """It calls itself nothing."""

    def __init__(self, declaration: Declaration) -> None:
        super().__init__(declaration)
        self._path, self.name = self.name, ""

    def lines(self) -> list[str]:
        with open(self._path, encoding="utf-8") as file:
            return file.read().splitlines()

    def changes(self) -> None:
        return None


class TakesAnyKey(Sound):
    """It takes a typing error for nothing."""

    def refuse(self, check: Callable[[], None]) -> None:
        pass


class Random(Sound):
    """It gives its rules in another order every other time."""

    turned = False

    def lines(self) -> list[str]:
        self.turned = not self.turned
        return sorted(super().lines(), reverse=self.turned)


class SaysNothing(Sound):
    """It wants no rule, though its file has some."""

    def load(self) -> Ruleset:
        return Ruleset()


class EmptyForLackOfAnAnswer(Sound):
    """Its file is missing, so it wants no rule."""

    def lines(self) -> list[str]:
        return super().lines() if os.path.exists(self.name) else []


class ForeignError(Sound):
    """It lets its file's errors out as they are."""

    def lines(self) -> list[str]:
        with open(self.name, encoding="utf-8") as file:
            return file.read().splitlines()


class NamesNothing(Sound):
    """Its errors don't say which file they are about."""

    def lines(self) -> list[str]:
        try:
            return super().lines()
        except MeshfwError as error:
            raise ConfigError("can't be read") from error


class ReadsOnce(Sound):
    """It remembers its first answer for ever."""

    known: list[str] | None = None

    def lines(self) -> list[str]:
        self.known = super().lines() if self.known is None else self.known
        return self.known


class ListensTwice(Sound):
    """Asked again, it listens anew."""

    def changes(self) -> Changes | None:
        return FileChanges([self.name])


class Drained:
    """Word of changes whose drain says something of its own."""

    def __init__(self, inner: FileChanges, says: Any) -> None:
        self._inner, self._says = inner, says

    def fileno(self) -> int:
        return self._inner.fileno()

    def drain(self) -> bool:
        self._inner.drain()
        return cast(bool, self._says)


class Deaf(Sound):
    """It says no to every change."""

    def changes(self) -> Changes | None:
        inner = super().changes()
        return Drained(inner, says=False) if isinstance(inner, FileChanges) else inner


class Vague(Sound):
    """Its drain says neither yes nor no."""

    def changes(self) -> Changes | None:
        inner = super().changes()
        return Drained(inner, says=None) if isinstance(inner, FileChanges) else inner


class Blaring(Sound):
    """Its descriptor never keeps quiet."""

    def changes(self) -> Changes | None:
        if self._changes is None:
            self._changes = FileChanges([os.devnull])
            self.null = os.open(os.devnull, os.O_RDONLY)
        return self

    def fileno(self) -> int:
        return self.null

    def drain(self) -> bool:
        return True

    def close(self) -> None:
        if self._changes is not None:
            os.close(self.null)
        super().close()


class KeepsListening(Sound):
    """Closed, it listens on."""

    def close(self) -> None:
        pass


MUTANTS: tuple[tuple[type[Sound], str], ...] = (
    (Nameless, "protocol_is_kept"),
    (TakesAnyKey, "unknown_key_is_refused"),
    (Random, "load_is_deterministic"),
    (SaysNothing, "loaded_rules_can_be_held"),
    (EmptyForLackOfAnAnswer, "lack_of_an_answer_is_an_error"),
    (ForeignError, "lack_of_an_answer_is_an_error"),
    (NamesNothing, "lack_of_an_answer_is_an_error"),
    (ReadsOnce, "change_is_loaded"),
    (ListensTwice, "word_of_changes_keeps_quiet"),
    (Blaring, "word_of_changes_keeps_quiet"),
    (Deaf, "change_is_told"),
    (Vague, "drain_says_no_only_when_sure"),
    (KeepsListening, "closing_gives_everything_back"),
)


def lab_of(kind: Callable[[Declaration], Sound], folder: Path) -> SourceLab:
    """A lab of a source of one file with everything that can happen to it."""
    file = folder / "rules"
    text = "-i lo -j ACCEPT\n-s 192.0.2.1 -j DROP\n"
    file.write_text(text, encoding="utf-8")

    def write(content: str) -> None:
        file.write_text(content, encoding="utf-8")

    return SourceLab(
        kind,
        Declaration(options={"file": "rules"}, language=LANGUAGE, file=str(folder / "meshfw.toml")),
        change=lambda: write(f"{text}-j RETURN\n"),
        noise=(folder / "neighbour").touch,
        faults={"no file": Fault(file.unlink, lambda: write(text), names=str(file))},
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is waited for a moment only."""
    monkeypatch.setattr("meshfw.testing.source_laws._SECONDS", 0.3)


@pytest.mark.parametrize(("mutant", "name"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_source_is_caught_by_its_law(mutant: type[Sound], name: str, tmp_path: Path, impatient: None) -> None:
    (law,) = [law for law in SOURCE_LAWS if law.name == name]
    law.run(lab_of(Sound, tmp_path))
    lab = lab_of(mutant, tmp_path)
    assert law.narrowed(lab) is None
    with pytest.raises((AssertionError, OSError)):
        law.run(lab)


def test_a_sound_source_keeps_every_law(tmp_path: Path) -> None:
    for law in SOURCE_LAWS:
        lab = lab_of(Sound, tmp_path)
        assert law.narrowed(lab) is None
        law.run(lab)


def test_every_law_of_sources_but_one_has_a_mutant() -> None:
    caught = {name for _, name in MUTANTS}
    # What this one asks is seen to by the model and by merge, whoever wrote the source: it guards those.
    assert {law.name for law in SOURCE_LAWS} - caught == {"rules_merge_with_those_of_others"}


def test_every_law_of_sources_is_a_test_of_the_kit() -> None:
    assert [getattr(SourceLaws, f"test_{law.name}").__doc__ for law in SOURCE_LAWS] == [law.says for law in SOURCE_LAWS]
    assert all(msgspec.structs.asdict(law)["says"].endswith(".") for law in SOURCE_LAWS)
