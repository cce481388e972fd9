"""Laws of the configuration: what it says by default, and that each mistake is named with file and key."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from meshfw import (
    Attachment,
    Chain,
    Config,
    ConfigError,
    Declaration,
    Family,
    Hook,
    PluginError,
    Plugins,
    Policy,
    Rule,
    Ruleset,
    Set,
    SourcePlugin,
    Table,
    builtin_extensions,
    hookimpl,
    load_config,
    load_rules,
    parse_config,
)
from meshfw import config as room
from meshfw.config import Ipv6, SourceTable, find_config
from meshfw.extensions.language import Language
from meshfw.wanted import fit_families

LANGUAGE = Language.of(builtin_extensions())
V4, V6 = Family.IPV4, Family.IPV6


# --- what is said ---


def test_an_empty_configuration_says_the_defaults() -> None:
    config = parse_config("")
    assert config == Config()
    assert (config.backend, config.owner, config.ipv6, config.plugins) == ("auto", "meshfw", Ipv6.AUTO, ())


def test_every_key_is_read() -> None:
    config = parse_config(
        'owner = "mesh1"\nipv6 = "require"\nplugins = ["one", "two"]\nbackend.use = "nft"\n'
        '[backend.nft]\nisolated = true\n[backend.other]\nx = [1]\n[[source]]\ntype = "rules"\n'
        '[[source]]\ntype = "iptables-save"\nipv4 = "rules.v4"\n[[chain]]\nname = "a"\n',
        file="f.toml",
    )
    assert config == Config(
        file="f.toml",
        backend="nft",
        owner="mesh1",
        ipv6=Ipv6.REQUIRE,
        plugins=("one", "two"),
        options={"nft": {"isolated": True}, "other": {"x": [1]}},
        sources=(
            SourceTable("rules", "source[1]"),
            SourceTable("iptables-save", "source[2]", {"ipv4": "rules.v4"}),
        ),
        tables={"chain": [{"name": "a"}]},
    )


@pytest.mark.parametrize("text", ['backend = "nft"', 'backend.use = "nft"', '[backend]\nuse = "nft"'])
def test_a_backend_is_a_name_or_a_table_that_uses_one(text: str) -> None:
    assert parse_config(text).backend == "nft"


def test_options_of_backends_choose_none() -> None:
    assert parse_config("[backend.nft]\nisolated = true").backend == "auto"


def test_chain_tables_are_a_source_unless_one_says_so() -> None:
    chain = '[[chain]]\nname = "a"\n'
    dump = '[[source]]\ntype = "iptables-save"\nipv4 = "x"\n'
    assert [source.type for source in parse_config(chain).sources] == ["rules"]
    assert [source.type for source in parse_config(f"{dump}{chain}").sources] == ["rules", "iptables-save"]
    explicit = f'{dump}[[source]]\ntype = "rules"\n{chain}'
    assert [source.type for source in parse_config(explicit).sources] == ["iptables-save", "rules"]
    assert parse_config("").sources == ()


def test_an_owner_of_kilo_is_warned_of() -> None:
    assert parse_config('owner = "kilo"').warnings == (
        "owner kilo: Kilo writes chains of that prefix itself: stop it first",
    )
    assert parse_config('owner = "kilos"').warnings == ()


# --- where it is ---


def test_the_configuration_here_comes_before_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.toml"
    monkeypatch.setattr(room, "SYSTEM", str(system))
    monkeypatch.chdir(tmp_path)
    assert find_config() is None
    system.touch()
    assert find_config() == str(system)
    (tmp_path / "meshfw.toml").touch()
    assert find_config() == "meshfw.toml"
    assert find_config("other.toml") == "other.toml"
    assert room.NEAR == "meshfw.toml"


def test_the_system_s_configuration_is_in_etc() -> None:
    assert room.SYSTEM == "/etc/meshfw/meshfw.toml"


# --- mistakes ---


WRONG: list[tuple[str, str, str]] = [
    ("x = \n", "f.toml: not valid TOML", "line 1"),
    ('backend = "auto"\n[backend.nft]\n', "f.toml: not valid TOML", 'write backend.use = "..." in place of'),
    ("ownr = 'a'", "f.toml: ownr: unknown key (did you mean owner?)", "expected owner, backend, ipv6"),
    ("[agents]\nx = 1", "f.toml: agents: unknown key", "expected owner"),
    ("owner = 3", "f.toml: owner: 3 is a number", "expected a string"),
    ("owner = 'Mesh'", "f.toml: owner: 'Mesh' can't be an owner", "expected a lower-case letter"),
    ("owner = 'elevenchars'", "f.toml: owner: 'elevenchars' can't be an owner", "up to 9 more"),
    ("owner = 'a-b'", "f.toml: owner: 'a-b' can't be an owner", "lower-case"),
    ("owner = 'docker'", "f.toml: owner: 'docker' is a name of Docker", "expected a name of your own"),
    ("owner = 'kube'", "f.toml: owner: 'kube' is a name of kube-proxy", "expected a name of your own"),
    ("owner = 'filter'", "f.toml: owner: 'filter' is a name of iptables", "expected a name of your own"),
    ("backend = 7", "f.toml: backend: 7 is a number", "expected a backend's name, or a table"),
    ("backend = ''", "f.toml: backend: the name is empty", "expected auto, nft"),
    ("backend.isolated = true", "f.toml: backend.isolated: unknown key", "[backend.isolated] of options"),
    ("backend.use = true", "f.toml: backend.use: true is a boolean", "expected a string"),
    ("ipv6 = 'on'", "f.toml: ipv6: unknown ipv6 'on'", "expected auto, require or off"),
    ("ipv6 = false", "f.toml: ipv6: unknown ipv6 false", "expected auto, require or off"),
    ("plugins = 1", "f.toml: plugins: 1 is a number", "expected a list of strings"),
    ("plugins = ['a', 2]", "f.toml: plugins[2]: 2 is a number", "expected a string"),
    ("source = 'rules'", "f.toml: source: 'rules' is a string", "expected a table"),
    ("[[source]]\nipv4 = 'x'", "f.toml: source[1]: type is missing", '"rules", "iptables-save"'),
    ("chain = 7", "f.toml: chain: 7 is a number", "expected [[chain]] tables"),
]


@pytest.mark.parametrize(("text", "place", "expected"), WRONG, ids=[place for _, place, _ in WRONG])
def test_a_mistake_is_named_with_file_key_and_what_was_expected(text: str, place: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file="f.toml")
    assert str(caught.value).startswith(place)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "can't be read: No such file or directory; expected a readable TOML file"),
        (lambda path: path.mkdir(), "can't be read: Is a directory"),
        (lambda path: path.write_bytes(b"owner = '\xff'"), "byte 9 is not UTF-8; expected a TOML file"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "f.toml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(f"{path}: {reason}")


# --- the rules of all sources ---


def source_plugin(source: object) -> Plugins:
    """Plugins with one source ``thing``, whose factory gives that object or raises it."""

    def factory(declaration: Declaration) -> Any:
        if isinstance(source, Exception):
            raise source
        return source

    plugin = ModuleType("thing")
    offer = SourcePlugin(name="thing", factory=factory, summary="")
    plugin.meshfw_sources = hookimpl(lambda: [offer])  # type: ignore[attr-defined]  # a plugin is a module with hooks
    entry = SimpleNamespace(name="thing", load=lambda: plugin, dist=None)
    return Plugins(find=lambda: [entry])  # type: ignore[list-item]  # as much of an entry point as is used


class Given:
    """A source that says what it was given, or raises it."""

    name = "given"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.closed = 0

    def load(self) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def changes(self) -> None:
        return None

    def close(self) -> None:
        self.closed += 1


THING = 'owner = "x"\n[[source]]\ntype = "thing"\n'


def test_what_a_source_passes_over_is_told_with_its_place() -> None:
    given = Given(Ruleset(chains=(Chain(family=V4, table=Table.NAT, name="b", rules=(Rule(),)),)))
    told: list[str] = []
    wanted = {"plugins": source_plugin(given), "language": LANGUAGE}
    load_rules(parse_config(THING), **wanted, warnings=told)  # type: ignore[arg-type]  # both are what they should be
    assert told == []
    given.warnings = ("peer b is passed over", "so is peer c")  # type: ignore[attr-defined]  # a source may have them
    load_rules(parse_config(THING), **wanted, warnings=told)  # type: ignore[arg-type]  # as above
    assert told == ["source[1]: peer b is passed over", "source[1]: so is peer c"]


def test_the_rules_are_those_of_all_sources() -> None:
    given = Given(Ruleset(chains=(Chain(family=V4, table=Table.NAT, name="b"),)))
    config = parse_config(f'{THING}[[chain]]\nname = "a"\nfamilies = "ipv4"\nrules = ["-j ACCEPT"]\n')
    ruleset = load_rules(config, plugins=source_plugin(given), language=LANGUAGE)
    assert [chain.name for chain in ruleset.chains] == ["a", "b"]
    assert given.closed == 1


def test_no_rules_are_never_said_by_silence() -> None:
    with pytest.raises(ConfigError, match=r"f.toml: it declares no rules; expected \[\[chain\]\] tables"):
        load_rules(parse_config("", file="f.toml"), plugins=Plugins(find=list), language=LANGUAGE)


@pytest.mark.parametrize(
    "silent",
    [
        '[[chain]]\nname = "lonely"\n',
        '[[set]]\nname = "lonely"\n',
        '[[chain]]\nname = "a"\nattach = { hook = "input" }\n',
    ],
)
def test_sources_that_decide_nothing_are_refused(silent: str) -> None:
    with pytest.raises(ConfigError, match="everything of ours would go"):
        load_rules(parse_config(silent), plugins=Plugins(find=list), language=LANGUAGE)


def test_sources_that_contradict_each_other_are_both_named_with_the_file() -> None:
    given = Given(Ruleset(chains=(Chain(family=V4, table=Table.FILTER, name="a"),)))
    config = parse_config(f'{THING}[[chain]]\nname = "a"\n', file="f.toml")
    with pytest.raises(ConfigError) as caught:
        load_rules(config, plugins=source_plugin(given), language=LANGUAGE)
    assert str(caught.value).startswith(
        "f.toml: chain ipv4 filter a is declared in chain ([[chain]] tables) and in source[1] (given)"
    )


@pytest.mark.parametrize("answer", [OSError("disk"), None])
def test_a_source_that_breaks_is_its_plugin_s_error_and_is_closed(answer: object) -> None:
    given = Given(answer)
    with pytest.raises(PluginError, match="thing"):
        load_rules(parse_config(THING), plugins=source_plugin(given), language=LANGUAGE)
    assert given.closed == 1


def test_an_unknown_source_is_named_with_its_key() -> None:
    config = parse_config('[[source]]\ntype = "rulez"', file="f.toml")
    with pytest.raises(
        ConfigError, match=r"f.toml: source\[1\].type: there is no source 'rulez' \(did you mean rules\?\)"
    ):
        load_rules(config, plugins=Plugins(find=list), language=LANGUAGE)


# --- families ---


def dual(*, rules: bool = True, policy: Policy = Policy.RETURN) -> Ruleset:
    """A ruleset with one chain and one set in each family."""
    chains, sets, attachments = [], [], []
    for family in Family:
        chains.append(Chain(family=family, table=Table.FILTER, name="a", rules=(Rule(),) * 3 if rules else ()))
        sets.append(Set(family=family, name="s"))
        attachments.append(Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="a", policy=policy))
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


def test_a_host_with_both_families_gets_the_ruleset_itself() -> None:
    ruleset = dual()
    for ipv6 in (Ipv6.AUTO, Ipv6.REQUIRE):
        assert fit_families(ruleset, frozenset(Family), ipv6=ipv6) == (ruleset, ())
        assert fit_families(ruleset, frozenset(Family), ipv6=ipv6)[0] is ruleset


def test_ipv6_off_leaves_it_out_everywhere() -> None:
    for available in (frozenset(Family), frozenset({V4})):
        fitted, warnings = fit_families(dual(), available, ipv6=Ipv6.OFF)
        assert fitted.families == {V4}
        assert warnings == ()
        assert {item.family for item in fitted.attachments} == {V4}


def test_a_host_without_ipv6_is_reported_where_there_are_rules_for_it() -> None:
    fitted, warnings = fit_families(dual(), frozenset({V4}), ipv6=Ipv6.AUTO)
    assert fitted.families == {V4}
    assert warnings == ("this host or backend has no IPv6, and 3 rules are for it: they are left out",)


def test_a_host_without_ipv6_is_an_error_where_it_is_required() -> None:
    with pytest.raises(ConfigError, match="ipv6: this host or backend has no IPv6, and 3 rules are for it; expected a"):
        fit_families(dual(), frozenset({V4}), ipv6=Ipv6.REQUIRE)
    with pytest.raises(ConfigError, match="no IPv6"):
        fit_families(dual(rules=False, policy=Policy.DROP), frozenset({V4}), ipv6=Ipv6.REQUIRE)


@pytest.mark.parametrize("ipv6", [Ipv6.AUTO, Ipv6.REQUIRE])
def test_ipv6_without_rules_is_skipped_on_a_host_without_it(ipv6: Ipv6) -> None:
    fitted, warnings = fit_families(dual(rules=False), frozenset({V4}), ipv6=ipv6)
    assert fitted.families == {V4}
    assert warnings == ()


def test_ipv4_is_never_left_out() -> None:
    with pytest.raises(ConfigError, match="no IPv4"):
        fit_families(dual(), frozenset({V6}), ipv6=Ipv6.AUTO)
