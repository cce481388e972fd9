"""Laws of the IPv6 headers' matches: what is one condition in other words, what is not, and what iptables loses."""

from __future__ import annotations

import pytest

from meshfw.errors import ParseError
from meshfw.languages.iptables import parse_rule
from meshfw.model import Family, Rule
from tests.extensions.case import LANGUAGE


def rule(text: str) -> Rule:
    return parse_rule(text, family=Family.IPV6, language=LANGUAGE)


EQUAL = [
    ("-m rt --rt-segsleft 3:", "-m rt ! --rt-segsleft :2"),
    ("-m rt --rt-type 0 -m rt --rt-segsleft 1", "-m rt --rt-segsleft 1 --rt-type 0"),
    ("-m rt --rt-len 42", "-m rt --rt-len 2049"),  # no header has either length
    ("-m rt", "-m ipv6header --header route --soft"),
    ("-m frag --fraglen 8", "-m frag"),
    ("-m hbh --hbh-opts 5:255", "-m hbh --hbh-opts 5"),
    ("-m ipv6header --header hop,frag --soft", "-m hbh -m frag"),
    ("-m ipv6header ! --header hop,prot,none", ""),
    ("-p mh --mh-type 3:", "-p mh ! --mh-type :2"),
    ("-p mh --mh-type :", "-p mh"),
    ("-m srh ! --srh-hdr-len-gt 8", "-m srh --srh-hdr-len-lt 9"),
    ("-m srh --srh-hdr-len-gt 3 --srh-hdr-len-lt 5", "-m srh --srh-hdr-len-eq 4"),
    ("-m srh --srh-lsid a::1/64", "-m srh --srh-lsid a::2/64"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_behaviour_is_an_equal_rule(one: str, other: str) -> None:
    assert rule(one) == rule(other)
    assert hash(rule(one)) == hash(rule(other))


DIFFERENT = [
    ("-m rt", ""),
    ("-m rt", "-m rt ! --rt-segsleft :"),
    ("-m rt --rt-type 0", "-m rt --rt-type 0 --rt-0-res"),
    ("-m rt --rt-type 0 --rt-0-addrs a::1", "-m rt --rt-type 0 --rt-0-addrs a::1 --rt-0-not-strict"),
    ("-m frag --fragmore", "-m frag --fraglast"),
    ("-m hbh", "-m dst"),
    ("-m hbh", "-m ipv6header ! --header hop --soft"),
    ("-m ipv6header --header prot", "-m ipv6header --header prot --soft"),
    ("-p mh --mh-type 1", "-p mh ! --mh-type 1"),
    ("-m srh", "-m rt --rt-type 4"),  # it asks for segments left that are no more than the last entry too
    ("-m srh --srh-psid a::/64", "-m srh --srh-nsid a::/64"),
    ("-m eui64", ""),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_behaviour_is_a_different_rule(one: str, other: str) -> None:
    assert rule(one) != rule(other)


REFUSED = [
    ("-m rt --rt-0-res", "--rt-type 0"),
    ("-m rt ! --rt-type 0 --rt-0-addrs a::1", "--rt-type 0"),
    ("-m rt --rt-type 0 --rt-0-not-strict", "--rt-0-addrs"),
    ("-m rt --rt-type 0 --rt-0-addrs 10.0.0.1", "none of IPv6"),
    (f"-m rt --rt-type 0 --rt-0-addrs {','.join(['a::1'] * 17)}", "at most 16"),
    ("-m frag --fragmore --fraglast", "exclude"),
    ("-m hbh --hbh-opts 0:1", "Pad1"),
    (f"-m dst --dst-opts {','.join(['1'] * 17)}", "at most 16"),
    ("-m ipv6header", "--header"),
    ("-m ipv6header --header tcp", "tcp"),
    ("-m ipv6header --header ,", "at least one"),
    ("-m mh --mh-type 1", "protocol"),
    ("-p mh --mh-type 4:3", "below"),
    ("-p mh --mh-type 256", "256"),
    ("-m srh --srh-hdr-len-eq 256", "256"),
    ("-m srh --srh-psid 10.0.0.1", "ipv6"),
    ("-m srh --srh-psid a::/129", "129"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_can_not_be_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        rule(text)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("-m rt ! --rt-segsleft :", True),
        ("-m rt --rt-segsleft :", False),
        ("-m frag ! --fragid 0:0xffffffff", True),
        ("-p mh ! --mh-type :", True),
        ("-m srh --srh-hdr-len-gt 3 --srh-hdr-len-lt 9", True),
        ("-m srh --srh-hdr-len-gt 3 ! --srh-hdr-len-lt 3", False),
    ],
)
def test_what_iptables_stores_as_another_rule_is_said(text: str, lost: bool) -> None:
    assert bool(rule(text).losses()) == lost
