"""Cases: rules of the IPv6 headers' matches, rt, frag, hbh, dst, ipv6header, srh, mh and eui64."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.eui64 import Eui64
from meshfw.extensions.frag import Frag
from meshfw.extensions.ipv6header import Ipv6Header
from meshfw.extensions.mh import Mh
from meshfw.extensions.options6 import Dst, Hbh, HeaderOption
from meshfw.extensions.rt import Rt
from meshfw.extensions.spans import Span
from meshfw.extensions.srh import Segment, Srh
from meshfw.model import Family, Not
from tests.extensions.case import Case

_ADDRESSES = "2001:db8::1,2001:db8::2"


def _case(written: str, saved: str, nft: str | None, table: str = "filter") -> Case:
    return Case("6", table, written, saved, nft)


CASES = (
    _case("-m rt", "", "exthdr rt exists counter"),
    _case("-m rt --rt-type 0", "", "rt type 0 counter"),
    _case("-m rt ! --rt-type 0x2", "-m rt ! --rt-type 2", "rt type != 2 counter"),
    _case("-m rt --rt-type 256", "", "rt type != 0-255 counter"),
    _case("-m rt ! --rt-type 256", "", "exthdr rt exists counter"),
    _case("-m rt --rt-segsleft :", "-m rt", "exthdr rt exists counter"),
    _case("-m rt --rt-segsleft 3:3", "-m rt --rt-segsleft 3", "rt seg-left 3 counter"),
    _case("-m rt --rt-segsleft 3:", "-m rt --rt-segsleft 3:4294967295", "rt seg-left 3-255 counter"),
    _case("-m rt --rt-segsleft 4:3", "", "rt seg-left != 0-255 counter"),
    _case("-m rt ! --rt-segsleft 4:3", "", "exthdr rt exists counter"),
    # The length is in bytes, and the header's field in units of eight beyond the first.
    _case("-m rt --rt-len 40", "", "rt hdrlength 4 counter"),
    _case("-m rt --rt-len 42", "", "rt hdrlength != 0-255 counter"),
    _case(
        "-m rt ! --rt-len 42 ! --rt-segsleft 1:23 --rt-type 0",
        "-m rt --rt-type 0 ! --rt-segsleft 1:23 ! --rt-len 42",
        "rt type 0 rt seg-left != 1-23 counter",
    ),
    _case("-m rt --rt-type 0 --rt-0-res", "", None),
    _case(f"-m rt --rt-type 0 --rt-0-addrs {_ADDRESSES}", "", None),
    _case(f"-m rt --rt-type 0 --rt-0-addrs {_ADDRESSES} --rt-0-not-strict", "", None),
    _case("-m frag", "", "exthdr frag exists counter"),
    _case("-m frag --fragid 42:", "-m frag --fragid 42:4294967295", "frag id 42-4294967295 counter"),
    _case(
        "-m frag ! --fragid 7 --fragmore",
        "-m frag ! --fragid 7 --fragmore",
        "frag id != 7 frag more-fragments 1 counter",
    ),
    _case("-m frag --fragid 4:3", "", "frag id != 0-4294967295 counter"),
    _case(
        "-m frag --fraglast --fragfirst",
        "-m frag --fragfirst --fraglast",
        "frag frag-off 0 frag more-fragments 0 counter",
    ),
    _case("-m frag ! --fraglen 8", "", "exthdr frag exists counter"),
    _case("-m frag --fragres", "", None),
    _case("-m hbh", "", "exthdr hbh exists counter"),
    _case("-m hbh --hbh-len 16", "", "hbh hdrlength 1 counter"),
    _case("-m hbh ! --hbh-len 8", "", "hbh hdrlength != 0 counter"),
    _case("-m hbh --hbh-len 42", "", "hbh hdrlength != 0-255 counter"),
    _case("-m hbh --hbh-opts 5:0x2,1,0", "-m hbh --hbh-opts 5:2,1,0", None),
    _case("-m dst", "", "exthdr dst exists counter"),
    _case("-m dst ! --dst-len 2048", "", "dst hdrlength != 255 counter"),
    _case("-m dst --dst-opts 149:92,12:255 --dst-len 24", "-m dst --dst-len 24 --dst-opts 149:92,12", None),
    _case(
        "-m ipv6header --header hop,frag --soft",
        "-m ipv6header --header hop-by-hop,ipv6-frag --soft",
        "exthdr hbh exists exthdr frag exists counter",
    ),
    _case(
        "-m ipv6header ! --header route --soft",
        "-m ipv6header ! --header ipv6-route --soft",
        "exthdr rt missing counter",
    ),
    _case("-m ipv6header --header 59", "-m ipv6header --header ipv6-nonxt", "ip6 nexthdr 59 counter"),
    _case("-m ipv6header ! --header esp", "", "ip6 nexthdr != 50 counter"),
    _case(
        "-m ipv6header --header prot",
        "-m ipv6header --header protocol",
        "ip6 nexthdr != { 0, 43, 44, 50, 51, 59, 60 } counter",
    ),
    _case(
        "-m ipv6header ! --header prot",
        "-m ipv6header ! --header protocol",
        "ip6 nexthdr { 0, 43, 44, 50, 51, 59, 60 } counter",
    ),
    _case("-m ipv6header --header auth,dst --soft", "-m ipv6header --header ipv6-opts,ah --soft", None),
    _case("-m ipv6header --header dst --soft", "-m ipv6header --header ipv6-opts --soft", None),
    _case("-m ipv6header --header esp --soft", "", None),
    _case("-m ipv6header --header hop-by-hop", "", "ip6 nexthdr != 0-255 counter"),
    _case("-m ipv6header ! --header esp,protocol", "", "counter"),
    _case("-m ipv6header --header hop-by-hop,protocol", "", None),
    _case("-m srh", "", None),
    # One number is kept for all comparisons of a field: here no header meets either.
    _case(
        "-m srh --srh-hdr-len-eq 7 --srh-hdr-len-gt 192",
        "-m srh --srh-hdr-len-eq 192 --srh-hdr-len-gt 192",
        None,
    ),
    _case(
        "-m srh --srh-tag 0 --srh-next-hdr 17 --srh-segs-left-eq 1 --srh-last-entry-eq 4 --srh-hdr-len-eq 8",
        "-m srh --srh-next-hdr 17 --srh-hdr-len-eq 8 --srh-segs-left-eq 1 --srh-last-entry-eq 4 --srh-tag 0",
        None,
    ),
    _case("-m srh ! --srh-hdr-len-gt 8 --srh-segs-left-gt 1 --srh-last-entry-gt 1", "", None),
    _case("-m srh --srh-hdr-len-lt 8 --srh-segs-left-lt 1 ! --srh-last-entry-lt 1", "", None),
    _case(
        "-m srh --srh-psid a::/64 ! --srh-nsid b:: --srh-lsid c::1/0",
        "-m srh --srh-psid a::/64 ! --srh-nsid b::/128 --srh-lsid c::1/0",
        None,
    ),
    _case("-p mh -m mh", "-p mobility-header -m mh", "meta l4proto 135 counter"),
    _case(
        "-p mh --mh-type bu", "-p mobility-header -m mh --mh-type 5", "meta l4proto 135 mh type binding-update counter"
    ),
    _case("-p mh --mh-type 3:", "-p mobility-header -m mh --mh-type 3:255", "meta l4proto 135 mh type 3-255 counter"),
    _case("-p mh --mh-type :", "-p mobility-header -m mh", "meta l4proto 135 counter"),
    _case("-p mh ! --mh-type 13", "-p mobility-header -m mh ! --mh-type 13", "meta l4proto 135 mh type != 13 counter"),
    _case(
        "-p mh ! --mh-type home-test:200",
        "-p mobility-header -m mh ! --mh-type 3:200",
        "meta l4proto 135 mh type != 3-200 counter",
    ),
    _case("-m eui64", "", None),
    _case("-m eui64", "", None, table="mangle/PREROUTING"),
)


def matches(family: Family, protocol: int | None) -> list[Any]:
    if family is Family.IPV4:
        return []
    octet = st.integers(0, 9) | st.integers(0, 0xFF)
    number = st.integers(0, 300) | st.integers(0, 0xFFFFFFFF)
    span = st.tuples(number, number).filter(lambda pair: pair != (0, 0xFFFFFFFF)).map(lambda pair: Span(*pair))
    flag = st.sampled_from((None, True))
    option = st.builds(HeaderOption, st.integers(1, 9), octet)
    length = st.integers(0, 64) | st.integers(0, 4096)

    def maybe(values: Any) -> Any:
        return st.none() | values | values.map(Not)

    segment = st.tuples(st.integers(0, 9), st.integers(0, 128)).map(lambda pair: Segment(*pair))
    compared = {f"{name}_{end}": maybe(octet) for name in ("length", "segments", "last") for end in ("eq", "gt", "lt")}
    held: list[Any] = [
        st.builds(Rt, maybe(octet), maybe(span), maybe(length)),
        st.builds(Frag, maybe(span), maybe(length), flag, flag, flag),
        st.builds(Hbh, maybe(length), st.none() | st.lists(option, min_size=1, max_size=3).map(tuple)),
        st.builds(Dst, maybe(length)),
        st.builds(Ipv6Header, maybe(st.integers(1, 0xFF)).filter(lambda held: held is not None), flag),
        st.builds(Srh, tag=maybe(st.integers(0, 9)), psid=maybe(segment), lsid=maybe(segment), **compared),
        st.just(Eui64()),
    ]
    if protocol == 135:
        types = st.tuples(octet, octet).map(sorted).map(lambda pair: Span(*pair))
        held.append(st.builds(Mh, maybe(types)))
    return held
