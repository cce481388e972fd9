"""Laws of a host on which nothing can be kept: rules are applied all the same, and what is lost is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

CHECKOUT = Path(__file__).resolve().parents[2]
RULES = (
    'backend = "nft"\n[[chain]]\nname = "in"\nattach = { hook = "input" }\nrules = ["-p tcp --dport 22 -j ACCEPT"]\n'
)
LESS = {
    "read-only": "mount -o remount,ro /run; mount -o remount,ro /var/lib/meshfw",
    "full": "dd if=/dev/zero of=/run/full; dd if=/dev/zero of=/var/lib/meshfw/full",
    "out of inodes": "mount -o remount,nr_inodes=5 /run; mount -o remount,nr_inodes=1 /var/lib/meshfw",
}
# $1 makes less of it, $2 are verbs; what follows is how meshfw is started. The namespace has a name, so that there is
# something to keep.
ROOM = """
less=$1 verbs=$2
shift 2
mount --make-rprivate /
mkdir -p /var/lib/meshfw
mount -t tmpfs -o mode=755,size=64k,nr_inodes=11 tmpfs /run
mount -t tmpfs -o mode=755,size=64k,nr_inodes=9 tmpfs /var/lib/meshfw
mkdir /run/meshfw /run/netns
touch /run/netns/room
mount --bind /proc/self/ns/net /run/netns/room
cat > /run/meshfw.toml
cd /
sh -c "$less" 2> /dev/null || :
cd /run
if test "$verbs" = agent; then
    "$@" agent --config /run/meshfw.toml &
    until nft list ruleset | grep -q dport; do sleep 0.05; done
    kill $!
    wait $! && echo "agent: done"
    verbs="clean apply apply clean"
fi
for verb in $verbs; do
    "$@" "$verb" --config /run/meshfw.toml && echo "$verb: done" || echo "$verb: $?"
done
nft list ruleset
"""


@pytest.mark.parametrize("kind", LESS)
def test_rules_are_applied_where_nothing_can_be_kept(requires: Callable[..., None], kind: str) -> None:
    requires("unshare", "mount", "nft")
    meshfw = ("env", "-u", "STATE_DIRECTORY", "-u", "RUNTIME_DIRECTORY", f"PYTHONPATH={CHECKOUT}", sys.executable)
    verbs = ("apply", "check", "clean") if kind != "full" else ("agent",)
    argv = (
        "unshare",
        "--mount",
        "--net",
        "sh",
        "-ec",
        ROOM,
        "sh",
        LESS[kind],
        " ".join(verbs),
        *meshfw,
        "-m",
        "meshfw",
    )
    done = subprocess.run(argv, input=RULES, capture_output=True, text=True, check=False, timeout=120)
    outcomes = [line for line in done.stdout.splitlines() if line.endswith(": done")]
    whole = verbs if kind != "full" else ("agent", "clean", "apply", "apply", "clean")
    assert outcomes == [f"{verb}: done" for verb in whole], done
    assert ("nothing to do (nft)" if "check" not in verbs else "in place (nft)") in done.stdout
    assert "table ip" not in done.stdout
    assert "Traceback" not in done.stderr
    assert {"read-only": "Read-only file system"}.get(kind, "No space left on device") in done.stderr
