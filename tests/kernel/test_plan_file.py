"""Laws of plans in files: what was reviewed is what is done, or nothing is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from meshfw.applying import BEFORE
from meshfw.cli import PENDING
from tests.kernel.inn import Inn

pytestmark = pytest.mark.kernel
ONE, TWO, THREE = "-s 10.0.0.1/32 -j ACCEPT", "-s 10.0.0.2/32 -j ACCEPT", "-s 10.0.0.3/32 -j DROP"


def refused(inn: Inn, message: str, *argv: str) -> None:
    before = inn.everything()
    said = inn("apply", "reviewed", *argv, code=1)
    assert "meshfw: error: reviewed: " in said.err
    assert message in said.err
    assert "Traceback" not in said.err
    assert inn.everything() == before


def written(inn: Inn) -> Any:
    return json.loads((inn.directory / "reviewed").read_text(encoding="utf-8"))


def test_what_was_reviewed_is_what_is_done(inn: Inn) -> None:
    inn.declare(ONE)
    inn("apply")
    inn.declare(ONE, TWO)
    shown = inn("plan", "--out", "reviewed", code=PENDING).out
    assert inn.rules() == [ONE]
    path = inn.directory / "reviewed"
    assert path.stat().st_mode & 0o777 == 0o600
    content = written(inn)["content"]
    assert content["changes"] == shown.splitlines()
    assert content["transaction"] == inn("plan", "--transaction", code=PENDING).out
    assert (content["owner"], content["backend"], content["netns"]) == ("inn", inn.backend, inn.name)
    done = inn("apply", "reviewed", "--json").data
    assert done["outcome"] == "changed"
    assert inn.rules() == [ONE, TWO]
    assert inn.states() == [(1, 0, BEFORE), (2, 1, "apply"), (3, 2, "apply")]
    refused(inn, "the kernel's rules of ours have changed since it was made")


def test_foreign_writes_elsewhere_are_none_of_its_business(inn: Inn) -> None:
    inn.declare(ONE)
    inn("plan", "--out", "reviewed", code=PENDING)
    inn.tool("nft add table inet fw")
    inn.tool("iptables-nft -A FORWARD -s 10.9.9.9 -j DROP")
    inn.tool("ip6tables-legacy -A INPUT -j ACCEPT")
    inn("apply", "reviewed", "--backend", inn.backend)
    assert inn.rules() == [ONE]


def test_other_declared_rules_are_refused(inn: Inn) -> None:
    inn.declare(ONE)
    inn("plan", "--out", "reviewed", code=PENDING)
    inn.declare(ONE, TWO)
    refused(inn, "the declared rules have changed since it was made (nothing was changed; plan again")


def test_other_rules_in_the_kernel_are_refused(inn: Inn) -> None:
    inn.declare(ONE)
    inn("apply")
    inn.declare(TWO)
    inn("plan", "--out", "reviewed", code=PENDING)
    inn.declare(ONE, THREE)
    inn("apply")
    inn.declare(TWO)
    refused(inn, "the kernel's rules of ours have changed")


def test_rules_that_already_are_what_the_plan_makes_of_them_are_refused(inn: Inn) -> None:
    inn.declare(ONE)
    inn("plan", "--out", "reviewed", code=PENDING)
    inn("apply")
    refused(inn, "the kernel's rules of ours have changed")


def test_another_owner_backend_or_namespace_is_refused(inn: Inn) -> None:
    inn.declare(ONE)
    inn("plan", "--out", "reviewed", code=PENDING)
    other = "nft" if inn.backend != "nft" else "iptables-nft"
    refused(inn, f"it is for backend {inn.backend}, and this is {other}", "--backend", other)
    text = (inn.directory / "meshfw.toml").read_text(encoding="utf-8")
    (inn.directory / "meshfw.toml").write_text(text.replace('owner = "inn"', 'owner = "pub"'), encoding="utf-8")
    refused(inn, "it is for owner inn, and this is pub")
    inn.declare(ONE)
    name, inn.name = inn.name, str(inn.directory / "other")
    os.symlink(inn.room.path, inn.name)
    refused(inn, f"it is for network namespace {name}, and this is network namespace {inn.name}")
    inn.name = name
    inn.reboot()
    refused(inn, f"network namespace {name} isn't the one any more")


def test_a_file_that_is_none_is_refused(inn: Inn) -> None:
    inn.declare(ONE)
    inn("plan", "--out", "reviewed", code=PENDING)
    path = inn.directory / "reviewed"
    whole = path.read_bytes()
    for document, message in (
        (whole[:-9], "it is cut off"),
        (b"", "it is cut off"),
        (b"plan", "it is no plan of meshfw"),
        (whole.replace(b'"version":1', b'"version":2'), "it is a plan of version 2, and this meshfw reads version 1"),
        (whole.replace(b"10.0.0.1", b"10.0.0.9"), "its checksum doesn't fit"),
        (b'{"meshfw": "state", "version": 1}', "it is a 'state' of meshfw, not a plan"),
    ):
        path.write_bytes(document)
        refused(inn, message)
    path.unlink()
    refused(inn, "can't be read: No such file or directory")
    path.mkdir()
    refused(inn, "can't be read: Is a directory")
    os.rmdir("reviewed")
    os.mkfifo("reviewed")
    refused(inn, "it's no regular file ('meshfw plan --out FILE' makes one)")


def test_a_plan_with_nothing_to_do_does_nothing(inn: Inn) -> None:
    inn.declare(ONE)
    inn("apply")
    inn("plan", "--out", "reviewed")
    assert written(inn)["content"]["changes"] == []
    assert inn("apply", "reviewed", "--json").data["outcome"] == "clean"


def test_a_plan_that_can_not_be_written_is_an_error_and_leaves_what_was_there(inn: Inn) -> None:
    inn.declare(ONE)
    said = inn("plan", "--out", "none/reviewed", code=1)
    assert "meshfw: error: none/reviewed: can't be written: No such file or directory" in said.err
    (inn.directory / "reviewed").mkdir()
    assert "reviewed: can't be written" in inn("plan", "--out", "reviewed", code=1).err
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []
