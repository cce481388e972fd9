"""The errors of meshfw: one base, one concept each, data on the object, text made in ``__str__``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class MeshfwError(Exception):
    """Anything meshfw refuses or fails at; the command line prints it as one message and exits with 1."""


class ModelError(MeshfwError):
    """A value of the model that can't be: what is wrong, and the chain and rule (counted from 1) where it stands."""

    def __init__(self, reason: str, *, where: str = "", rule: int | None = None) -> None:
        super().__init__(reason, where, rule)
        self.reason = reason
        self.where = where
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason

    def at(self, where: str) -> ModelError:
        """The same refusal with its place said, unless it has one already."""
        return self if self.where else type(self)(self.reason, where=where, rule=self.rule)


class FamilyError(ModelError):
    """A value of one address family where the other is asked for."""


class ParseError(MeshfwError):
    """Text that isn't the language it should be: line and column are counted from 1, 0 where there is none."""

    def __init__(
        self,
        reason: str,
        *,
        text: str = "",
        source: str = "",
        line: int = 0,
        column: int = 0,
        expected: str = "",
    ) -> None:
        super().__init__(reason, text, source, line, column, expected)
        self.reason = reason
        self.text = text
        self.source = source
        self.line = line
        self.column = column
        self.expected = expected

    def __str__(self) -> str:
        place = [self.source] if self.source else []
        if self.line:
            place.append(f"line {self.line}")
        if self.column:
            place.append(f"column {self.column}")
        head = f"{', '.join(place)}: " if place else ""
        tail = f"; expected {self.expected}" if self.expected else ""
        shown = ""
        if self.text and self.column:
            shown = f"\n  {self.text}\n  {' ' * (self.column - 1)}^"
        return f"{head}{self.reason}{tail}{shown}"


class FamilyParseError(ParseError):
    """A word of one address family in a rule of the other: a dual-stack source leaves the rule out there."""


class FailedCommandError(ParseError):
    """A command that iptables would fail at where it stands, such as ``-D`` of a rule that isn't there."""


class InexpressibleError(MeshfwError):
    """Something that one rule language can't say; ``reason`` names it and, where there is one, the way round.

    ``nearest`` are the statements that come near, and objects that they refer to, where somebody asks for those.
    """

    def __init__(self, reason: str, *, nearest: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.nearest = tuple(nearest)

    def __str__(self) -> str:
        return self.reason


class ConfigError(MeshfwError):
    """A configuration that can't be used: the file, the key path and what was expected."""

    def __init__(self, reason: str, *, file: str = "", key: str = "", expected: str = "") -> None:
        super().__init__(reason, file, key, expected)
        self.reason = reason
        self.file = file
        self.key = key
        self.expected = expected

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.key) if part)
        tail = f"; expected {self.expected}" if self.expected else ""
        return f"{place}: {self.reason}{tail}" if place else f"{self.reason}{tail}"


class StateError(MeshfwError):
    """A kept state or plan that can't be used, or can't be kept: which file, and why."""

    def __init__(self, reason: str, *, source: str = "", remedy: str = "") -> None:
        super().__init__(reason, source, remedy)
        self.reason = reason
        self.source = source
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.source}: " if self.source else ""
        return _with_remedy(f"{head}{self.reason}", self.remedy)


class MigrationError(MeshfwError):
    """A move to another backend that can't be begun or that failed, and what to do; what stood before stands still."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return _with_remedy(self.reason, self.remedy)


class HalfMigratedError(MigrationError):
    """A move to another backend that failed and couldn't be put back: rules of ours may stand in both."""


class PluginError(MeshfwError):
    """A plugin that can't be used: its name, the distribution it came from, and why."""

    def __init__(self, reason: str, *, plugin: str = "", distribution: str = "") -> None:
        super().__init__(reason, plugin, distribution)
        self.reason = reason
        self.plugin = plugin
        self.distribution = distribution

    def __str__(self) -> str:
        origin = f" (from {self.distribution})" if self.distribution else ""
        return f"plugin {self.plugin}{origin}: {self.reason}" if self.plugin else self.reason


class UnsupportedError(MeshfwError):
    """What a backend refuses of a ruleset or of what it found in the kernel; nothing was written."""

    def __init__(self, backend: str, items: Sequence[object]) -> None:
        super().__init__(backend, items)
        self.backend = backend
        self.items = tuple(items)

    def __str__(self) -> str:
        lines = "".join(f"\n  {item}" for item in self.items)
        return f"backend {self.backend} refuses this ruleset:{lines}"


