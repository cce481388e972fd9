"""The conformance kit of rule sources: subclass :class:`SourceLaws`, give two fixtures, and the whole law book runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest

from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.source import Declaration
from meshfw.testing.reporting import Subject, origin_of
from meshfw.testing.source_laws import SOURCE_LAWS, Factory, Fault, SourceLab, SourceLaw


class SourceLaws:
    """One test for each law of the book; subclasses give at least ``factory`` and ``declaration``.

    The other fixtures are overridden by those who have more to offer; what is not offered narrows the laws that need
    it, and a report says so. A law that can't hold for a good reason is overridden by name, with the reason.
    """

    kind: ClassVar[str] = "source"
    """What a report calls the subject."""
    laws: ClassVar[tuple[SourceLaw, ...]] = SOURCE_LAWS
    """The book that is run."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Commands that the source runs: a report has what each says to ``--version``."""

    @pytest.fixture
    def factory(self) -> Factory:
        """What the plugin offers: makes a source of a declaration."""
        raise NotImplementedError("give a fixture factory: a callable from a Declaration to a source")

    @pytest.fixture
    def declaration(self) -> Declaration:
        """A ``[[source]]`` table of which a source is made that has an answer, which isn't the empty ruleset."""
        raise NotImplementedError("give a fixture declaration: the [[source]] table of a source that works")

    @pytest.fixture
    def language(self) -> Language:
        """The language of rules."""
        return Language.of(builtin_extensions())

    @pytest.fixture
    def change(self) -> Callable[[], None] | None:
        """Changes what the source reads, so that it loads another ruleset."""
        return None

    @pytest.fixture
    def noise(self) -> Callable[[], None] | None:
        """Changes something near what the source reads, so that it loads what it loaded before."""
        return None

    @pytest.fixture
    def faults(self) -> Mapping[str, Fault]:
        """Ways in which the source can't answer, by name, each with what the error has to name."""
        return {}

    @pytest.fixture
    def lab(
        self,
        factory: Factory,
        declaration: Declaration,
        *,
        change: Callable[[], None] | None,
        noise: Callable[[], None] | None,
        faults: Mapping[str, Fault],
    ) -> SourceLab:
        """The lab of all that."""
        return SourceLab(factory, declaration, change=change, noise=noise, faults=faults)

    def hold(self, law: SourceLaw, lab: SourceLab) -> None:
        """Try a law; skip it where it's narrowed, with why."""
        narrowed = law.narrowed(lab)
        if narrowed is not None:
            pytest.skip(f"narrowed: {narrowed}")
        law.run(lab)
        lab.tried += 1

    def subject(self, lab: SourceLab) -> Subject:
        """What a report is about."""
        with lab.instance() as source:
            return Subject(kind=self.kind, name=type(source).__name__, **origin_of(source), tools=self.tools)


def _test_of(law: SourceLaw) -> Callable[[SourceLaws, SourceLab], None]:
    def test(self: SourceLaws, lab: SourceLab) -> None:
        self.hold(law, lab)

    test.__name__ = f"test_{law.name}"
    test.__qualname__ = f"{SourceLaws.__name__}.{test.__name__}"
    test.__doc__ = law.says
    return test


for _law in SOURCE_LAWS:
    setattr(SourceLaws, f"test_{_law.name}", _test_of(_law))


__all__ = ["SOURCE_LAWS", "Factory", "Fault", "SourceLab", "SourceLaw", "SourceLaws"]
