"""The hashlimit match: a token bucket for each address, port or combination of them (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import PREFIX, integer, sign, word
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.hashlimit_rates import (
    BURST,
    BURST_CODEC,
    RATE_CODEC,
    ByteRate,
    PacketRate,
    byte_burst,
    parse_burst,
    read_packet_rate,
)
from meshfw.extensions.meter import SIZE, meter, name_of, nft_name, prefix_mask, read_meter
from meshfw.model import Family, Loss, Match, Rule, Twice

NAME_BYTES: Final = 254  # linux/netfilter/xt_hashlimit.h, name[NAME_MAX] with the final NUL
MODES: Final = ("srcip", "srcport", "dstip", "dstport")
"""What a bucket may stand for, in the order iptables-save prints it."""
ENTRIES_MAX: Final = 1 << 20  # net/netfilter/xt_hashlimit.c, HASHLIMIT_MAX_SIZE
COLLECTION: Final = 1000
"""Milliseconds between two looks for idle buckets, where nothing else is said."""
_CREDITS: Final = 137_438_953
"""Credits of a microsecond (net/netfilter/xt_hashlimit.c, CREDITS_PER_JIFFY at HZ 250 and 1000, to 64 bits)."""
_FULL: Final = 0xFFFFFFFFFFFFFFFF


class HashLimit(Match, frozen=True, kw_only=True):
    """At most ``rate`` in the long run for each value of ``mode``, or with ``above`` what is more than that.

    ``burst`` is the bucket's size in packets; of bytes, how often in its life a bucket is filled at once. ``srcmask``
    and ``dstmask`` are prefix lengths (None: the whole address), ``size`` and ``entries`` those of the kernel's table
    (0: its own choice), ``collection`` and ``expire`` milliseconds. With ``interval``, in seconds, nothing is taken
    from a bucket: the rate of the last interval is compared.
    """

    stateful: ClassVar[bool] = True
    name: str
    rate: PacketRate | ByteRate
    above: bool = False
    burst: int = BURST
    mode: tuple[str, ...] = ()
    srcmask: int | None = None
    dstmask: int | None = None
    size: int = 0
    entries: int = 0
    collection: int = COLLECTION
    expire: int = 0
    interval: int = 0

    def __post_init__(self) -> None:
        put = msgspec.structs.force_setattr
        put(self, "rate", self.rate.reduced)
        put(self, "mode", tuple(part for part in MODES if part in self.mode))
        put(self, "size", min(self.size, ENTRIES_MAX))
        put(self, "entries", min(self.entries, ENTRIES_MAX))
        if not self.expire:
            put(self, "expire", self.rate.expire(self.burst))
        if "/" in self.name:
            raise ModelError(f"{self.name!r}: the name is a file's in /proc, and holds no /")
        if not 1 <= self.collection <= 0xFFFFFFFF or not 1 <= self.expire <= 0xFFFFFFFF:
            raise ModelError("hashlimit's times are from 1 to 4294967295 milliseconds")
        if isinstance(self.rate, ByteRate):
            return
        if self.interval and self.rate.unit != 1:
            raise ModelError("the rate of an interval is one of a second")
        if self.burst < 1:
            raise ModelError("a bucket holds at least one packet")
        if not self.interval and self.rate.period * self.burst * _CREDITS & _FULL < self.rate.period * _CREDITS:
            raise ModelError(f"{self.rate} with burst {self.burst} is more than iptables can count: lower the burst")

    @property
    def shared(self) -> str:
        """The name: of one name there is one table of buckets (net/netfilter/xt_hashlimit.c, htable_find_get)."""
        return f"hashlimit {self.name}"

    @property
    def refills(self) -> bool:
        """Whether an idle bucket is full by the time it is forgotten, so that forgetting it changes nothing."""
        return isinstance(self.rate, PacketRate) and self.rate.period * self.burst <= self.expire * 1000

    def key(self) -> tuple[tuple[str, int | None], ...]:
        """What there is a bucket for: the parts of the mode with their masks, without those that are masked away."""
        masks = {"srcip": self.srcmask, "dstip": self.dstmask}
        return tuple((part, masks.get(part)) for part in self.mode if masks.get(part) != 0)

    @property
    def table(self) -> int:
        """How many buckets there may be; 0 where the kernel chooses."""
        return max(self.entries, self.size) if self.entries else min(8 * self.size, ENTRIES_MAX)

    @property
    def idle(self) -> int:
        """The milliseconds after which it is forgotten: the kernel looks for idle buckets now and then, not at once.

        One that is full by then may as well stay to the end of the second, which is what nft counts in.
        """
        soon = self.collection < COLLECTION and not self.refills
        return self.expire if soon else -(-self.expire // 1000) * 1000

    def atoms(self) -> Iterable[Any]:
        """All that decides which packets meet it: not how often the kernel cleans up, where that can't be seen."""
        collection = COLLECTION if self.refills else self.collection
        times = (self.idle, collection, self.interval)
        yield ("hashlimit", self.name, self.above, self.rate.stored, self.burst, self.key(), self.table, times)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A mask longer than the family's addresses."""
        for length in (self.srcmask, self.dstmask):
            if length is not None and length > family.bits:
                return f"hashlimit: /{length} is longer than an {family} address"
        return None

    def losses(self) -> Iterable[Loss]:
        """A burst that iptables-save rounds to another one, or that the kernel can't count."""
        both = frozenset({"legacy", "nft"})
        if isinstance(self.rate, ByteRate):
            if self.burst and byte_burst(self.rate, self.burst)[1]:
                text = "--hashlimit-burst: iptables rounds these bytes or has no room for them, and reads another burst"
                yield Loss(both, text)
        elif not self.interval and self.rate.period * self.burst * _CREDITS > _FULL:
            text = f"--hashlimit {self.rate} with burst {self.burst}: the kernel's number overflows to a smaller burst"
            yield Loss(both, text, shown=False)

    def twice(self) -> Twice | None:
        """Another count."""
        return Twice(
            "each copy counts each packet; two in iptables share the table of that name, where it counts twice"
        )


