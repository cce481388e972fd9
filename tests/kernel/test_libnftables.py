"""Laws of libnftables in process: what is said is done, whole, in its own namespace, and errors name the place."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import meshfw.kernel.libnftables as module
from meshfw.errors import BackendError, KernelError
from meshfw.kernel.command import run
from meshfw.kernel.libnftables import Libnftables, Numeric, release_memory
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import Namespace
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(module.__file__).parents[2]


@pytest.fixture
def nft(netns: Netns, requires: Callable[..., None]) -> Iterator[Libnftables]:
    requires("nft")
    with Libnftables(netns.path) as library:
        yield library


def rules(count: int) -> str:
    lines = (f"add rule ip t c ip saddr 10.1.{n >> 8}.{n & 255} tcp dport 22 counter accept\n" for n in range(count))
    return "add table ip t\nadd chain ip t c\n" + "".join(lines)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- what is said is done ---


def test_what_was_applied_is_listed(nft: Libnftables) -> None:
    assert nft.run("add table ip t; add chain ip t c; add rule ip t c tcp dport 22 accept") == ""
    assert nft.run("list chain ip t c", handles=False) == (
        "table ip t {\n\tchain c {\n\t\ttcp dport 22 accept\n\t}\n}\n"
    )
    listing = json.loads(nft.run("list chain ip t c", json_output=True))["nftables"]
    assert [item["rule"]["handle"] for item in listing if "rule" in item] == [2]


def test_both_families_commit_in_one_transaction(nft: Libnftables, netns: Netns) -> None:
    with Nfnetlink(netns.path) as channel:
        before = channel.generation()
        nft.run("add table ip t\nadd table ip6 t\nadd chain ip6 t c")
        assert channel.generation() == before + 1


def test_a_transaction_is_done_whole_or_not_at_all(nft: Libnftables, netns: Netns) -> None:
    with pytest.raises(KernelError):
        nft.run(rules(100) + "add rule ip t nosuch accept")
    with Nfnetlink(netns.path) as channel:
        assert channel.tables() == ()


@pytest.mark.parametrize("count", [1, 5000])
def test_a_transaction_of_any_size_arrives(nft: Libnftables, netns: Netns, count: int) -> None:
    nft.run(rules(count))
    with Nfnetlink(netns.path) as channel:
        assert len(channel.rules("ip", "t", "c")) == count


def test_a_line_of_any_length_arrives(nft: Libnftables) -> None:
    elements = ", ".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(20000))
    nft.run(f"add table ip t\nadd set ip t s {{ type ipv4_addr; }}\nadd element ip t s {{ {elements} }}")
    assert nft.run("list set ip t s").count("10.0.") == 20000


@pytest.mark.parametrize("text", ["ä 日本 🦊", "a'b$c\\d", "x" * 128])
@pytest.mark.parametrize("lines", [1, 2])
def test_comments_come_back_as_they_were(nft: Libnftables, text: str, lines: int) -> None:
    separator = "\n" if lines > 1 else "; "
    nft.run(separator.join(["add table ip t", "add chain ip t c", f'add rule ip t c accept comment "{text}"']))
    assert f'comment "{text}"' in nft.run("list chain ip t c")
    listing = json.loads(nft.run("list chain ip t c", json_output=True))["nftables"]
    assert [item["rule"]["comment"] for item in listing if "rule" in item] == [text]


def test_bytes_that_are_not_utf8_come_back_as_they_were(nft: Libnftables) -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    nft.run(f'add table ip t; add chain ip t c; add rule ip t c accept comment "{text}"')
    assert f'comment "{text}"' in nft.run("list chain ip t c")


def test_an_output_stays_when_the_next_call_reuses_its_buffer(nft: Libnftables) -> None:
    nft.run(rules(50))
    first = nft.run("list chain ip t c")
    copy = first.encode()
    nft.run("flush ruleset")
    nft.run("add table ip6 other; add chain ip6 other c")
    assert nft.run("list table ip6 other") != first
    assert first.encode() == copy


def test_nothing_is_printed_twice(nft: Libnftables) -> None:
    nft.run("add table ip t")
    with pytest.raises(BackendError):
        nft.run("bogus")
    assert nft.run("add table ip t") == ""
    assert nft.run("list tables") == "table ip t\n"


# --- options ---


def test_options_say_what_is_printed(nft: Libnftables) -> None:
    nft.run("add table ip t; add set ip t s { type ipv4_addr; elements = { 192.0.2.1 }; }")
    nft.run("add chain ip t c { type filter hook input priority 0; }; add rule ip t c ip protocol tcp counter accept")
    command = "list table ip t"
    assert "# handle" in nft.run(command)
    assert "# handle" not in nft.run(command, handles=False)
    assert "packets 0" in nft.run(command)
    assert "packets 0" not in nft.run(command, stateless=True)
    assert "192.0.2.1" in nft.run(command)
    assert "192.0.2.1" not in nft.run(command, terse=True)
    nft.run("add rule ip t c ct state new meta skuid 0 accept")
    assert "priority 0;" in nft.run(command)
    assert "priority filter;" in nft.run(command, numeric=Numeric.NONE)
    assert "priority filter;" in nft.run(command, numeric=Numeric.PROTOCOL)
    assert "ip protocol 6" in nft.run(command)
    assert "ip protocol tcp" in nft.run(command, numeric=Numeric.PRIORITY)
    assert "ct state 0x8" in nft.run(command)
    assert "ct state new" in nft.run(command, numeric=Numeric.PRIORITY)
    assert "ct state 0x8" in nft.run(command, numeric=Numeric.SYMBOL)
    assert "meta skuid 0" in nft.run(command)


def test_echo_tells_the_handle_of_what_was_added(nft: Libnftables) -> None:
    nft.run("add table ip t; add chain ip t c")
    assert nft.run("add rule ip t c accept", echo=True).startswith("add rule ip t c accept # handle 2")
    (added,) = json.loads(nft.run("add rule ip t c drop", echo=True, json_output=True))["nftables"]
    assert added["add"]["rule"]["handle"] == 3


@pytest.mark.parametrize("text", ["add table ip t", "add table ip t\nadd chain ip t c\n"])
def test_a_dry_run_changes_nothing(nft: Libnftables, netns: Netns, text: str) -> None:
    with Nfnetlink(netns.path) as channel:
        before = channel.generation()
        nft.run(text, dry_run=True)
        assert (channel.generation(), channel.tables()) == (before, ())
        nft.run(text)  # and says nothing about the next call
        assert channel.generation() == before + 1


def test_a_dry_run_finds_what_the_kernel_would_refuse(nft: Libnftables) -> None:
    with pytest.raises(KernelError) as caught:
        nft.run("add table ip t\nadd chain ip t c\nadd rule ip t c jump nosuch", dry_run=True)
    assert caught.value.errno == errno.ENOENT
    assert nft.run("list ruleset") == ""


# --- errors ---


def test_a_refusal_has_errno_line_and_caret(nft: Libnftables) -> None:
    with pytest.raises(KernelError) as caught:
        nft.run("add table ip t\nadd chain ip t c\nadd rule ip t c jump nosuch\nadd table ip q\n")
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == (
        "line 3: Error: Could not process rule: No such file or directory\n"
        "add rule ip t c jump nosuch\n"
        "                     ^^^^^^"
    )


@pytest.mark.parametrize(
    ("setup", "text", "number"),
    [
        ("", "add rule ip nosuch c accept", errno.ENOENT),
        ("", "list table ip nosuch", errno.ENOENT),
        ("add table ip t; add chain ip t c", "add table ip t\nadd rule ip t cc accept", errno.ENOENT),  # did you mean
        ("add table ip t", "create table ip t", errno.EEXIST),
        (
            "add table ip t; add chain ip t c; add chain ip t d; add rule ip t d jump c",
            "delete chain ip t c",
            errno.EBUSY,
        ),
        (
            "add table ip t; add chain ip t c { type filter hook input priority 0; }",
            "add chain ip t d; add rule ip t d jump c",
            errno.EOPNOTSUPP,
        ),
    ],
)
@pytest.mark.parametrize("json_output", [False, True])
def test_a_refusal_by_the_kernel_has_its_errno(
    nft: Libnftables, setup: str, text: str, number: int, json_output: bool
) -> None:
    nft.run(setup)
    with pytest.raises(KernelError) as caught:
        nft.run(text, json_output=json_output)
    assert caught.value.errno == number
    assert "^" in str(caught.value)


@pytest.mark.parametrize("text", ["bogus", "add table ip t\nadd rule ip t", 'add table ip "'])
def test_a_mistake_in_the_text_is_no_refusal_by_the_kernel(nft: Libnftables, text: str) -> None:
    with pytest.raises(BackendError, match="syntax error") as caught:
        nft.run(text)
    assert type(caught.value) is BackendError
    assert "^" in str(caught.value)


def test_a_comment_that_sounds_like_an_error_is_none(nft: Libnftables) -> None:
    with pytest.raises(BackendError) as caught:
        nft.run('add rule ip t c accept comment "Error: x: Operation not permitted" bogus')
    assert type(caught.value) is BackendError


def test_hundreds_of_errors_and_endless_lines_are_shortened(nft: Libnftables) -> None:
    nft.run("add table ip t")
    comment = "x" * 100
    bad = "".join(
        f"add rule ip t nosuch{n} tcp dport {{ {', '.join(map(str, range(1, 999)))} }} accept\n" for n in range(99)
    )
    with pytest.raises(KernelError) as caught:
        nft.run(f'add rule ip t c accept comment "{comment}"\n{bad}')
    lines = str(caught.value).splitlines()
    assert len(lines) <= 30
    assert lines[-1].endswith("more lines")
    assert max(map(len, lines)) < 600


def test_a_nul_is_refused_before_anything_happens(nft: Libnftables) -> None:
    with pytest.raises(BackendError, match="NUL"):
        nft.run("add table ip t\0; flush ruleset")
    assert nft.run("list tables") == ""


def test_a_missing_library_says_what_to_install() -> None:
    with pytest.raises(BackendError, match=r"libnftables-missing\.so\.1 can't be loaded") as caught:
        Libnftables(library="libnftables-missing.so.1")
    assert caught.value.remedy == "apt-get install libnftables1"


def test_another_library_is_not_taken_for_it() -> None:
    with pytest.raises(BackendError, match="is not libnftables"):
        Libnftables(library="libc.so.6")


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BackendError, match="no network namespace"):
        Libnftables("meshfw-no-such-name")


def test_a_closed_context_refuses(nft: Libnftables) -> None:
    nft.close()
    nft.close()
    with pytest.raises(BackendError, match="closed"):
        nft.run("list tables")
    with pytest.raises(BackendError, match="closed"):
        nft.trim()


# --- rights ---


def as_root_of_a_user_namespace(code: str, *flags: str) -> str:
    argv = ["unshare", "--user", "--map-root-user", *flags, sys.executable, "-c", code]
    done = run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)})
    assert done.stderr == ""  # libnftables itself would print there
    return done.stdout


def test_without_net_admin_the_error_says_what_is_missing(netns: Netns, requires: Callable[..., None]) -> None:
    requires("nft", "unshare")
    code = """
