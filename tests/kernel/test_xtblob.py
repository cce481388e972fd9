"""Laws of a legacy table's bytes: tables built here by the kernel's headers are understood, all else is refused."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import KernelError
from meshfw.kernel.xtblob import LAYOUTS, Blob, XtInfo, XtRule, answer_of, blob_of, info_of, parse
from meshfw.model import Family, Table

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
ACCEPT, DROP, RETURN = -2, -1, -5  # -NF_ACCEPT - 1, -NF_DROP - 1, XT_RETURN
NONE = 0xFFFFFFFF
NEXT = "next entry"  # the target of a rule that has none


@dataclass(frozen=True)
class Entry:
    """An entry to build: ``target`` is a verdict, a chain to jump to, NEXT, or a target of an extension."""

    target: int | str | bytes = ACCEPT
    conditions: bytes = b""  # struct ipt_ip or ip6t_ip6; zero where it's shorter
    matches: bytes = b""
    counters: tuple[int, int] = (0, 0)
    comefrom: int = 0
    nfcache: int = 0


@dataclass(frozen=True)
class Chain:
    """A chain to build: ``end`` is the policy's verdict, or the RETURN of a user chain."""

    name: str
    rules: tuple[Entry, ...] = ()
    hook: str | None = None
    end: Entry = field(default_factory=lambda: Entry(RETURN))


def xt_target(name: bytes, data: bytes) -> bytes:
    data += bytes(-len(data) % 8)
    return struct.pack("=H29sB", 32 + len(data), name, 0) + data


def target_size(entry: Entry) -> int:
    return len(entry.target) if isinstance(entry.target, bytes) else 40


def entry_bytes(family: Family, entry: Entry, offset: int, starts: dict[str, int]) -> bytes:
    """An entry as iptables writes it: struct ipt_entry or ip6t_entry, the matches, the target."""
    size, conditions = (112, 84) if family is Family.IPV4 else (168, 136)
    following = size + len(entry.matches) + target_size(entry)
    if isinstance(entry.target, bytes):
        target = entry.target
    elif isinstance(entry.target, str):
        target = xt_target(b"", struct.pack("=i", offset + following if entry.target == NEXT else starts[entry.target]))
    else:
        target = xt_target(b"", struct.pack("=i", entry.target))
    head = entry.conditions.ljust(conditions, b"\0")
    head += struct.pack("=IHHI", entry.nfcache, size + len(entry.matches), following, entry.comefrom)
    head = head.ljust(size - 16, b"\0") + struct.pack("=QQ", *entry.counters)
    return head + entry.matches + target


def error(name: str) -> Entry:
    return Entry(xt_target(b"ERROR", name.encode().ljust(30, b"\0")))


def built(family: Family, chains: tuple[Chain, ...]) -> tuple[XtInfo, bytes]:
    """A table as libiptc compiles it: the answers to GET_INFO and GET_ENTRIES."""
    order: list[tuple[Entry, Chain | None]] = []
    for chain in chains:
        order += [] if chain.hook else [(error(chain.name), None)]
        order += [(entry, chain) for entry in (*chain.rules, chain.end)]
    order.append((error("ERROR"), None))
    sizes = [LAYOUTS[family].entry + len(entry.matches) + target_size(entry) for entry, _ in order]
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for offset, (_, owner) in zip(offsets, order, strict=True):
        if owner is not None:
            starts.setdefault(owner.name, offset)
            ends[owner.name] = offset
    data = b"".join(entry_bytes(family, entry, o, starts) for (entry, _), o in zip(order, offsets, strict=True))
    names = {chain.hook: chain.name for chain in chains if chain.hook}
    info = XtInfo(
        valid_hooks=sum(1 << number for number, hook in enumerate(HOOKS) if hook in names),
        hook_entry=tuple(starts[names[hook]] if hook in names else NONE for hook in HOOKS),
        underflow=tuple(ends[names[hook]] if hook in names else NONE for hook in HOOKS),
        num_entries=len(order),
        size=len(data),
    )
    return info, data


def blob(family: Family, *chains: Chain) -> Blob:
    return blob_of(family, Table.FILTER, *built(family, chains))


COMMENT = struct.pack("=H29sB", 288, b"comment", 0) + b"hello".ljust(256, b"\0")
LOG = xt_target(b"LOG", bytes(32))
GOTO = {Family.IPV4: bytes(82) + b"\2", Family.IPV6: bytes(131) + b"\4"}
TCP = {Family.IPV4: bytes(80) + b"\6", Family.IPV6: bytes(128) + b"\6\0\0\1"}
MASKED = {Family.IPV4: bytes(8) + b"\xff", Family.IPV6: bytes(32) + b"\xff"}  # a source's mask
INTERFACE = {Family.IPV4: bytes(48) + b"\xff", Family.IPV6: bytes(96) + b"\xff"}
INVERTED = {Family.IPV4: bytes(83) + b"\x01", Family.IPV6: bytes(132) + b"\x01"}


