"""The comment match: a note that every packet meets (iptables-extensions(8), comment)."""

from __future__ import annotations

from typing import Final

from meshfw.extensions.codecs import plain
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Comment

EXTENSIONS: Final = (
    Extension(
        name="comment",
        value=Comment,
        options=(Option("--comment", "text", plain("a text of at most 255 bytes")),),
        to_nft=lambda value, family, rule: (),  # nft keeps a rule's comment beside its statements
    ),
)
