"""Laws of iptables-restore's own quoting (iptables, xshared.c, add_param_to_argv)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import ParseError
from meshfw.extensions.codecs import quoted
from meshfw.languages.lexer import Word, split


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("-j ACCEPT", ["-j", "ACCEPT"]),
        ("  -s\t10.0.0.1  ", ["-s", "10.0.0.1"]),
        ('--comment "two words"', ["--comment", "two words"]),
        ('--comment "a \\"b\\" \\\\ c"', ["--comment", 'a "b" \\ c']),
        ("--comment it's", ["--comment", "it's"]),
        ('a"b" c', ["ab", "c"]),
        ('"a"b', ["a", "b"]),
        ('--comment ""', ["--comment", ""]),
        ("back\\slash stays", ["back\\slash", "stays"]),
        ("", []),
    ],
)
def test_words_are_those_of_iptables_restore(line: str, texts: list[str]) -> None:
    assert [word.text for word in split(line)] == texts


def test_words_know_their_column_and_quotes() -> None:
    assert split('-m comment --comment "a b"')[-1] == Word("a b", 22, quoted=True)


def test_an_open_quote_is_refused_where_it_begins() -> None:
    with pytest.raises(ParseError, match="never closed") as caught:
        split('--comment "half')
    assert caught.value.column == 11


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=0)))
def test_quoted_words_are_read_back(words: list[str]) -> None:
    assert [word.text for word in split(" ".join(quoted(word) for word in words))] == words