def example(family: Family) -> tuple[Chain, ...]:
    rules = (
        Entry("A", counters=(1, 2)),
        Entry("A", GOTO[family]),
        Entry(DROP, TCP[family], COMMENT),
        Entry(NEXT, matches=COMMENT),
        Entry(LOG),
    )
    return (
        Chain("INPUT", rules, "input", Entry(DROP, counters=(3, 4))),
        Chain("FORWARD", (), "forward", Entry(ACCEPT)),
        Chain("A", (Entry("B"), Entry(RETURN))),
        Chain("B", (Entry(ACCEPT, counters=(2**64 - 1, 2**63)),)),
    )


@pytest.fixture(params=list(Family))
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


def only_rule(family: Family, entry: Entry) -> XtRule:
    table = parse(blob(family, Chain("INPUT", (entry,), "input", Entry(ACCEPT)), Chain("A"), Chain("B")))
    return table["INPUT"].rules[0]


# --- what is understood ---


def test_a_table_is_its_chains_in_order_with_rules_and_counters(family: Family) -> None:
    table = parse(blob(family, *example(family)))
    assert [(c.name, c.hook, c.policy, c.packets, c.bytes, len(c.rules)) for c in table.values()] == [
        ("INPUT", "input", "drop", 3, 4, 5),
        ("FORWARD", "forward", "accept", 0, 0, 0),
        ("A", None, None, 0, 0, 2),
        ("B", None, None, 0, 0, 1),
    ]
    assert list(table) == ["INPUT", "FORWARD", "A", "B"]
    assert [(r.packets, r.bytes, r.jump, r.plain) for r in table["INPUT"].rules] == [
        (1, 2, "A", True),
        (0, 0, "A", False),
        (0, 0, "", False),
        (0, 0, "", False),
        (0, 0, "", False),
    ]
    assert (table["B"].rules[0].packets, table["B"].rules[0].bytes) == (2**64 - 1, 2**63)


def test_an_empty_table_has_its_built_in_chains_alone(family: Family) -> None:
    table = parse(blob(family, Chain("OUTPUT", (), "output", Entry(ACCEPT))))
    assert [(chain.name, chain.rules) for chain in table.values()] == [("OUTPUT", ())]


def test_an_answer_to_get_info_is_read_and_written_alike(family: Family) -> None:
    info, _ = built(family, example(family))
    assert info_of(answer_of(info)) == info


def test_a_name_takes_all_thirty_bytes_or_is_no_utf_8(family: Family) -> None:
    odd = "\udcff" + "x" * 29
    chains = (Chain("INPUT", (Entry("long"),), "input", Entry(ACCEPT)), Chain("long"))
    info, data = built(family, chains)
    data = data.replace(b"long".ljust(30, b"\0"), odd.encode("utf-8", "surrogateescape"))
    table = parse(blob_of(family, Table.FILTER, info, data))
    assert list(table) == ["INPUT", odd]
    assert table["INPUT"].rules[0].jump == odd


# --- the body of a rule ---


def test_a_body_is_the_same_wherever_the_rule_stands(family: Family) -> None:
    first = parse(blob(family, *example(family)))["INPUT"].rules
    used = [replace(rule, comefrom=7, nfcache=1, counters=(5, 5)) for rule in example(family)[0].rules]
    others = [
        Chain("FORWARD", (Entry(DROP, matches=COMMENT), *used), "forward", Entry(ACCEPT)),
        Chain("0", (Entry(LOG),)),
        *example(family)[2:],
    ]
    moved = parse(blob(family, *others))["FORWARD"].rules[1:]
    assert [rule.body for rule in moved] == [rule.body for rule in first]
    assert [rule.packets for rule in moved] == [5] * 5


def test_a_body_tells_each_field_apart(family: Family) -> None:
    entries = [
        Entry("A"),
        Entry("B"),
        Entry("A", GOTO[family]),
        Entry("A", TCP[family]),
        Entry("A", MASKED[family]),
        Entry("A", INTERFACE[family]),
        Entry("A", INVERTED[family]),
        Entry("A", matches=COMMENT),
        Entry("A", matches=COMMENT.replace(b"hello", b"hullo")),
        Entry(NEXT),
        Entry(NEXT, matches=COMMENT),
        Entry(ACCEPT),
        Entry(DROP),
        Entry(RETURN),
        Entry(LOG),
        Entry(LOG[:40] + b"\1" + LOG[41:]),
    ]
    assert len({only_rule(family, entry).body for entry in entries}) == len(entries)


