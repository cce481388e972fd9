"""Laws of the command line: exit codes, one message for each mistake, the same data as text and as JSON."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshfw import Family, Site, __version__, builtin_extensions
from meshfw.backends.instance import only_writer
from meshfw.cli import INTERRUPTED, PIPE_CLOSED, main
from meshfw.cli.apply import SHOWN
from meshfw.cli.arguments import _VALUED, VERBS, _parsers, find_verb, parse
from meshfw.cli.output import warn
from meshfw.extensions.language import Language

if TYPE_CHECKING:
    from meshfw.testing.netns import Netns
from tests.said import Said

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """\
owner = "clitest"

[[chain]]
name = "input"
attach = { hook = "input" }
rules = [
  "-i lo -j ACCEPT",
  { ctstate = ["RELATED", "ESTABLISHED"], target = "ACCEPT" },
  { protocol = "tcp", dport = "@open", comment = "what [we] serve", target = "ACCEPT" },
  "-s 10.0.0.0/8 -j DROP",
]

[[set]]
name = "open"
type = "port"
elements = [22, "8000-8010"]
"""
BAD_RULE = '[[chain]]\nname = "a"\nrules = ["-s 10.0.0.0/33"]\n'


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, in which the test stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfw.config.SYSTEM", str(tmp_path / "none"))  # this host may have one
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line, called in this process."""

    def call(*argv: str) -> Said:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as exit_:  # argparse's way to end
            code = exit_.code if isinstance(exit_.code, int) else 0
        return Said(code, *capsys.readouterr())

    return call


def spawned(*argv: str, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "meshfw", *argv)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options)


# --- arguments ---


@pytest.mark.parametrize(
    "argv",
    [
        ("--json", "--backend", "memory", "--netns", "room", "-v", "--config", "f", "plan"),
        ("plan", "--json", "--backend", "memory", "--netns", "room", "-v", "--config", "f"),
        ("--json", "-v", "--config", "f", "plan", "--backend=memory", "--netns=room"),
    ],
)
def test_options_of_all_verbs_stand_before_or_behind_the_verb(argv: tuple[str, ...]) -> None:
    arguments = parse(argv)
    assert vars(arguments) == {
        "verb": "plan",
        "json": True,
        "backend": "memory",
        "netns": "room",
        "verbose": True,
        "config": "f",
        "transaction": False,
        "out": None,
    }  # fmt: skip - the values beside each other


def test_each_option_that_takes_a_word_is_known_before_the_parser_runs() -> None:
    parser, verbs = _parsers(tuple(VERBS))
    actions = [action for each in (parser, *verbs.values()) for action in each._actions if action.option_strings]
    assert {name for action in actions if action.nargs != 0 for name in action.option_strings} == _VALUED


def test_a_value_that_is_a_verb_s_name_is_no_verb() -> None:
    for option in _VALUED:
        for verb in VERBS:
            assert find_verb((option, verb, "plan")) == "plan"
            assert find_verb(("plan", option, verb)) == "plan"


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (("--config", "apply", "plan"), "config", "apply"),
        (("plan", "--netns", "check"), "netns", "check"),
        (("plan", "--out", "apply"), "out", "apply"),
        (("plan", "--out=clean"), "out", "clean"),
    ],
)
def test_files_and_namespaces_may_be_called_like_a_verb(argv: tuple[str, ...], name: str, value: str) -> None:
    arguments = parse(argv)
    assert (arguments.verb, getattr(arguments, name)) == ("plan", value)


def test_help_tells_verbs_and_exit_codes(cli: Any) -> None:
    said = cli("--help")
    assert said.code == 0
    assert all(f"    {verb}" in said.out for verb in VERBS)
    assert "0 nothing to do, 2 changes pending, 1 error" in said.out
    for verb in VERBS:
        told = cli(verb, "--help")
        assert told.code == 0
        assert "--config FILE" in told.out


def test_version_is_the_package_s(cli: Any) -> None:
    assert cli("--version").out == f"meshfw {__version__}\n"


@pytest.mark.parametrize(
    "argv", [(), ("pla",), ("plan", "--nosuch"), ("apply", "--lock-timeout", "nan"), ("show", "x")]
)
def test_wrong_usage_is_an_error_and_never_the_answer_changes_pending(cli: Any, argv: tuple[str, ...]) -> None:
    said = cli(*argv)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("usage: meshfw")
    assert "\nmeshfw: error: " in said.err


