"""Laws of moving to another backend while others do what they do: the host is never left without its rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import meshfw.migration
from meshfw.backend import Atomicity, Backend, Capabilities, Report
from meshfw.backends.nft import NftBackend
from meshfw.hookspecs import BackendPlugin
from meshfw.model import Family
from tests.kernel.inn import Inn
from tests.kernel.test_migration import journals, kill_at, standing

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("legacy_seen")]


@pytest.fixture
def inn(auto_inn: Inn) -> Inn:
    """A host on which auto chose iptables-legacy."""
    auto_inn.declare("-p tcp -m tcp --dport 23 -j DROP")
    auto_inn("apply", "--backend", "iptables-legacy")
    return auto_inn


def before_the_old_one_goes(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen once the new backend is proven and the old one isn't cleaned yet."""
    real = meshfw.migration._Move._emptied
    events = [happens]

    def emptied(move: meshfw.migration._Move, offer: BackendPlugin, backend: Backend) -> Report:
        if events:
            events.pop()()
        return real(move, offer, backend)

    monkeypatch.setattr(meshfw.migration._Move, "_emptied", emptied)


def test_what_somebody_flushes_of_the_new_backend_stands_there_at_the_end(
    inn: Inn, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_old_one_goes(monkeypatch, lambda: inn.tool("nft flush ruleset"))
    assert "somebody changed the rules in nft meanwhile: they were put back" in inn("migrate", "--to", "nft").err
    assert standing(inn) == ["nft"]
    assert "nothing to do" in inn("apply").out


def test_an_agent_that_came_up_meanwhile_keeps_the_old_backend(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [0, 0, 4711]
    monkeypatch.setattr("meshfw.agent.control.running", lambda owner, netns: agents.pop(0) if agents else 4711)
    assert "an agent keeps the rules of inn here (process 4711)" in inn("migrate", "--to", "nft", code=1).err
    assert standing(inn) == ["iptables-legacy"]
    assert journals(inn) == []


def test_rules_are_not_moved_to_where_no_packet_meets_them(inn: Inn) -> None:
    inn.backend = "memory"
    inn.declare("-p tcp -m tcp --dport 23 -j DROP")
    for force in ((), ("--force",)):
        assert "no packet meets" in inn("migrate", "--to", "memory", *force, code=1).err
        assert standing(inn) == ["iptables-legacy"]


def test_a_family_that_the_new_backend_lacks_takes_force(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    of_ipv4 = Capabilities(families=frozenset({Family.IPV4}), atomicity=Atomicity.RULESET, foreign_accept_wins=False)
    monkeypatch.setattr(NftBackend, "capabilities", of_ipv4)
    refused = inn("migrate", "--to", "nft", code=1)
    assert "what stands in iptables-legacy for ipv6: nft has no ipv6" in refused.out
    assert standing(inn) == ["iptables-legacy"]
    warnings = inn("migrate", "--to", "nft", "--force", "--json").data["warnings"]
    assert len([text for text in warnings if "they are left out" in text]) == 1, "a warning is told once"


def test_a_void_journal_holds_nobody_up_later(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(inn, monkeypatch, "the old one", "migrate", "--to", "nft")
    inn.tool("nft flush ruleset")
    for stem in ("iptables", "ip6tables"):
        inn.tool(f"{stem}-legacy -F")
        inn.tool(f"{stem}-legacy -X")
    assert standing(inn) == []
    inn("apply", "--backend", "iptables-nft")
    assert journals(inn) == []
    inn("apply", "--backend", "iptables-nft")