def test_a_jump_to_a_chain_without_a_name_is_no_rule_without_target(family: Family) -> None:
    rules = (Entry(""), Entry(NEXT))
    named, bare = parse(blob(family, Chain("INPUT", rules, "input", Entry(ACCEPT)), Chain("")))["INPUT"].rules
    assert named.body != bare.body


def test_a_plain_rule_has_a_jump_and_nothing_else(family: Family) -> None:
    assert only_rule(family, Entry("A", counters=(9, 9), comefrom=1)).plain
    for conditions in (GOTO, TCP, MASKED, INTERFACE, INVERTED):
        assert not only_rule(family, Entry("A", conditions[family])).plain
    assert not only_rule(family, Entry("A", matches=COMMENT)).plain
    for target in (NEXT, ACCEPT, LOG):
        rule = only_rule(family, Entry(target))
        assert (rule.jump, rule.plain) == ("", False)


# --- equality ---


def test_blobs_differ_by_more_than_counters_or_are_equal(family: Family) -> None:
    chains = example(family)
    kept = blob(family, *chains)
    counted = (replace(chains[0], end=Entry(DROP, counters=(8, 8))), *chains[1:])
    opened = (replace(chains[0], end=Entry(ACCEPT)), *chains[1:])
    assert blob(family, *counted) == kept
    assert hash(blob(family, *counted)) == hash(kept)
    assert blob(family, *counted).counters != kept.counters
    assert blob(family, *opened) != kept
    assert msgspec.structs.replace(kept, table=Table.NAT) != kept
    assert kept != "kept"


def test_a_rule_moved_over_the_border_of_two_chains_makes_a_difference(family: Family) -> None:
    last = Entry(ACCEPT)
    early = (Chain("INPUT", (last,), "input", last), Chain("FORWARD", (), "forward", last))
    late = (Chain("INPUT", (), "input", last), Chain("FORWARD", (last,), "forward", last))
    assert blob(family, *early).masked == blob(family, *late).masked
    assert blob(family, *early) != blob(family, *late)


def test_a_blob_is_shown_in_one_line(family: Family) -> None:
    assert repr(blob(family, *example(family))).startswith(f"<Blob {family} filter: 15 entries, ")


SIZES = st.lists(st.sampled_from([0, 8, 16, 112, 168, 288]), min_size=1, max_size=6)
PLACES = st.integers(0, 2**31)


@given(
    st.sampled_from(Family),
    SIZES,
    st.data(),
    st.lists(st.tuples(PLACES, st.sampled_from([0, 1, 152, 255])), max_size=4),
)
def test_zeroing_at_the_places_of_another_layout_never_makes_tables_equal(
    family: Family, sizes: list[int], data: st.DataObject, edits: list[tuple[int, int]]
) -> None:
    # What the fast path of Xtables.changed rests on, whatever else is done to the bytes.
    counter = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    matches = [Entry(ACCEPT, matches=bytes(size), counters=data.draw(counter)) for size in sizes]
    kept = blob(family, Chain("INPUT", tuple(matches), "input", Entry(ACCEPT)))
    moved = data.draw(st.permutations(matches))
    info, entries = built(family, (Chain("INPUT", tuple(moved), "input", Entry(ACCEPT)),))
    changed = bytearray(entries)
    for place, value in edits:
        changed[place % len(changed)] = value
    zeroed = bytearray(changed)
    for offset in memoryview(kept.offsets).cast("I"):
        start = offset + LAYOUTS[family].counters
        zeroed[start : start + 16] = bytes(16)
    if info == kept.info and zeroed == kept.masked:
        assert blob_of(family, Table.FILTER, info, bytes(changed)) == kept


# --- what is refused ---


def refused(family: Family, info: XtInfo, data: bytes) -> str:
    with pytest.raises(KernelError) as caught:
        parse(blob_of(family, Table.FILTER, info, data))
    assert caught.value.errno == errno.EPROTO
    return str(caught.value)


@pytest.mark.parametrize("lost", [1, 8, 31, 176])
def test_a_table_cut_off_is_refused(family: Family, lost: int) -> None:
    info, data = built(family, example(family))
    refused(family, info, data[:-lost])
    refused(family, msgspec.structs.replace(info, size=info.size - lost), data[:-lost])


@pytest.mark.parametrize("by", [-1, 1, 1000])
def test_a_wrong_number_of_entries_is_refused(family: Family, by: int) -> None:
    info, data = built(family, example(family))
    assert "entries instead of" in refused(
        family, msgspec.structs.replace(info, num_entries=info.num_entries + by), data
    )


