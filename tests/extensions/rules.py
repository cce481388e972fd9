"""Hypothesis strategies for rules made of the typed extensions' values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st

from meshfw.errors import ModelError
from meshfw.extensions.addrtype import AddrType
from meshfw.extensions.codecs import MarkValue, Ports
from meshfw.extensions.conntrack import Conntrack, Seconds, State
from meshfw.extensions.icmp import Icmp, Icmp6, IcmpType
from meshfw.extensions.iprange import AddressRange, IpRange
from meshfw.extensions.limit import UNITS, Limit, Rate
from meshfw.extensions.log import Log
from meshfw.extensions.mac import Mac
from meshfw.extensions.mark import ConnMark, Mark, MarkChange, SetConnMark, SetMark
from meshfw.extensions.multiport import PORTS_MAX, Multiport
from meshfw.extensions.nat import Dnat, Masquerade, Redirect, Snat, To
from meshfw.extensions.reject import ANSWERS, Reject
from meshfw.extensions.sctp import CHUNKS, Chunk, Chunks, Sctp
from meshfw.extensions.tcp import Tcp, TcpFlags
from meshfw.extensions.udp import Udp
from meshfw.model import ACCEPT, DROP, RETURN, Comment, Family, Interface, Match, Network, Not, Rule, Target
from tests.extensions.cases import more_matches, more_targets

T = TypeVar("T")

PROTOCOLS = (None, 1, 6, 17, 33, 47, 50, 51, 58, 108, 132, 135, 136)
# Small numbers meet and overlap; the ends of the range are where mistakes are.
PORT = st.integers(0, 9) | st.integers(0, 0xFFFF) | st.sampled_from((0xFFFE, 0xFFFF))
MARK = st.integers(0, 0xFF) | st.integers(0, 0xFFFFFFFF) | st.sampled_from((0xFF000000, 0xFFFF0000, 0x80000000))
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_characters="\x7f"), min_size=1, max_size=20)


def signed(values: st.SearchStrategy[T]) -> st.SearchStrategy[Any]:
    """The values and their negations."""
    return values | values.map(Not)


def maybe(values: st.SearchStrategy[T]) -> st.SearchStrategy[Any]:
    """None, the values and their negations."""
    return st.none() | signed(values)


def made(make: Callable[..., T], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[T]:
    """A value of fields drawn until they make one."""

    def tried(values: dict[str, Any]) -> T | None:
        try:
            return make(**values)
        except ModelError:
            return None

    held: st.SearchStrategy[Any] = st.fixed_dictionaries(fields).map(tried)
    return held.filter(lambda value: value is not None)


def ports() -> st.SearchStrategy[Ports]:
    """One port or a range."""
    return st.tuples(PORT, PORT).map(lambda pair: Ports(*sorted(pair))) | PORT.map(lambda port: Ports(port, port))


def addresses(family: Family) -> st.SearchStrategy[int]:
    """Addresses, many of them close together."""
    near = st.integers(0, 300).map(lambda low: (0x0A000000 if family is Family.IPV4 else 0xFD << 120) + low)
    return near | st.integers(0, (1 << family.bits) - 1)


def ranges(family: Family) -> st.SearchStrategy[AddressRange]:
    """Address ranges, prefixes and hosts among them."""
    pair = st.tuples(addresses(family), addresses(family)).map(sorted)
    return pair.map(lambda ends: AddressRange(family, *ends)) | networks(family).map(
        lambda network: AddressRange(family, network.address, network.last)
    )


def networks(family: Family) -> st.SearchStrategy[Network]:
    """Networks by prefix."""
    full = (1 << family.bits) - 1
    return st.tuples(addresses(family), st.integers(0, family.bits)).map(
        lambda pair: Network(family, pair[0] & full ^ pair[0] & full >> pair[1], full ^ full >> pair[1])
    )


def flags(mask: st.SearchStrategy[int]) -> st.SearchStrategy[TcpFlags]:
    """Flags with those that are on inside the mask, and some outside."""
    inside = st.tuples(mask, mask).map(lambda pair: TcpFlags(pair[0], pair[0] & pair[1]))
    return inside | st.tuples(mask, mask).map(lambda pair: TcpFlags(*pair))


def lists() -> st.SearchStrategy[tuple[Ports, ...]]:
    """Port lists that multiport can hold."""
    several = st.lists(ports(), min_size=1, max_size=PORTS_MAX).map(tuple)
    return several.filter(lambda held: sum(1 + (item.low < item.high) for item in held) <= PORTS_MAX)


def marks() -> st.SearchStrategy[Any]:
    """Marks, most of them under a mask that they fit."""
    masked = st.tuples(MARK, MARK).map(lambda pair: MarkValue(pair[0] & pair[1], pair[1]))
    return signed(masked | MARK.map(MarkValue) | st.tuples(MARK, MARK).map(lambda pair: MarkValue(*pair)))


def conntrack(family: Family) -> st.SearchStrategy[Conntrack]:
    """Connection conditions."""
    second = st.integers(0, 100_000) | st.sampled_from((0xFFFFFFFF, 4_294_966, 4_294_967))
    return made(
        Conntrack,
        states=maybe(st.integers(1, 0x7F)),
        protocol=maybe(st.integers(0, 255)),
        orig_source=maybe(networks(family)),
        orig_destination=maybe(networks(family)),
        reply_source=maybe(networks(family)),
        reply_destination=maybe(networks(family)),
        orig_sport=maybe(ports()),
        orig_dport=maybe(ports()),
        reply_sport=maybe(ports()),
        reply_dport=maybe(ports()),
        status=maybe(st.integers(0, 15)),
        expire=maybe(st.tuples(second, second).map(lambda pair: Seconds(*sorted(pair)))),
        direction=st.sampled_from((None, "ORIGINAL", "REPLY")),
    )


def chunks() -> st.SearchStrategy[Chunks]:
    """Chunk lists."""
    flag = {0: 0x0F, 64: 0x0F, 6: 0x01, 14: 0x01}
    chunk = st.tuples(st.sampled_from(tuple(CHUNKS.values())), st.integers(0, 15), st.integers(0, 15)).map(
        lambda parts: Chunk(parts[0], parts[1] & flag.get(parts[0], 0), parts[1] & parts[2] & flag.get(parts[0], 0))
    )
    scope = st.sampled_from(("all", "any", "only"))
    some = st.lists(chunk, unique_by=lambda item: item.type, max_size=4).map(lambda held: tuple(sorted(held)))
    return st.builds(Chunks, scope, some) | st.builds(Chunks, scope, every=st.just(True))


def icmp_types() -> st.SearchStrategy[Any]:
    """Types with and without a code."""
    octet = st.integers(0, 20) | st.integers(0, 255)
    return signed(st.builds(IcmpType, octet, st.none() | octet))


def limits() -> st.SearchStrategy[Limit]:
    """Token buckets."""
    rate = made(
        Rate, packets=st.integers(1, 20) | st.integers(1, 1_000_000), unit=st.sampled_from(tuple(UNITS.values()))
    )
    return made(Limit, rate=rate, burst=st.integers(1, 10_000) | st.just(5))


def matches(family: Family, protocol: int | None) -> st.SearchStrategy[Match]:
    """Any match that can stand in a rule of the family and protocol."""
    kinds = 0xFFF if family is Family.IPV4 else 0xB7
    octet = st.integers(0, 255)
    held: list[st.SearchStrategy[Match]] = [
        conntrack(family),
        st.builds(State, signed(st.integers(1, 0x1F))),
        st.builds(Mark, marks()),
        st.builds(ConnMark, marks()),
        limits(),
        st.builds(IpRange, signed(ranges(family)), maybe(ranges(family))),
        st.builds(Mac, signed(st.tuples(*[octet] * 6).map(lambda parts: ":".join(f"{part:02x}" for part in parts)))),
        st.builds(
            AddrType,
            signed(st.integers(1, kinds).map(lambda mask: mask & kinds or 4)),
            maybe(st.sampled_from((4, 16, 20))),
            st.sampled_from((None, "in")),
        ),
    ]
    if protocol in (6, 17, 33, 132, 136):
        field = st.sampled_from(("sports", "dports", "ports"))
        held.append(st.tuples(field, signed(lists())).map(lambda pair: Multiport(**{pair[0]: pair[1]})))
    octets = st.integers(0, 0x3F) | st.sampled_from((1, 2, 4, 8))
    own: dict[int | None, st.SearchStrategy[Match]] = {
        6: made(
            Tcp,
            sport=maybe(ports()),
            dport=maybe(ports()),
            flags=maybe(flags(octets)),
            option=maybe(st.integers(1, 255)),
        ),
        17: made(Udp, sport=maybe(ports()), dport=maybe(ports())),
        132: made(Sctp, sport=maybe(ports()), dport=maybe(ports()), chunks=maybe(chunks())),
    }
    if protocol == 1 and family is Family.IPV4:
        own[1] = st.builds(Icmp, icmp_types())
    if protocol == 58 and family is Family.IPV6:
        own[58] = st.builds(Icmp6, icmp_types())
    held += more_matches(family, protocol)
    return st.one_of(*held, *([own[protocol]] * 4 if protocol in own else []))


def targets(family: Family, protocol: int | None) -> st.SearchStrategy[Target | None]:
    """Any target that can stand in a rule of the family and protocol."""
    flag = st.booleans()
    with_ports = st.none() | ports() if protocol in (1, 6, 17, 33, 132) else st.none()
    base = st.none() | st.none() | st.integers(1, 0xFFFF)
    to = made(To, addresses=st.none() | ranges(family), ports=with_ports)
    shifted = made(To, addresses=st.none() | ranges(family), ports=with_ports, base=base)
    change = st.builds(MarkChange, MARK, MARK)
    answers = [answer for answer in ANSWERS[family] if answer != "tcp-reset" or protocol == 6]
    return st.one_of(
        st.none(),
        *more_targets(family, protocol),
        st.sampled_from(answers).map(Reject),
        st.builds(
            Log,
            prefix=st.just("") | TEXT.filter(lambda text: len(text.encode()) < 30),
            level=st.integers(0, 7),
            tcp_sequence=flag,
            tcp_options=flag,
            ip_options=flag,
            uid=flag,
            macdecode=flag,
        ),
        st.builds(Masquerade, ports=with_ports, random=flag, fully_random=flag),
        st.builds(Redirect, ports=with_ports, random=flag),
        st.builds(Snat, to=to, random=flag, fully_random=flag, persistent=flag),
        st.builds(Dnat, to=shifted, random=flag, persistent=flag),
        st.builds(SetMark, change),
        st.builds(SetConnMark, change),
        st.builds(
            SetConnMark,
            copy=st.sampled_from(("save", "restore")),
            nfmask=st.just(0xFFFFFFFF) | MARK,
            ctmask=st.just(0xFFFFFFFF) | MARK,
            shift=st.just(0) | st.integers(-31, 31),
        ),
    )


def base_conditions(family: Family) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the conditions on addresses, interfaces and fragments, most often none."""
    network = signed(networks(family).filter(lambda held: held.mask))
    name = signed(st.sampled_from(("lo", "eth0", "wg+", "eth0.1", "a_b-c")).map(Interface))
    strategies = {
        "source": network,
        "destination": network,
        "in_interface": name,
        "out_interface": name,
        **({"fragment": st.booleans()} if family is Family.IPV4 else {}),
    }
    one = st.sampled_from(tuple(strategies)).flatmap(lambda field: strategies[field].map(lambda value: {field: value}))
    return st.just({}) | one | st.fixed_dictionaries({}, optional=strategies)


@cache  # hypothesis takes a strategy apart when it first draws from it, which costs more than a draw
def _of_protocol(family: Family, protocol: int | None) -> st.SearchStrategy[Rule]:
    held = st.lists(matches(family, protocol), max_size=3)
    remark = st.just(()) | st.just(()) | st.just(()) | st.just(()) | TEXT.map(lambda text: (Comment(text),))

    def rule(parts: tuple[Any, ...]) -> Rule:
        base, conditions, comment, target = parts
        return Rule(protocol=protocol, matches=(*conditions, *comment), target=target, **base)

    verdict = st.sampled_from((ACCEPT, DROP, RETURN))
    made = st.tuples(base_conditions(family), held, remark, targets(family, protocol) | verdict).map(rule)
    return made.filter(lambda made: made.problem(family) is None)


def rules(family: Family) -> st.SearchStrategy[Rule]:
    """A rule of the family with up to three matches and a target."""
    return st.one_of([_of_protocol(family, protocol) for protocol in PROTOCOLS])
