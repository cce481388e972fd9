"""What a rule has named so far while its words are read: extensions with a typed value, and ones without."""

from __future__ import annotations

from typing import Any

from meshfw.extensions.extension import Extension
from meshfw.languages.lexer import Word


class Loaded:
    """An extension met in a rule and the fields its options have filled so far."""

    def __init__(self, extension: Extension, word: Word) -> None:
        self.extension = extension
        self.word = word
        self.fields: dict[str, Any] = {}


class Opaque:
    """A match or target without a typed value, and its words so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.words: list[str] = []
