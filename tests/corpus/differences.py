"""Where meshfw differs from iptables' own translations on purpose: the words of the rule, and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TRANSLATIONS: Final[tuple[tuple[str, str], ...]] = (
    ("--hbh-len 22", "a header's length in bytes is a multiple of eight; nft's hdrlength counts units of eight"),
    ("--rt-len 22", "the same of a routing header"),
    ("-m ah --ahlen", "the length is in bytes, and nft's hdrlength in words of four less two"),
    ("-m ah --ahres", "the reserved bits must be zero, and nothing asks for one"),
    ("-j TCPMSS --set-mss", "iptables adds the option where it is missing; nft doesn't"),
    ("-m cluster", "nft can't hash an expected connection as iptables does"),
    ("connlabel ! --label 40 --set", "nft can't tell whether the connection took the label"),
    ("--limit-burst 0", "iptables refuses it since it never matches"),
    ("! --uid-owner", "a packet without a socket meets it on iptables, and no condition of nft's"),
    ("rpfilter --validmark --invert", "iptables passes the source ::, for which nft's fib looks for a route"),
    ("! --fragid 0:4294967295", "no packet meets it, and nft would store a range of all numbers"),
    ("-j TPROXY", "it drops a packet for which no socket listens, and nft's tproxy goes on"),
    ("-m socket --transparent", "nft ends a rule at a socket that opens or closes, when asked for its address"),
    ("CONNMARK --set-xmark 0x16/0x12", "a set-xmark clears the bits of its mask first"),
    ("CONNMARK --set-mark 0x23/0x42 --right-shift-mark 5", "the mark is changed before it shifts"),
    ("-j SYNPROXY", "iptables' answers SYN and the ACK behind it alone; nft's would answer any segment"),
    ("-j TEE --gateway", "the listing is compared on a host without the interface"),
    ("-m cgroup", "a packet without a socket never meets it on iptables"),
    ("-m connlimit", "a meter in the rule counts as the declared set does"),
    ("-m hashlimit", "the meter's name tells whose it is"),
    ("-m multiport --ports", "the pairs are the same without overlap"),
    ("-m time", "a last second that ends all dates, or a day, is left out"),
    ("-p mh", "the protocol is what is asked for: exthdr looks for a header that none precedes"),
)
"""In the vectors of upstream's translations; each must be met by one of them at least."""


def translation_difference(argv: Sequence[str]) -> str | None:
    """The reason why a rule is translated in another way than upstream does; None where none is known."""
    text = " ".join(argv)
    return next((words for words, _ in TRANSLATIONS if _holds(text, words)), None)


def _holds(text: str, words: str) -> bool:
    """Whether a rule has the words in their order."""
    at = 0
    for word in words.split():
        found = f" {text} ".find(f" {word} ", at)
        if found < 0:
            return False
        at = found + 1
    return True
