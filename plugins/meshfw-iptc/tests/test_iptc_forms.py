"""Every form that is on the list: written and read as iptables-legacy writes and reads it; and what isn't on it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from meshfw_iptc import proven
from meshfw_iptc.backend import IptcBackend
from meshfw_iptc.libraries import library
from meshfw_iptc.lines import Line, carry_out
from meshfw_iptc.making import options_of, standard_name
from meshfw_iptc.tables import opened
from meshfw_iptc.telling import told, tried

from meshfw import Chain, Family, Language, Match, Rule, Ruleset, Site, Target, builtin_extensions, parse_rule
from meshfw.iptables import HeldNamespace, TableKey
from meshfw.model import Table
from meshfw.testing.fixtures import IN_CI
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
TOOLS: Final = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}


class Form(NamedTuple):
    """A rule of one family and table, as iptables-save prints it."""

    family: Family
    table: Table
    text: str

    @property
    def rule(self) -> Rule:
        return parse_rule(self.text, family=self.family, language=LANGUAGE)


def forms() -> Iterator[Form]:
    for line in (Path(__file__).parent / "forms.txt").read_text(encoding="utf-8").splitlines()[1:]:
        families, table, rule = (*line.split(" ", 2), "")[:3]
        yield from (Form(Family(f"ipv{digit}"), Table(table), rule) for digit in families)


def skip_where_tables_are_hidden(room: Netns) -> None:
    with room.entered():
        if not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK):
            pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    requires(*(f"{tool}-restore" for tool in TOOLS.values()))
    with kernel_room() as made:
        skip_where_tables_are_hidden(made)
        yield made


def run(room: Netns, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
    with room.entered():
        return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


def by_table(wanted: list[Form]) -> dict[TableKey, list[tuple[int, Form]]]:
    found: dict[TableKey, list[tuple[int, Form]]] = {}
    for index, form in enumerate(wanted):
        found.setdefault((form.family, form.table), []).append((index, form))
    return found


def written_by_tool(room: Netns, wanted: list[Form]) -> list[str]:
    """Each form in a chain of its own, written by iptables-legacy-restore; those that this host has no module for."""
    refused = []
    for index, form in enumerate(wanted):
        text = f"*{form.table}\n:tool-{index} - [0:0]\n-A tool-{index} {form.text}\nCOMMIT\n"
        done = run(room, f"{TOOLS[form.family]}-restore", "--noflush", "-w", text=text)
        if done.returncode:
            refused.append(f"{form.text}: {done.stderr}")
    return refused


def saved(room: Netns, key: TableKey) -> dict[str, str]:
    """The rule of each chain, as iptables-legacy-save prints it."""
    lines = run(room, f"{TOOLS[key[0]]}-save", "-t", key[1]).stdout.splitlines()
    return {found[1]: found[2] for line in lines if (found := re.match(r"-A (\S+) ?(.*?) ?$", line))}


def test_every_form_is_written_and_read_as_the_tools_do_it(room: Netns) -> None:
    wanted = list(forms())
    refused = written_by_tool(room, wanted)
    assert not (refused and IN_CI), refused
    lib, home = library(), HeldNamespace(room.path)
    for key, held in by_table(wanted).items():
        with opened(lib, home, [key]) as tables:
            there = set(tables[key].chains())
            here = [(index, form) for index, form in held if f"tool-{index}" in there]
            for index, form in here:
                lines = (Line("N", f"lib-{index}"), Line("A", f"lib-{index}", rule=form.rule, counters=(7, 300)))
                carry_out(tables[key], lines, LANGUAGE)
            tables[key].commit()
        texts = saved(room, key)
        with opened(lib, home) as tables:
            table = tables[key]
            for index, form in here:
                (ours,), (theirs,) = table.entries(f"lib-{index}"), table.entries(f"tool-{index}")
                assert texts[f"lib-{index}"] == texts[f"tool-{index}"] == form.text
                assert table.raw_rule(ours).body == table.raw_rule(theirs).body, form.text
                assert (ours.counters.pcnt, ours.counters.bcnt) == (7, 300), form.text
                assert told(table.bench, theirs, table.standard(theirs), LANGUAGE) == form.text
                assert tried(table.bench, form.rule, LANGUAGE) is None, form.text
    home.close()


def parts_of(rule: Rule, family: Family) -> Iterator[tuple[str, str]]:
    """Each option of a rule with its match or target; one without any with an empty option."""
    parts: list[Match | Target] = [*rule.matches]
    parts += [] if rule.target is None or standard_name(rule.target) is not None else [rule.target]
    for part in parts:
        extension = LANGUAGE.by_value[type(part)]
        given = [option for option, _ in options_of(extension, part, family)]
        yield from ((extension.name, option) for option in given or [""])


def test_there_is_a_form_for_every_option_on_the_list_in_each_family() -> None:
    tried_here = {(form.family, *part) for form in forms() for part in parts_of(form.rule, form.family)}
    listed = {
        (family, extension.name, option)
        for extension in LANGUAGE.by_value.values()
        for family in extension.value.families
        for option in (proven.TARGETS if extension.is_target else proven.MATCHES).get(extension.name) or {""}
        if extension.name in (proven.TARGETS if extension.is_target else proven.MATCHES)
    }
    listed -= {(Family.IPV4, "ah", "ahlen"), (Family.IPV4, "ah", "ahres")}  # ip6tables alone has them
    missing = sorted(f"{family} {name} --{option}" for family, name, option in listed - tried_here)
    assert not missing, "\n".join(missing)


def test_the_readme_counts_the_list() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"of {len(proven.MATCHES)} matches and {len(proven.TARGETS)} targets" in text


def test_no_extension_on_the_list_uses_memory_that_the_library_has_freed() -> None:
    """A match or target with ``udata_size`` gets a buffer that dies before the option is parsed."""
    from iptc.xtables import xtables

    found = []
    for family in (Family.IPV4, Family.IPV6, Family.IPV4):
        known = xtables(2 if family is Family.IPV4 else 10)  # NFPROTO_IPV4, NFPROTO_IPV6
        for extension in LANGUAGE.by_value.values():
            name, is_target = extension.name, extension.is_target
            if family in extension.value.families and name in (proven.TARGETS if is_target else proven.MATCHES):
                library().extensions.require(name, family, is_target=is_target)
                found.append((known.find_target if is_target else known.find_match)(name)[0])
    assert len(found) > 200
    assert [module.name for module in found if module.udata_size] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-j NFLOG --nflog-prefix x", "it may end the process"),
        ("-m hashlimit --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name a", "it may end the process"),
        ("-m rateest --rateest RE1 --rateest-lt --rateest-bps 1Mbit", "it may end the process"),
        ("-j NOTRACK", "say -j CT --notrack"),
        ("-m set --match-set blocked src -j DROP", "not proven"),
        ("-m policy --dir in --pol ipsec --strict --reqid 1 --next --reqid 2", "not proven"),
        ("-m ipvs --ipvs", "not proven"),
        ("-m nobody --knows this", "no typed value"),
        ("-j NOBODY --knows this", "no typed value"),
        ("-m comment --comment !", "takes the value ! for a negation"),
        ('-j LOG --log-prefix "it\'s"', "doesn't read it back"),
        ("-p tcp -m tcp ! --dport 0:65535", "iptables stores it as met by every packet"),
    ],
)
def test_what_is_not_sure_is_refused_before_anything_is_written(room: Netns, text: str, reason: str) -> None:
    rule = parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    table = Table.RAW if text == "-j NOTRACK" else Table.FILTER
    chain = Chain(family=Family.IPV4, table=table, name="a", rules=(rule,))
    backend = IptcBackend(Site(owner="refusing", language=LANGUAGE, netns=room.path))
    found = [str(finding) for finding in backend.check(Ruleset(chains=(chain,)))]
    backend.close()
    assert len(found) == 1
    assert found[0].startswith(f"ipv4 {table} a, rule 1 (")
    assert reason in found[0]
