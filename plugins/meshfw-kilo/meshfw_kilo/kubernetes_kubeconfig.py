"""kubeconfig files: the current context's server, its authority and the user's proof.

What we don't do is refused by its name, never passed over: a program that fetches credentials, a proxy, a server whose
certificate isn't to be verified.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from meshfw import ConfigError
from meshfw_kilo.kubernetes_access import Access, Token, checked_server

_REFUSED: Final = {
    "exec": "programs that fetch credentials aren't run",
    "auth-provider": "auth providers are gone from Kubernetes",
    "username": "password logins are gone from Kubernetes",
    "password": "password logins are gone from Kubernetes",
    "as": "acting as somebody else isn't done",
    "as-uid": "acting as somebody else isn't done",
    "as-groups": "acting as somebody else isn't done",
    "as-user-extra": "acting as somebody else isn't done",
}
_PROOF: Final = "token, tokenFile, or client-certificate and client-key"


class _Part:
    """One mapping of the file, with its place in it for messages."""

    def __init__(self, value: object, *, file: str, place: str) -> None:
        self.file = file
        self.place = place
        if not isinstance(value, Mapping):
            raise self.error("this is no mapping", expected="a mapping")
        self.value: Mapping[str, Any] = value

    def error(self, reason: str, *, key: str = "", expected: str) -> ConfigError:
        place = ".".join(part for part in (self.place, key) if part)
        return ConfigError(reason, file=self.file, key=place, expected=expected)

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error("this is no text", key=key, expected="a string")
        return value

    def named(self, group: str, name: str, inner: str) -> _Part:
        """The part of that name in one of the file's lists."""
        listed = self.value.get(group)
        for number, entry in enumerate(listed if isinstance(listed, list) else [], 1):
            if isinstance(entry, Mapping) and entry.get("name") == name:
                return _Part(entry.get(inner) or {}, file=self.file, place=f"{group}[{number}].{inner}")
        raise self.error(f"nothing is named {name!r}", key=group, expected=f"an entry with name: {name}")

    def path(self, key: str) -> str:
        """A path; relative ones start at the file's directory."""
        found = self.text(key)
        return os.path.normpath(os.path.join(os.path.dirname(self.file), found)) if found else ""

    def pem(self, key: str) -> str:
        """PEM given in place (base64, under ``KEY-data``, which goes first), or the path of a file of it."""
        data = self.text(f"{key}-data")
        if not data:
            return self.path(key)
        try:
            found = b64decode(data, validate=True).decode("ascii").strip()
        except ValueError:
            found = ""
        if "-----BEGIN" not in found:
            raise self.error("this isn't PEM in base64", key=f"{key}-data", expected="PEM text, coded in base64")
        return found[found.index("-----BEGIN") :] + "\n"


def read_kubeconfig(path: str, *, context: str = "") -> Access:
    """The way in that a context of the file describes, by default its current one.

    Raises:
        ConfigError: the file can't be read, or holds what we don't do.
    """
    whole = _Part(_document(path), file=path, place="")
    name = context or whole.text("current-context")
    if not name:
        raise whole.error("it has no current-context", expected="current-context, or context in the source's table")
    chosen = whole.named("contexts", name, "context")
    cluster = whole.named("clusters", chosen.text("cluster"), "cluster")
    user = whole.named("users", chosen.text("user"), "user")
    for key, reason in _REFUSED.items():
        if user.value.get(key):
            raise user.error(reason, key=key, expected=_PROOF)
    if cluster.value.get("insecure-skip-tls-verify"):
        expected = "certificate-authority or certificate-authority-data"
        raise cluster.error("the server is always verified", key="insecure-skip-tls-verify", expected=expected)
    if cluster.value.get("proxy-url"):
        raise cluster.error("proxies aren't used", key="proxy-url", expected="a server that can be reached directly")
    try:
        server = checked_server(cluster.text("server"))
    except ValueError as error:
        raise cluster.error(str(error), key="server", expected="https://HOST:PORT") from error
    certificate, key_of_it = user.pem("client-certificate"), user.pem("client-key")
    if bool(certificate) != bool(key_of_it):
        raise user.error("a client certificate and its key go together", expected=_PROOF)
    token_file = user.path("tokenFile")
    return Access(
        server=server,
        ca=cluster.pem("certificate-authority"),
        certificate=certificate,
        key=key_of_it,
        token=Token(path=token_file) if token_file else Token(text=_token(user)),
        name_to_verify=cluster.text("tls-server-name"),
    )


def _token(user: _Part) -> str:
    token = user.text("token").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise user.error("this is no token", key="token", expected="ASCII without blanks")
    return token


def _document(path: str) -> object:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", file=path, expected="a kubeconfig file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"isn't YAML{where}", file=path, expected="a kubeconfig file") from error
