"""The conformance kit: subclass :class:`BackendLaws`, give one fixture, and the whole law book runs.

It needs pytest and hypothesis. Fixed rulesets are tried first, then drawn ones: a third of what hypothesis' profile
says, or ``examples`` of the class. Between two of them the kernel is emptied by applying the empty ruleset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, given, settings

from meshfw.backend import Capabilities
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.testing.book import LAWS, report, try_law
from meshfw.testing.lab import Case, Foreign, Lab, Law, MakeBackend
from meshfw.testing.reporting import Subject, origin_of
from meshfw.testing.strategies import cases, rulesets

_SHARE: Final = 3
"""A law over whole rulesets takes so much longer than a plain property that it gets this part of the examples."""


def try_generated(law: Law, lab: Lab, *, examples: int | None = None) -> None:
    """Try a law on drawn cases: ``examples`` of them, or a third of what hypothesis' profile says."""
    profile = settings()
    drawn = rulesets(lab.language, families=lab.families, accepts=lab.accepts)
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]  # a kernel is slow, and rulesets are large

    @settings(
        profile,
        max_examples=examples or max(profile.max_examples // _SHARE, 1),
        deadline=None,
        suppress_health_check=checks,
    )
    @given(cases(drawn))
    def check(case: Case) -> None:
        lab.reset()
        law.run(lab, case)
        lab.tried += 1

    try:
        check()
    finally:
        lab.reset()


class BackendLaws:
    """One test for each law of the book; subclasses give at least ``make_backend``.

    The other fixtures are overridden by those who have more to offer; what is not offered narrows the laws that need
    it, and :func:`report` says so. A law that can't hold for a good reason is overridden by name, with the reason.
    """

    kind: ClassVar[str] = "backend"
    """What a report calls the subject."""
    laws: ClassVar[tuple[Law, ...]] = LAWS
    """The book that is run."""
    examples: ClassVar[int | None] = None
    """Drawn cases for each generated law; None for a third of what hypothesis' profile says."""
    most: ClassVar[int | None] = None
    """How many kinds of edit, or lines of a transaction, a law tries that goes through them; None for all of them."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Commands that the backend runs: a report has what each says to ``--version``."""

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """Makes a fresh instance for an owner; all that it makes work on one kernel state, empty at first."""
        raise NotImplementedError("give a fixture make_backend: a callable from an owner's name to a new backend")

    @pytest.fixture
    def language(self) -> Language:
        """The language that the backend was given."""
        return Language.of(builtin_extensions())

    @pytest.fixture
    def namespace(self) -> str | None:
        """The network namespace (name or path, its loopback up) whose packets meet the backend's rules."""
        return None

    @pytest.fixture
    def count(self) -> Callable[[], None] | None:
        """Lets every rule count one packet, for a backend that no packet meets."""
        return None

    @pytest.fixture
    def dump(self) -> Callable[[], str] | None:
        """The text of all that the kernel holds, counters left out."""
        return None

    @pytest.fixture
    def wipe(self) -> Callable[[], None] | None:
        """Empties the kernel by its own means, for a backend that refuses what has lost its mark."""
        return None

    @pytest.fixture
    def foreign(self) -> Foreign | None:
        """Rules of others on the same kernel."""
        return None

    @pytest.fixture
    def tamperings(self) -> Mapping[str, Callable[[], None]]:
        """Changes of the rules of :func:`~meshfw.testing.rulesets.sample` by the kernel's own means, by name."""
        return {}

    @pytest.fixture
    def lab(
        self,
        make_backend: MakeBackend,
        language: Language,
        *,
        namespace: str | None,
        count: Callable[[], None] | None,
        dump: Callable[[], str] | None,
        wipe: Callable[[], None] | None,
        foreign: Foreign | None,
        tamperings: Mapping[str, Callable[[], None]],
    ) -> Iterator[Lab]:
        """The lab of all that."""
        made = Lab(
            make_backend,
            language=language,
            namespace=namespace,
            count=count,
            dump=dump,
            wipe=wipe,
            foreign=foreign,
            tamperings=tamperings,
            most=self.most,
        )
        yield made
        made.close()

    def hold(self, law: Law, lab: Lab) -> None:
        """Try a law on fixed cases, and a generated one on drawn cases too; skip it where it's narrowed, with why."""
        narrowed = law.narrowed(lab)
        if narrowed is not None:
            pytest.skip(f"narrowed: {narrowed}")
        try_law(law, lab)
        if law.generated:
            try_generated(law, lab, examples=self.examples)

    def subject(self, lab: Lab) -> Subject:
        """What a report is about."""
        made = report(lab)
        with lab.instance() as backend:
            return Subject(
                kind=self.kind,
                name=made.backend,
                **origin_of(backend),
                capabilities=_listed(lab.capabilities),
                differences=made.differences,
                scope=made.scope,
                left_out=made.left_out,
                tools=self.tools,
            )

    def test_every_rule_of_the_catalogue_is_known_or_named(self, lab: Lab) -> None:
        """The laws are tried on some rules at least, and the report names every law and what was left out."""
        made = report(lab)
        assert len(made.laws) == len(LAWS)
        assert any(chain.rules for chain in lab.sample.chains), f"nothing of the sample can be held: {made.left_out}"


def _listed(capabilities: Capabilities) -> dict[str, Any]:
    """The capabilities by name, sets of families as sorted lists."""
    values = {name: getattr(capabilities, name) for name in capabilities.__struct_fields__}
    return {
        name: sorted(member.value for member in value) if isinstance(value, frozenset) else value
        for name, value in values.items()
    }


def _test_of(law: Law) -> Callable[[BackendLaws, Lab], None]:
    def test(self: BackendLaws, lab: Lab) -> None:
        self.hold(law, lab)

    test.__name__ = f"test_{law.name}"
    test.__qualname__ = f"{BackendLaws.__name__}.{test.__name__}"
    test.__doc__ = law.says
    return test


for _law in LAWS:
    setattr(BackendLaws, f"test_{_law.name}", _test_of(_law))


__all__ = ["LAWS", "BackendLaws", "report", "try_generated", "try_law"]
