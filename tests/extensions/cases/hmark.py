"""Cases: rules of HMARK."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.hmark import Hmark
from meshfw.model import Family, Target
from tests.extensions.case import Case

T = "-j HMARK"
TAIL = "--hmark-rnd 0x00000004 --hmark-mod 42"
CASES = (
    Case(
        "46",
        "mangle",
        f"{T} --hmark-src-prefix 1 --hmark-tuple sport,dport,proto,ct --hmark-mod 42 --hmark-rnd 4 --hmark-offset 1 "
        "--hmark-dst-prefix 2",
        f"{T} --hmark-src-prefix 1 --hmark-dst-prefix 2 --hmark-sport-mask 0xffff --hmark-dport-mask 0xffff "
        f"--hmark-proto-mask 0xffff {TAIL} --hmark-offset 1 --hmark-tuple ct",
        None,
    ),
    Case(
        "46",
        "mangle",
        f"{T} --hmark-sport-mask 3 --hmark-dport-mask 4 --hmark-sport 5 --hmark-dport 6 --hmark-proto-mask 5 {TAIL}",
        f"{T} --hmark-sport-mask 0x0003 --hmark-dport-mask 0x0004 --hmark-sport 0x0005 --hmark-dport 0x0006 "
        f"--hmark-proto-mask 0x05 {TAIL}",
        None,
    ),
    Case(
        "46",
        "mangle",
        f"{T} --hmark-spi-mask 0xff --hmark-spi 7 {TAIL}",
        f"{T} --hmark-spi-mask 0x000000ff --hmark-spi 0x00000007 {TAIL}",
        None,
    ),
)
REFUSED = (
    (T, "--hmark-mod"),
    (f"{T} --hmark-tuple src --hmark-mod 5", "--hmark-rnd"),
    (f"{T} --hmark-mod 5 --hmark-rnd 5", "--hmark-tuple"),
    (f"{T} --hmark-tuple src,what {TAIL}", "what"),
    (f"{T} --hmark-tuple spi,sport {TAIL}", "not both"),
    (f"{T} --hmark-src-prefix 33 {TAIL}", "33"),
    (f"{T} --hmark-tuple src --hmark-src-prefix 3 {TAIL}", "already"),
    (f"{T} --hmark-tuple src --hmark-rnd 1 --hmark-mod 0", "between 1"),
)
EQUAL = (
    (f"{T} --hmark-tuple src {TAIL}", f"{T} --hmark-src-prefix 32 {TAIL}"),
    (f"{T} --hmark-tuple src {TAIL}", f"{T} --hmark-src-prefix 3 --hmark-tuple src {TAIL}"),
)
DIFFERENT = (
    (f"{T} --hmark-tuple src {TAIL}", f"{T} --hmark-tuple dst {TAIL}"),
    (f"{T} --hmark-tuple src {TAIL}", f"{T} --hmark-tuple src,ct {TAIL}"),
)
UNSAYABLE = ((f"{T} --hmark-tuple src {TAIL}", "both directions"),)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Target]]:
    """Hashes."""
    number = st.none() | st.integers(0, 0xFFFF)
    return [
        st.builds(
            Hmark,
            source=st.integers(0, family.bits),
            destination=st.none() | st.integers(0, family.bits),
            sport_mask=number,
            dport=number,
            protocol_mask=number,
            seed=st.integers(0, 0xFFFFFFFF),
            modulus=st.integers(1, 0xFFFFFFFF),
            offset=number,
            ct=st.booleans(),
        )
    ]
