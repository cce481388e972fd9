"""The way into a cluster: what the configuration, a pod's account and kubeconfig files say, and what is refused."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from kilo_fake_api import FakeApi
from kilo_fake_store import NODES
from kilo_live import attempt, names, node, opened, server_context, until
from meshfw_kilo.kubernetes import LiveCluster
from meshfw_kilo.kubernetes_access import Access, KubernetesError, Token, find_access
from meshfw_kilo.kubernetes_kubeconfig import read_kubeconfig

from meshfw import ConfigError, Settings

NOBODY: dict[str, str] = {}


def found(environment: Mapping[str, str] = NOBODY, /, **table: Any) -> Access:
    settings = Settings(table, file="meshfw.toml", path="source[1]")
    access = find_access(settings, environment=environment, account="/account")
    settings.finish()
    return access


# --- configuration ---


def test_a_pod_has_its_account() -> None:
    access = found({"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "6443"})
    assert access == Access(server="https://10.43.0.1:6443", ca="/account/ca.crt", token=Token(path="/account/token"))
    assert found({"KUBERNETES_SERVICE_HOST": "fd00::1"}).server == "https://[fd00::1]:443"


def test_a_server_of_ones_own_is_named_with_its_files() -> None:
    access = found(NOBODY, **{"server": "https://kube.test:6443/k8s/", "token-file": "/t", "ca-file": "/c"})
    assert access == Access(server="https://kube.test:6443/k8s", ca="/c", token=Token(path="/t"))


@pytest.mark.parametrize("server", ["http://127.0.0.1:8001", "http://[::1]:8001", "http://localhost:8001"])
def test_plain_http_is_for_the_loopback(server: str) -> None:
    assert not found(server=server).secure


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("http://10.0.0.1:8080", "plain http is for the loopback alone"),
        ("http://localhost.example.org", "plain http is for the loopback alone"),
        ("kube.test:6443", "no URL of a server"),
        ("ftp://kube.test", "no URL of a server"),
        ("https://", "no URL of a server"),
        ("https://kube.test?x=1", "no URL of a server"),
        ("https://kube.test\n", "no URL of a server"),
        ("https://me:secret@kube.test", "aren't taken"),
        ("https://kube.test:99999", "Port"),
        ("https://kube.test:0", "port 0"),
        ("https://kube..test", "label"),
    ],
)
def test_a_server_that_wont_do_is_refused(server: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        found(server=server)
    assert (caught.value.file, caught.value.key) == ("meshfw.toml", "source[1].server")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"kubeconfig": "/k", "server": "https://kube.test"}, "kubeconfig"),
        ({"token-file": "/t"}, "token-file"),
        ({"ca-file": "/c"}, "ca-file"),
        ({"server": 7}, "server"),
        ({"kubeconfig": True}, "kubeconfig"),
    ],
)
def test_keys_that_dont_go_together_are_refused(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(**table)
    assert caught.value.key == f"source[1].{key}"


def test_no_way_at_all_says_what_to_give() -> None:
    with pytest.raises(KubernetesError, match=r"this is no pod.*kubeconfig = "):
        found()


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "No such file"), ("", "no token"), ("a\nb", "no token"), ("ä", "ASCII")]
)
def test_a_token_file_that_wont_do_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(KubernetesError, match=reason):
        Token(path=str(path)).read()


def test_secrets_arent_shown() -> None:
    assert "s3cret" not in repr(Access(server="https://kube.test", key="s3cret", token=Token(text="s3cret")))


# --- kubeconfig ---

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
CODED = b64encode(PEM.encode()).decode()


def kubeconfig(tmp_path: Path, *, cluster: Any = None, user: Any = None, **whole: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "two", "user": "me"}},
            {"name": "here", "context": {"cluster": "one", "user": "me"}},
        ],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one.test:6443", **(cluster or {})}},
            {"name": "two", "cluster": {"server": "https://two.test"}},
        ],
        "users": [{"name": "me", "user": user or {}}],
        **whole,
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_kubeconfig_gives_its_current_context(tmp_path: Path) -> None:
    path = kubeconfig(
        tmp_path,
        cluster={"certificate-authority-data": CODED, "tls-server-name": "kube"},
        user={"client-certificate": "me.crt", "client-key": "/keys/me.key", "token": "t0k3n"},
    )
    assert read_kubeconfig(path) == Access(
        server="https://one.test:6443",
        ca=PEM,
        certificate=str(tmp_path / "me.crt"),
        key="/keys/me.key",
        token=Token(text="t0k3n"),
        name_to_verify="kube",
    )
    assert read_kubeconfig(path, context="there").server == "https://two.test"
    assert found({"KUBECONFIG": path}).server == "https://one.test:6443"
    assert found(kubeconfig=path, context="there").server == "https://two.test"


def test_a_token_file_goes_before_a_token(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, user={"token": "old", "tokenFile": "token"})
    assert read_kubeconfig(path).token == Token(path=str(tmp_path / "token"))


@pytest.mark.parametrize(
    ("parts", "key", "reason"),
    [
        ({"user": {"exec": {"command": "aws"}}}, "users[1].user.exec", "programs that fetch credentials aren't run"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "users[1].user.auth-provider", "gone from Kubernetes"),
        ({"user": {"username": "me"}}, "users[1].user.username", "gone from Kubernetes"),
        ({"user": {"as": "root"}}, "users[1].user.as", "acting as somebody else"),
        ({"user": {"token": "a b"}}, "users[1].user.token", "no token"),
        ({"user": {"token": 7}}, "users[1].user.token", "no text"),
        ({"user": {"client-certificate": "x"}}, "users[1].user", "go together"),
        ({"user": {"client-key-data": "%%%"}}, "users[1].user.client-key-data", "PEM in base64"),
        (
            {"cluster": {"insecure-skip-tls-verify": True}},
            "clusters[1].cluster.insecure-skip-tls-verify",
            "always verified",
        ),
        ({"cluster": {"proxy-url": "http://p"}}, "clusters[1].cluster.proxy-url", "proxies"),
        ({"cluster": {"server": "http://one.test"}}, "clusters[1].cluster.server", "loopback alone"),
        ({"cluster": {"server": None}}, "clusters[1].cluster.server", "no URL"),
        ({"current-context": ""}, "", "no current-context"),
        ({"current-context": "nowhere"}, "contexts", "nothing is named 'nowhere'"),
        ({"contexts": None}, "contexts", "nothing is named 'here'"),
        ({"clusters": [7]}, "clusters", "nothing is named 'one'"),
        ({"users": [{"name": "me", "user": "x"}]}, "users[1].user", "no mapping"),
    ],
)
def test_what_isnt_done_is_refused_by_its_place(tmp_path: Path, parts: dict[str, Any], key: str, reason: str) -> None:
    path = kubeconfig(tmp_path, **parts)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_kubeconfig(path)
    assert (caught.value.file, caught.value.key) == (path, key)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\x00", "7", "a: !!python/object:os.system x"])
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_kubeconfig(str(path))
    assert caught.value.file == str(path)


def test_a_kubeconfig_that_isnt_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_kubeconfig(str(tmp_path / "none"))


# --- TLS ---


class Authority:
    """Two authorities with a server's and a client's certificate, made by openssl(1)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        extra = directory / "server.cnf"
        extra.write_text("subjectAltName=IP:127.0.0.1,DNS:kube.test\n")
        for name in ("ca", "stranger"):
            self._run("req", "-x509", *self._key(name), "-subj", f"/CN={name}", "-days", "2", "-out", f"{name}.crt")
        for name in ("server", "client"):
            self._run("req", *self._key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
            options = ["-extfile", str(extra)] if name == "server" else []
            self._run(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-out",
                f"{name}.crt",
                *options,
            )  # fmt: skip - an argument and its value stay together

    def _key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture(scope="module")
def authority(requires: Callable[..., None], loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    requires("openssl")
    return Authority(tmp_path_factory.mktemp("authority"))


def served(authority: Authority, *, of_clients: bool = False) -> FakeApi:
    fake = FakeApi(
        tls=server_context(
            authority.path("server.crt"), authority.path("server.key"), authority.path("ca.crt") if of_clients else ""
        )
    )
    fake.install_peers()
    fake.store.create(NODES, node("a"))
    return fake


def read(access: Access) -> list[str]:
    with closing(LiveCluster(access, chance=lambda: 0.05)) as cluster:
        return names(cluster)


def test_a_server_is_believed_by_its_authority(authority: Authority) -> None:
    with served(authority) as fake:
        assert read(Access(server=fake.url, ca=authority.path("ca.crt"))) == ["a"]
        assert read(Access(server=fake.url, ca=authority.text("ca.crt"))) == ["a"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ca": "stranger.crt"}, "certificate isn't trusted"),
        ({"ca": ""}, "certificate isn't trusted"),
        ({"ca": "ca.crt", "name_to_verify": "other.test"}, "certificate isn't trusted.*other.test"),
        ({"ca": "none.crt"}, "certificate authority .*none.crt: No such file"),
        ({"ca": "ca.key"}, "certificate authority .*ca.key: "),
        (
            {"ca": "ca.crt", "certificate": "client.crt", "key": "stranger.key"},
            "client certificate .*client.crt with",
        ),
        ({"ca": "ca.crt", "certificate": "none.crt", "key": "client.key"}, "client certificate .*none.crt"),
    ],
)
def test_a_server_that_cant_be_believed_is_told_at_once(
    authority: Authority, options: dict[str, str], reason: str
) -> None:
    files = {name: authority.path(options[name]) if options.get(name) else "" for name in ("ca", "certificate", "key")}
    with served(authority) as fake:
        access = Access(
            server=fake.url,
            ca=files["ca"],
            certificate=files["certificate"],
            key=files["key"],
            name_to_verify=options.get("name_to_verify", ""),
        )
        with pytest.raises(KubernetesError, match=reason):
            read(access)
        assert fake.requests == []


def test_the_name_to_verify_is_that_of_the_kubeconfig(authority: Authority) -> None:
    with served(authority) as fake:
        assert read(Access(server=fake.url, ca=authority.path("ca.crt"), name_to_verify="kube.test")) == ["a"]


def test_a_client_certificate_is_shown(authority: Authority) -> None:
    with served(authority, of_clients=True) as fake:
        known = Access(server=fake.url, ca=authority.path("ca.crt"))
        with closing(opened(fake, access=known, first_answer=0.2)) as cluster, pytest.raises(KubernetesError):
            cluster.read()
        for given in (authority.path, authority.text):
            proof = given("client.crt"), given("client.key")
            access = Access(server=fake.url, ca=given("ca.crt"), certificate=proof[0], key=proof[1])
            assert read(access) == ["a"]


def test_an_authority_renewed_in_place_is_taken(authority: Authority, tmp_path: Path) -> None:
    renewed = tmp_path / "ca.crt"
    renewed.write_text(authority.text("stranger.crt"))
    with served(authority) as fake:
        access = Access(server=fake.url, ca=str(renewed))
        with closing(opened(fake, access=access)) as cluster:
            with pytest.raises(KubernetesError):
                cluster.read()
            renewed.write_text(authority.text("ca.crt"))
            until(lambda: not isinstance(attempt(cluster), KubernetesError))


def test_a_server_that_talks_no_tls_is_told_of(authority: Authority, loopback: None) -> None:
    with FakeApi() as fake:
        access = Access(server=fake.url.replace("http:", "https:"), ca=authority.path("ca.crt"))
        with (
            closing(opened(fake, access=access, first_answer=0.2)) as cluster,
            pytest.raises(KubernetesError, match="no secure connection"),
        ):
            cluster.read()


def test_the_whole_way_by_a_kubeconfig(authority: Authority, tmp_path: Path) -> None:
    def coded(name: str) -> str:
        return b64encode(authority.text(name).encode()).decode()

    with served(authority, of_clients=True) as fake:
        fake.faults.tokens = {"t0k3n"}
        path = kubeconfig(
            tmp_path,
            cluster={"server": fake.url, "certificate-authority-data": coded("ca.crt")},
            user={
                "client-certificate-data": coded("client.crt"),
                "client-key-data": coded("client.key"),
                "token": "t0k3n",
            },
        )
        assert read(found(kubeconfig=path)) == ["a"]
