"""The law book, run on the nft backend against the kernel, in a network namespace of the module's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.extensions.language import Language
from meshfw.kernel.libnftables import Libnftables
from meshfw.testing.conformance import BackendLaws, report
from meshfw.testing.lab import Foreign, Lab, MakeBackend
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

STRANGERS = """
add table inet strangers
add set inet strangers blocked { type ipv4_addr; flags interval; }
add element inet strangers blocked { 192.0.2.0/24, 198.51.100.7 }
add chain inet strangers early { type filter hook input priority -10; policy accept; }
add chain inet strangers late { type filter hook input priority 10; policy accept; }
add chain inet strangers theirs
add rule inet strangers early ip saddr @blocked counter drop comment "not ours"
add rule inet strangers late jump theirs
add rule inet strangers theirs tcp dport { 80, 443 } accept
add table ip meshfw-other
add chain ip meshfw-other filter-fw
add rule ip meshfw-other filter-fw accept
"""
COUNTERS = re.compile(r"packets \d+ bytes \d+")

# What nft(8) does to the tables of the sample, by name.
TAMPERINGS = {
    "a rule deleted by handle": "delete rule ip meshfw filter-fw handle {handle}",
    "a rule inserted": "insert rule ip meshfw filter-fw ip saddr 192.0.2.1 accept",
    "a rule that meshfw can't read": "insert rule ip6 meshfw filter-fw tcp dport vmap {{ 22 : accept }}",
    "a chain flushed": "flush chain ip6 meshfw filter-peers",
    "a base chain flushed": "flush chain ip meshfw filter.input.first",
    "a policy changed": "add chain ip meshfw filter.input.first {{ policy accept; }}",
    "an element added": "add element ip meshfw set-peers {{ 192.0.2.0/24 }}",
    "an element deleted": "delete element ip6 meshfw set-web {{ 443 }}",
    "a set added": "add set ip meshfw strange {{ type mark; }}",
    "a chain renamed": "rename chain ip meshfw filter-peers filter-others",
    "a chain added": "add chain ip meshfw strange",
    "a base chain added": "add chain ip meshfw strange {{ type filter hook input priority 7; policy drop; }}",
    "a map added": "add map ip meshfw strange {{ type ipv4_addr : verdict; }}",
    "a table made dormant": "add table ip6 meshfw {{ flags dormant; }}",
    "a table deleted": "delete table ip meshfw",
    "both tables deleted": "delete table ip meshfw\ndelete table ip6 meshfw",
    "an empty table left": 'delete table ip6 meshfw\nadd table ip6 meshfw {{ comment "meshfw"; }}',
    "everything flushed": "flush ruleset",
}


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns]) -> Iterator[Netns]:
    with kernel_room() as made:
        yield made


class TestNftBackend(BackendLaws):
    tools = ("nft",)

    @pytest.fixture
    def namespace(self, room: Netns) -> str:
        return room.path

    @pytest.fixture
    def make_backend(self, room: Netns, language: Language) -> MakeBackend:
        return lambda owner: NftBackend(Site(owner=owner, language=language, netns=room.path))

    @pytest.fixture
    def nft(self, room: Netns) -> Iterator[Libnftables]:
        library = Libnftables(room.path)
        yield library
        library.close()

    @pytest.fixture
    def dump(self, nft: Libnftables) -> Callable[[], str]:
        return lambda: COUNTERS.sub("", nft.run("list ruleset"))

    @pytest.fixture
    def wipe(self, nft: Libnftables) -> Callable[[], None]:
        def flush() -> None:
            nft.run("flush ruleset")

        return flush

    @pytest.fixture
    def foreign(self, nft: Libnftables) -> Foreign:
        tables = ("inet strangers", "ip meshfw-other")

        def setup() -> None:
            nft.run(STRANGERS)

        def remove() -> None:
            nft.run("".join(f"delete table {table}\n" for table in tables))

        return Foreign(
            setup=setup,
            dump=lambda: COUNTERS.sub("", "".join(nft.run(f"list table {table}") for table in tables)),
            remove=remove,
        )

    @pytest.fixture
    def tamperings(self, nft: Libnftables) -> Mapping[str, Callable[[], None]]:
        def tampering(text: str) -> Callable[[], None]:
            def tamper() -> None:
                found = re.search(r"counter .*# handle (\d+)\n", nft.run("list chain ip meshfw filter-fw"))
                assert found is not None
                nft.run(text.format(handle=found[1]))

            return tamper

        return {name: tampering(text) for name, text in TAMPERINGS.items()}

    def test_nothing_is_narrowed(self, lab: Lab) -> None:
        made = report(lab)
        assert [entry.law for entry in made.laws if entry.narrowed] == []
        assert made.left_out == ()
        assert made.differences == ("foreign_accept_wins: False",)