from meshfw.errors import KernelError
from meshfw.kernel.libnftables import Libnftables
try:
    Libnftables()
except KernelError as error:
    print(error.errno, "CAP_NET_ADMIN" in str(error))
"""
    with netns.entered():
        assert as_root_of_a_user_namespace(code) == f"{errno.EPERM} True\n"


def test_large_transactions_work_without_privileges(requires: Callable[..., None]) -> None:
    requires("nft", "unshare")
    # 446 rules are the limit with the send buffer as it comes; 700 fit with any net.core.wmem_max there is
    code = f"""
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
with Libnftables() as nft, Nfnetlink() as channel:
    nft.run({rules(700)!r})
    print(len(channel.rules("ip", "t", "c")))
"""
    assert as_root_of_a_user_namespace(code, "--net") == "700\n"


def test_a_transaction_that_does_not_fit_says_what_to_raise(requires: Callable[..., None]) -> None:
    requires("nft", "unshare")
    code = f"""
import meshfw.kernel.libnftables as module
from meshfw.errors import KernelError
module._BUFFER = 20000
with module.Libnftables() as nft:
    try:
        nft.run({rules(700)!r})
    except KernelError as error:
        print(error.errno, "net.core.wmem_max" in str(error))
"""
    assert as_root_of_a_user_namespace(code, "--net") == f"{errno.EMSGSIZE} True\n"


# --- namespaces and threads ---


def test_a_context_stays_in_its_namespace(nft: Libnftables, netns: Netns) -> None:
    home = Namespace.current()
    with Netns() as other, Libnftables(other.path) as elsewhere, other.entered():
        nft.run("add table ip here")
        elsewhere.run("add table ip there")
        assert nft.run("list tables") == "table ip here\n"
        with Libnftables() as current:
            assert current.run("list tables") == "table ip there\n"
    assert Namespace.current() == home


def test_interface_names_are_those_of_the_context_s_namespace(
    nft: Libnftables, netns: Netns, requires: Callable[..., None]
) -> None:
    requires("ip")
    with netns.entered():
        run(["ip", "link", "add", "meshfw-a", "type", "veth", "peer", "name", "meshfw-b"], timeout=30)
    nft.run("add table ip t; add chain ip t c; add rule ip t c iif meshfw-a accept")
    assert 'iif "meshfw-a" accept' in nft.run("list chain ip t c")


def in_threads(count: int, work: Callable[[int], None]) -> None:
    failed: list[BaseException] = []

    def body(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - looked at below, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_threads_share_one_context(nft: Libnftables) -> None:
    nft.run("add table ip t")

    def work(number: int) -> None:
        for _ in range(150):
            nft.run(f'add chain ip t c{number}; add rule ip t c{number} accept comment "{number}"')
            listing = nft.run(f"list chain ip t c{number}")
            assert f'comment "{number}"' in listing
            assert f"c{1 - number}" not in listing
            nft.run(f"flush chain ip t c{number}")

    in_threads(2, work)


def test_threads_with_contexts_of_their_own_do_not_disturb_each_other(nft: Libnftables, netns: Netns) -> None:
    # libnftables keeps interface names per process: without one lock for all contexts, "lo" would be missing at times
    nft.run("add table ip t")

    def work(number: int) -> None:
        for _ in range(20):
            with Libnftables(netns.path) as own:
                for _ in range(20):
                    own.run(f"add chain ip t c{number}; add rule ip t c{number} iif lo oif lo drop")
                    own.run(f"flush chain ip t c{number}")

    in_threads(4, work)


# --- what stays behind ---


def test_repeated_calls_leak_no_descriptor(nft: Libnftables) -> None:
    nft.run("add table ip t\nadd chain ip t c")
    before = descriptors()
    for number in range(500):
        if number % 10 == 0:
            with pytest.raises(BackendError):
                nft.run("bogus\nbogus")
        nft.run("list table ip t", json_output=bool(number % 2))
    assert descriptors() == before


def test_making_and_closing_leaks_no_descriptor(netns: Netns, requires: Callable[..., None]) -> None:
    requires("nft")
    Libnftables(netns.path).close()
    before = descriptors()
    for _ in range(50):
        Libnftables(netns.path).close()
        with pytest.raises(BackendError):
            Libnftables("meshfw-no-such-name")
    assert descriptors() == before


def resident() -> int:
    """The resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") >> 20


def test_trimming_gives_memory_back_and_harms_nothing(nft: Libnftables) -> None:
    nft.run(rules(5000))
    nft.trim()
    low = resident()
    assert nft.run("list table ip t", json_output=True).count('"rule"') == 5000
    high = resident()
    nft.trim()
    assert high - low > 10
    assert resident() - low < (high - low) / 2
    assert nft.run("list table ip t").count("accept") == 5000
    assert isinstance(release_memory(), bool)


def test_a_socket_that_the_library_cannot_wait_for_is_refused(netns: Netns) -> None:
    script = (
        "import os, resource, sys\n"
        "from meshfw.errors import BackendError\n"
        "from meshfw.kernel.libnftables import Libnftables\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]\n"
        "try:\n"
        "    Libnftables(sys.argv[1])\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    done = run([sys.executable, "-c", script, netns.path], timeout=60)
    assert "would abort the process" in done.stdout
