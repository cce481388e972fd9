"""The law book, run on the memory backend: it is the specification, so every law holds but those about packets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import msgspec
import pytest

from meshfw.backend import Cache, Capabilities, Committed, Fingerprint, Observed, Site, Step, Transaction, Unsupported
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import Document, MemoryKernel
from meshfw.errors import BackendError, ConfigError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.model import Chain, Family, OpaqueMatch, OpaqueTarget, Rule, Ruleset, SetKey, Table
from meshfw.plan import Plan, diff
from meshfw.reconcile import apply
from meshfw.snapshot import ListKey, Snapshot
from meshfw.testing.conformance import LAWS, BackendLaws, report
from meshfw.testing.lab import Foreign, Lab, MakeBackend
from meshfw.testing.rulesets import sample
from meshfw.testing.wrapping import Wrapped

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
    native_sets: ClassVar[bool] = True

    @pytest.fixture
    def kernel(self) -> MemoryKernel:
        return MemoryKernel()

    @pytest.fixture
    def make_backend(self, kernel: MemoryKernel, language: Language) -> MakeBackend:
        options = {"kernel": kernel, "native_sets": self.native_sets}
        return lambda owner: MemoryBackend(Site(owner=owner, language=language, options=options))

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

        of_sets = {
            "a set of another kind": put("create meshfw:web", "create meshfw:strange hash:net"),
            "an element inside another": put("create meshfw:web", "add meshfw:peers 10.4.0.9"),
            "an element of the other family": put("create meshfw:web", "add meshfw:peers fd00::/8"),
        }
        return {
            **(of_sets if self.native_sets else {"a set": put("*filter", "create meshfw:strange address")}),
            "a rule that cannot be read": put("-A meshfw:fw", "-A meshfw:fw -m nobody --knows -j meshfw:rest"),
            "a jump to a chain of others": put("-A meshfw:fw", "-A meshfw:fw -j DOCKER"),
            "a dispatcher without a rule": edit(lambda lines: lines.pop(at(lines, "-A meshfw/input/first"))),
            "a policy": set_line(":meshfw/input/first", ":meshfw/input/first ACCEPT [0:0]"),
            "a policy that is none": set_line(":meshfw/input/first", ":meshfw/input/first QUEUE [0:0]"),
            "a chain with a policy": set_line(":meshfw:rest", ":meshfw:rest DROP [0:0]"),
            "a dispatcher on no hook": put(":meshfw/input/first", ":meshfw/nowhere/first DROP [0:0]"),
            "everything": edit(list.clear),
        }


class TestMemoryBackendWithoutSets(TestMemoryBackend):
    native_sets = False

    def test_no_set_reaches_the_kernel(self, lab: Lab, kernel: MemoryKernel) -> None:
        assert any(entry.elements for entry in lab.sample.sets)
        apply(lab.backend(), lab.sample)
        text = "".join(kernel.text(family) for family in Family)
        assert "@" not in text
        assert "create" not in text
        assert text.count("-j meshfw:peers") == 6, "in each family one for either element, and the attachment to output"

    def test_a_set_that_comes_all_the_same_is_refused(self, lab: Lab) -> None:
        backend = lab.backend()
        assert any("there are no sets" in str(finding) for finding in backend.check(lab.sample))
        with pytest.raises(BackendError, match="there are no sets"):
            backend.compile(diff(Snapshot(), lab.sample))


def test_a_memory_backend_alone_narrows_what_needs_more() -> None:
    language = Language.of(builtin_extensions())
    kernel = MemoryKernel()
    lab = Lab(lambda owner: MemoryBackend(Site(owner=owner, language=language, options={"kernel": kernel})))
    made = report(lab)
    narrowed = {entry.law for entry in made.laws if entry.narrowed}
    assert narrowed == {
        "packets_meet_the_rules_in_order",
        "ranks_and_conditions_are_met",
        "counters_survive",
        "native_tampering_is_repaired",
        "foreign_rules_stay",
        "moved_names_every_list_that_differs",
    }
    assert [entry.law for entry in made.laws] == [law.name for law in LAWS]
    assert all(entry.says.endswith(".") for entry in made.laws)
    assert made.left_out == ()


class Narrow(Wrapped):
    """As little as a backend may be: one family, no fingerprint, no counters, no events, nothing opaque."""

    capabilities = Capabilities(families=frozenset({Family.IPV4}), counters=False, kernel=False)

    def __init__(self, inner: MemoryBackend, language: Language) -> None:
        super().__init__(inner)
        self._known = set(language.by_value)

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        found = [Unsupported(str(chain.key), "no IPv6") for chain in ruleset.chains if chain.family is Family.IPV6]
        for chain in ruleset.chains:
            for index, rule in enumerate(chain.rules, 1):
                opaque = {type(match) for match in rule.matches} - self._known or isinstance(rule.target, OpaqueTarget)
                found += [Unsupported(f"{chain.key}, rule {index}", "no typed value")] if opaque else []
        return tuple(found)

    def fingerprint(self) -> Fingerprint | None:
        return None

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        return msgspec.structs.replace(self.inner.observe(keys), fingerprint=None)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        return msgspec.structs.replace(self.inner.commit(transaction, based_on=None), fingerprint=None)

    def watch(self) -> None:
        return None


class TestNarrowBackend(BackendLaws):
    examples = 3

    @pytest.fixture
    def make_backend(self, language: Language) -> MakeBackend:
        kernel = MemoryKernel()
        return lambda owner: Narrow(
            MemoryBackend(Site(owner=owner, language=language, options={"kernel": kernel})), language
        )

    def test_each_narrowing_has_its_reason(self, lab: Lab) -> None:
        narrowed = {entry.law: entry.narrowed for entry in report(lab).laws if entry.narrowed}
        deaf = "the backend has no events here"
        unable = "the backend has no fingerprint here"
        assert narrowed == {
            "families_are_held_apart": "the backend has ipv4 alone",
            "idle_apply_reads_nothing": unable,
            "fingerprint_moves_with_every_write": unable,
            "fingerprint_is_of_what_was_read": unable,
            "stale_commit_is_refused": unable,
            "moved_names_every_list_that_differs": "the backend can't tell which lists others changed",
            "watch_tells_of_foreign_writes": deaf,
            "own_commits_are_own": deaf,
            "closing_ends_the_watch": deaf,
            "watching_spawns_nothing": deaf,
            "counters_survive": "the backend has no counters",
            "native_tampering_is_repaired": "no tampering by the kernel's own means was given",
            "foreign_rules_stay": "no rules of others were given",
            "packets_meet_the_rules_in_order": "no packet meets the backend's rules",
            "ranks_and_conditions_are_met": "no packet meets the backend's rules",
        }


def test_the_kit_has_one_test_for_each_law() -> None:
    tests = {name.removeprefix("test_") for name in vars(BackendLaws) if name.startswith("test_")}
    assert {law.name for law in LAWS} < tests
    assert all(getattr(BackendLaws, f"test_{law.name}").__doc__ == law.says for law in LAWS)


# --- the kernel of text ------------------------------------------------------------------------------------

LANGUAGE = Language.of(builtin_extensions())


def on(kernel: MemoryKernel, owner: str = "meshfw") -> MemoryBackend:
    return MemoryBackend(Site(owner=owner, language=LANGUAGE, options={"kernel": kernel}))


def test_what_is_stored_is_the_script_that_makes_it() -> None:
    kernel = MemoryKernel()
    apply(on(kernel), sample(LANGUAGE))
    kernel.count(packets=3, octets=180)
    for family in Family:
        text = kernel.text(family)
        assert str(Document(text)) == text
        assert "[3:180] -A meshfw:fw" in text


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("*filter\n:a:b - [0:0]\n-A a:b -j a:c\nCOMMIT", "there is no chain a:c"),
        ("*filter\n:a:b - [0:0]\n-A a:b -s @a:s -j DROP\nCOMMIT", "there is no set a:s"),
        ("*filter\n:a:b - [0:0]\n:a:b - [0:0]\nCOMMIT", "chain a:b is there already"),
        ("*filter\n:a:b - [0:0]\n-A a:b -j DROP\n-X a:b\nCOMMIT", "chain a:b is not empty"),
        ("*filter\n:a:b - [0:0]\n:a:c - [0:0]\n-A a:c -g a:b\n-X a:b\nCOMMIT", "chain a:b is in use"),
        ("*filter\n:a:b - [0:0]\n-I a:b 2 -j DROP\nCOMMIT", "chain a:b has 0 rules"),
        ("*filter\n:a:b - [0:0]\n-D a:b 1\nCOMMIT", "chain a:b has no rule 1"),
        ("*filter\n-F a:b\nCOMMIT", "there is no chain a:b"),
        ("*filter\n", "table filter has no COMMIT"),
        ("*nosuch\nCOMMIT", "it can't be understood"),
        ("-A a:b -j DROP", "it can't be understood"),
        ("create a:s address\ncreate a:s address", "set a:s is there already"),
        ("create a:s address\nadd a:s 10.0.0.1\nadd a:s 10.0.0.1", "10.0.0.1 is in the set already"),
        ("create a:s address\ndel a:s 10.0.0.1", "10.0.0.1 is not in set a:s"),
        ("create a:s address\n*raw\n:a:b - [0:0]\n-A a:b -s @a:s\nCOMMIT\ndestroy a:s", "set a:s is in use"),
        ("destroy a:s", "there is no set a:s"),
    ],
)
def test_a_kernel_of_text_refuses_what_a_kernel_refuses(lines: str, reason: str) -> None:
    with pytest.raises(BackendError) as refused:
        Document(lines)
    assert reason in str(refused.value)
    kernel = MemoryKernel()
    with pytest.raises(BackendError):
        kernel.write(Family.IPV4, lines)
    assert (kernel.text(Family.IPV4), kernel.writes) == ("", 0)


def test_what_is_referred_to_in_a_comment_is_no_reference() -> None:
    text = "*filter\n:a:b - [0:0]\n-A a:b -m comment --comment @a:s -j DROP\nCOMMIT\n"
    assert str(Document(text)) == text


def test_a_step_of_another_tool_is_refused() -> None:
    backend = on(MemoryKernel())
    with pytest.raises(BackendError, match="nft -f -: no such command"):
        backend.commit(Transaction("nft", (Step(("nft", "-f", "-"), "flush ruleset"),), Plan()), based_on=None)


def test_a_kernel_that_is_none_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="expected a MemoryKernel"):
        MemoryBackend(Site(owner="meshfw", language=LANGUAGE, options={"kernel": "legacy"}))


def test_sets_or_none_is_a_matter_of_true_or_false() -> None:
    with pytest.raises(ConfigError, match=r"backend\.memory\.native_sets: 'no'; expected true or false"):
        MemoryBackend(Site(owner="meshfw", language=LANGUAGE, options={"native_sets": "no"}))


def test_each_backend_has_a_kernel_of_its_own_by_default() -> None:
    one, other = (MemoryBackend(Site(owner="meshfw", language=LANGUAGE)) for _ in range(2))
    apply(one, sample(LANGUAGE))
    assert not other.observe().snapshot
    assert isinstance(one.cache, Cache)


def test_names_of_others_begin_like_ours_and_are_not_ours() -> None:
    kernel = MemoryKernel()
    apply(on(kernel, "mesh"), sample(LANGUAGE))
    before = kernel.text(Family.IPV4)
    assert not on(kernel, "meshfw").observe().snapshot
    apply(on(kernel, "meshfw"), sample(LANGUAGE))
    apply(on(kernel, "meshfw"), Ruleset())
    assert kernel.text(Family.IPV4) == before


def test_a_rule_whose_text_means_something_else_is_refused() -> None:
    odd = Rule(matches=(OpaqueMatch("odd", ("--flag", "-j", "DROP")),))
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=(Rule(), odd))
    (finding,) = on(MemoryKernel()).check(Ruleset(chains=(chain,)))
    assert str(finding) == "ipv4 filter a, rule 2 (-m odd --flag -j DROP): its text has another meaning"
