"""The law book of rule sources: what the sources of a configuration may rely on, whoever wrote them."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from meshfw.backend import Site
from meshfw.backends.memory import MemoryBackend
from meshfw.errors import ConfigError, MeshfwError
from meshfw.model import Chain, Family, Ruleset, Table
from meshfw.reconcile import apply, plan
from meshfw.source import Changes, Declaration, RuleSource, merge

__all__ = ["SOURCE_LAWS", "Factory", "Fault", "SourceLab", "SourceLaw", "law"]

Factory = Callable[[Declaration], RuleSource]
"""What a :class:`~meshfw.SourcePlugin` has: makes a source of a ``[[source]]`` table."""

_SECONDS: Final = 5.0
"""How long word of a change may take."""
_QUIET: Final = 50
"""Milliseconds in which nothing is to come."""
_STRANGE: Final = "no-such-key-of-anybody"


class Fault(msgspec.Struct, frozen=True):
    """A way in which a source can't answer: ``make`` brings it about, ``mend`` ends it.

    ``names`` is what the error has to name: the file, with its line where there is one, the key, or the address.
    """

    make: Callable[[], None]
    mend: Callable[[], None]
    names: str


class SourceLab:
    """A kind of source under test: fresh instances of one declaration, and what can happen to what they read.

    ``change`` makes ``load`` give something else, ``noise`` touches something near without that; ``faults`` are by
    name. What is left out narrows the laws that need it.
    """

    def __init__(
        self,
        factory: Factory,
        declaration: Declaration,
        *,
        change: Callable[[], None] | None = None,
        noise: Callable[[], None] | None = None,
        faults: Mapping[str, Fault] | None = None,
    ) -> None:
        self.factory = factory
        self.declaration = declaration
        self.change = change
        self.noise = noise
        self.faults = faults or {}
        self.tried = 0
        """Cases that laws were tried on in this lab."""
        with self.instance() as probe:
            self.tells = probe.changes() is not None

    @contextmanager
    def instance(self) -> Iterator[RuleSource]:
        """A fresh source, closed at the end of the block."""
        made = self.factory(self.declaration)
        try:
            yield made
        finally:
            made.close()


Need = Callable[[SourceLab], str | None]
"""What a law asks of a lab: the reason why it can't be tried there; None where it can."""


class SourceLaw(msgspec.Struct, frozen=True):
    """One law of the book: ``run`` raises where a source breaks it; ``name``, ``says`` and ``needs`` as in ``Law``."""

    name: str
    says: str
    run: Callable[[SourceLab], None]
    needs: tuple[Need, ...] = ()

    def narrowed(self, lab: SourceLab) -> str | None:
        """Why it isn't run in this lab; None where it is."""
        return next((reason for need in self.needs if (reason := need(lab))), None)

    def eased(self, lab: SourceLab) -> tuple[str, ...]:
        """Why it asks for less than it could: nothing does."""
        return ()


def law(*needs: Need) -> Callable[[Callable[[SourceLab], None]], SourceLaw]:
    """Makes a law of a function whose docstring is its sentence."""

    def made(run: Callable[[SourceLab], None]) -> SourceLaw:
        return SourceLaw(run.__name__, (run.__doc__ or "").strip(), run, needs)

    return made


def _needs_change(lab: SourceLab) -> str | None:
    return None if lab.change is not None else "no change of what it reads was given"


def _needs_faults(lab: SourceLab) -> str | None:
    return None if lab.faults else "no faults were given"


def _needs_word(lab: SourceLab) -> str | None:
    return None if lab.tells else "it has no word of changes: it's loaded again at every look"


@law()
def protocol_is_kept(lab: SourceLab) -> None:
    """It is a RuleSource with a printable name that stays, and what it loads is a ruleset."""
    with lab.instance() as source:
        assert isinstance(source, RuleSource), "a member of the protocol is missing"
        name = source.name
        assert name.strip(), "it has no name to call it by"
        assert name.isprintable(), f"its name can't be printed: {name!r}"
        assert isinstance(source.load(), Ruleset), "what it loads is no ruleset"
        assert source.name == name, "loading gave it another name"


