"""Laws of scripts: shell text as far as it is plain commands, both families, and refusals with their line."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import FailedCommandError, ParseError
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.dump import format_dump, ruleset_of_dump
from meshfw.languages.script import parse_script
from meshfw.languages.shell import statements
from meshfw.model import Family

LANGUAGE = Language.of(builtin_extensions())

SCRIPT = """\
#!/bin/sh
set -e
iptables -P INPUT DROP   # what isn't said is dropped
iptables -N web && ip6tables -w -N web; sudo /usr/sbin/ip6tables-nft -A INPUT -j web
iptables -A INPUT -p tcp --dport 80 \\
         -m comment --comment "the web's" -j web
iptables -C INPUT -i lo -j ACCEPT 2>/dev/null || iptables -I INPUT 1 -i lo -j ACCEPT
iptables -nvL >/dev/null
exit 0
not reached $ANYWAY
"""


def test_a_script_is_a_dump_of_each_family() -> None:
    dumps = parse_script(SCRIPT.replace("not reached $ANYWAY", "not reached"), language=LANGUAGE)
    assert format_dump(dumps[Family.IPV4], language=LANGUAGE) == (
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:web - [0:0]\n"
        "-A INPUT -i lo -j ACCEPT\n"
        '-A INPUT -p tcp -m tcp --dport 80 -m comment --comment "the web\\\'s" -j web\nCOMMIT\n'
    )
    assert "-A INPUT -j web" in format_dump(dumps[Family.IPV6], language=LANGUAGE)
    assert [entry.line for entry in dumps[Family.IPV4].tables[0].chains[0].rules] == [7, 5]
    assert [note.line for note in dumps[Family.IPV4].notes] == [7, 8]
    assert len(ruleset_of_dump(dumps[Family.IPV4]).attachments) == 1


REFUSED = [
    ("iptables -A INPUT -s $LAN -j ACCEPT", 1, 22, "$ is a variable"),
    ('iptables -A INPUT -s "$LAN" -j ACCEPT', 1, 23, "$ is a variable"),
    ("\niptables -A INPUT -s `lan` -j ACCEPT", 2, 22, "command substitution"),
    ("iptables -S | grep x", 1, 13, "a pipe"),
    ("iptables -S &", 1, 13, "in the background"),
    ("iptables-save > rules", 1, 15, "a redirection"),
    ("for p in 80 443; do", 1, 1, "the shell's own language"),
    ("if true; then", 1, 1, "the shell's own language"),
    ("open() { true; }", 1, 5, "a subshell or function"),
    ("IPT=/sbin/iptables", 1, 1, "sets a variable"),
    ("sysctl -w net.ipv4.ip_forward=1", 1, 1, "no command of iptables"),
    ("iptables-restore < /dev/null", 1, 1, "reads or writes a dump"),
    ("iptables -A INPUT -m comment --comment 'x", 1, 40, "never closed"),
    ("iptables -A INPUT \\", 1, 19, "nothing behind it"),
    ("; iptables -A INPUT", 1, 1, "without a command before it"),
    ("iptables -A INPUT &&", 1, 0, "nothing behind &&"),
    ("iptables", 1, 0, "no command"),
    ("iptables -A INPUT -j nosuch", 1, 0, "no such chain"),
    ("true\niptables -A INPUT \\\n -s nowhere.example", 2, 23, "host names are not looked up"),
    ("iptables -A INPUT -N x", 1, 19, "-N beside -A"),
    ("iptables -t nosuch -L", 1, 13, "unknown table"),
    ("iptables -D INPUT 1", 1, 0, "number 1 is none of its places"),
    ("iptables -N x || exit 3; iptables -N x || exit 3", 1, 0, "gives up with exit code 3: table filter has a chain x"),
    ("iptables -A FORWARD -j MASQUERADE", 1, 0, "MASQUERADE is allowed in table nat only"),
    ("iptables -A FORWARD -j LOG -j DROP", 1, 28, "one target"),
    ("iptables -P INPUT", 1, 10, "-P INPUT says no more"),
    ("iptables -6 -A INPUT", 1, 10, "-6 in a rule for ipv4"),
]


@pytest.mark.parametrize(("text", "line", "column", "reason"), REFUSED)
def test_a_refusal_names_its_line(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_script(text, language=LANGUAGE, source="fw.sh")
    assert reason in str(caught.value)
    assert (caught.value.source, caught.value.line, caught.value.column) == ("fw.sh", line, column)


def test_what_iptables_fails_at_is_told_apart_from_what_is_no_command() -> None:
    with pytest.raises(FailedCommandError):
        parse_script("iptables -X nosuch", language=LANGUAGE)
    with pytest.raises(ParseError) as caught:
        parse_script("iptables --nosuch || true", language=LANGUAGE)
    assert not isinstance(caught.value, FailedCommandError)


WORDS = st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])), min_size=1)


@given(WORDS)
def test_words_quoted_for_a_shell_are_read_back(words: list[str]) -> None:
    words = ["iptables", *words]
    (statement,) = statements(shlex.join(words))
    assert [word.text for word in statement.words] == words


@given(st.text(st.sampled_from(" a\t\\'\"#2!")))
def test_words_are_those_that_a_shell_sees(text: str) -> None:
    shell = f"f() {{ for word do printf '%s\\0' \"$word\"; done; }}\nf {text}"
    seen = subprocess.run(("sh", "-c", shell), capture_output=True, text=True, check=False)
    try:
        (statement,) = statements(f"f {text}")
    except ParseError:
        assert seen.returncode or text.endswith("\\")
    else:
        assert [word.text for word in statement.words[1:]] == seen.stdout.split("\0")[:-1]
