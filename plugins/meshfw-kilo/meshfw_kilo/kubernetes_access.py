"""The way into a Kubernetes API server: where it is, whom to trust, and who we are.

Three ways: the account that a pod gets, a kubeconfig file, or a server named in the configuration. The server's
certificate is always verified; plain HTTP is for the loopback alone (``kubectl proxy``).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from meshfw import Declaration, MeshfwError, Settings

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its service account: ``token``, ``ca.crt`` and ``namespace``."""


class KubernetesError(MeshfwError):
    """The Kubernetes API can't be used, or doesn't answer: why, which server, and what to do."""

    def __init__(self, reason: str, *, server: str = "", remedy: str = "") -> None:
        super().__init__(reason, server, remedy)
        self.reason = reason
        self.server = server
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"Kubernetes API {self.server}: " if self.server else "Kubernetes API: "
        return f"{place}{self.reason}" + (f" ({self.remedy})" if self.remedy else "")


class UntrustedError(KubernetesError):
    """The server isn't the one that the certificates say, or no secure connection can be made: trying won't help."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A bearer token: given as text, or kept in a file that whoever issues it writes anew before it expires."""

    text: str = field(default="", repr=False)
    path: str = ""

    def read(self) -> str:
        """The token of now; empty where there is none. KubernetesError where its file can't be read."""
        if not self.path:
            return self.text
        try:
            with open(self.path, encoding="ascii") as file:
                found = file.read(1 << 20).strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it isn't ASCII text"
            raise KubernetesError(f"the token file {self.path} can't be read: {why}") from error
        if not found.isprintable() or " " in found or not found:
            raise KubernetesError(f"the token file {self.path} holds no token")
        return found


@dataclass(frozen=True, kw_only=True)
class Access:
    """A server, its authority and our proof. ``ca`` and ``certificate`` are paths or PEM text; empty: none of ours."""

    server: str
    """The URL: scheme, host, port, and a path before all others where there is one."""
    ca: str = ""
    """Empty: the authorities that this system trusts."""
    certificate: str = ""
    key: str = field(default="", repr=False)
    token: Token = Token()
    name_to_verify: str = ""
    """The name that the server's certificate must have, where it isn't the host's."""

    @property
    def secure(self) -> bool:
        """Whether it's HTTPS."""
        return urlsplit(self.server).scheme == "https"

    def context(self) -> ssl.SSLContext:
        """The TLS settings of one connection, with what the files hold now: certificates are renewed in place."""
        try:
            if self.ca.startswith("-----BEGIN"):
                context = ssl.create_default_context(cadata=self.ca)
            else:
                context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise UntrustedError(
                f"certificate authority {_named(self.ca)}: {_why(error)}", server=self.server
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 asks more of an authority's form than Kubernetes does, and than many clusters' have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.certificate:
            try:
                with _as_file(self.certificate) as certificate, _as_file(self.key or self.certificate) as key:
                    context.load_cert_chain(certificate, key, password=_no_password)
            except OSError as error:
                reason = f"client certificate {_named(self.certificate)} with its key: {_why(error)}"
                raise UntrustedError(reason, server=self.server) from error
        return context


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal.
    raise ssl.SSLError(0, "the key is encrypted")


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _named(path: str) -> str:
    return "given in the kubeconfig" if path.startswith("-----BEGIN") else path


@contextmanager
def _as_file(source: str) -> Iterator[str]:
    """A path that holds a PEM text, which OpenSSL takes from files alone; secrets stay in memory (memfd_create(2))."""
    if not source.startswith("-----BEGIN"):
        yield source
        return
    descriptor = os.memfd_create("meshfw-kilo", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, source.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def find_access(
    settings: Settings | None = None,
    declaration: Declaration | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    account: str = ACCOUNT,
) -> Access:
    """The way in that a table of the configuration names; where it names none, a pod's account, else $KUBECONFIG.

    Raises:
        ConfigError: keys or files that can't be used. KubernetesError: there is no way in.
    """
    from meshfw_kilo.kubernetes_kubeconfig import read_kubeconfig

    table = settings if settings is not None else Settings({})
    path = table.take("kubeconfig", str, "", expected="the path of a kubeconfig file")
    context = table.take("context", str, "", expected="the name of a context of the kubeconfig")
    server = table.take("server", str, "", expected="the server's URL")
    token = table.take("token-file", str, "", expected="the path of a file that holds a bearer token")
    ca = table.take("ca-file", str, "", expected="the path of the server's certificate authority")

    def beside(name: str) -> str:
        return declaration.beside(name) if declaration is not None and name else name

    if path and (server or token or ca):
        raise table.error("kubeconfig and a server of its own", key="kubeconfig", expected="one of the two")
    if (token or ca) and not server:
        raise table.error("whose?", key="token-file" if token else "ca-file", expected="server too")
    if server:
        try:
            return Access(server=checked_server(server), ca=beside(ca), token=Token(path=beside(token)))
        except ValueError as error:
            raise table.error(
                str(error), key="server", expected="a URL such as https://kube.example.org:6443"
            ) from error
    if path:
        return read_kubeconfig(beside(path), context=context)
    if environment.get("KUBERNETES_SERVICE_HOST"):
        if context:
            raise table.error("a pod's account has no contexts", key="context", expected="kubeconfig too")
        return _account(environment, account)
    if environment.get("KUBECONFIG"):
        return read_kubeconfig(environment["KUBECONFIG"], context=context)
    raise KubernetesError(
        "there is no way to it: this is no pod (KUBERNETES_SERVICE_HOST isn't set), and $KUBECONFIG names no file",
        remedy="kubeconfig = ..., or server = ... with ca-file and token-file",
    )


def _account(environment: Mapping[str, str], account: str) -> Access:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT") or "443"
    try:
        server = checked_server(f"https://{f'[{host}]' if ':' in host else host}:{port}")
    except ValueError as error:
        raise KubernetesError(f"KUBERNETES_SERVICE_HOST and _PORT: {error}") from error
    return Access(server=server, ca=f"{account}/ca.crt", token=Token(path=f"{account}/token"))


def checked_server(url: str) -> str:
    """A server's URL without the slash at its end; ValueError where we wouldn't speak to it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or not url.isprintable():
        raise ValueError(f"{url!r} is no URL of a server")
    if parts.username is not None:
        raise ValueError("a user's name and password in the URL aren't taken")
    host.encode("idna")  # ValueError where it's no name
    if parts.port == 0:  # which also refuses, with ValueError, what is no port at all
        raise ValueError("port 0")
    if parts.scheme == "http" and not _loopback(host):
        raise ValueError(f"plain http is for the loopback alone, and {host} may be anywhere")
    return url.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
