"""The states that were applied, the newest of them kept on disk for each owner and network namespace.

The last one is what a host gets back after a reboot or while the rule sources are away; the others are what a rollback
can go back to. A state is a file of its own, named by its number, written in one step and believed only when it is
whole and nobody else could have written it; one that isn't is passed over and told of. Numbers go up and are never used
again. An empty ruleset is a state as well: nothing is wanted, as after ``clean``.

The *hold* is what a rollback leaves for whoever keeps the rules in place: the state to keep in the place of what is
declared, for as long as the declaration is still the very one that was rolled back.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from meshfw.backends.remembered import lasting_name, no_lasting_name, state_directory
from meshfw.errors import StateError
from meshfw.extensions.language import Language
from meshfw.files.kept import OddFileError, make_kept, only_keeper, opened_directory, read_kept, write_kept
from meshfw.states import State, Summary, digest, format_state, parse_state, parse_summary

KEEP: Final = 10
"""States that are kept unless the configuration says otherwise."""
_FILE: Final = re.compile(r"([0-9]{6,})\.json\Z")
_OF_AN_OWNER: Final = re.compile(r"([a-z][a-z0-9]*)(?:@.*)?\.states\Z", re.DOTALL)
_HOLD: Final = "hold"
_LEFT: Final = re.compile(r"\..*\.new\Z")
"""What a writer that was killed leaves behind (:mod:`meshfw.files.kept`)."""
_LARGEST: Final = 1 << 28  # bytes; a state of 1,000,000 rules has about half of it
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class Entry(msgspec.Struct, frozen=True):
    """A state that is kept: its number, and what it says of itself."""

    number: int
    summary: Summary


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of the state to keep, and the digest of the declared ruleset in whose place it is kept."""

    number: int
    against: str


