"""Laws of the one place that starts processes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from meshfw.errors import BackendError, CommandError, KernelError
from meshfw.kernel.command import Completed, detach, find, run
from meshfw.testing.netns import Netns


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def script(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_output_and_error_text_are_kept_apart() -> None:
    done = run(python("import sys; print('out'); print('err', file=sys.stderr)"), timeout=30)
    assert done == Completed("out\n", "err\n", 0, done.pid)


def test_input_reaches_the_process() -> None:
    data = b"x" * 1_000_000  # more than a pipe holds
    assert run(["cat"], input=data, timeout=30).stdout == data.decode()


def test_without_input_the_process_reads_nothing() -> None:
    assert run(["cat"], timeout=30).stdout == ""


def test_input_that_nobody_reads_is_no_error() -> None:
    assert run(["true"], input=b"x" * 1_000_000, timeout=30).returncode == 0


def test_a_failure_tells_command_code_and_words() -> None:
    argv = python("import sys; print('no way', file=sys.stderr); sys.exit(3)")
    with pytest.raises(CommandError) as caught:
        run(argv, timeout=30, remedy="try harder")
    error = caught.value
    assert (error.command, error.returncode, error.stderr, error.remedy) == (tuple(argv), 3, "no way\n", "try harder")
    assert str(error) == f"{sys.executable} exited with 3: no way (try harder)"


def test_an_unchecked_failure_is_a_result() -> None:
    assert run(["false"], timeout=30, check=False).returncode == 1


def test_an_end_by_signal_is_a_negative_code() -> None:
    with pytest.raises(CommandError, match="killed by signal 11") as caught:
        run(python("import os; os.kill(os.getpid(), 11)"), timeout=30)
    assert caught.value.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("check", [True, False])
def test_a_time_limit_ends_the_process_and_all_it_started(tmp_path: Path, check: bool) -> None:
    # What distributions call iptables may be a script; its child must not commit after we gave up.
    wrapper = script(tmp_path, "wrapper", f"sleep 60 & echo $! > {tmp_path}/child; echo started >&2; wait")
    started = time.monotonic()
    with pytest.raises(CommandError) as caught:
        run([str(wrapper)], timeout=0.5, check=check)
    assert time.monotonic() - started < 10
    assert caught.value.returncode == -signal.SIGKILL
    assert "killed after 0.5 s" in str(caught.value)
    assert "started" in str(caught.value)
    assert ends(int((tmp_path / "child").read_text(encoding="ascii")))


def ends(process: int) -> bool:
    """Whether a process is gone, or dead and not waited for, within two seconds."""
    for _ in range(100):
        if not alive(process):
            return True
        time.sleep(0.02)
    return False


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_background_child_that_keeps_the_output_open_is_cut_off_too(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CommandError, match="killed after"):
        run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child"], timeout=0.3)
    assert time.monotonic() - started < 10
    assert ends(int((tmp_path / "child").read_text(encoding="ascii")))


def test_the_environment_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHFW_KEPT", "kept")
    code = "import os; print(os.environ['MESHFW_KEPT'], os.environ['MESHFW_NEW'])"
    assert run(python(code), timeout=30, env={"MESHFW_NEW": "new"}).stdout == "kept new\n"
    assert "MESHFW_NEW" not in os.environ


def test_bytes_that_are_not_utf8_come_back_as_they_were() -> None:
    done = run(["cat"], input=b"\xff\xfe-comment", timeout=30)
    assert done.stdout.encode("utf-8", "surrogateescape") == b"\xff\xfe-comment"


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("iptables-nft-restore-missing", "iptables"),
        ("ip6tables-missing", "iptables"),
        ("nft-missing", "nftables"),
        ("ip-missing", "iproute2"),
    ],
)
def test_a_missing_tool_names_its_package(tool: str, package: str) -> None:
    with pytest.raises(BackendError, match=f"{tool} is not installed") as caught:
        run([tool], timeout=1)
    assert caught.value.remedy == f"apt-get install {package}"


def test_the_remedy_of_the_caller_wins() -> None:
    with pytest.raises(BackendError) as caught:
        run(["nft-missing"], timeout=1, remedy="use another backend")
    assert caught.value.remedy == "use another backend"


def test_a_missing_path_is_a_missing_tool(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="is not installed"):
        run([str(tmp_path / "nothing")], timeout=1)


def test_tools_of_the_administrator_are_found_without_their_directory_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # an ordinary user's and cron's PATH has no sbin
    assert find("ldconfig") in {"/usr/sbin/ldconfig", "/sbin/ldconfig"}


def test_path_comes_before_the_administrators_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = script(tmp_path, "ldconfig", "echo mine")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("ldconfig") == str(mine)
    assert run(["ldconfig"], timeout=30).stdout == "mine\n"


def test_a_relative_directory_in_path_is_never_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "meshfw-trap", "echo trapped")
    monkeypatch.chdir(tmp_path)
    for path in (".", "", "/nowhere:"):
        monkeypatch.setenv("PATH", path)
        assert find("meshfw-trap") is None


def test_a_directory_or_a_plain_file_is_no_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meshfw-a").mkdir()
    (tmp_path / "meshfw-b").write_text("text", encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (find("meshfw-a"), find("meshfw-b")) == (None, None)


def test_a_file_that_can_not_run_is_an_error_with_errno(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"\x00not a program")
    path.chmod(0o755)
    with pytest.raises(KernelError) as caught:
        run([str(path)], timeout=5)
    assert caught.value.errno == errno.ENOEXEC


def test_a_nul_in_an_argument_is_refused() -> None:
    with pytest.raises(BackendError, match="null byte"):
        run(["echo", "a\0b"], timeout=5)


def test_no_word_passes_a_shell() -> None:
    assert run(["echo", "$HOME; `id` *"], timeout=5).stdout == "$HOME; `id` *\n"


def test_repeated_runs_leak_no_descriptor() -> None:
    run(["true"], timeout=30)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        run(["false"], timeout=30, check=False, input=b"x")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.kernel
def test_a_process_lives_in_the_namespace_of_the_thread_that_starts_it(netns: Netns) -> None:
    argv = ["readlink", "/proc/self/ns/net"]
    with netns.entered():
        inside = run(argv, timeout=30).stdout
    assert inside == f"net:[{netns.identity.inode}]\n"
    assert run(argv, timeout=30).stdout != inside


def test_a_detached_process_has_a_session_of_its_own_and_no_stream_of_ours(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = (
        "import os; streams = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)];"
        f"open({str(told)!r} + '.new', 'w').write(repr((os.getsid(0), os.getpgid(0), os.getcwd(), streams)));"
        f"os.rename({str(told)!r} + '.new', {str(told)!r})"
    )
    pid = detach(python(code))
    deadline = time.monotonic() + 30
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert told.read_text(encoding="utf-8") == repr((pid, pid, "/", ["/dev/null"] * 3))


def test_a_detached_process_gets_the_descriptors_named_and_no_others(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        detach(
            python(f"import os; os.write({writer}, ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"),
            inherit=[writer],
        )
    finally:
        os.close(writer)
    with os.fdopen(reader, encoding="ascii") as told:
        descriptors = {int(word) for word in told.read().split()}
    assert writer in descriptors
    assert reader not in descriptors


def test_a_detached_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(BackendError, match="no-such-guard is not installed"):
        detach(["no-such-guard"])
