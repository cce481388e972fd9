"""Documents that outlast a run: JSON with a kind, a version and a checksum, believed as a whole or not at all."""

from __future__ import annotations

import hashlib

import msgspec

from meshfw.errors import StateError


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    meshfw: str
    version: int
    checksum: str = ""
    content: msgspec.Raw = msgspec.Raw()


def seal(content: msgspec.Struct, *, kind: str, version: int) -> bytes:
    """The document of a content: a person can read it, a line for each rule.

    Raises:
        StateError: the content holds text that JSON can't, such as a file's name that isn't UTF-8.
    """
    try:
        body = msgspec.json.format(msgspec.json.encode(content), indent=1)
    except UnicodeEncodeError as error:
        raise StateError(f"{error.object!r} is not Unicode text, and can't be kept") from None
    head = msgspec.json.encode({"meshfw": kind, "version": version, "checksum": _checksum(body)})
    return b'%b,"content":\n%b}\n' % (head[:-1], body)


def unseal(document: bytes, *, kind: str, version: int) -> bytes:
    """The content of a document, as JSON.

    Raises:
        StateError: the document is cut off, changed, or of another kind or version.
    """
    try:
        envelope = msgspec.json.decode(document, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        cut = not document.strip() or "truncated" in str(error)
        raise StateError("it is cut off" if cut else f"it is no {kind} of meshfw: {error}") from None
    if envelope.meshfw != kind:
        raise StateError(f"it is a {envelope.meshfw!r} of meshfw, not a {kind}")
    if envelope.version != version:
        raise StateError(f"it is a {kind} of version {envelope.version}, and this meshfw reads version {version}")
    content = bytes(envelope.content)
    if envelope.checksum != _checksum(content):
        raise StateError("its checksum doesn't fit its content: it was changed or damaged")
    return content


def _checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
