"""The text of a rule's comment, as every backend can hold it."""

from __future__ import annotations

import hashlib
import re
from typing import Final

COMMENT_BYTES: Final = 128  # libnftnl/udata.h, NFTNL_UDATA_COMMENT_MAXLEN
_COMMENT_HASH: Final = 12
_SIMPLE: Final = re.compile(r"[ !#-\[\]-~]*\Z")  # printable ASCII but quote and backslash


def stored_comment(text: str) -> str:
    """The comment as every backend can hold it: at most 128 bytes, no double quote; idempotent.

    Longer ones, and those with a quote, a backslash or a control character, become a prefix and a hash.
    """
    if len(text) <= COMMENT_BYTES and _SIMPLE.match(text):
        return text
    raw = text.encode()
    if len(raw) <= COMMENT_BYTES and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    digest = hashlib.sha256(raw).hexdigest()[:_COMMENT_HASH]
    clean = "".join(c if c.isprintable() and c not in '"\\' else "'" for c in text)
    head = clean.encode()[: COMMENT_BYTES - _COMMENT_HASH - 1].decode(errors="ignore")
    return f"{head}#{digest}"