@law()
def unknown_key_is_refused(lab: SourceLab) -> None:
    """A key that means nothing to it is refused with its name when the source is made: a typing error is an error."""
    options = {**lab.declaration.options, _STRANGE: "x"}
    error = _refused(lambda: lab.factory(msgspec.structs.replace(lab.declaration, options=options)))
    assert isinstance(error, ConfigError), f"with a key that nobody knows it's made all the same, or fails by {error!r}"
    assert _STRANGE in str(error), f"the error doesn't name the key: {error}"


@law()
def load_is_deterministic(lab: SourceLab) -> None:
    """While nothing changes, every load of every instance gives an equal ruleset, in the same order."""
    with lab.instance() as one, lab.instance() as other:
        loaded = [one.load(), one.load(), other.load()]
    assert loaded[0] == loaded[1], "a second load gives another ruleset"
    assert loaded[0] == loaded[2], "another instance gives another ruleset"


@law()
def loaded_rules_can_be_held(lab: SourceLab) -> None:
    """What it loads is not empty, is whole in itself, and is held by a backend so that a second look finds it."""
    with lab.instance() as source:
        ruleset = source.load()
        assert ruleset, "an answer that is there gives the empty ruleset, which would take every rule away"
        memory = MemoryBackend(Site(owner="meshfw", language=lab.declaration.language))
        apply(memory, ruleset)
        memory.cache.drop("forgotten by a law")
        assert not plan(memory, source.load()), "what was applied isn't what is loaded again"
        memory.close()


@law()
def rules_merge_with_those_of_others(lab: SourceLab) -> None:
    """Its rules stand beside those of another source, and declaring the same twice is refused with both names."""
    with lab.instance() as source:
        name, ruleset = source.name, source.load()
    other = Ruleset(chains=(Chain(family=Family.IPV4, table=Table.FILTER, name="chain-of-another-source"),))
    both = merge([(name, ruleset), ("another source", other)])
    assert {chain.key for chain in both.chains} == {chain.key for chain in (*ruleset.chains, *other.chains)}
    if ruleset.chains or ruleset.sets:
        error = _refused(lambda: merge([(name, ruleset), ("its double", ruleset)]))
        assert isinstance(error, ConfigError), f"the same chains twice: {error!r}"
        assert name in str(error), f"the error doesn't name the source: {error}"
        assert "its double" in str(error), f"the error doesn't name the other source: {error}"


@law(_needs_change)
def change_is_loaded(lab: SourceLab) -> None:
    """After a change the same instance and a new one load the same, and it isn't what they loaded before."""
    assert lab.change is not None
    with lab.instance() as source:
        before = source.load()
        lab.change()
        _until(lambda: source.load() != before)
        after = source.load()
        assert after != before, "what it reads changed, and it loads what it loaded before"
        with lab.instance() as fresh:
            assert fresh.load() == after, "a new instance loads another ruleset than one that saw the change"


@law(_needs_faults)
def lack_of_an_answer_is_an_error(lab: SourceLab) -> None:
    """What can't be had or read is a MeshfwError that names it, never a ruleset; mended, it loads as before."""
    for name, fault in lab.faults.items():
        with lab.instance() as source:
            before = source.load()
            try:
                fault.make()
                for asked in (source, None):
                    _assert_named(lab, asked, name, fault)
            finally:
                fault.mend()
            _until(lambda source=source, before=before: _loads(source, before))  # type: ignore[misc]  # mypy types no such lambda
            assert source.load() == before, f"{name}: mended, and it doesn't load what it loaded before"


def _assert_named(lab: SourceLab, source: RuleSource | None, name: str, fault: Fault) -> None:
    """Fail unless a source (None: a new one, which may be refused already) says what is wrong."""

    def load() -> None:
        if source is not None:
            source.load()
            return
        with lab.instance() as made:
            made.load()

    _until(lambda: _refused(load) is not None)
    error = _refused(load)
    whose = "a new instance" if source is None else "an instance that had loaded before"
    assert error is not None, f"{name}: {whose} gives a ruleset all the same"
    assert fault.names in str(error), f"{name}: the error of {whose} doesn't name {fault.names}: {error}"