def _parse_mode(text: str, context: ParseContext) -> tuple[str, ...]:
    parts = [part for part in text.replace("|", ",").split(",") if part]
    for part in parts:
        if part not in MODES:
            raise ModelError(f"{part!r} is no part of a mode")
    return tuple(parts)


_MODE: Final = Codec(parse=_parse_mode, format=",".join, expected=f"a list of {', '.join(MODES)}")
_NUMBER: Final = integer("a number of 32 bits")
_TIME: Final = integer("a number of milliseconds", low=1)
_SECONDS: Final = integer("a number of seconds", low=1, high=0x7FFFFFFF)


def _build(fields: dict[str, Any], context: ParseContext) -> HashLimit:
    for option in ("name", "rate"):
        if option not in fields and not (option == "rate" and "above" in fields):
            raise ModelError("hashlimit needs --hashlimit-name and one of --hashlimit-upto and --hashlimit-above")
    if "rate" in fields and "above" in fields:
        raise ModelError("--hashlimit-upto can't stand beside --hashlimit-above")
    above = "above" in fields
    negated, rate = sign(fields.pop("above" if above else "rate"))
    burst, match, interval = fields.pop("burst", None), fields.pop("match", False), fields.pop("interval", 0)
    if match:
        fields["interval"] = interval or (rate.unit if isinstance(rate, PacketRate) else 1)
    fields["burst"] = parse_burst(rate, burst)
    fields.setdefault("expire", rate.expire(fields["burst"]))
    if match and isinstance(rate, PacketRate):  # iptables then takes the rate for one of a second
        rate = PacketRate(rate.packets)
    for mask in ("srcmask", "dstmask"):
        if fields.get(mask) == context.family.bits:
            del fields[mask]
    return HashLimit(above=above is not negated, rate=rate, **fields)


def _save(value: HashLimit, family: Family) -> Iterator[str]:
    yield from ("--hashlimit-above" if value.above else "--hashlimit-upto", str(value.rate))
    if isinstance(value.rate, PacketRate):
        yield from ("--hashlimit-burst", str(value.burst))
    elif value.burst:
        yield from ("--hashlimit-burst", byte_burst(value.rate, value.burst)[0])
    if value.mode:
        yield from ("--hashlimit-mode", ",".join(value.mode))
    yield from ("--hashlimit-name", value.name)
    for option, held, usual in (
        ("--hashlimit-htable-size", value.size, 0),
        ("--hashlimit-htable-max", value.entries, 0),
        ("--hashlimit-htable-gcinterval", value.collection, COLLECTION),
        ("--hashlimit-htable-expire", value.expire, value.rate.expire(value.burst)),
        ("--hashlimit-srcmask", value.srcmask, None),
        ("--hashlimit-dstmask", value.dstmask, None),
    ):
        if held not in (usual, None):
            yield from (option, str(held))
    if value.interval:
        yield "--hashlimit-rate-match"
        if value.interval != 1:
            yield from ("--hashlimit-rate-interval", str(value.interval))


# --- nft ------------------------------------------------------------------------------------------------------

