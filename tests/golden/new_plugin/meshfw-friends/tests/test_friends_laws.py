"""The laws of rule sources, and what this one makes of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from meshfw import Declaration, Family, Language, Network, Ruleset
from meshfw.testing.sources import Factory, Fault, SourceLaws

from meshfw_friends.source import FriendsSource

LIST = "192.0.2.7  # the printer\n2001:db8::/48\n"


class TestFriendsSource(SourceLaws):
    """Every law of the book is one test; ``pytest --meshfw-report FILE.md`` writes down how it went."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        made = tmp_path / "list"
        made.write_text(LIST, encoding="utf-8")
        return made

    @pytest.fixture
    def factory(self) -> Factory:
        return FriendsSource

    @pytest.fixture
    def declaration(self, file: Path, language: Language) -> Declaration:
        return Declaration(options={"file": "list"}, language=language, file=str(file.parent / "meshfw.toml"))

    @pytest.fixture
    def change(self, file: Path) -> Callable[[], None]:
        def edit() -> None:
            file.write_text(f"{LIST}198.51.100.0/24\n", encoding="utf-8")

        return edit

    @pytest.fixture
    def faults(self, file: Path) -> Mapping[str, Fault]:
        def written(data: bytes) -> Callable[[], None]:
            def write() -> None:
                file.write_bytes(data)

            return write

        mend = written(LIST.encode())
        return {
            "no file": Fault(file.unlink, mend, names=str(file)),
            "no text": Fault(written(b"\xff\n"), mend, names=str(file)),
            "no address": Fault(written(b"192.0.2.7\n192.0.2.300\n"), mend, names=f"{file}, line 2"),
        }

    def test_each_family_has_its_own_addresses(self, factory: Factory, declaration: Declaration) -> None:
        ruleset = factory(declaration).load()
        held = {entry.family: entry.elements for entry in ruleset.sets}
        assert held == {
            Family.IPV4: (bounds("192.0.2.7"),),
            Family.IPV6: (bounds("2001:db8::/48"),),
        }

    def test_an_empty_list_lets_nobody_in(self, factory: Factory, declaration: Declaration, file: Path) -> None:
        file.write_text("# nobody\n", encoding="utf-8")
        ruleset = factory(declaration).load()
        assert isinstance(ruleset, Ruleset)
        assert [entry.elements for entry in ruleset.sets] == [(), ()]


def bounds(text: str) -> tuple[int, int]:
    """The first and the last address of a network, as a set holds them."""
    network = Network.parse(text)
    return network.address, network.last
