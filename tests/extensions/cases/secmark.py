"""Cases: rules of SECMARK and CONNSECMARK."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.secmark import ConnSecMark
from meshfw.model import Family
from tests.extensions.case import Case

CASES = (
    Case("46", "security", "-j CONNSECMARK --save", "", None),
    Case("46", "mangle", "-j CONNSECMARK --restore", "", None),
)
UNHELD = (
    Case(
        "46",
        "security/INPUT",
        "-p tcp --dport 22 -j SECMARK --selctx system_u:object_r:sshd_t:s0",
        "-p tcp -m tcp --dport 22 -j SECMARK --selctx system_u:object_r:sshd_t:s0",
        'tcp dport 22 counter meta secmark set "selctx/system_u/object_r/sshd_t/s0"',
    ),
)
REFUSED = (
    ("-j SECMARK", "--selctx"),
    ('-j SECMARK --selctx "a b"', "security context"),
    ("-j CONNSECMARK", "--save or --restore"),
    ("-j CONNSECMARK --save --restore", "twice"),
)
DIFFERENT = (
    ("-j SECMARK --selctx a:b", "-j SECMARK --selctx a:c"),
    ("-j CONNSECMARK --save", "-j CONNSECMARK --restore"),
)
UNSAYABLE = (("-j CONNSECMARK --save", "overwrites"),)


def targets(family: Family, protocol: int | None) -> list[Any]:
    """Copies of a security mark."""
    return [st.builds(ConnSecMark, st.sampled_from(("save", "restore")))]
