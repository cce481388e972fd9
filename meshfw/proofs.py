"""Proofs for the next process: that what a kernel holds is what a ruleset means, as two digests under /run.

Whoever reads a kernel and finds there what is wanted, or makes it so and proves it, keeps both digests. A process that
starts later and finds the same two has nothing to read, and starts no process: a check from cron, an apply at a hook.

A proof says nothing about a time or about who wrote last: it stays true whatever happens, and is of use while the
kernel is in that state. So it needs no order among writers, and nothing has to take it away. What can be wrong is the
file. It is believed only if nobody but root and ourselves could have written it; what is damaged, or of another
version of meshfw or of the tools, equals nothing, and costs the reading that would have been due without it. The
directory is $RUNTIME_DIRECTORY (systemd.exec(5)), else /run/meshfw; it goes with a reboot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from meshfw.backend import Backend, Fingerprint, Provable
from meshfw.files.kept import OddFileError, only_keeper, read_kept, write_kept
from meshfw.model import Ruleset
from meshfw.states import digest

DIRECTORY: Final = "/run/meshfw"
_NAME: Final = "proofs.json"
_VERSION: Final = 1
_MOST: Final = 200
"""Places of which a proof is kept: the oldest goes, or files would pile up with short-lived namespaces."""
_LONGEST: Final = 1 << 18


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a kernel held and the ruleset that it meant, as digests in hexadecimal."""

    kernel: str
    wanted: str


class Proven(msgspec.Struct, frozen=True):
    """That the kernel holds what is wanted; and its fingerprint in that state, None where it isn't sure."""

    fingerprint: Fingerprint | None


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    proofs: dict[str, Proof] = {}


class Proofs:
    """The proof of one place: a backend at work for an owner in a network namespace.

    ``place`` is what it's known by among others; ``release`` is meshfw's own, since another one may read the same bytes
    otherwise.
    """

    def __init__(self, place: str, *, release: str) -> None:
        self._place = place
        self._release = release
        self._last: Proof | None = None

    def find(self, backend: Backend, wanted: Ruleset) -> Proven | None:
        """That the kernel holds what a ruleset means, by a proof of before; None where nothing is known.

        ``wanted`` is the ruleset as the backend is to hold it (:func:`meshfw.reconcile.checked`).
        """
        kept = self._read().get(self._place)
        if kept is None or kept.wanted != self._wanted(wanted):
            return None
        before = backend.fingerprint()
        if kept.kernel != self._kernel(backend):
            return None
        self._last = kept
        return Proven(before if backend.fingerprint() == before else None)

    def other(self, backend: Backend, wanted: Callable[[], Ruleset]) -> Proof | None:
        """The proof of another ruleset that somebody put in place of the wanted one, as long as the kernel holds it.

        What is wanted is only asked where the kernel is in the state of a proof.
        """
        kept = self._read().get(self._place)
        if kept is None or kept.kernel != self._kernel(backend):
            return None
        return kept if kept.wanted != self._wanted(wanted()) else None

    def keep(self, backend: Backend, wanted: Ruleset, fingerprint: Fingerprint | None) -> None:
        """Keep that the kernel means the ruleset at a fingerprint, if it still has that fingerprint.

        Where that can't be kept the next process reads as it would have done.
        """
        if fingerprint is None:
            return
        kernel = self._kernel(backend)
        # Fingerprints never come back: between that one and now nothing was any different, so this is of that state.
        if not kernel or backend.fingerprint() != fingerprint:
            return
        proof = Proof(kernel, self._wanted(wanted))
        if proof != self._last:
            self._last = proof
            self._write(proof)

    def _kernel(self, backend: Backend) -> str:
        """The digest of what the kernel holds and of who reads it; empty where the backend can't tell."""
        told = backend.digest() if isinstance(backend, Provable) else None
        return "" if told is None else _hashed(self._release, self._place, backend.name, told)

    def _wanted(self, wanted: Ruleset) -> str:
        kinds: set[type] = {type(match) for chain in wanted.chains for rule in chain.rules for match in rule.matches}
        kinds |= {type(rule.target) for chain in wanted.chains for rule in chain.rules}
        # Plugins may bring kinds of one name.
        return _hashed(digest(wanted), *sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds))

    def _read(self) -> Mapping[str, Proof]:
        try:
            kept = msgspec.json.decode(read_kept(_directory(), _NAME, most=_LONGEST), type=_Kept)
        except (OSError, OddFileError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
        return kept.proofs if kept.version == _VERSION else {}

    def _write(self, proof: Proof) -> None:
        try:
            with only_keeper(_directory()):  # owners and namespaces share the file
                proofs = {**self._read()}
                if proofs.pop(self._place, None) == proof:
                    return
                proofs[self._place] = proof
                for oldest in [*proofs][: max(0, len(proofs) - _MOST)]:
                    del proofs[oldest]
                write_kept(_directory(), _NAME, msgspec.json.encode(_Kept(_VERSION, proofs)) + b"\n")
        except (OSError, OddFileError):
            return


def _hashed(*parts: str) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _directory() -> str:
    named = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return named if os.path.isabs(named) else DIRECTORY
