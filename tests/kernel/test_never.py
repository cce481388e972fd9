"""Laws of rules that no packet meets: iptables takes them, and each tool keeps or loses what our losses say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import Completed, run
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, read_rule, render_rule
from meshfw.model import Family, Rule
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE: Final = Language.of(builtin_extensions())
TOOLS: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
NEVER: Final = ("! -s 0/0 -j DROP", "! -d any/0 -j DROP", "! -i + -p tcp -j DROP", "! -o + -j DROP")


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    """A namespace for all of them: each empties what it wrote."""
    requires("nft", *(f"{tool}-{variant}-restore" for tool in TOOLS.values() for variant in ("legacy", "nft")))
    with kernel_room() as made:
        yield made


def parsed(text: str, family: Family) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def restored(tool: str, rule: str = "") -> Completed:
    text = f"*filter\n{f'-A FORWARD {rule}' if rule else ''}\nCOMMIT\n"
    return run((f"{tool}-restore",), timeout=10, input=text.encode(), check=False)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize("text", NEVER)
def test_a_variant_keeps_it_or_loses_it_as_its_losses_say(room: Netns, family: Family, variant: str, text: str) -> None:
    rule = parsed(text, family)
    lost = any(variant in loss.variants for loss in rule.losses())
    with room.entered():
        done = restored(f"{TOOLS[family]}-{variant}", format_rule(rule, family=family, language=LANGUAGE))
        saved = run((f"{TOOLS[family]}-{variant}-save",), timeout=10).stdout
        restored(f"{TOOLS[family]}-{variant}")
    held = [line.removeprefix("-A FORWARD ") for line in saved.splitlines() if line.startswith("-A")]
    assert lost == (done.returncode != 0 or parsed(held[0], family) != rule)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("text", NEVER)
def test_nft_lists_it_as_we_say_it_and_reads_it_back(room: Netns, family: Family, text: str) -> None:
    rule = parsed(text, family)
    said = str(render_rule(rule, family=family, language=LANGUAGE))
    network = FAMILIES[family]
    script = f"add table {network} t\nadd chain {network} t c\nadd rule {network} t c {said}\n"
    with room.entered():
        run(("nft", "-f", "-"), timeout=10, input=script.encode())
        listed = run(("nft", "-snp", "list", "chain", network, "t", "c"), timeout=10).stdout
        data = json.loads(run(("nft", "-j", "list", "chain", network, "t", "c"), timeout=10).stdout)
        run(("nft", "delete", "table", network, "t"), timeout=10)
    assert said in listed
    (statements,) = [item["rule"]["expr"] for item in data["nftables"] if "rule" in item]
    assert read_rule(statements, family=family, language=LANGUAGE) == rule