@pytest.mark.parametrize("step", [0, 1, 111, 143, 0xFFFF])
def test_an_entry_of_impossible_size_is_refused(family: Family, step: int) -> None:
    info, data = built(family, example(family))
    place = LAYOUTS[family].sizes + 2
    assert "impossible size" in refused(family, info, data[:place] + struct.pack("=H", step) + data[place + 2 :])


def test_no_entries_are_refused(family: Family) -> None:
    refused(family, XtInfo(0, (NONE,) * 5, (NONE,) * 5, 0, 0), b"")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"valid_hooks": 0}, "belong to no chain"),
        ({"valid_hooks": 0b10}, "belong to no chain"),
        ({"valid_hooks": 0b1110}, "OUTPUT ends nowhere"),
        ({"hook_entry": (NONE, 8, 0, NONE, NONE)}, "INPUT doesn't begin"),
        ({"underflow": (NONE, 4, 0, NONE, NONE)}, "INPUT ends nowhere"),
        ({"underflow": (NONE, 0, 0, NONE, NONE)}, "FORWARD ends nowhere"),
    ],
)
def test_hooks_that_are_not_where_the_chains_are_are_refused(
    family: Family, edit: dict[str, int | tuple[int, ...]], said: str
) -> None:
    info, data = built(family, example(family))
    assert said in refused(family, msgspec.structs.replace(info, **edit), data)


INPUT = Chain("INPUT", (), "input", Entry(ACCEPT))


@pytest.mark.parametrize(
    ("chains", "said"),
    [
        ((INPUT, Chain("A"), Chain("A")), "two chains with one name"),
        ((INPUT, Chain("A", end=Entry(ACCEPT))), "doesn't end with RETURN"),
        ((INPUT, Chain("A", end=Entry(LOG))), "doesn't end with RETURN"),
        ((replace(INPUT, end=Entry(RETURN)),), "neither ACCEPT nor DROP"),
        ((replace(INPUT, end=Entry(LOG)),), "neither ACCEPT nor DROP"),
        ((replace(INPUT, rules=(Entry(8),)),), "where no chain begins"),
        ((replace(INPUT, rules=(Entry(2**31 - 1),)),), "where no chain begins"),
        ((replace(INPUT, rules=(Entry(xt_target(b"", b"")),)),), "is cut off"),
        ((INPUT, Chain("A", (Entry(xt_target(b"ERROR", b"")),))), "is cut off"),
        ((INPUT, Chain("A", (error("B"),))), "has no end"),
    ],
)
def test_what_no_tool_builds_is_refused(family: Family, chains: tuple[Chain, ...], said: str) -> None:
    assert said in refused(family, *built(family, chains))


def test_a_table_without_its_end_is_refused(family: Family) -> None:
    info, data = built(family, (INPUT, Chain("A")))
    size = len(entry_bytes(family, error("ERROR"), 0, {}))
    less = msgspec.structs.replace(info, size=info.size - size, num_entries=info.num_entries - 1)
    assert "no ERROR entry at its end" in refused(family, less, data[:-size])


WORDS = st.sampled_from([0, 1, 8, 111, 112, 152, 176, 0x7FFF, 0xFFFF])


@given(
    st.sampled_from(Family),
    st.lists(st.tuples(PLACES, st.booleans(), WORDS), min_size=1, max_size=6),
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2**32 - 1) | st.integers(0, 3000)), max_size=2),
)
def test_whatever_bytes_come_the_answer_is_a_table_or_a_refusal(
    family: Family, edits: list[tuple[int, bool, int]], lost: int, numbers: list[tuple[int, int]]
) -> None:
    info, entries = built(family, example(family))
    data = bytearray(entries)
    begins = [*memoryview(blob(family, *example(family)).offsets).cast("I")]
    layout = LAYOUTS[family]
    for place, aimed, word in edits:  # half of the edits hit what the structure hangs on
        targets = [place, *(o + at for o in begins for at in (layout.sizes, layout.sizes + 2, layout.entry + 32))]
        struct.pack_into("=H", data, (targets[place % len(targets)] if aimed else place) % (len(data) - 1), word)
    answer = list(struct.unpack("=13I", answer_of(info)))
    answer[12] = len(data) - lost
    for place, number in numbers:
        answer[place] = number
    try:
        table = parse(
            blob_of(family, Table.FILTER, info_of(struct.pack("=13I", *answer)), bytes(data[: len(data) - lost]))
        )
    except KernelError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - a refusal is allowed, not demanded
    else:
        entries_of = [len(chain.rules) + (1 if chain.hook else 2) for chain in table.values()]
        assert sum(entries_of) + 1 == answer[11]  # num_entries: each of them belongs somewhere
