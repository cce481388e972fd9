"""A rule that excludes a port at either end means so on every backend, whatever the tool makes of its text."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.languages.iptables import parse_rule
from meshfw.model import Attachment, Chain, Family, Hook, Ruleset, Table
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.neighbours import LANGUAGE, MAKERS, Ours, Street, streets

pytestmark = pytest.mark.kernel

SECONDS = 0.1
# Which datagrams, by their ports, a rule's DROP lets through.
CASES = {
    "-p udp -m udp ! --sport 67 ! --dport 68": {(67, 99): True, (1000, 68): True, (67, 68): True, (1000, 99): False},
    "-p udp -m multiport ! --ports 67": {(67, 99): True, (1000, 67): True, (1000, 99): False},
}


@pytest.fixture
def street(kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path) -> Iterator[Street]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    with streets(kernel_room, tmp_path) as make:
        yield make("nft")


def arrives(street: Street, source: int, destination: int) -> bool:
    with street.room.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind(("127.0.0.1", destination))
        receiver.settimeout(SECONDS)
        sender.bind(("127.0.0.1", source))
        sender.sendto(b"meshfw", receiver.getsockname())
        try:
            return receiver.recv(16) == b"meshfw"
        except TimeoutError:
            return False


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("name", MAKERS)
def test_ports_excluded_at_both_ends_are_two_conditions(street: Street, name: str, text: str) -> None:
    rule = parse_rule(f"{text} -j DROP", family=Family.IPV4, language=LANGUAGE)
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="in", rules=(rule,))
    attachment = Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.INPUT, chain="in")
    ours = Ours(street, name, Ruleset(chains=(chain,), attachments=(attachment,)))
    apply(ours.backend, ours.ruleset)
    ours.assert_settled()
    assert {ports: arrives(street, *ports) for ports in CASES[text]} == CASES[text]
