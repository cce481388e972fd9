"""Rules in the kernel: the choice of a backend, and the kernel made to hold what is recorded, or compared with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from meshfw import (
    Backend,
    ConcurrentChangeError,
    ConfigError,
    Family,
    LockError,
    MeshfwError,
    PluginError,
    Plugins,
    Rule,
    Ruleset,
    Site,
    format_rule,
    reconcile,
)
from meshfw_cni.problems import BAD_CONFIG, FIREWALL, TRY_AGAIN, CniError
from meshfw_cni.request import DATA_DIRECTORY
from meshfw_cni.rules import label, language, rules_of
from meshfw_cni.state import Attached, State

AUTO: Final = "auto"
OWNER: Final = "meshcni"


def owner_of(directory: str) -> str:
    """Whose the rules of a data directory are: two directories know nothing of each other, so neither may have both."""
    if directory == DATA_DIRECTORY:
        return OWNER
    return f"mcni{hashlib.sha256(directory.encode()).hexdigest()[:6]}"


class Firewall:
    """The rules of one data directory's attachments, in whichever backends they stand.

    ``tell`` hears what a person should know. Backends stay open to the end of the ``with`` block.
    """

    def __init__(self, directory: str, *, tell: Callable[[str], None]) -> None:
        self._plugins = Plugins()
        self._language = language()
        self._site = Site(owner=owner_of(directory), language=self._language)
        self._tell = tell
        self._backends: dict[str, Backend] = {}

    def __enter__(self) -> Firewall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._backends:
            self._backends.popitem()[1].close()

    def choose(self, wanted: str, state: State) -> str:
        """The backend for a new attachment: the one that was named, or else the one where rules of ours stand already.

        Raises:
            CniError: it doesn't exist or can't be used here.
        """
        with _told():
            name = wanted if wanted != AUTO else state.backends[-1] if state.backends else self._automatic()
            self._open(name)
        return name

    def _automatic(self) -> str:
        verdict = self._plugins.automatic(self._plugins.look(lambda _: self._site))
        for warning in verdict.warnings:
            self._tell(warning)
        if verdict.doubt:
            raise CniError(TRY_AGAIN, f"it isn't sure to take {verdict.name}", verdict.doubt)
        return self._plugins.usable(verdict).name

    def settle(self, state: State) -> None:
        """Make the kernel hold what is recorded, in every backend where something of ours may stand.

        Raises:
            CniError: of the first that failed; the others were settled all the same.
        """
        failed: list[CniError] = []
        for name in state.backends:
            try:
                with _told():
                    report = reconcile.apply(self._open(name), self._wanted(state, name))
                for warning in report.warnings:
                    self._tell(warning)
            except CniError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def missing(self, state: State, attached: Attached) -> tuple[str, ...]:
        """What an attachment needs of the kernel and doesn't have there: all rules are read at once.

        What is wrong with rules of other pods alone isn't among it.
        """
        others = {label(entry.key) for entry in state.attached if entry.key != attached.key}
        with _told():
            found = reconcile.plan(self._open(attached.backend), self._wanted(state, attached.backend))
        return tuple(str(edit) for edit in found.edits(self._text) if not _concerns({edit.text, edit.before}, others))

    def _wanted(self, state: State, backend: str) -> Ruleset:
        return rules_of(state.of(backend), everybody=state.attached, words=self._language)

    def _text(self, rule: Rule, family: Family) -> str:
        """A pod's rule by its comment, any other as iptables prints it."""
        return rule.comment or format_rule(rule, family=family, language=self._language)

    def _open(self, name: str) -> Backend:
        if name not in self._backends:
            backend = self._plugins.open_backend(self._plugins.backend(name), self._site)
            self._backends[name] = backend
            if not backend.capabilities.kernel:
                raise CniError(
                    BAD_CONFIG, f"backend: no packet meets the rules of {name}", "expected one of a kernel's"
                )
        return self._backends[name]


def _concerns(texts: Collection[str], labels: Collection[str]) -> bool:
    """Whether an edit is of other pods' rules and of nothing else."""
    said = {text for text in texts if text}
    return bool(said) and said <= set(labels)


@contextmanager
def _told() -> Iterator[None]:
    """A block whose errors of meshfw's are told in CNI's terms."""
    try:
        yield
    except (ConfigError, PluginError) as error:
        raise CniError(BAD_CONFIG, str(error)) from error
    except (LockError, ConcurrentChangeError) as error:
        raise CniError(TRY_AGAIN, str(error)) from error
    except MeshfwError as error:
        raise CniError(FIREWALL, "the firewall refused", str(error)) from error
