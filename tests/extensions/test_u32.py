"""Laws of u32's arithmetic: a mask and ranges say of every word what the steps say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshfw.extensions.u32 import Step, WordTest

WORD = st.integers(0, 15) | st.integers(0, 0xFFFFFFFF) | st.sampled_from((0xFF00, 0xFFFF0000, 0xFFFFFFFF))
STEPS = st.lists(
    st.builds(Step, st.just("&"), WORD) | st.builds(Step, st.sampled_from(("<<", ">>")), st.integers(0, 31)), max_size=4
).map(tuple)
RANGES = st.lists(st.tuples(WORD, WORD), min_size=1, max_size=3).map(tuple)


def stepped(word: int, steps: tuple[Step, ...]) -> int:
    """The word as the kernel's match goes through the steps (xt_u32.c)."""
    for step in steps:
        if step.operator == "&":
            word &= step.number
        else:
            word = word >> step.number if step.operator == ">>" else word << step.number & 0xFFFFFFFF
    return word


@given(STEPS, RANGES, st.lists(WORD, min_size=1, max_size=20), st.data())
def test_mask_and_ranges_say_what_the_steps_say(
    steps: tuple[Step, ...], ranges: tuple[tuple[int, int], ...], words: list[int], data: st.DataObject
) -> None:
    plain = WordTest(0, steps, ranges).plain()
    assert plain is not None
    mask, held = plain
    edges = [end + near for pair in held for end in pair for near in (-1, 0, 1)]
    outside = data.draw(WORD)
    for word in (*words, *((edge & mask) | (outside & ~mask) for edge in edges)):
        wanted = any(low <= stepped(word, steps) <= high for low, high in ranges)
        assert any(low <= word & mask <= high for low, high in held) == wanted


@given(STEPS, RANGES)
def test_ranges_end_where_the_mask_can_be(steps: tuple[Step, ...], ranges: tuple[tuple[int, int], ...]) -> None:
    plain = WordTest(0, steps, ranges).plain()
    assert plain is not None
    mask, held = plain
    assert all(end & ~mask == 0 for pair in held for end in pair)
    assert list(held) == sorted(held)


def test_a_step_that_reads_elsewhere_is_not_plain() -> None:
    assert WordTest(0, (Step("@", 4),), ((1, 1),)).plain() is None
    assert WordTest(0, (Step("<<", 32),), ((1, 1),)).plain() is None