@pytest.mark.parametrize(
    ("argv", "usage", "message"),
    [
        ((), "meshfw [options] VERB ...", "which verb? plan, apply, "),
        (("pla",), "meshfw [options] VERB ...", "there is no verb 'pla' (did you mean plan?)"),
        (("--netns", "plan", "chekc"), "meshfw [options] VERB ...", "there is no verb 'chekc' (did you mean check?)"),
        (("plan", "--jsn"), "meshfw plan [options]", "there is no option --jsn (did you mean --json?)"),
        (("plan", "--trans"), "meshfw plan [options]", "there is no option --trans (did you mean --transaction?)"),
        (("show", "x"), "meshfw show [options]", "show takes no 'x'"),
        (("apply", "--lock-timeout"), "meshfw apply [options] [PLAN]", "--lock-timeout: expected one argument"),
        *(
            (
                ("apply", "--lock-timeout", text),
                "meshfw apply [options] [PLAN]",
                f"--lock-timeout: '{text}' is no time to wait",
            )
            for text in ("abc", "-1", "nan", "inf")
        ),
        *(
            (
                (*words, "apply"),
                "meshfw [options] VERB ...",
                "--lock-timeout stands behind the verb: meshfw apply --lock-timeout ...",
            )
            for words in (("--lock-timeout", "5"), ("--lock-timeout=5",), ("-v", "--lock-timeout", "check"))
        ),
        (("plan", "--config", ""), "meshfw plan [options]", "--config: it is empty, and names nothing"),
        (("--netns=", "plan"), "meshfw [options] VERB ...", "--netns: it is empty, and names nothing"),
        (("translate", "-f", ""), "meshfw translate [options] [RULE ...]", "-f/--file: it is empty, and names nothing"),
    ],
)
def test_a_wrong_command_line_gets_its_usage_and_one_message(
    cli: Any, argv: tuple[str, ...], usage: str, message: str
) -> None:
    lines = cli(*argv).err.splitlines()
    assert lines[0] == f"usage: {usage}"
    assert lines[1].startswith(f"meshfw: error: {message}")
    assert lines[1].endswith("--help tells more")
    assert len(lines) == 2
    error = cli("--json", *argv).data["error"]
    assert (error["type"], error["usage"]) == ("UsageError", f"usage: {usage}")
    assert f"meshfw: error: {error['message']}" == lines[1]


