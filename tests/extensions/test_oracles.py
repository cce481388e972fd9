"""Laws of any typed rule, with the real tools as judges: both iptables take it and save our text, and translate agrees.

A batch of rules is one restore, so that hundreds cost a few processes; each rule stands in a chain that no packet comes
to, in a table where it may stand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from meshfw.errors import InexpressibleError
from meshfw.extensions.idletimer import IdleTimer
from meshfw.extensions.nfacct import NfAcct
from meshfw.extensions.rateest import RateEst, RateEstimate
from meshfw.extensions.recent import Recent
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, UnreadableError, read_rule, render_rule
from meshfw.model import Family, Rule, Table, table_problem
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.rules import rules

pytestmark = pytest.mark.kernel

TOOLS = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
TABLES = (Table.MANGLE, Table.FILTER, Table.NAT, Table.RAW)

Placed = tuple[Rule, Table]

# A restore, a save or a listing for each example: so fewer examples than the profile's, of many rules each.
# Nothing is shrunk: the assertion names the one rule of a batch that fails.
BATCHES = settings(
    max_examples=max(4, settings().max_examples // 8),
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


BESIDE: tuple[type, ...] = (RateEstimate, RateEst, NfAcct, IdleTimer, Recent)
"""What names something in the kernel: that must be there already, or be of the same make in every rule."""


def batches(family: Family) -> st.SearchStrategy[list[Rule]]:
    """Many rules of a family that state something each tool keeps, and that can be loaded in any order."""

    def kept(rule: Rule) -> bool:
        return not rule.losses() and not any(isinstance(part, BESIDE) for part in (*rule.matches, rule.target))

    return st.lists(rules(family).filter(kept), min_size=20, max_size=60)


def placed(held: Sequence[Rule]) -> list[Placed]:
    """Each rule with a table where its target may stand."""
    return [(rule, next(table for table in TABLES if table_problem(rule, table) is None)) for rule in held]


def restore_input(held: Sequence[Placed], family: Family) -> str:
    lines = []
    for table in TABLES:
        mine = [(index, rule) for index, (rule, home) in enumerate(held) if home is table]
        lines += [f"*{table}", *(f":c{index} - [0:0]" for index, _ in mine)]
        lines += [f"-A c{index} {format_rule(rule, family=family, language=LANGUAGE)}".rstrip() for index, rule in mine]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


class Tools:
    """The iptables tools of one variant in a namespace of their own, with a lock of their own."""

    def __init__(self, room: Netns, variant: str, lock: Path) -> None:
        self._room = room
        self._variant = variant
        self._environment = {**os.environ, "XTABLES_LOCKFILE": str(lock)}

    def run(self, family: Family, verb: str, *options: str, script: str = "") -> subprocess.CompletedProcess[str]:
        tool = f"{TOOLS[family]}-{self._variant}-{verb}" if self._variant else f"{TOOLS[family]}-{verb}"
        with self._room.entered():
            return subprocess.run(
                [tool, *options], input=script, capture_output=True, text=True, env=self._environment, check=False
            )

    def saved(self, family: Family, held: Sequence[Placed]) -> list[str]:
        """What each rule is saved as; an assertion names the rule that isn't taken."""
        script = restore_input(held, family)
        tested = self.run(family, "restore", "--test", script=script)
        assert tested.returncode == 0, _blamed(tested.stderr, script)
        done = self.run(family, "restore", script=script)
        assert done.returncode == 0, _blamed(done.stderr, script)
        output = self.run(family, "save").stdout
        found = dict(re.findall(r"^-A c(\d+)(?: (.*))?$", output, re.MULTILINE))
        return [found[str(index)] for index in range(len(held))]


def _blamed(said: str, script: str) -> str:
    line = re.search(r"line:? (\d+)", said)
    return f"{said}{script.splitlines()[int(line[1]) - 1] if line else script}"