_PREFIX: Final = "hashlimit-"
_HEADERS: Final = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_FIELDS: Final = {"srcip": "saddr", "dstip": "daddr", "srcport": "sport", "dstport": "dport"}
_NFT_ORDER: Final = ("dstip", "dstport", "srcip", "srcport")
"""The order of iptables-translate(8)."""


def _inexpressible(value: HashLimit, rule: Rule) -> str | None:
    if value.interval:
        return "--hashlimit-rate-match: nft's limit takes from a bucket, and compares no rate of an interval"
    if isinstance(value.rate, ByteRate):
        return (
            f"--hashlimit {value.rate}: iptables counts steps of 16 bytes, one more than a packet fills, and fills a "
            "bucket at once as often as the burst allows; nft's bucket is another one"
        )
    if value.collection != COLLECTION and not value.refills:
        return "--hashlimit-htable-gcinterval: nft forgets an idle bucket without waiting for it"
    if any(match is not value and isinstance(match, HashLimit) and match.name == value.name for match in rule.matches):
        return f"--hashlimit-name {value.name} twice: nft's meters can't share their buckets"
    if any(part.endswith("port") for part in value.mode) and rule.protocol not in _HEADERS:
        return (
            "--hashlimit-mode with ports in a rule that states no protocol with ports: iptables counts a packet "
            "without ports as port 0, and nft has no key that is both"
        )
    return None


def _to_nft(value: HashLimit, family: Family, rule: Rule) -> Iterable[str]:
    why = _inexpressible(value, rule)
    if why:
        raise InexpressibleError(why)
    network = "ip" if family is Family.IPV4 else "ip6"
    header = _HEADERS.get(rule.protocol, "") if isinstance(rule.protocol, int) else ""
    lengths = dict(value.key())
    key: list[tuple[str, int | None]] = []
    for part in _NFT_ORDER:
        if part in lengths:
            length = lengths[part]
            mask = None if length is None else prefix_mask(length, family)
            key.append((f"{network if part.endswith('ip') else header} {_FIELDS[part]}", mask))
    yield meter(
        nft_name(_PREFIX, value.name),
        key or [(f"{network} saddr", 0)],  # one bucket for all
        f"limit rate {'over ' if value.above else ''}{value.rate.nft(value.burst)}",
        seconds=value.idle // 1000,
        size=value.table or SIZE,
    )


def _from_nft(body: Any, family: Family) -> HashLimit | None:
    limit = body["stmt"]["limit"]
    name = name_of(_PREFIX, body["name"])
    rate = read_packet_rate(limit)
    if name is None or rate is None or set(body) != {"key", "stmt", "size", "name"}:
        return None
    key, seconds = read_meter(body)
    network = "ip" if family is Family.IPV4 else "ip6"
    fields: dict[str, Any] = {"mode": []}
    for written, mask in key.items():
        header, _, field = written.partition(" ")
        part = next((part for part, name in _FIELDS.items() if name == field), None)
        if part is None or (header != network if part.endswith("ip") else header not in _HEADERS.values()):
            return None
        fields["mode"].append(part)
        if mask is not None:
            length = mask.bit_count()
            if prefix_mask(length, family) != mask or not part.endswith("ip"):
                return None
            fields[f"{part[:3]}mask"] = length
    if not seconds:
        return None
    size = 0 if body["size"] == SIZE else int(body["size"])
    fields.update(burst=int(limit["burst"]), entries=size, expire=seconds * 1000)
    return HashLimit(name=name, rate=rate, above=bool(limit.get("inv")), **fields)


EXTENSIONS: Final = (
    Extension(
        name="hashlimit",
        value=HashLimit,
        options=(
            Option("--hashlimit-upto", "rate", RATE_CODEC, aliases=("--hashlimit",), invertible=True),
            Option("--hashlimit-above", "above", RATE_CODEC, invertible=True),
            Option("--hashlimit-burst", "burst", BURST_CODEC),
            Option("--hashlimit-mode", "mode", _MODE),
            Option("--hashlimit-name", "name", word("a name", most=NAME_BYTES)),
            Option("--hashlimit-htable-size", "size", _NUMBER),
            Option("--hashlimit-htable-max", "entries", _NUMBER),
            Option("--hashlimit-htable-gcinterval", "collection", _TIME),
            Option("--hashlimit-htable-expire", "expire", _TIME),
            Option("--hashlimit-srcmask", "srcmask", PREFIX),
            Option("--hashlimit-dstmask", "dstmask", PREFIX),
            Option("--hashlimit-rate-match", "match", words=0),
            Option("--hashlimit-rate-interval", "interval", _SECONDS),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={"meter limit": _from_nft},
    ),
)