class TranslationError(MeshfwError):
    """What of a whole ruleset a language has no way to say: each place with its rule and the reason."""

    def __init__(self, language: str, items: Sequence[object]) -> None:
        super().__init__(language, items)
        self.language = language
        self.items = tuple(items)

    def __str__(self) -> str:
        lines = "".join(f"\n  {item}" for item in self.items)
        return f"{self.language} has no way to say this:{lines}"


class BackendError(MeshfwError):
    """A backend that failed: what it did, what the kernel or the tool said, and what to do."""

    def __init__(self, reason: str, *, backend: str = "", remedy: str = "") -> None:
        super().__init__(reason, backend, remedy)
        self.reason = reason
        self.backend = backend
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.backend}: " if self.backend else ""
        return _with_remedy(f"{head}{self.reason}", self.remedy)

    def add_remedy(self, text: str) -> None:
        """Say more at the end: what state the kernel is in, or what else to do."""
        self.remedy = f"{self.remedy}; {text}" if self.remedy else text


class PartialCommitError(BackendError):
    """A commit failed half-way, and putting back failed as well: ``stands`` says for each table what it holds."""

    def __init__(
        self, first: BaseException, second: BaseException | None, stands: Sequence[str], *, backend: str = ""
    ) -> None:
        super().__init__(
            f"a commit failed half-way ({first}), and what it had done couldn't be put back"
            + (f" ({str(second) or type(second).__name__})" if second is not None else ""),
            backend=backend,
            remedy="the next apply makes everything what it should be",
        )
        self.first = first
        self.second = second
        self.stands = tuple(stands)

    def __str__(self) -> str:
        return super().__str__() + "".join(f"\n  {line}" for line in self.stands)


class KernelError(BackendError):
    """A system call or netlink message the kernel refused; ``errno`` is its number."""

    def __init__(self, reason: str, *, errno: int = 0, backend: str = "", remedy: str = "") -> None:
        super().__init__(reason, backend=backend, remedy=remedy)
        self.errno = errno


class CommandError(BackendError):
    """A process that failed: its argument list, exit code (negative for a signal) and standard error."""

    def __init__(self, command: Sequence[str], *, returncode: int, stderr: str = "", remedy: str = "") -> None:
        super().__init__("", remedy=remedy)
        self.command = tuple(command)
        self.returncode = returncode
        self.stderr = stderr

    def __str__(self) -> str:
        end = f"was killed by signal {-self.returncode}" if self.returncode < 0 else f"exited with {self.returncode}"
        said = f": {self.stderr.strip()}" if self.stderr.strip() else ""
        return _with_remedy(f"{self.command[0]} {end}{said}", self.remedy)


class ConcurrentChangeError(BackendError):
    """Somebody else wrote between the reading and the commit; nothing of ours was written."""


_SHOWN = 20


class VerifyError(BackendError):
    """The kernel doesn't hold what was committed: ``differences`` is what is still needed, a line each.

    They are the lines of the transaction, or, where the backend compiles none, the lists and sets that differ.
    """

    def __init__(self, differences: Sequence[str], *, backend: str = "") -> None:
        super().__init__(
            "every program said that all went well, but the kernel does not hold what was committed; still needed:",
            backend=backend,
        )
        self.differences = tuple(differences)

    def __str__(self) -> str:
        left = len(self.differences) - _SHOWN
        lines = [*self.differences[:_SHOWN], *([f"... {left} more lines"] if left > 0 else [])]
        return super().__str__() + "".join(f"\n  {line}" for line in lines)


class RolledBackError(MeshfwError):
    """A change that was undone, since something had to answer after it and didn't: ``failures`` is a line for each."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__(failures)
        self.failures = tuple(failures)

    def __str__(self) -> str:
        lines = "".join(f"\n  {line}" for line in self.failures)
        return f"the change was undone and the old rules are back, since after it failed:{lines}"


class PendingError(MeshfwError):
    """A change that waits to be confirmed, or the lack of one: why a command can't be done now, and what to do."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return _with_remedy(self.reason, self.remedy)


class LockError(MeshfwError):
    """Another meshfw holds the instance lock of this owner and namespace."""

    def __init__(self, path: str, *, waited: float, holder: int | None = None) -> None:
        super().__init__(path, waited, holder)
        self.path = path
        self.waited = waited
        self.holder = holder

    def __str__(self) -> str:
        who = f" by process {self.holder}" if self.holder else ""
        return f"{self.path} is held{who} for more than {self.waited:g} s; try again, or end that process"


class AgentError(MeshfwError):
    """An agent that isn't there, doesn't answer, or refuses what it was asked: why, and what to do."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return _with_remedy(self.reason, self.remedy)


def _with_remedy(text: str, remedy: str) -> str:
    """What went wrong, and behind it what to do, where that is known."""
    return f"{text} ({remedy})" if remedy else text