class History:
    """The kept states of an owner in a network namespace (as the user named it; None: the caller's).

    Reading never fails: what can't be read is passed over, and ``notes`` says so. Whatever writes raises StateError,
    and leaves what was there. ``why_not`` is why nothing is ever kept here, empty where it is.
    """

    def __init__(self, owner: str, netns: str | None, language: Language, *, keep: int = KEEP) -> None:
        name = lasting_name(owner, netns)
        self.owner = owner
        self.why_not = "" if name is not None else no_lasting_name(netns)
        self.notes: list[str] = []
        self._language = language
        self._keep = keep
        self._base = state_directory()
        self._name = f"{name}.states"

    @property
    def directory(self) -> str:
        """Where the states are."""
        return os.path.join(self._base, self._name)

    # --- reading ---

    def entries(self) -> tuple[Entry, ...]:
        """The states that are kept and whole, the oldest first."""
        return tuple(self._entries(self._numbers()))

    def newest(self) -> Entry | None:
        """The newest state that is whole, None without any: what was applied last."""
        return next(self._entries(reversed(self._numbers())), None)

    def before(self, number: int) -> Entry | None:
        """The newest whole state with a lower number; None without any."""
        return next(self._entries(at for at in reversed(self._numbers()) if at < number), None)

    def load(self, number: int) -> State:
        """The state of a number.

        Raises:
            StateError: there is none, or it isn't whole.
        """
        path = self._path(number)
        try:
            document = self._read(_file(number))
            if document is not None:
                return parse_state(document, self._language, owner=self.owner)
        except StateError as error:
            raise StateError(error.reason, source=path) from None
        kept = ", ".join(str(entry.number) for entry in self.entries())
        raise StateError(f"there is no state {number}", remedy=f"kept are {kept}" if kept else self._nothing())

    def last(self) -> State | None:
        """The newest state that is whole and can be read; None without any, or where it says that nothing is wanted."""
        for number in reversed(self._numbers()):
            try:
                state = self.load(number)
            except StateError as error:
                self._note(number, error)
                continue
            return state if state.ruleset else None
        return None

    def held(self) -> Hold | None:
        """What a rollback left to be kept; None where nothing is, or where that state isn't whole any more."""
        try:
            document = self._read(_HOLD)
            if document is None:
                return None
            hold = msgspec.json.decode(document, type=Hold)
            found = self._read(_file(hold.number))
            if found is None:
                raise StateError(f"there is no state {hold.number}")
            parse_summary(found, owner=self.owner)
        except (msgspec.DecodeError, UnicodeDecodeError, StateError) as error:
            self._tell(f"{os.path.join(self.directory, _HOLD)} is ignored: {error}")
            return None
        return hold

    # --- writing ---

    def record(self, state: State) -> int:
        """Keep a state as the newest, and no more than so many; its number.

        One that says the same as the newest, by the same backend, isn't kept twice.
        """
        said = digest(state.ruleset)
        with self._writing():
            numbers = self._numbers()
            newest = self.newest()
            if newest is not None and newest.number == numbers[-1] and _says(newest.summary) == (said, state.backend):
                return newest.number
            document = format_state(state, self._language, said=said)
            if len(document) > _LARGEST:
                raise StateError(f"the state has {len(document)} bytes, more than {_LARGEST}", source=self.directory)
            number = max(numbers, default=0) + 1
            write_kept(self.directory, _file(number), document)
            self._prune([*numbers, number])
        return number

    def hold(self, number: int, *, against: str) -> None:
        """Have a state kept, for as long as what is declared has the digest ``against``."""
        with self._writing():
            write_kept(self.directory, _HOLD, msgspec.json.encode(Hold(number, against)) + b"\n")

    def release(self) -> None:
        """Have no state kept any more: what is declared holds again."""
        if self.why_not or not os.path.lexists(os.path.join(self.directory, _HOLD)):
            return
        with self._writing(), opened_directory(self.directory) as folder, suppress(FileNotFoundError):
            os.unlink(_HOLD, dir_fd=folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A block in which nobody else writes here; whatever the file system refuses is a StateError."""
        if self.why_not:
            raise StateError(self.why_not)
        try:
            with only_keeper(make_kept(self._base, self._name)):
                yield
        except OSError as error:
            raise StateError(error.strerror or str(error), source=self.directory) from error
        except OddFileError as error:
            raise StateError(str(error), source=self.directory) from error

    def _prune(self, numbers: list[int]) -> None:
        """Take the oldest states away, but not the one that is held; and what killed writers left."""
        hold = self.held()
        kept = set(sorted(numbers)[-self._keep :]) | ({hold.number} if hold is not None else set())
        with opened_directory(self.directory) as folder:
            left = [name for name in os.listdir(folder) if _LEFT.match(name)]
            for name in (*left, *(_file(number) for number in numbers if number not in kept)):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    # --- files ---

    def _numbers(self) -> list[int]:
        """The numbers of the files that are there, whole or not, the lowest first."""
        if self.why_not:
            return []
        try:
            with opened_directory(self._base), opened_directory(self.directory) as folder:
                found = map(_FILE.match, os.listdir(folder))
                return sorted(int(match[1]) for match in found if match is not None)
        except OSError as error:
            if error.errno not in _ABSENT:
                self._tell(f"{self.directory} is ignored: {error.strerror or error}")
        except OddFileError as error:
            self._tell(f"{self.directory} is ignored: {error}")
        return []

    def _entries(self, numbers: Iterator[int] | list[int]) -> Iterator[Entry]:
        for number in numbers:
            try:
                document = self._read(_file(number))
                if document is not None:
                    yield Entry(number, parse_summary(document, owner=self.owner))
            except StateError as error:
                self._note(number, error)

    def _read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        if self.why_not:
            return None
        try:
            with opened_directory(self._base):
                return read_kept(self.directory, name, most=_LARGEST)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise StateError(error.strerror or str(error)) from error
        except OddFileError as error:
            raise StateError(str(error)) from error

    def _path(self, number: int) -> str:
        return os.path.join(self.directory, _file(number))

    def _nothing(self) -> str:
        return self.why_not or f"no state is kept in {self.directory} yet"

    def _note(self, number: int, error: StateError) -> None:
        self._tell(f"{self._path(number)} is ignored: {error.reason}")

    def _tell(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def owners_of_states(netns: str | None) -> tuple[str, ...]:
    """The owners of whom a state is kept for a network namespace, as the user named it."""
    try:
        names = sorted(os.listdir(state_directory()))
    except OSError:
        return ()
    owners = (found[1] for found in map(_OF_AN_OWNER.match, names) if found is not None)
    return tuple(owner for owner in dict.fromkeys(owners) if f"{lasting_name(owner, netns)}.states" in names)


def _file(number: int) -> str:
    return f"{number:06}.json"


def _says(summary: Summary) -> tuple[str, str]:
    return summary.digest, summary.backend
