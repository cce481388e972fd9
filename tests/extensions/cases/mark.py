"""Cases: rules of mark."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m mark --mark 7", "-m mark --mark 0x7", "meta mark 0x00000007 counter"),
    Case("46", "filter", "-m mark ! --mark 0x10/0xff", "", "meta mark & 0x000000ff != 0x00000010 counter"),
    Case("46", "filter", "-m mark --mark 0x100/0xffffff00", "", "meta mark 0x00000100/24 counter"),
    Case("46", "filter", "-m mark --mark 0/0", "-m mark --mark 0x0/0x0", "meta mark 0x00000000/0 counter"),
    Case("46", "filter", "-m mark ! --mark 0/0", "-m mark ! --mark 0x0/0x0", "meta mark != 0x00000000/0 counter"),
    Case("46", "filter", "-m mark --mark 0x11/0x1", "", "meta mark != 0x00000000/0 counter"),
    Case("46", "filter", "-m connmark ! --mark 0x1/0xff000000", "", "ct mark 0x00000000/0 counter"),
    Case("46", "filter", "-m connmark --mark 010", "-m connmark --mark 0x8", "ct mark 0x00000008 counter"),
    Case("46", "filter", "-m connmark ! --mark 0x4000/0x4000", "", "ct mark & 0x00004000 != 0x00004000 counter"),
    Case("46", "filter", "-m connmark --mark 0/0", "-m connmark --mark 0x0/0x0", "ct mark 0x00000000/0 counter"),
    Case("46", "filter", "-m connmark --mark 0x80000000/0xf0000000", "", "ct mark 0x80000000/4 counter"),
    Case(
        "46", "mangle", "-j MARK --set-mark 7", "-j MARK --set-xmark 0x7/0xffffffff", "counter meta mark set 0x00000007"
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-xmark 0x5/0x3",
        "",
        "counter meta mark set meta mark & 0xfffffffd ^ 0x00000004 | 0x00000001",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-mark 0x5/0x3",
        "-j MARK --set-xmark 0x5/0x7",
        "counter meta mark set meta mark & 0xfffffffd | 0x00000005",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --and-mark 0xff",
        "-j MARK --set-xmark 0x0/0xffffff00",
        "counter meta mark set meta mark & 0x000000ff",
    ),
    Case(
        "46",
        "filter",
        "-j MARK --or-mark 0x10",
        "-j MARK --set-xmark 0x10/0x10",
        "counter meta mark set meta mark | 0x00000010",
    ),
    Case(
        "46",
        "raw/PREROUTING",
        "-j MARK --xor-mark 0x10",
        "-j MARK --set-xmark 0x10/0x0",
        "counter meta mark set meta mark ^ 0x00000010",
    ),
    Case(
        "46",
        "mangle",
        "-j MARK --set-xmark 0x101/0xf",
        "",
        "counter meta mark set meta mark & 0xfffffff1 ^ 0x00000100 | 0x00000001",
    ),
    Case("46", "mangle", "-j MARK --set-xmark 0/0", "-j MARK --set-xmark 0x0/0x0", "counter meta mark set meta mark"),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --set-mark 7",
        "-j CONNMARK --set-xmark 0x7/0xffffffff",
        "counter ct mark set 0x00000007",
    ),
    Case(
        "46", "mangle", "-j CONNMARK --set-xmark 0x1/0xff", "", "counter ct mark set ct mark & 0xffffff01 | 0x00000001"
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --or-mark 0x10",
        "-j CONNMARK --set-xmark 0x10/0x10",
        "counter ct mark set ct mark | 0x00000010",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --set-mark 5 --mask 4",
        "-j CONNMARK --set-xmark 0x5/0x4",
        "counter ct mark set ct mark ^ 0x00000001 | 0x00000004",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark",
        "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "counter ct mark set meta mark",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "counter meta mark set ct mark",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffffffff",
        "",
        "counter ct mark set meta mark & 0x000000ff",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --ctmask 0xff",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xff",
        "counter meta mark set ct mark & 0x000000ff",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --mask 0xff",
        "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
        None,
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark --mask 0xff",
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
        None,
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --restore-mark --left-shift-mark 3",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff --left-shift-mark 3",
        "counter meta mark set ct mark << 3",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --set-xmark 0x5/0x7 --right-shift-mark 3",
        "",
        "counter ct mark set (ct mark & 0xfffffffd | 0x00000005) >> 3",
    ),
    Case(
        "46",
        "mangle",
        "-j CONNMARK --save-mark --nfmask 0xf --left-shift-mark 4",
        "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xffffffff --left-shift-mark 4",
        "counter ct mark set (meta mark & 0x0000000f) << 4",
    ),
)

EQUAL = (
    ("-m mark --mark 2/1", "-m mark ! --mark 0/0"),
    ("-m mark ! --mark 2/1", ""),
    ("-m connmark ! --mark 2/1", "-m connmark --mark 0/0"),
)
DIFFERENT = (("-m mark --mark 2/1", "-m mark --mark 1/1"),)
UNSAYABLE = (("-j CONNMARK --set-mark 1 --left-shift-mark 1", "comes of it"),)
PACKETS = (
    "-p udp --dport 108 -j MARK --set-mark 0x13",
    "-p udp --dport 108 -j CONNMARK --save-mark --nfmask 0xf --left-shift-mark 4",
    "-m connmark --mark 0x30",
    "-p udp --dport 108 -j CONNMARK --set-xmark 0x1/0x1 --left-shift-mark 1",
    "-m connmark --mark 0x62",
    "-p udp --dport 108 -j CONNMARK --restore-mark --ctmask 0xf0 --right-shift-mark 5",
    "-m mark --mark 0x3",
    "-m mark --mark 2/1",
    "-m mark ! --mark 0x1/0xff000000",
    "-m mark ! --mark 0/0",
    "-m connmark --mark 2/1",
    "-m connmark ! --mark 0x1/0xff000000",
)
