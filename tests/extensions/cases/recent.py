"""Cases: rules of recent."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.errors import ModelError
from meshfw.extensions.recent import ACTIONS, Recent
from meshfw.model import Family, Match, Not
from tests.extensions.case import Case

M = "-m recent"
FULL = "--mask 255.255.255.255 --rsource"
CASES = (
    Case("4", "filter", f"{M} --set", f"{M} --set --name DEFAULT {FULL}", None),
    Case(
        "6",
        "filter",
        f"{M} ! --set --name x6",
        f"{M} ! --set --name x6 --mask {':'.join(['ffff'] * 8)} --rsource",
        None,
    ),
    Case(
        "4",
        "filter",
        f"{M} --name y --rcheck --rttl --hitcount 3 --reap --seconds 5 --rsource",
        f"{M} --rcheck --seconds 5 --reap --hitcount 3 --rttl --name y {FULL}",
        None,
    ),
    Case(
        "4",
        "filter",
        f"{M} --update --hitcount 0 --name z --rdest --mask 255.0.255.0",
        f"{M} --update --name z --mask 255.0.255.0 --rdest",
        None,
    ),
    Case(
        "6", "filter", f"{M} --remove --name y6 --mask ffff::", f"{M} --remove --name y6 --mask ffff:: --rsource", None
    ),
)
REFUSED = (
    (M, "one of"),
    (f"{M} --set --rcheck", "twice"),
    (f"{M} --rcheck --reap", "--seconds"),
    (f"{M} --rcheck --seconds 0", "between 1"),
    (f"{M} --rcheck --hitcount 65536", "65536"),
    (f"{M} --set --hitcount 5", "beside"),
    (f"{M} --remove --rttl", "beside"),
    (f"{M} --set --name a/b", "/proc"),
    (f"{M} --set --name .", "/proc"),
    (f'{M} --set --name "a b"', "quotes"),
    (f"{M} --set --rsource --rdest", "beside"),
    (f"{M} --update --mask 24", "24"),
)
EQUAL = ((f"{M} --set", f"{M} --set --name DEFAULT {FULL}"), (f"{M} --rcheck --hitcount 0", f"{M} --rcheck"))
DIFFERENT = (
    (f"{M} --set", f"{M} --update"),
    (f"{M} --set", f"{M} ! --set"),
    (f"{M} --set", f"{M} --set --rdest"),
    (f"{M} --set", f"{M} --set --name x"),
    (f"{M} --set -m mark --mark 1", f"-m mark --mark 1 {M} --set"),
)
UNSAYABLE = ((f"{M} --rcheck --name bad", "times or hits"),)


def _made(fields: dict[str, Any]) -> Any:
    """The match; None where there is none."""
    try:
        return Recent(**fields)
    except ModelError:
        return None


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Lists of addresses."""
    action = st.sampled_from(ACTIONS)
    made = st.fixed_dictionaries(
        {"action": action | action.map(Not)},
        optional={
            "seconds": st.integers(0, 0x7FFFFFFF),
            "reap": st.booleans(),
            "hits": st.integers(0, 0xFFFF),
            "ttl": st.booleans(),
            "name": st.sampled_from(("x", "bad.guys", "a:b")),
            "mask": st.integers(0, (1 << family.bits) - 2),
            "destination": st.booleans(),
        },
    )
    return [made.map(_made).filter(lambda held: held is not None)]
