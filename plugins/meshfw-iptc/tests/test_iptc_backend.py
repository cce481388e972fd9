"""What the backend promises beyond the kit: no process, the lock, one layout with iptables-legacy, and putting back."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import meshfw_iptc
import pytest
from meshfw_iptc.backend import IptcBackend
from meshfw_iptc.libraries import library
from meshfw_iptc.tables import OpenTable, opened

from meshfw import (
    Backend,
    BackendError,
    Chain,
    ConfigError,
    Family,
    Language,
    LockError,
    Outcome,
    Plugins,
    Ruleset,
    Site,
    Table,
    builtin_extensions,
    parse_rule,
)
from meshfw.iptables import HeldNamespace, PartialCommitError
from meshfw.reconcile import apply, plan
from meshfw.testing.edits import all_edits
from meshfw.testing.loopback import delivers
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import attached, sample

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
TOOLS = ("iptables-legacy", "ip6tables-legacy")


def skip_where_tables_are_hidden(room: Netns) -> None:
    with room.entered():
        if not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK):
            pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")


@pytest.fixture
def room(netns: Netns, requires: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Netns:
    requires(*(f"{tool}-restore" for tool in TOOLS))
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    skip_where_tables_are_hidden(netns)
    return netns


@pytest.fixture
def backend(room: Netns) -> Iterator[IptcBackend]:
    made = IptcBackend(Site(owner="meshfw", language=LANGUAGE, netns=room.path, options={"wait": 1}))
    yield made
    made.close()


def legacy(room: Netns) -> Backend:
    return Plugins().backend("iptables-legacy").factory(Site(owner="meshfw", language=LANGUAGE, netns=room.path))


def shell(room: Netns, *argv: str, **env: str) -> str:
    with room.entered():
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **env})
    return done.stdout


def saved(room: Netns) -> str:
    lines = "".join(shell(room, f"{tool}-save") for tool in TOOLS).splitlines()
    return "\n".join(line.partition(" [")[0] for line in lines if not line.startswith("#"))


def ruleset_of(*texts: str, family: Family = Family.IPV4) -> Ruleset:
    rules = tuple(parse_rule(text, family=family, language=LANGUAGE) for text in texts)
    return attached([Chain(family=family, table=Table.FILTER, name="first", rules=rules)])


# --- beside iptables-legacy --------------------------------------------------------------------------------


def test_what_iptables_legacy_applied_is_clean_and_the_other_way_round(room: Netns, backend: IptcBackend) -> None:
    whole = sample(LANGUAGE)
    other = legacy(room)
    for ruleset in (whole, *list(all_edits(whole).values())[:4], Ruleset()):
        apply(other, ruleset)
        assert apply(backend, ruleset).outcome is not Outcome.CHANGED
    for ruleset in (whole, *list(all_edits(whole).values())[-4:], Ruleset()):
        apply(backend, ruleset)
        assert apply(other, ruleset).outcome is not Outcome.CHANGED
    other.close()


def test_both_leave_the_very_same_tables(room: Netns, backend: IptcBackend) -> None:
    whole = sample(LANGUAGE)
    other = legacy(room)
    apply(other, whole)
    of_legacy = saved(room)
    apply(other, Ruleset())
    apply(backend, whole)
    assert saved(room) == of_legacy
    other.close()


def test_nobody_gets_it_but_who_names_it() -> None:
    (offer,) = meshfw_iptc.meshfw_backends()
    assert offer.automatic is None
    assert (offer.name, offer.place) == ("iptc", "iptables-legacy")
    assert offer.unavailable() is None


def test_looking_makes_no_table(room: Netns, backend: IptcBackend) -> None:
    assert not plan(backend, Ruleset())
    assert backend.fingerprint() is not None
    with room.entered(), open("/proc/thread-self/net/ip_tables_names", encoding="ascii") as file:
        assert file.read() == ""


# --- no process --------------------------------------------------------------------------------------------

COUNTED = """
import sys
from meshfw import Language, Ruleset, Site, builtin_extensions
from meshfw.reconcile import apply
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.rulesets import sample
import meshfw_iptc
assert "iptc" not in sys.modules
language = Language.of(builtin_extensions())
with ProcessCounter() as counter:
    (offer,) = meshfw_iptc.meshfw_backends()
    backend = offer.factory(Site(owner="meshfw", language=language, netns=sys.argv[1]))
    for ruleset in (sample(language), sample(language), Ruleset()):
        print(apply(backend, ruleset).outcome)
