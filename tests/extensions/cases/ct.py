"""Cases: rules of CT and NOTRACK."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.ct import DIRECTIONS, Ct, Notrack, Zone
from meshfw.model import Family
from tests.extensions.case import Case

_AT = "raw/PREROUTING"
_ZONE = "counter ct state != untracked ct"

CASES = (
    Case("46", _AT, "-j NOTRACK", "", "counter notrack"),
    Case("46", "raw/OUTPUT", "-p udp -m udp --dport 53 -j NOTRACK", "", "udp dport 53 counter notrack"),
    Case("46", _AT, "-j CT --notrack", "", "counter notrack"),
    Case("46", _AT, "-j CT --zone 5 --notrack", "-j CT --notrack --zone 5", "counter notrack"),
    Case("46", _AT, "-j CT", "", f"{_ZONE} zone set 0"),
    Case("46", _AT, "-j CT --zone 0", "-j CT", f"{_ZONE} zone set 0"),
    Case("46", _AT, "-i lo -j CT --zone 0x1001", "-i lo -j CT --zone 4097", f'iifname "lo" {_ZONE} zone set 4097'),
    Case("46", _AT, "-j CT --zone-orig 5", "", f"{_ZONE} original zone set 5"),
    Case("46", "raw/OUTPUT", "-j CT --zone-reply 65535", "", f"{_ZONE} reply zone set 65535"),
    Case("46", _AT, "-j CT --zone-reply 7 --zone-orig 7", "-j CT --zone 7", f"{_ZONE} zone set 7"),
    Case("46", _AT, "-j CT --zone-orig MARK", "-j CT --zone-orig mark", None),
    Case("46", _AT, "-p tcp -j CT --helper ftp --zone 5", "", None),
    Case(
        "46",
        _AT,
        "-j CT --zone 1 --ctevents secmark,new,destroy,new --expevents new",
        "-j CT --ctevents new,destroy,secmark --expevents new --zone 1",
        None,
    ),
    Case("46", _AT, "-j CT --notrack --timeout long", "", "counter notrack"),
)

REFUSED = (
    ("-j CT --zone 65536", "between 0 and 65535"),
    ("-j CT --zone -1", "not a number"),
    ("-j CT --zone 5 --zone-orig 6", "one of --zone, --zone-orig and --zone-reply"),
    ("-j CT --helper ftp", "state a protocol"),
    ("! -p tcp -j CT --helper ftp", "state a protocol"),
    ("-j CT --timeout long", "state a protocol"),
    ("-p tcp -j CT --helper sixteen-letters-", "15 bytes"),
    ('-p tcp -j CT --helper ""', "empty name"),
    ("-j CT --ctevents all", "'all' is no event"),
    ("-j CT --expevents destroy", "'destroy' is no event"),
    ("-j CT --notrack --notrack", "twice"),
)

EQUAL = (
    ("-j NOTRACK", "-j CT --notrack"),
    ("-j NOTRACK", "-j CT --notrack --zone 7"),
    ("-j CT", "-j CT --zone-orig 0"),
    ("-j CT --zone 7", "-j CT --zone-orig 7 --zone-reply 7"),
    ("-j CT --ctevents new,mark", "-j CT --ctevents mark,new,new"),
)

DIFFERENT = (
    ("-j CT", ""),  # a later CT has no effect any more
    ("-j CT", "-j NOTRACK"),
    ("-j CT --zone 7", "-j CT --zone-orig 7"),
    ("-j CT --zone-reply 7", "-j CT --zone-orig 7"),
    ("-j CT --zone mark", "-j CT"),
    ("-j CT --ctevents new", "-j CT --expevents new"),
    ("-p tcp -j CT --helper ftp", "-p tcp -j CT --helper irc"),
)

UNSAYABLE = (
    ("-p tcp -j CT --helper ftp", "--helper: .* tracked already"),
    ("-p tcp -j CT --timeout long", "--timeout"),
    ("-j CT --ctevents new", "--ctevents"),
    ("-j CT --expevents new", "--expevents"),
    ("-j CT --zone mark", "from no mark"),
)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    number = st.integers(0, 3) | st.integers(0, 0xFFFF)
    zone = st.builds(Zone, st.none() | number, st.sampled_from(DIRECTIONS)) | st.builds(Zone, number)
    helpers = {6: ("", "ftp", "sip"), 17: ("", "tftp", "sip")}.get(protocol or 0, ("",))
    return [
        st.just(Notrack()),
        st.builds(Ct, zone=st.none() | zone),
        st.builds(
            Ct,
            notrack=st.booleans(),
            helper=st.sampled_from(helpers),
            events=st.integers(0, 0x3FF),
            expectation_events=st.integers(0, 1),
            zone=st.none() | zone,
        ),
    ]
