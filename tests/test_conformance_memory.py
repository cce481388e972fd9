"""The law book, run on the memory backend: it is the specification, so every law holds but those about packets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from meshfw.backend import Place
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.model import Family
from meshfw.testing.conformance import LAWS, BackendLaws, report
from meshfw.testing.lab import Foreign, Lab, MakeBackend

STRANGERS = """create blocked:v4 hash:ip family inet
add blocked:v4 192.0.2.1
*filter
:INPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A INPUT -j DOCKER
-A DOCKER -m nobody --knows this -j WHATEVER
COMMIT
"""


class TestMemoryBackend(BackendLaws):
    @pytest.fixture
    def kernel(self) -> MemoryKernel:
        return MemoryKernel()

    @pytest.fixture
    def make_backend(self, kernel: MemoryKernel, language: Language) -> MakeBackend:
        return lambda owner: MemoryBackend(Place(owner=owner, language=language, options={"kernel": kernel}))

    @pytest.fixture
    def count(self, kernel: MemoryKernel) -> Callable[[], None]:
        return kernel.count

    @pytest.fixture
    def dump(self, kernel: MemoryKernel) -> Callable[[], str]:
        return lambda: "".join(kernel.text(family) for family in Family)

    @pytest.fixture
    def foreign(self, kernel: MemoryKernel) -> Foreign:
        def dump() -> str:
            lines = (line for family in Family for line in kernel.text(family).splitlines())
            return "\n".join(line for line in lines if "meshfw" not in line and line[0] not in "*C")

        return Foreign(
            setup=lambda: kernel.write(Family.IPV4, STRANGERS),
            dump=dump,
            remove=lambda: kernel.write(Family.IPV4, ""),
        )

    @pytest.fixture
    def tamperings(self, kernel: MemoryKernel) -> Mapping[str, Callable[[], None]]:
        def edit(change: Callable[[list[str]], object]) -> Callable[[], None]:
            def tamper() -> None:
                for family in Family:
                    lines = kernel.text(family).splitlines()
                    change(lines)
                    kernel.write(family, "".join(f"{line}\n" for line in lines))

            return tamper

        def at(lines: list[str], start: str) -> int:
            return next(index for index, line in enumerate(lines) if line.startswith(start))

        def put(start: str, line: str) -> Callable[[], None]:
            return edit(lambda lines: lines.insert(at(lines, start), line))

        def set_line(start: str, line: str) -> Callable[[], None]:
            return edit(lambda lines: lines.__setitem__(at(lines, start), line))

        return {
            "a rule that cannot be read": put("-A meshfw:fw", "-A meshfw:fw -m nobody --knows -j meshfw:rest"),
            "a jump to a chain of others": put("-A meshfw:fw", "-A meshfw:fw -j DOCKER"),
            "a dispatcher without a rule": edit(lambda lines: lines.pop(at(lines, "-A meshfw/input/first"))),
            "a policy": set_line(":meshfw/input/first", ":meshfw/input/first ACCEPT [0:0]"),
            "a policy that is none": set_line(":meshfw/input/first", ":meshfw/input/first QUEUE [0:0]"),
            "a chain with a policy": set_line(":meshfw:rest", ":meshfw:rest DROP [0:0]"),
            "a dispatcher on no hook": put(":meshfw/input/first", ":meshfw/nowhere/first DROP [0:0]"),
            "a set of another kind": put("create meshfw:web", "create meshfw:strange hash:net"),
            "an element inside another": put("create meshfw:web", "add meshfw:peers 10.4.0.9"),
            "an element of the other family": put("create meshfw:web", "add meshfw:peers fd00::/8"),
            "everything": edit(list.clear),
        }


def test_a_memory_backend_alone_narrows_what_needs_more() -> None:
    language = Language.of(builtin_extensions())
    kernel = MemoryKernel()
    lab = Lab(lambda owner: MemoryBackend(Place(owner=owner, language=language, options={"kernel": kernel})))
    made = report(lab)
    narrowed = {entry.law for entry in made.laws if entry.narrowed}
    assert narrowed == {
        "packets_meet_the_rules_in_order",
        "ranks_and_conditions_are_met",
        "counters_survive",
        "native_tampering_is_repaired",
        "foreign_rules_stay",
    }
    assert [entry.law for entry in made.laws] == [law.name for law in LAWS]
    assert all(entry.says.endswith(".") for entry in made.laws)
    assert made.left_out == ()
