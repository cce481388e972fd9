"""Cases: rules of the matches that look at a packet's bytes: string, u32, bpf; and of osf."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.bpf import Bpf, Instruction
from meshfw.extensions.osf import Osf
from meshfw.extensions.string import String
from meshfw.extensions.u32 import U32, Step, WordTest
from meshfw.model import Family, Not
from tests.extensions.case import Case

_PROGRAM = "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0"


_TOP = "& 0xf8000000 | 0x8000000"
_LOW = "& 0x800000ff | 0x80000000"


def _hex(written: str, saved: str) -> Case:
    return Case("46", "filter", f"-m string --hex-string {written} --algo bm", f"-m string {saved} --algo bm", None)


def _u32(tests: str, saved: str, nft: str | None, *, sign: str = "") -> Case:
    return Case("46", "filter", f'-m u32 {sign}--u32 "{tests}"', f'-m u32 {sign}--u32 "{saved}"', nft)


CASES = (
    Case("46", "filter", "-m string --algo bm --string test", '-m string --string "test" --algo bm', None),
    Case("46", "filter", r'-m string ! --string "a\"b \\c" --algo kmp --icase', "", None),
    _hex("|0A0d|x", '--hex-string "|0a0d78|"'),
    _hex(r'"\\|41 42|"', '--string "|41 42"'),
    _hex('"| 41 42 |"', '--string "AB"'),
    _hex("|41||42|", '--string "A|42"'),
    _hex("x|41|", '--string "xA"'),
    Case(
        "46",
        "filter",
        "-m string --to 20 --string x\\ --algo bm --from 1",
        '-m string --hex-string "|785c|" --algo bm --from 1 --to 20',
        None,
    ),
    _u32("0>>28=4", "0x0>>0x1c=0x4", f"@nh,0,32 {_TOP} == 0x48000000 counter"),
    _u32(" 6 & 0xFF = 1 ", "0x6&0xff=0x1", f"@nh,48,32 {_LOW} == 0x80000001 counter"),
    _u32(
        "8&0xff=1,2,4:6,5",
        "0x8&0xff=0x1,0x2,0x4:0x6,0x5",
        f"@nh,64,32 {_LOW} == {{ 2147483649-2147483650, 2147483652-2147483654 }} counter",
    ),
    _u32("4&0xff=1:0xffff", "0x4&0xff=0x1:0xffff", f"@nh,32,32 {_LOW} == 0x80000001-0x800000ff counter"),
    _u32("4&0xff=0", "0x4&0xff=0x0", f"@nh,32,32 {_LOW} != 0x80000000 counter", sign="! "),
    _u32("4=1:9", "0x4=0x1:0x9", "@nh,32,32 0x1-0x9 counter"),
    _u32("4=5", "0x4=0x5", "@nh,32,32 != 0x5-0x5 counter", sign="! "),
    _u32(
        "20=0xa000001",
        "0x14=0xa000001",
        "@nh,160,32 & 0xffff8000 | 0x8000 == 0xa008000 @nh,160,32 & 0x8000ffff | 0x80000000 == 0x80000001 counter",
    ),
    _u32("40=1,0x10", "0x28=0x1,0x10", "@nh,320,32 { 0x1, 0x10 } counter"),
    _u32("3=0:0xffffffff&&2&0xff00<<4=0:0xff000", "0x3=0x0:0xffffffff&&0x2&0xff00<<0x4=0x0:0xff000", "counter"),
    _u32("0&0xff=0x100", "0x0&0xff=0x100", "@nh,0,32 != 0x0-0xffffffff counter"),
    _u32("99&0xff=0x100", "0x63&0xff=0x100", "@nh,0,32 != 0x0-0xffffffff counter"),
    _u32("0&1=0:1", "0x0&0x1=0x0:0x1", "@nh,0,32 != 0x0-0xffffffff counter", sign="! "),
    _u32("0&0xff=0x100", "0x0&0xff=0x100", "counter", sign="! "),
    _u32("100=0:0xffffffff", "0x64=0x0:0xffffffff", None),
    _u32("100=1", "0x64=0x1", None, sign="! "),
    _u32("0=1&&4=2", "0x0=0x1&&0x4=0x2", None, sign="! "),
    _u32("0>>22&0x3C@0>>24=8", "0x0>>0x16&0x3c@0x0>>0x18=0x8", None),
    Case("46", "filter", f'-m bpf --bytecode "{_PROGRAM}"', "", None),
    Case("46", "filter", '-m bpf --bytecode "1, 6  0 0 1,"', '-m bpf --bytecode "1,6 0 0 1"', None),
    Case("4", "filter/INPUT", "-p tcp -m osf ! --genre Linux --ttl 1 --log 2", "", None),
    Case("4", "filter/INPUT", "-p tcp -m osf --genre Windows:XP", "", None),
)
UNHELD = (Case("46", "filter", "-m bpf --object-pinned /sys/fs/bpf/x", "", None),)
REFUSED = (
    ("-m string --string x", "--algo"),
    ("-m string --algo bm", "--string"),
    ("-m string --string x --algo wrong", "wrong"),
    ('-m string --string "" --algo bm', "1 to 128"),
    (f"-m string --string {'x' * 129} --algo bm", "1 to 128"),
    ("-m string --string x --hex-string |41| --algo bm", "twice"),
    ("-m string --hex-string |4| --algo bm", "hex digits"),
    ("-m string --hex-string |41 --algo bm", "bar"),
    ("-m string --string x --algo bm --from 2 --to 1", "ascending"),
    ("-m u32", "--u32"),
    ("-m u32 --u32 0", "no test"),
    ("-m u32 --u32 =1", "no test"),
    ("-m u32 --u32 0=", "FIRST:LAST"),
    ("-m u32 --u32 0&=1", "&"),
    ("-m u32 --u32 0<1=1", "<1"),
    ("-m u32 --u32 0=4294967296", "4294967296"),
    ('-m u32 --u32 "0=1&&"', "no test"),
    (f"-m u32 --u32 0={','.join('1' * 11)}", "1 to 10"),
    ('-m bpf --bytecode "2,6 0 0 1"', "has 1"),
    ('-m bpf --bytecode "1,6 0 0"', "four numbers"),
    ('-m bpf --bytecode "1,6 0 256 0"', "256"),
    ("-m bpf", "one of"),
    ("-m osf --genre Linux", "protocol"),
    ("-p tcp -m osf --genre Linux --ttl 3", "between 0 and 2"),
    ("-p tcp -m osf --genre abcdefghijabcdefghijabcdefghijkl", "31 bytes"),
)
EQUAL = (
    ("-m string --hex-string |74657374| --algo bm", "-m string --string test --algo bm"),
    ('-m u32 --u32 "0>>24&0xf=5"', '-m u32 --u32 "0&0xf000000=0x5000000"'),
    ('-m u32 --u32 "0&0xff=1&&0&0xff00=0x200"', '-m u32 --u32 "0&0xffff=0x201"'),
    ('-m u32 --u32 "0&0xff=1:2,3"', '-m u32 --u32 "0&0xff=1:3"'),
    ('-m u32 --u32 "0<<24>>28=7"', '-m u32 --u32 "0&0xf0=0x70"'),
    ('-m u32 --u32 "0=0:0xffffffff"', ""),
    ('-m u32 --u32 "0=2:1"', '-m u32 ! --u32 "4=0:0xffffffff"'),
    ('-m u32 ! --u32 "0=2:1"', ""),
)
DIFFERENT = (
    ("-m string --string a --algo bm", "-m string ! --string a --algo bm"),
    ("-m string --string a --algo bm", "-m string --string a --algo bm --icase"),
    ('-m u32 --u32 "0=1"', '-m u32 ! --u32 "0=1"'),
    ('-m u32 --u32 "0=1"', '-m u32 --u32 "1=1"'),
    ('-m u32 --u32 "0=1&&4=1"', '-m u32 --u32 "0=1"'),
    ('-m u32 --u32 "100=0:0xffffffff"', ""),  # it still asks that the packet is as long
    ("-m bpf --bytecode '1,6 0 0 1'".replace("'", '"'), '-m bpf --bytecode "1,6 0 0 2"'),
)
UNSAYABLE = (
    ("-m string --string a --algo bm", "searches no packet"),
    (f'-m bpf --bytecode "{_PROGRAM}"', "programs"),
    ('-m u32 --u32 "0>>22&0x3C@4=1"', "no place that the packet names"),
    ('-m u32 --u32 "0>>32=1"', "shifts by no 32 bits"),
    ('-m u32 --u32 "70000=1"', "65535"),
    ('-m u32 --u32 "20=0:0xffffffff"', "length alone"),
    ('-m u32 ! --u32 "20=1"', "too short"),
    ('-m u32 --u32 "16=1:5"', "as an address"),
    ('-m u32 --u32 "12&0xff=1"', "as an address"),
    ("-p tcp -m osf --genre Linux", "first fingerprint"),
)
# Of bytes that two runs have in common: no identification and checksum of IPv4, no flow label of IPv6.
PACKETS = (
    '-m u32 --u32 "0>>28=4"',
    '-m u32 ! --u32 "0>>28=4"',
    '-m u32 --u32 "6&0xff=6:17"',
    '-m u32 --u32 "6&0xff=6:16,58"',
    '-m u32 --u32 "3&0xff=6,17"',
    '-m u32 ! --u32 "6&0xff00=0x4000"',
    '-m u32 --u32 "3&0xff<<4=0x60:0x110,0x3a0"',
    '-m u32 --u32 "3&0xf7=0x6:0x34&&6&0xff=1:100"',
    '-m u32 --u32 "40&0xffff=0:103"',
    '-m u32 --u32 "40=0:0xfffffff"',
    '-m u32 --u32 "60=0:0xfffffff"',
    '-m u32 --u32 "20>>16=201,202&&20&0xffff=101:102"',
    '-m u32 --u32 "40>>16<<4>>8&0xfff=0xc:0x13"',
    '-m u32 --u32 "13&0xffffff00=0x00000100"',
    '-m u32 ! --u32 "13&0xffffff00=0x00000100"',
    '-m u32 ! --u32 "6&0xff=5:0x10,0x12:0xff"',
)


def matches(family: Family, protocol: int | None) -> list[Any]:
    word = st.integers(0, 9) | st.integers(0, 0xFFFFFFFF) | st.sampled_from((0xFF00, 0xFF0000, 0xFF000000))
    step = st.builds(Step, st.just("&"), word) | st.builds(Step, st.sampled_from(("<<", ">>")), st.integers(0, 31))
    value = st.tuples(word, word) | word.map(lambda held: (held, held))
    place = st.integers(0, 44) | st.integers(0, 0xFFFFFFFF)
    test = st.builds(
        WordTest,
        place,
        st.lists(step, max_size=3).map(tuple),
        st.lists(value, min_size=1, max_size=3).map(tuple),
    )
    tests = st.lists(test, min_size=1, max_size=2).map(tuple)
    pattern = st.binary(min_size=1, max_size=9) | st.text(st.characters(codec="ascii"), min_size=1).map(str.encode)
    pattern = pattern.filter(lambda held: len(held) <= 128)
    start = st.integers(0, 99)
    # A kernel takes known instructions alone, jumps inside the program, and a return at the end (bpf_check_classic).
    loads = st.builds(Instruction, st.sampled_from((32, 40, 48)), st.just(0), st.just(0), st.integers(0, 0xFFFF))
    instruction = loads | st.builds(Instruction, st.sampled_from((4, 84)), st.just(0), st.just(0), word)
    jump = st.builds(Instruction, st.sampled_from((21, 37, 53)), st.just(0), st.just(0), word)
    end = st.builds(Instruction, st.just(6), st.just(0), st.just(0), word)
    program = st.tuples(st.lists(instruction | jump, max_size=4), end).map(lambda parts: (*parts[0], parts[1]))
    held: list[Any] = [
        st.builds(U32, tests | tests.map(Not)),
        st.builds(U32, st.tuples(test)),
        st.builds(
            String, pattern | pattern.map(Not), st.sampled_from(("bm", "kmp")), start, st.just(0xFFFF), st.booleans()
        ),
        st.builds(Bpf, program),
    ]
    if protocol == 6 and family is Family.IPV4:
        level = st.none() | st.integers(0, 2)
        held.append(st.builds(Osf, st.sampled_from(("Linux", Not("Windows"))), level, level))
    return held