assert "iptc" in sys.modules
print(counter.count.forks)
"""


def test_neither_import_nor_apply_starts_a_process(room: Netns) -> None:
    done = subprocess.run((sys.executable, "-c", COUNTED, room.path), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["changed", "clean", "changed", "0"], done.stderr


# --- the lock, and those who don't take it -----------------------------------------------------------------


def test_it_waits_for_the_lock_of_iptables_and_no_longer(room: Netns, backend: IptcBackend) -> None:
    with open(os.environ["XTABLES_LOCKFILE"], "w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockError):
            apply(backend, ruleset_of("-j RETURN"))
    assert "meshfw" not in saved(room)
    assert apply(backend, ruleset_of("-j RETURN")).outcome is Outcome.CHANGED


def intruding(monkeypatch: pytest.MonkeyPatch, before: Callable[[OpenTable], None]) -> None:
    commit = OpenTable.commit

    def intruded(table: OpenTable) -> None:
        before(table)
        commit(table)

    monkeypatch.setattr(OpenTable, "commit", intruded)


def test_a_rule_that_somebody_adds_without_the_lock_is_not_lost(
    room: Netns, backend: IptcBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    came: list[str] = []

    def add(_table: OpenTable) -> None:
        if not came:
            came.append(
                shell(room, TOOLS[0], "-A", "INPUT", "-p", "esp", XTABLES_LOCKFILE=str(tmp_path / "another.lock"))
            )

    intruding(monkeypatch, add)
    assert apply(backend, ruleset_of("-j RETURN")).outcome is Outcome.CHANGED
    assert came == [""]
    assert "-A INPUT -p esp" in saved(room)
    assert not plan(backend, ruleset_of("-j RETURN"))


# --- putting back ------------------------------------------------------------------------------------------


def failing(at: int) -> Callable[[OpenTable], None]:
    seen: list[OpenTable] = []

    def fail(table: OpenTable) -> None:
        seen.append(table)
        if len(seen) == at:
            raise BackendError("the kernel has had enough")

    return fail


def test_a_table_that_is_refused_takes_those_before_it_back(
    room: Netns, backend: IptcBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(backend, ruleset_of("-s 10.4.0.7 -j DROP", "-m conntrack --ctstate NEW"))
    before = saved(room)
    with monkeypatch.context() as patch:
        intruding(patch, failing(3))
        with pytest.raises(BackendError, match=r"had enough.*put back: ipv4 "):
            apply(backend, sample(LANGUAGE))
    made = {line for line in saved(room).splitlines() if "meshfw" in line}
    assert made == {line for line in before.splitlines() if "meshfw" in line}
    assert apply(backend, sample(LANGUAGE)).outcome is Outcome.CHANGED


def test_what_could_not_be_put_back_is_named(
    room: Netns, backend: IptcBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter((False, True, True))

    def fail(_table: OpenTable) -> None:
        if next(left, False):
            raise BackendError("the kernel has had enough")

    with monkeypatch.context() as patch:
        intruding(patch, fail)
        with pytest.raises(PartialCommitError, match="changed and not put back"):
            apply(backend, sample(LANGUAGE))
    assert apply(backend, sample(LANGUAGE)).outcome is Outcome.CHANGED
    assert "-A INPUT -j meshfw.input.first" in saved(room)


# --- what the library's own setters would do ---------------------------------------------------------------


def by_the_librarys_setters(room: Netns, **fields: str) -> None:
    """An IPv6 rule that drops, as the library itself writes conditions."""
    key = (Family.IPV6, Table.FILTER)
    home = HeldNamespace(room.path)
    with opened(library(), home, [key]) as tables:
        table = tables[key]
        rule: Any = table.bench.rule()
        for name, value in fields.items():
            setattr(rule, name, value)
        rule.create_target("").standard_target = b"DROP"
        table.table.insert_entry("meshfw-first", rule.rule, 1)
        table.commit()
    home.close()


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"in_interface": "n1"}, "-i n1 -j DROP"), ({"protocol": "!udp"}, "! -p udp -j DROP")],
)
def test_a_rule_drops_what_it_names_and_nothing_else(
    room: Netns, backend: IptcBackend, fields: dict[str, str], text: str
) -> None:
    """For IPv6 the library's own setters take lo for n1, and look at no protocol: such a rule is none of ours."""
    ruleset = ruleset_of(text, family=Family.IPV6)
    apply(backend, ruleset)
    assert delivers(room.path, Family.IPV6)
    apply(backend, ruleset_of("-p esp", family=Family.IPV6))
    by_the_librarys_setters(room, **fields)
    assert f"-A meshfw-first {text}" in saved(room)
    assert not delivers(room.path, Family.IPV6)
    assert apply(backend, ruleset).outcome is Outcome.CHANGED, "it was taken for the rule that it is printed as"
    assert delivers(room.path, Family.IPV6)


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"wiat": 3}, r"backend\.iptc: unknown option 'wiat'; expected adopt or wait"),
        ({"wait": 0}, r"backend\.iptc\.wait: 0 is no time to wait; expected whole seconds from 1 to 600"),
        ({"adopt": "yes"}, r"backend\.iptc\.adopt: 'yes' is not true or false; expected true or false"),
    ],
)
def test_an_option_that_is_none_is_refused(room: Netns, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        IptcBackend(Site(owner="meshfw", language=LANGUAGE, netns=room.path, options=options))