@law(_needs_word)
def word_of_changes_keeps_quiet(lab: SourceLab) -> None:
    """While nothing changes, no change is told, also after loading; its descriptor is one and the same each time."""
    with lab.instance() as source:
        changes = _word(source)
        assert changes.fileno() >= 0, "it has no descriptor"
        again = source.changes()
        assert again is not None, "asked again it has no word of changes"
        assert again.fileno() == changes.fileno(), "asked again it listens twice"
        source.load()
        changes.drain()
        source.load()
        assert _keeps_quiet(changes), "nothing changed, and it says that something did"


@law(_needs_word, _needs_change)
def change_is_told(lab: SourceLab) -> None:
    """A change makes the descriptor readable; drain says yes to it, never blocks, and leaves it quiet again."""
    assert lab.change is not None
    with lab.instance() as source:
        changes = _word(source)
        before = source.load()
        changes.drain()
        lab.change()
        told = False
        deadline = time.monotonic() + _SECONDS
        while not (told and source.load() != before) and time.monotonic() < deadline:
            if _readable(changes, _QUIET):
                told = changes.drain() or told
        assert source.load() != before, "what it reads changed, and it loads what it loaded before"
        assert told, "what it loads changed, and its word of changes didn't say so"
        for _ in range(2):
            changes.drain()
        assert _keeps_quiet(changes), "readable after everything was taken note of"


@law(_needs_word)
def drain_says_no_only_when_sure(lab: SourceLab) -> None:
    """Asked when nothing came, or only something near changed, drain never blocks; after a no, load is the same."""
    with lab.instance() as source:
        changes, before = _word(source), source.load()
        for touch in (None, lab.noise):
            if touch is not None:
                touch()
                _readable(changes, _QUIET)
            assert isinstance(changes.drain(), bool)
            assert source.load() == before, "nothing that it reads changed, and it loads something else"


@law()
def closing_gives_everything_back(lab: SourceLab) -> None:
    """Closing twice is once, before any load too; it ends the word of changes, and other instances go on."""
    descriptors = _open_files()
    with lab.instance() as other:
        for used in (False, True):
            with lab.instance() as source:
                changes = source.changes() if used else None
                if used:
                    source.load()
                source.close()
                source.close()
            if changes is not None:
                assert changes.fileno() < 0 or not _is_open(changes), "its descriptor is still open"
        other.load()
    assert _open_files() <= descriptors, "closed, and more files are open than before"


def _word(source: RuleSource) -> Changes:
    changes = source.changes()
    assert changes is not None, "one instance has word of changes, another has none"
    return changes


def _readable(changes: Changes, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(changes.fileno(), select.POLLIN)
    return bool(poller.poll(milliseconds))


def _keeps_quiet(changes: Changes) -> bool:
    """Whether for a while it tells of no change; it may wake for what others do nearby, and then says no to it."""
    deadline = time.monotonic() + _QUIET / 1000
    while time.monotonic() < deadline:
        if _readable(changes, _QUIET) and changes.drain():
            return False
    return True


def _is_open(changes: Changes) -> bool:
    with suppress(OSError):
        os.fstat(changes.fileno())
        return True
    return False


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _loads(source: RuleSource, wanted: Ruleset) -> bool:
    with suppress(MeshfwError):
        return source.load() == wanted
    return False


def _refused(call: Callable[[], object]) -> MeshfwError | None:
    """The error with which a call failed, of those that meshfw's callers know; None when it didn't."""
    try:
        call()
    except MeshfwError as error:
        return error
    return None


def _until(so: Callable[[], bool]) -> None:
    """Wait until it's so, for as long as word of a change may take: what is read may be another host's."""
    deadline = time.monotonic() + _SECONDS
    while not so() and time.monotonic() < deadline:
        time.sleep(_QUIET / 1000)


SOURCE_LAWS: Final = (
    protocol_is_kept,
    unknown_key_is_refused,
    load_is_deterministic,
    loaded_rules_can_be_held,
    rules_merge_with_those_of_others,
    change_is_loaded,
    lack_of_an_answer_is_an_error,
    word_of_changes_keeps_quiet,
    change_is_told,
    drain_says_no_only_when_sure,
    closing_gives_everything_back,
)
"""The whole book."""