@pytest.fixture(scope="module", params=["legacy", "nft"])
def tools(
    request: pytest.FixtureRequest, requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Tools]]:
    variant = request.param
    requires(f"iptables-{variant}-restore", f"ip6tables-{variant}-restore")
    with Netns() as room:
        yield variant, Tools(room, variant, tmp_path_factory.mktemp("lock") / "lock")


@pytest.mark.parametrize("family", Family)
@BATCHES
@given(data=st.data())
def test_iptables_takes_any_typed_rule_and_saves_its_canonical_text(
    tools: tuple[str, Tools], family: Family, data: st.DataObject
) -> None:
    variant, oracle = tools
    held = placed(data.draw(batches(family)))
    for (rule, _), text in zip(held, oracle.saved(family, held), strict=True):
        ours = format_rule(rule, family=family, language=LANGUAGE)
        if variant == "legacy":
            assert text == ours
        # The nf_tables variant keeps some conditions in its own form: ! --dport 0:1023 comes back as 1024:65535.
        assert parse_rule(text, family=family, language=LANGUAGE) == rule, f"{text}\n{ours}"


# --- iptables-translate ------------------------------------------------------------------------------------

LOST = re.compile(r"-m (?:tcp|udp)(?: -m| -j| -g|$)")
"""Rules of which iptables-translate 1.8.9 loses the protocol: a bare -m tcp or -m udp."""


def listed(room: Netns, family: Family, statements: Sequence[str]) -> list[list[dict[str, object]] | None]:
    """What nft lists of each rule, loaded in a chain of its own; None for one that it doesn't take."""
    name = FAMILIES[family]

    def loaded(part: Sequence[tuple[int, str]]) -> dict[int, list[dict[str, object]]]:
        lines = ["flush ruleset", f"add table {name} t"]
        for index, text in part:
            lines += [f"add chain {name} t c{index}", f"add rule {name} t c{index} {text}"]
        with room.entered():
            script = "\n".join([*lines, ""])
            done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found = subprocess.run(["nft", "-j", "-s", "-p", "list", "ruleset"], capture_output=True, check=True)
                items = json.loads(found.stdout)["nftables"]
                return {int(item["rule"]["chain"][1:]): item["rule"]["expr"] for item in items if "rule" in item}
        if len(part) == 1:
            return {}
        return {**loaded(part[: len(part) // 2]), **loaded(part[len(part) // 2 :])}

    found = loaded(list(enumerate(statements)))
    return [found.get(index) for index in range(len(statements))]


@pytest.mark.parametrize("family", Family)
@BATCHES
@given(data=st.data())
def test_what_iptables_translate_says_in_full_means_the_same(
    tools: tuple[str, Tools], requires: Callable[..., None], family: Family, data: st.DataObject
) -> None:
    requires("nft", "iptables-restore-translate", "ip6tables-restore-translate")
    _, oracle = tools
    held = placed(data.draw(batches(family)))
    script = restore_input(held, family)
    output = oracle_translate(oracle, family, script)
    theirs = {int(index): text for index, text in re.findall(r"^add rule \S+ \S+ c(\d+) (.*)$", output, re.MULTILINE)}
    compared = []
    for index, (rule, _) in enumerate(held):
        text = format_rule(rule, family=family, language=LANGUAGE)
        if index in theirs and not LOST.search(text) and _said(rule, family):
            compared.append((rule, text, theirs[index]))
    with Netns() as room:
        listing = listed(room, family, [text for _, _, text in compared])
    for (rule, text, other), statements in zip(compared, listing, strict=True):
        if statements is None:
            continue  # nft doesn't take what the tool says
        try:
            meant = read_rule(statements, family=family, language=LANGUAGE, comment=rule.comment)
        except UnreadableError:
            continue  # said in words that we never use
        assert meant == rule, f"{text}\n{other}"


def oracle_translate(oracle: Tools, family: Family, script: str) -> str:
    done = Tools(oracle._room, "", Path(os.devnull)).run(family, "restore-translate", "-f", "/dev/stdin", script=script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _said(rule: Rule, family: Family) -> bool:
    try:
        render_rule(rule, family=family, language=LANGUAGE)
    except InexpressibleError:
        return False
    return True
