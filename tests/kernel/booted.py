"""A booted systemd to try units in: process 1 of namespaces of its own, over a copy of this root that nobody keeps.

Its root is an overlay of this one with its changes in memory, so units see the installed tools, and what they do to
files and to the network is gone with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
TARGET = "meshfw-test.target"
_CHECKOUT = str(Path(__file__).resolve().parents[2])
_PATIENCE = 60.0  # seconds, generous: the machine may be busy

# $1 is an empty directory, $2 one whose files go over the root's, $3 the control group of all that runs there; the rest
# must be seen there too, mounts or not. What is shared with this host can't be written: sysctls, the kernel's log.
_BOOT = f"""
room=$1 over=$2
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$room"
mkdir "$room/upper" "$room/work" "$room/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" "$room/root"
cd "$room/root"
for place; do
    test -e "./$place" || {{ mkdir -p "./$place" && mount --rbind "$place" "./$place"; }}
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount --bind /dev/null dev/kmsg
mount -t tmpfs -o mode=755 tmpfs run
rm -rf etc/systemd/system etc/meshfw var/lib/meshfw var/log/journal lib/systemd/system/sysinit.target.wants
mkdir -p etc/systemd/system old
cp -r "$over/." .
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin {SYSTEMD} --system --unit={TARGET} --show-status=no
"""
_ENTER = f"""
mkdir "$3"
echo $$ > "$3/cgroup.procs"
exec unshare --pid --mount --net --uts --ipc --cgroup --fork --kill-child sh -ec '{_BOOT}' "$0" "$@"
"""


class Booted:
    """A systemd with these files of its own (by their path), up with its target at the start of the ``with`` block.

    Raises OSError with what was said where it can't be booted.
    """

    def __init__(self, room: Path, files: Mapping[str, str]) -> None:
        self._room = room
        self._group = _control_groups() / f"meshfw-test-{os.getpid()}-{time.monotonic_ns()}"
        self._files = {f"/etc/systemd/system/{TARGET}": _TARGET_UNIT} | dict(files)
        self._outer: subprocess.Popen[str] | None = None
        self.pid = 0

    def __enter__(self) -> Booted:
        root, over = self._room / "root", self._room / "over"
        root.mkdir()
        for path, text in self._files.items():
            target = over / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        seen = (_CHECKOUT, sys.prefix, sys.base_prefix)
        argv = ("sh", "-ec", _ENTER, "sh", str(root), str(over), str(self._group), *seen)
        log = (self._room / "log").open("w+", encoding="utf-8")
        self._outer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True)
        log.close()
        try:
            self.until(lambda: self._outer_ended() or self._is_up(), "systemd is up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all that runs there; what it had is gone."""
        if self._outer is None:
            return
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # the kernel ends the rest of its pid namespace
        else:
            self._outer.kill()
        self._outer.wait()
        self._outer = None
        for directory, _, _ in os.walk(self._group, topdown=False):
            for _try in range(100):
                try:
                    os.rmdir(directory)
                    break
                except OSError:  # a process that is just ending
                    time.sleep(0.02)

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command prints that is run there."""
        done = self.done(*argv)
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.journal()}")
        return done.stdout

    def done(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command's end that is run there."""
        inside = ("nsenter", "--target", str(self.pid), "--all", "--wd=/", "--", *argv)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=_PATIENCE)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl(1), show)."""
        return self.done("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self) -> str:
        """The last that everybody said."""
        return self.done("journalctl", "--no-pager", "--output=short-monotonic", "--lines=60").stdout

    def write(self, path: str, text: str) -> None:
        """Put a file there."""
        Path(f"/proc/{self.pid}/root{path}").write_text(text, encoding="utf-8")

    def files(self, directory: str) -> dict[str, str]:
        """The text of each file below a directory there, by its path."""
        root = f"/proc/{self.pid}/root"
        found = [path for path in Path(f"{root}{directory}").rglob("*") if path.is_file()]
        return {str(path).removeprefix(root): path.read_text(encoding="utf-8") for path in found}

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for something; AssertionError with the journal if it takes too long."""
        end = time.monotonic() + _PATIENCE
        while not holds():
            assert time.monotonic() < end, f"not within {_PATIENCE:g} s: {what}\n{self.journal() if self.pid else ''}"
            time.sleep(0.02)

    def _outer_ended(self) -> bool:
        assert self._outer is not None
        if self._outer.poll() is None:
            return False
        raise OSError((self._room / "log").read_text(encoding="utf-8").strip())

    def _is_up(self) -> bool:
        assert self._outer is not None
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text(encoding="ascii").split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text(encoding="utf-8").strip() != "systemd":
            return False
        self.pid = int(children[0])
        return self.done("systemctl", "is-active", TARGET).stdout.strip() == "active"


_TARGET_UNIT = "[Unit]\nRequires=basic.target systemd-journald.service\nAfter=basic.target systemd-journald.service\n"


def _control_groups() -> Path:
    """Where control groups of the second version are mounted."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise OSError("control groups of the second version (cgroup2) aren't mounted")
