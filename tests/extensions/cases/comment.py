"""Cases: rules of comment."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m comment --comment plain", "", 'counter comment "plain"'),
    Case("46", "filter", '-m comment --comment "two words"', "", 'counter comment "two words"'),
    Case(
        "46",
        "filter",
        '-p tcp -m comment --comment "it\'s \\"so\\"" -m tcp --dport 1',
        '-p tcp -m comment --comment "it\\\'s \\"so\\"" -m tcp --dport 1',
        "tcp dport 1 counter comment \"it's 'so'#cd8949f849d6\"",
    ),
    Case(
        "46",
        "filter",
        '-m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x1 -m comment --comment why -j DROP',
        "",
        'meta mark 0x00000001 counter drop comment "cali:S93hcgKJrXEqnTfs why"',
    ),
)
EQUAL = (("-m comment --comment a -m comment --comment b", '-m comment --comment "a b"'),)
DIFFERENT = (("-m comment --comment a -m comment --comment b", "-m comment --comment ab"),)