def test_demo_is_imported_when_it_is_asked_for(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Demo:
        @staticmethod
        def run(arguments: Any) -> int:
            seen.append(arguments.verb)
            return 0

    monkeypatch.setitem(sys.modules, "meshfw.cli.demo", Demo)
    assert cli("demo").code == 0
    assert seen == ["demo"]


# --- what goes wrong ---


def test_an_interrupt_ends_with_its_own_code(cli: Any, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meshfw.cli.plan.Workshop", interrupted)
    said = cli("plan")
    assert (said.code, said.out, said.err) == (INTERRUPTED, "", "meshfw: interrupted\n")


def test_a_closed_pipe_ends_quietly(house: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "meshfw", "show", "--wanted")
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (PIPE_CLOSED, b"")


EARLY = """\
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
from meshfw.cli import main
sys.meta_path.insert(0, Interrupter())
sys.exit(main(["plan", "--backend", "memory"]))
"""


@pytest.mark.parametrize(
    "module",
    ["meshfw.cli.streams", "meshfw.cli.arguments", "argparse", "meshfw.cli.plan", "msgspec", "meshfw.plugins"],
)
def test_an_interrupt_during_the_imports_ends_like_any_other(house: Path, module: str) -> None:
    command = (sys.executable, "-c", EARLY, module)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "meshfw: interrupted\n")


def test_the_entry_point_imports_nothing_before_it_can_be_interrupted() -> None:
    code = "import sys, meshfw; before = set(sys.modules); import meshfw.cli; print(*set(sys.modules) - before)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run((sys.executable, "-c", code), env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "meshfw.cli\n"


def redirected(arguments: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """A command whose streams a shell closed or redirected, which is where such commands come from."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    script = f'"$PYTHON" -m meshfw {arguments} {redirection}'
    return subprocess.run(("sh", "-c", script), env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("apply --backend memory", 0),
        ("apply --backend memory --json", 0),
        ("plan --backend memory", 2),
        ("plan --backend memory --transaction", 2),
        ("show --wanted", 0),
        ("translate -j ACCEPT", 0),
        ("--help", 0),
        ("plan --nosuch", 1),
        ("plan --nosuch --json", 1),
    ],
)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_are_like_dev_null(house: Path, arguments: str, code: int, closed: str) -> None:
    done = redirected(arguments, closed)
    told = redirected(arguments, "")
    out = "" if ">&-" in closed.replace("2>&-", "") else told.stdout
    err = "" if "2>" in closed else told.stderr
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_file_opened_later_does_not_pass_for_a_closed_stream(house: Path) -> None:
    code = (
        "import os, sys\nfrom meshfw.cli.streams import guarded_streams\n"
        "with guarded_streams(): opened = os.open('/dev/null', os.O_RDONLY)\nsys.exit(opened)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "CODE": code}
    done = subprocess.run(("sh", "-c", '"$PYTHON" -c "$CODE" <&- >&- 2>&-'), env=environment, check=False)
    assert done.returncode > 2


def test_closed_standard_input_holds_nothing(house: Path) -> None:
    done = redirected("translate", "<&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("meshfw: error: standard input: there is nothing to translate")


@pytest.mark.parametrize("arguments", ["apply", "apply --json", "clean", "plan", "plan --json", "show --wanted"])
def test_standard_output_that_can_not_be_written_is_one_message(house: Path, arguments: str) -> None:
    done = redirected(f"{arguments} --backend memory", ">/dev/full")
    verb = arguments.split(maxsplit=1)[0]
    stands = f"; what {verb} did stands" if verb in ("apply", "clean") else ""
    message = f"meshfw: error: standard output can't be written: No space left on device{stands}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_an_error_whose_json_can_not_be_written_is_told_first(house: Path) -> None:
    (house / "meshfw.toml").write_text("owner = 7", encoding="utf-8")
    first, second = redirected("apply --json", ">/dev/full").stderr.splitlines()
    assert first.startswith("meshfw: error: meshfw.toml: owner: 7 is a number")
    assert second == "meshfw: error: standard output can't be written: No space left on device"


@pytest.mark.kernel
def test_what_was_applied_without_an_answer_stands(cli: Any, house: Path, netns: Netns) -> None:
    for number, redirection in enumerate((">&-", ">/dev/full", "| true")):
        cli("clean", "--netns", netns.path)
        assert redirected(f"apply --netns {netns.path}", redirection).returncode == (0, 1, 0)[number]
        assert cli("check", "--netns", netns.path).code == 0


def test_a_closed_pipe_hides_no_error(house: Path) -> None:
    (house / "meshfw.toml").write_text("owner = 7", encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "meshfw", "apply", "--json")
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr.startswith(b"meshfw: error: meshfw.toml: owner: 7 is a number")
    assert done.stderr.count(b"\n") == 1


def test_a_defect_is_one_message_and_its_traceback_waits_for_verbose(
    cli: Any, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*given: object, **named: object) -> None:
        raise ZeroDivisionError("how so")

    monkeypatch.setattr("meshfw.cli.plan.Workshop", defective)
    said = cli("plan")
    message = "meshfw: error: ZeroDivisionError: how so (a defect of meshfw; -v shows where it is)\n"
    assert (said.code, said.out, said.err) == (1, "", message)
    loud = cli("plan", "-v")
    assert loud.err.startswith("Traceback")
    assert loud.err.endswith(message)


MISTAKES: list[tuple[str | None, str]] = [
    (None, "there is no configuration; expected meshfw.toml here, /etc/meshfw/meshfw.toml, or --config FILE"),
    ("", "meshfw.toml: it declares no rules; expected [[chain]] tables"),
    ("x =\n", "meshfw.toml: not valid TOML"),
    ("ownr = 'a'\n", "meshfw.toml: ownr: unknown key (did you mean owner?)"),
    ("owner = 7\n", "meshfw.toml: owner: 7 is a number; expected a string"),
    (BAD_RULE, "meshfw.toml: chain[1].rules[1], column 4: '10.0.0.0/33': prefix length 33 is more than 32"),
    (
        '[[chain]]\nname = "a"\nrules = ["-j MASQUERADE"]\n',
        "meshfw.toml: chain[1].rules[1]: MASQUERADE is allowed in table nat only, not in filter",
    ),
    ('[[chain]]\nname = "a"\nrules = ["-j b"]\n', "meshfw.toml: chain[1].rules[1]: jump to b: there is no such chain"),
    (f'[[chain]]\nname = "{"x" * 129}"\n', "meshfw.toml: chain[1].name: "),
    ('[[source]]\ntype = "iptables-save"\nipv4 = "nope"\n', "meshfw.toml: source[1].ipv4: nope: No such file"),
    ('[[source]]\ntype = "nope"\n', "meshfw.toml: source[1].type: there is no source 'nope'"),
    (f'backend = "nfft"\n{CONFIG}', "meshfw.toml: backend: there is no backend 'nfft' (did you mean nft?)"),
    (f"backend.ntf.isolated = true\n{CONFIG}", "meshfw.toml: backend.ntf: there is no backend 'ntf'"),
    (f'plugins = ["nope"]\n{CONFIG}', "meshfw.toml: plugins: no plugin 'nope' is installed"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
@pytest.mark.parametrize("verb", ["plan", "apply", "check"])
def test_each_mistake_is_one_message_with_its_place(
    cli: Any, house: Path, verb: str, text: str | None, message: str
) -> None:
    if text is None:
        (house / "meshfw.toml").unlink()
    else:
        (house / "meshfw.toml").write_text(text, encoding="utf-8")
    said = cli(verb)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"meshfw: error: {message}")
    assert said.err.count("meshfw: ") == 1


def test_a_named_file_that_is_not_there_says_what_to_do(cli: Any, house: Path) -> None:
    said = cli("plan", "--config", "nope.toml")
    remedy = "expected a readable TOML file; --config FILE names another"
    assert said.err == f"meshfw: error: nope.toml: can't be read: No such file or directory; {remedy}\n"


def test_errors_are_data_as_well(cli: Any, house: Path) -> None:
    (house / "meshfw.toml").write_text(BAD_RULE, encoding="utf-8")
    said = cli("plan", "--json")
    error = said.data["error"]
    assert (said.code, error["type"], error["column"]) == (1, "ParseError", 4)
    assert said.err == f"meshfw: error: {error['message']}\n"
    (house / "meshfw.toml").write_text("owner = 7", encoding="utf-8")
    error = cli("--json", "apply").data["error"]
    assert (error["file"], error["key"], error["expected"]) == ("meshfw.toml", "owner", "a string")


def test_a_backend_named_on_the_command_line_is_blamed_there(cli: Any, house: Path) -> None:
    assert cli("plan", "--backend", "memry").err.startswith(
        "meshfw: error: --backend: there is no backend 'memry' (did you mean memory?)"
    )


def test_a_namespace_that_is_not_there_is_named_with_a_remedy(cli: Any, house: Path) -> None:
    for verb in ("plan", "apply", "show", "clean"):
        said = cli(verb, "--netns", "no-such-room", "--backend", "nft")
        assert said.code == 1
        assert said.err == (
            "meshfw: error: there is no network namespace /run/netns/no-such-room "
            "('ip netns list' shows the names that exist)\n"
        )


def test_a_missing_library_is_named_with_a_remedy(cli: Any, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    load = ctypes.CDLL

    def without(name: str | None, *given: Any, **named: Any) -> ctypes.CDLL:
        if name == "libnftables.so.1":
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return load(name, *given, **named)

    monkeypatch.setattr(ctypes, "CDLL", without)
    monkeypatch.setattr("meshfw.kernel.command.find", lambda tool: None)
    reason = (
        "libnftables.so.1 can't be loaded: libnftables.so.1: cannot open shared object file: No such file or directory"
    )
    remedy = "apt-get install libnftables1"
    forced = cli("plan", "--backend", "nft")
    assert (forced.code, forced.err) == (1, f"meshfw: error: {reason} ({remedy})\n")
    chosen = cli("apply")
    assert (chosen.code, chosen.out) == (1, "")
    assert chosen.err == f"meshfw: error: auto: no backend can be used here\n  nft: {reason} ({remedy})\n" + "".join(
        f"  iptables-{variant}: iptables-{variant}-restore and ip6tables-{variant}-restore are not installed "
        "(apt-get install iptables)\n"
        for variant in ("nft", "legacy")
    )
    listed = cli("backends")
    assert listed.code == 0
    assert f"can't be used here: {reason}" in listed.out
    assert "auto takes none" in listed.out


@pytest.mark.kernel
@pytest.mark.parametrize("verb", ["plan", "apply", "show", "clean"])
@pytest.mark.parametrize("backend", ["auto", "nft"])
def test_a_missing_capability_is_named_with_a_remedy(house: Path, requires: Any, verb: str, backend: str) -> None:
    requires("unshare", "setpriv")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    dropped = ("unshare", "-n", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    command = (*dropped, sys.executable, "-m", "meshfw", verb, "--backend", backend)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("meshfw: error: ") == 1
    assert "Operation not permitted (run as root, or with CAP_NET_ADMIN in the user namespace" in done.stderr


# --- the memory backend: what needs no kernel ---


def test_plan_and_apply_say_what_they_change(cli: Any, house: Path) -> None:
    planned = cli("plan", "--backend", "memory")
    applied = cli("apply", "--backend", "memory")
    assert (planned.code, applied.code) == (2, 0)
    lines = planned.out.splitlines()
    assert (
        '+ ipv6 filter input 3: -p tcp -m tcp --dport @open -m comment --comment "what [we] serve" -j ACCEPT' in lines
    )
    assert "+ ipv4 filter input 4: -s 10.0.0.0/8 -j DROP" in lines
    assert applied.out.splitlines() == [*lines, f"{len(lines)} changes in 1 transaction (memory)"]


def test_json_holds_what_the_text_says(cli: Any, house: Path) -> None:
    text = cli("plan", "--backend", "memory").out.splitlines()
    planned = cli("plan", "--backend", "memory", "--json")
    assert (planned.code, planned.data["pending"], planned.data["backend"]) == (2, True, "memory")
    symbols = {"add": "+", "change": "~", "remove": "-"}
    assert [line.split(" ")[0] for line in text] == [symbols[change["action"]] for change in planned.data["changes"]]
    applied = cli("apply", "--backend", "memory", "--json").data
    assert applied["changes"] == planned.data["changes"]
    assert (applied["outcome"], applied["commits"], applied["warnings"]) == ("changed", 1, [])
    assert cli("check", "--backend", "memory", "--json").data["drift"] is True


def test_a_transaction_is_printed_as_it_would_run_and_nothing_else(cli: Any, house: Path) -> None:
    said = cli("plan", "--backend", "memory", "--transaction")
    steps = cli("plan", "--backend", "memory", "--transaction", "--json").data["transaction"]
    assert steps[0]["command"] == ["memory-restore", "ipv4"]
    assert said.out == "".join(f"# {' '.join(step['command'])}\n{step['input']}" for step in steps)
    assert said.code == 2


@pytest.mark.kernel
def test_a_printed_transaction_can_be_piped_into_nft(cli: Any, house: Path, netns: Netns, requires: Any) -> None:
    requires("nft")
    printed = cli("plan", "--transaction", "--netns", netns.path).out
    path = shutil.which("nft") or "nft"
    with netns.entered():
        subprocess.run((path, "-c", "-f", "-"), input=printed, text=True, check=True)
        assert cli("check", "--netns", netns.path).code == 2  # it was only checked
        subprocess.run((path, "-f", "-"), input=printed, text=True, check=True)
    assert cli("check", "--netns", netns.path).code == 0
    again = cli("plan", "--transaction", "--netns", netns.path)
    assert (again.code, again.out, again.err) == (0, "", "nothing to do (nft)\n")


def test_apply_shows_some_changes_and_plan_all(cli: Any, house: Path) -> None:
    rules = ", ".join(f'"-s 10.0.0.{number} -j DROP"' for number in range(100))
    (house / "meshfw.toml").write_text(f'[[chain]]\nname = "a"\nrules = [{rules}]\n', encoding="utf-8")
    planned = cli("plan", "--backend", "memory").out.splitlines()
    assert len(planned) == 101 + 1  # the rules fit IPv4 only, but the chain is there in both families
    applied = cli("apply", "--backend", "memory").out.splitlines()
    assert applied == [
        *planned[:SHOWN],
        f"... {len(planned) - SHOWN} more (-v shows all)",
        f"{len(planned)} changes in 1 transaction (memory)",
    ]
    assert cli("apply", "--backend", "memory", "-v").out.splitlines()[: len(planned)] == planned
    assert len(cli("apply", "--backend", "memory", "--json").data["changes"]) == len(planned)


def test_a_warning_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    warn(["a", "ipv4 filter b: c", "a", "ipv6 filter d: e", "ipv6 filter b: c", "ipv4 filter f: g"])
    assert capsys.readouterr().err.splitlines() == [
        "meshfw: warning: a",
        "meshfw: warning: ipv4 and ipv6 filter b: c",
        "meshfw: warning: ipv6 filter d: e",
        "meshfw: warning: ipv4 filter f: g",
    ]


@pytest.mark.kernel
def test_plan_tells_what_apply_would_warn_of(cli: Any, house: Path, netns: Netns) -> None:
    def declare(*rules: str) -> None:
        text = f'owner = "clitest"\n[[chain]]\nname = "a"\nfamilies = "ipv4"\nrules = {json.dumps(rules)}\n'
        (house / "meshfw.toml").write_text(text, encoding="utf-8")

    limited = [f"-s 10.0.0.{number} -m limit --limit 5/min -j ACCEPT" for number in range(3)]
    room = ("--netns", netns.path)
    declare(*limited)
    assert cli("plan", *room).err == ""
    assert cli("apply", *room).code == 0
    declare(limited[1], limited[0], limited[2])
    planned = cli("plan", *room)
    assert "is written again, and its limit starts anew" in planned.err
    assert cli("plan", "--transaction", *room).err == planned.err
    (warning,) = cli("plan", "--json", *room).data["warnings"]
    assert planned.err == f"meshfw: warning: {warning}\n"
    assert cli("apply", *room).err == planned.err


WICKED = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202ex"


def test_nothing_that_commands_a_terminal_is_printed_for_people(cli: Any, house: Path) -> None:
    comment = json.dumps(WICKED)  # TOML has the escapes of JSON
    (house / "meshfw.toml").write_text(
        f'[[chain]]\nname = "a"\nrules = [{{ comment = {comment}, target = "ACCEPT" }}]\n', encoding="utf-8"
    )
    room = ("--backend", "memory")
    for argv in (("plan", *room), ("apply", *room), ("check", *room), ("show", "--wanted")):
        said = cli(*argv)
        assert "\\x1b]0;mine\\x07\\x1b[2J\\x9b31m\\u202ex" in said.out
    for argv in (("plan", *room), ("apply", *room), ("check", *room), *((("show", "--wanted", *nft)) for nft in NFT)):
        said = cli(*argv)
        assert not set(said.out + said.err) & set(WICKED) - set("]0;mine[2J31mx")
    shown = cli("plan", "--json", *room).data["changes"]
    assert any(WICKED in change.get("text", "") for change in shown)


NFT = ((), ("--nft",))


def test_messages_hold_nothing_that_commands_a_terminal(cli: Any, house: Path) -> None:
    said = cli("translate", "-p tcp --dprt \x1b[31m22")
    assert "\x1b" not in said.err
    assert "\\x1b[31m22" in said.err
    (house / "meshfw.toml").write_text(f"owner = {json.dumps(WICKED)}", encoding="utf-8")
    assert "\x1b" not in cli("plan").err


def test_wanted_rules_are_shown_without_a_kernel(cli: Any, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfw.plugins.Plugins.open_backend", None)
    shown = cli("show", "--wanted").out
    assert shown.startswith("# ipv4\n# set open: port { 22, 8000-8010 }\n*filter\n:input/first -\n:input -\n")
    assert "-A input -s 10.0.0.0/8 -j DROP\nCOMMIT\n# ipv6\n" in shown
    nft = cli("show", "--wanted", "--nft").out
    assert "table ip6 clitest {\n\tset set-open {\n\t\ttype inet_service\n" in nft
    assert "\t\tip saddr 10.0.0.0/8 counter drop\n" in nft
    data = cli("show", "--wanted", "--json").data
    assert data["owner"] == "clitest"
    (chain,) = data["families"]["ipv4"]["chains"]
    assert [rule["rule"] for rule in chain["rules"]][-1] == "-s 10.0.0.0/8 -j DROP"
    assert data["families"]["ipv6"]["dispatchers"][0]["policy"] == ["return"]


def test_rules_that_nft_can_not_say_are_all_named(cli: Any, house: Path) -> None:
    text = '[[chain]]\nname = "a"\nfamilies = "ipv4"\nrules = ["-m x --y 1", "-j ACCEPT", "-j FROB --set 9"]\n'
    (house / "meshfw.toml").write_text(text, encoding="utf-8")
    said = cli("show", "--wanted", "--nft")
    assert said.code == 1
    assert said.err == (
        "meshfw: error: backend nft refuses this ruleset:\n"
        "  ipv4 filter a, rule 1 (-m x --y 1): match x has no typed value\n"
        "  ipv4 filter a, rule 3 (-j FROB --set 9): target FROB has no typed value\n"
    )


def test_cleaning_up_needs_no_readable_rules_and_no_configuration(cli: Any, house: Path) -> None:
    (house / "meshfw.toml").write_text(f"{BAD_RULE}[[source]]\ntype = 'nope'\n", encoding="utf-8")
    assert cli("clean", "--backend", "memory").out == "nothing to do (memory)\n"
    (house / "meshfw.toml").unlink()
    assert cli("clean", "--backend", "memory").code == 0


def test_a_host_without_ipv6_is_told(cli: Any, house: Path, monkeypatch: pytest.MonkeyPatch, netns: Netns) -> None:
    monkeypatch.setattr("meshfw.backends.instance.ipv6_available", lambda: False)
    said = cli("plan", "--netns", netns.path, "--backend", "nft")
    warning = "meshfw: warning: this host or backend has no IPv6, and 3 rules are for it: they are left out\n"
    assert (said.code, said.err) == (2, warning)
    assert "ipv6" not in said.out
    (house / "meshfw.toml").write_text(f'ipv6 = "require"\n{CONFIG}', encoding="utf-8")
    for verb in ("plan", "apply", "check"):
        said = cli(verb, "--netns", netns.path, "--backend", "nft")
        assert (said.code, said.out) == (1, "")
        assert said.err == (
            "meshfw: error: meshfw.toml: ipv6: this host or backend has no IPv6, and 3 rules are for it; "
            'expected a kernel with IPv6, or ipv6 = "auto" or "off"\n'
        )
    (house / "meshfw.toml").write_text(f'ipv6 = "off"\n{CONFIG}', encoding="utf-8")
    assert cli("plan", "--netns", netns.path, "--backend", "nft").err == ""


def test_a_second_writer_waits_and_then_says_who_holds_the_lock(cli: Any, house: Path, netns: Netns) -> None:
    place = Site(owner="clitest", language=Language.of(builtin_extensions()), netns=netns.path)
    with only_writer(place, timeout=0):
        for verb in ("apply", "clean"):
            said = cli(verb, "--netns", netns.path, "--lock-timeout", "0.05", "--backend", "nft")
            assert said.code == 1
            assert f"is held by process {os.getpid()} for more than 0.05 s" in said.err
        assert cli("plan", "--netns", netns.path, "--backend", "nft").code == 2  # a reader needs no lock


# --- terminals ---


def test_text_has_colours_on_a_terminal_only(house: Path) -> None:
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "40"}
    environment = {name: value for name, value in environment.items() if name not in ("NO_COLOR", "CI")}
    command = (sys.executable, "-m", "meshfw", "plan", "--backend", "memory")
    with subprocess.Popen(command, env=environment, stdout=follower, stderr=subprocess.PIPE) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode == 2
    assert b'\x1b[32m+ ipv6 filter input 3: -p tcp -m tcp --dport @open -m comment --comment "what [we] serve"' in shown
    plain = spawned("plan", "--backend", "memory", cwd=house)
    assert "\x1b" not in plain.stdout
    assert "what [we] serve" in plain.stdout


# --- translation ---


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (("-p", "tcp", "--dport", "22", "-j", "ACCEPT"), "tcp dport 22 counter accept"),
        (("-p tcp --dport 22 -j ACCEPT",), "tcp dport 22 counter accept"),
        (("--", "-m", "comment", "--comment", "a b"), 'counter comment "a b"'),
        (("-s fd00::/8 -j DROP",), "ip6 saddr fd00::/8 counter drop"),
        (("-p ipv6-icmp --icmpv6-type 128",), "icmpv6 type echo-request counter"),
        (("-6", "-j REJECT"), "counter reject"),
        (("--to", "iptables", "-p 6 -s 10.0.0.7"), "-s 10.0.0.7/32 -p tcp"),
        (("--to=iptables", "iptables -A a -p 6"), "-A a -p tcp"),
        (("iptables -t nat -A PREROUTING -j ACCEPT",), "add rule ip nat PREROUTING counter accept"),
        (("ip6tables -A a",), "add rule ip6 filter a counter"),
        (("--table", "raw", "--chain", "b", "-i lo"), 'add rule ip raw b iifname "lo" counter'),
        (("-A", "INPUT", "-p", "tcp"), "add rule ip filter INPUT meta l4proto 6 counter"),
        (("-I", "INPUT", "-p", "tcp"), "insert rule ip filter INPUT meta l4proto 6 counter"),
        (("-I", "reject", "-j", "a b"), "insert rule ip filter chain.reject counter jump a.20b"),
        (("-t", "nat", "-A", "PREROUTING", "-j", "ACCEPT"), "add rule ip nat PREROUTING counter accept"),
        (("iptables", "-A", "a", "-j", "ACCEPT"), "add rule ip filter a counter accept"),
        (("--to", "iptables", "ip6tables", "-t", "nat", "-A", "a", "-p", "6"), "-A a -p tcp"),
    ],
)
def test_a_rule_is_translated(cli: Any, house: Path, argv: tuple[str, ...], out: str) -> None:
    said = cli("translate", *argv)
    assert (said.code, "error" in said.err) == (0, False)
    assert said.out.strip() == out.strip()


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("-6", "-s 10.0.0.1"), "column 4: 10.0.0.1 is an ipv4 address in an ipv6 rule"),
        (("-p tcp --dprt 22",), "column 8: unknown option --dprt"),
        (("-m nosuch --x 1",), "nft has no way to say this: match nosuch has no typed value"),
        (("",), "there is nothing to translate; expected a rule or a dump"),
        (("-f", "nope"), "nope: No such file or directory"),
        (('-m comment --comment "a',), "column 22: the quote is never closed"),
        (("-p", "tcp", "-A", "INPUT"), "-A belongs to a whole command line; expected the rule alone: what follows -A"),
        (("iptables", "-D", "INPUT", "1"), "-D belongs to a whole command line; expected the rule alone"),
        (("-f", "nope", "-j", "ACCEPT"), "'-j' comes beside a file; expected a rule or -f FILE, not both"),
        (("-m", "comment", "--comment", "a\udcff"), "'a\\udcff' is not Unicode text"),
    ],
)
def test_what_can_not_be_translated_is_one_message(cli: Any, house: Path, argv: tuple[str, ...], error: str) -> None:
    said = cli("translate", *argv)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"meshfw: error: {error}")


@pytest.mark.parametrize("way", ["file", "input"])
def test_what_is_no_text_is_named_with_its_place(house: Path, way: str) -> None:
    (house / "binary").write_bytes(b"-j ACCEPT\n\x7fELF\xd0\0")
    done = redirected("translate", "-f binary" if way == "file" else "<binary")
    name = "binary" if way == "file" else "standard input"
    message = f"meshfw: error: {name}, line 2: byte 0xd0 is not UTF-8; expected text: rules or a dump\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_arguments_that_are_no_text_are_refused_as_json_too(cli: Any, house: Path) -> None:
    error = cli("translate", "--json", "-m", "comment", "--comment", "a\udcff").data["error"]
    assert error["message"] == "'a\\udcff' is not Unicode text"
    error = cli("plan", "--json", "--config", "a\udcff").data["error"]
    assert error["file"] == "a\\udcff"


DUMP = "*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n-A INPUT -p 6 -j a\n-A a -s fd00::1\nCOMMIT\n"


@pytest.mark.parametrize("to", ["nft", "iptables"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("script", ""),
        ("script", "#!/bin/sh\n"),
        ("script", "echo hi\n"),
        ("dump", ""),
        ("dump", "# Generated by nobody\n"),
        ("nft", '{"nftables":[]}'),
        ("nft", '{"nftables":[{"metainfo":{"version":"1.0.6"}}]}'),
        ("rules", "\n"),
    ],
)
def test_what_holds_no_rules_is_a_mistake_in_any_language(cli: Any, house: Path, kind: str, text: str, to: str) -> None:
    (house / "empty").write_text(text)
    said = cli("translate", "-f", "empty", "--from", kind, "--to", to)
    assert (said.code, said.out) == (1, "")
    assert said.err == "meshfw: error: empty: there is nothing to translate; expected a rule or a dump\n"


def test_a_dump_is_translated_whole(cli: Any, house: Path) -> None:
    (house / "dump").write_text(f"# Generated by ip6tables-save\n{DUMP}", encoding="utf-8")
    said = cli("translate", "-f", "dump")
    assert said.code == 0, said.err
    assert said.out.startswith(
        "table ip6 filter {\n\tchain INPUT {\n\t\ttype filter hook input priority 0; policy drop;"
    )
    assert "\t\tip6 saddr fd00::1 counter\n" in said.out
    canonical = cli("translate", "-f", "dump", "--to", "iptables").out
    assert canonical == DUMP.replace("-p 6", "-p tcp").replace("fd00::1", "fd00::1/128")
    assert cli("translate", "-f", "dump", "--json").data == {"text": said.out, "warnings": []}


def test_rules_are_read_from_standard_input(house: Path) -> None:
    text = "# two rules\n-s 10.0.0.0/8 -j DROP\n\n-s fd00::/8 -j DROP\n"
    done = spawned("translate", "-", input=text, cwd=house)
    assert done.stdout == "ip saddr 10.0.0.0/8 counter drop\nip6 saddr fd00::/8 counter drop\n"
    listed = json.loads(spawned("translate", "--json", input=text, cwd=house).stdout)["rules"]
    assert [rule["family"] for rule in listed] == ["ipv4", "ipv6"]
    wrong = spawned("translate", input=text + "-s x\n", cwd=house)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("meshfw: error: standard input, line 5, column 4: host names are not looked up: 'x'")


# --- a kernel ---


@pytest.fixture
def nft(netns: Netns, requires: Any) -> Any:
    """The ruleset of the test's own namespace as nft(8) lists it, or what nft says to other arguments."""
    requires("nft")
    path = shutil.which("nft") or "nft"

    def run(*arguments: str) -> str:
        with netns.entered():
            done = subprocess.run(
                (path, *(arguments or ("list", "ruleset"))), capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.kernel
def test_the_round_of_all_verbs_on_a_kernel(cli: Any, house: Path, netns: Netns, nft: Any) -> None:
    nft("add table ip foreign; add chain ip foreign keep; add rule ip foreign keep counter accept")
    before = nft()
    room = ("--netns", netns.path)
    assert cli("plan", *room).code == 2
    assert nft() == before
    applied = cli("apply", *room)
    assert (applied.code, applied.err) == (0, "")
    assert applied.out.endswith("in 1 transaction (nft)\n")
    assert cli("plan", *room).out == "nothing to do (nft)\n"
    assert cli("apply", *room).out == "nothing to do (nft)\n"
    assert cli("check", *room).out == "in place (nft)\n"
    held, wanted = cli("show", *room).out, cli("show", "--wanted").out
    assert held == wanted
    nft("flush chain ip clitest filter-input; add rule ip clitest filter-input counter drop")
    drifted = cli("check", *room)
    assert drifted.code == 2
    assert drifted.out.startswith("drift: the kernel is 4 changes away from the declared rules (nft)\n")
    assert "~ ipv4 filter input 1: -j DROP => -i lo -j ACCEPT\n" in drifted.out
    assert cli("apply", *room).code == 0
    assert cli("check", *room).code == 0
    assert cli("clean", *room).code == 0
    assert nft() == before
    assert cli("show", *room).err == "owner clitest has nothing in the kernel\n"


@pytest.mark.kernel
def test_show_lists_nft_text_with_counters_and_what_is_foreign(cli: Any, house: Path, netns: Netns, nft: Any) -> None:
    room = ("--netns", netns.path)
    cli("apply", *room)
    nft("insert rule ip clitest filter-input counter packets 7 bytes 420 accept")
    nft("insert rule ip clitest filter-input ip ttl 3 drop")
    text = cli("show", *room).out
    assert "# in input, not a rule of meshfw: " in text
    assert "[7:420] -A input -j ACCEPT\n" in text
    listed = cli("show", "--nft", *room).out
    assert "\t\tcounter packets 7 bytes 420 accept\n" in listed
    rules = cli("show", "--json", *room).data["families"]["ipv4"]["chains"][0]["rules"]
    assert (rules[0]["rule"], rules[1]["packets"]) == (None, 7)


@pytest.mark.kernel
@pytest.mark.parametrize("text", [text for text, _ in MISTAKES if text is not None])
def test_no_mistake_touches_the_kernel(cli: Any, house: Path, netns: Netns, nft: Any, text: str) -> None:
    assert cli("apply", "--netns", netns.path).code == 0
    before = nft()
    (house / "meshfw.toml").write_text(text, encoding="utf-8")
    for verb in ("plan", "apply", "check"):
        assert cli(verb, "--netns", netns.path).code == 1
    assert nft() == before


@pytest.mark.kernel
def test_a_dropping_policy_of_others_is_warned_of(cli: Any, house: Path, netns: Netns, nft: Any) -> None:
    nft("add table ip other; add chain ip other in { type filter hook input priority 0; policy drop; }")
    for verb in ("plan", "apply"):
        said = cli(verb, "--netns", netns.path)
        assert said.err.startswith("meshfw: warning: attachment of input to ipv4 filter input/first: the policy of ")
        assert "ip other in is drop" in said.err
    assert "is drop" in cli("plan", "--json", "--netns", netns.path).data["warnings"][0]


@pytest.mark.kernel
def test_rules_that_the_backend_refuses_touch_no_kernel(cli: Any, house: Path, netns: Netns, nft: Any) -> None:
    assert cli("apply", "--netns", netns.path).code == 0
    before = nft()
    (house / "meshfw.toml").write_text(
        CONFIG.replace('"-i lo -j ACCEPT"', '"-m string --algo bm --string x"'), encoding="utf-8"
    )
    said = cli("apply", "--netns", netns.path)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("meshfw: error: backend nft refuses this ruleset:\n  ipv4 filter input, rule 1 ")
    assert nft() == before


@pytest.mark.kernel
def test_the_printed_transaction_is_what_nft_would_run(cli: Any, house: Path, netns: Netns, nft: Any) -> None:
    room = ("--netns", netns.path)
    steps = cli("plan", "--transaction", "--json", *room).data["transaction"]
    with netns.entered():
        for step in steps:
            subprocess.run(step["command"], input=step["input"], text=True, check=True)
    assert cli("check", *room).code == 0


@pytest.mark.kernel
def test_backends_explain_what_auto_takes(cli: Any, house: Path, netns: Netns, requires: Any) -> None:
    requires("iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore")
    said = cli("backends", "--netns", netns.path)
    assert (said.code, said.err) == (0, "")
    assert "* nft              meshfw" in said.out
    assert said.out.endswith("auto takes nft: the first in rank that can be used here\n")
    data = cli("backends", "--json", "--backend", "memory", "--netns", netns.path).data
    assert (data["auto"]["name"], data["configured"]) == ("nft", "memory")
    names = ("nft", "iptables-nft", "iptables-legacy", "memory")
    own = [item for item in data["backends"] if item["distribution"] == "meshfw"]  # the rest happens to be installed
    assert {item["name"]: item["reason"] for item in own} == dict.fromkeys(names)


def test_backends_name_the_file_of_a_wrong_configuration(cli: Any, house: Path) -> None:
    (house / "meshfw.toml").write_text('plugins = ["nope"]', encoding="utf-8")
    assert cli("backends").err.startswith("meshfw: error: meshfw.toml: plugins: no plugin 'nope' is installed")


@pytest.mark.kernel
def test_a_process_of_its_own_does_the_same(house: Path, netns: Netns) -> None:
    done = spawned("apply", "--netns", netns.path, cwd=house)
    assert (done.returncode, done.stderr) == (0, "")
    again = spawned("check", "--netns", netns.path, cwd=house)
    assert (again.returncode, again.stdout) == (0, "in place (nft)\n")


def test_only_a_family_that_is_known_is_a_family() -> None:
    assert parse(["translate", "-6", "-j X"]).family == Family.IPV6.value


def test_the_help_tells_the_exit_codes_of_a_trial_and_of_a_change_left_half_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    codes = " ".join(capsys.readouterr().out.partition("exit codes:")[2].split())
    assert "confirm 0 kept, or undone with --undo, 1 nothing is on trial" in codes
    assert "1 undone: not confirmed in time, or n" in codes
    assert "any that writes 3 a change is half done" in codes
