"""Cases: rules of log."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-j LOG", "", "counter log"),
    Case(
        "46",
        "mangle",
        '-j LOG --log-prefix "dropped: " --log-level info',
        '-j LOG --log-prefix "dropped: " --log-level 6',
        'counter log prefix "dropped: " level info',
    ),
    Case("46", "filter", "-j LOG --log-level 4", "-j LOG", "counter log"),
    Case(
        "46",
        "filter",
        "-j LOG --log-level panic --log-uid",
        "-j LOG --log-level 0 --log-uid",
        "counter log level emerg flags skuid",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options",
        "counter log flags tcp sequence,options",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options",
        "-j LOG --log-ip-options --log-macdecode",
        "counter log flags ip options flags ether",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode",
        "counter log flags all",
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "cut after its twenty-ninth character"',
        '-j LOG --log-prefix "cut after its twenty-ninth ch"',
        'counter log prefix "cut after its twenty-ninth ch"',
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "a\\\\b\'c;{}#%"',
        '-j LOG --log-prefix "a\\\\b\\\'c;{}#%"',
        'counter log prefix "a\\b\'c;{}#%"',
    ),
    Case("46", "filter", '-j LOG --log-prefix "costs $5"', "", None),
    Case("46", "filter", '-j LOG --log-prefix "say \\"x\\""', "", None),
    Case(
        "46",
        "filter",
        "-j LOG --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-uid",
        "counter log flags tcp sequence,options flags skuid",
    ),
    Case("46", "filter", "-j LOG --log-tcp-sequence --log-uid", "", "counter log flags tcp sequence flags skuid"),
)
