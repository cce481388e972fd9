"""The law book of meshfw, run on the backend in a network namespace of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from meshfw import Language, Site, run_tool
from meshfw.testing.conformance import BackendLaws
from meshfw.testing.lab import Foreign, Lab, MakeBackend
from meshfw.testing.netns import Netns

from meshfw_toy.backend import ToyBackend

pytestmark = pytest.mark.kernel

STRANGERS = """
add table inet strangers
add chain inet strangers early { type filter hook input priority -10; policy accept; }
add rule inet strangers early ip saddr 192.0.2.0/24 drop
"""

# What somebody does to the rules of the kit's sample by nft's own means, by name.
TAMPERINGS = {
    "a rule inserted": "insert rule ip meshfw-toy filter-fw ip saddr 192.0.2.1 accept",
    "a chain flushed": "flush chain ip6 meshfw-toy filter-peers",
    "a policy changed": "add chain ip meshfw-toy filter.input.first { policy accept; }",
    "a chain added": "add chain ip meshfw-toy strange",
    "a set added": "add set ip meshfw-toy strange { type mark; }",
    "a table deleted": "delete table ip meshfw-toy",
}


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    """A namespace whose rules nobody minds; all laws share it, and leave it empty."""
    requires("nft")
    with kernel_room() as made:
        yield made


class TestToyBackend(BackendLaws):
    """Every law of the book is one test; ``pytest --meshfw-report FILE.md`` writes down how it went."""

    tools = ("nft",)
    # Few for the seconds that it takes: None tries as many drawn cases, kinds of edit and lines as there are.
    examples = 1
    most = 3

    @pytest.fixture
    def namespace(self, room: Netns) -> str:
        return room.path

    @pytest.fixture
    def make_backend(self, room: Netns, language: Language) -> MakeBackend:
        return lambda owner: ToyBackend(Site(owner=owner, language=language, netns=room.path))

    @pytest.fixture
    def nft(self, room: Netns) -> Callable[..., str]:
        """nft itself, which is nobody's backend: the witness."""

        def call(*words: str, text: str = "") -> str:
            return run_tool(("nft", *words), netns=room.path, input=text).stdout

        return call

    @pytest.fixture
    def dump(self, nft: Callable[..., str]) -> Callable[[], str]:
        return lambda: nft("--stateless", "list", "ruleset")

    @pytest.fixture
    def foreign(self, nft: Callable[..., str]) -> Foreign:
        def setup() -> None:
            nft("-f", "-", text=STRANGERS)

        def remove() -> None:
            nft("delete", "table", "inet", "strangers")

        return Foreign(setup=setup, dump=lambda: nft("list", "table", "inet", "strangers"), remove=remove)

    @pytest.fixture
    def tamperings(self, nft: Callable[..., str]) -> Mapping[str, Callable[[], None]]:
        def tampering(text: str) -> Callable[[], None]:
            def tamper() -> None:
                nft("-f", "-", text=f"{text}\n")

            return tamper

        return {name: tampering(text) for name, text in TAMPERINGS.items()}

    def test_every_rule_of_the_catalogue_can_be_held(self, lab: Lab) -> None:
        assert lab.left_out == ()
