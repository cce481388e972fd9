"""The rates of hashlimit: of packets, and of bytes as its kernel module counts them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import number
from meshfw.extensions.extension import Codec, ParseContext

SCALE: Final = 1_000_000
"""The kernel counts the time of one packet in microseconds (linux/netfilter/xt_hashlimit.h, XT_HASHLIMIT_SCALE_v2)."""
BURST: Final = 5
_BURST_MAX: Final = 1_000_000  # libxt_hashlimit.c, XT_HASHLIMIT_BURST_MAX
_UNITS: Final = {"day": 86_400, "hour": 3_600, "min": 60, "sec": 1}
_SPELLINGS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_SIZES: Final = (("m", 1 << 20), ("k", 1 << 10), ("", 1))
_FULL: Final = 0xFFFFFFFF


class PacketRate(msgspec.Struct, frozen=True, gc=False, order=True):
    """So many packets in a unit of so many seconds."""

    packets: int
    unit: int = 1

    def __post_init__(self) -> None:
        if self.unit not in _UNITS.values():
            raise ModelError(f"{self.unit} s is no unit of a rate")
        if self.packets < 1:
            raise ModelError("a rate counts at least one packet")
        if self.period < 1:
            raise ModelError(f"rate {self.packets} in {self.unit} s is too fast: {SCALE} packets/s is the most")

    @property
    def period(self) -> int:
        """The time of one packet in microseconds, as the kernel keeps it."""
        return SCALE * self.unit // self.packets

    @property
    def stored(self) -> tuple[str, int]:
        """What of it the kernel keeps."""
        return ("packets", self.period)

    @property
    def reduced(self) -> PacketRate:
        """The rate as iptables-save prints it: the period in the shortest unit that still shows it."""
        units = list(_UNITS.values())
        chosen = units[0]
        for unit in units[1:]:
            packets, rest = divmod(unit * SCALE, self.period)
            if packets < rest or self.period > unit * SCALE:
                break
            chosen = unit
        return PacketRate(chosen * SCALE // self.period, chosen)

    def expire(self, burst: int) -> int:
        """The milliseconds after which an idle bucket is forgotten, where nothing else is said."""
        return self.unit * 1000

    def nft(self, burst: int) -> str:
        """Rate and burst as nft lists them, whose own burst is 5 as well."""
        unit = next(name for name, seconds in _SPELLINGS.items() if seconds == self.unit)
        return f"{self.packets}/{unit}" + (f" burst {burst} packets" if burst != BURST else "")

    def __str__(self) -> str:
        return f"{self.packets}/{next(name for name, seconds in _UNITS.items() if seconds == self.unit)}"


class ByteRate(msgspec.Struct, frozen=True, gc=False, order=True):
    """So many bytes in a second, which the kernel keeps as a cost of 16 bytes."""

    octets: int

    def __post_init__(self) -> None:
        if self.octets < 16:
            raise ModelError(f"{self.octets} bytes/s: 16 is the least, and iptables-save prints less as 0b/s")
        if self.octets >= 1 << 36 or self.cost < 2:
            raise ModelError(f"{self.octets} bytes/s is more than iptables can count")

    @property
    def cost(self) -> int:
        """The cost of 16 bytes."""
        return _FULL // ((self.octets >> 4) + 1)

    @property
    def stored(self) -> tuple[str, int]:
        """What of it the kernel keeps."""
        return ("bytes", self.cost)

    @property
    def second(self) -> int:
        """The bytes of a second as iptables works them out of the cost."""
        return _FULL // self.cost - 1 << 4

    @property
    def reduced(self) -> ByteRate:
        """The rate as iptables-save prints it."""
        for _, size in _SIZES[:-1]:
            octets = self.second & _FULL & ~(size - 1)  # its mask has 32 bits
            if octets and _FULL // ((octets >> 4) + 1) == self.cost:
                return ByteRate(octets)
        return ByteRate(self.second)

    def expire(self, burst: int) -> int:
        """The milliseconds after which an idle bucket is forgotten, where nothing else is said."""
        return 60_000 if burst else 15_000

    def nft(self, burst: int) -> str:
        """Nothing that nft could count."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{_octets(self.octets)}b/s"


def _octets(octets: int) -> str:
    name, size = next((name, size) for name, size in _SIZES if (octets >= size and not octets % size) or size == 1)
    return f"{octets // size}{name}"


_BYTES: Final = re.compile(r"(\d+)([km]?)b/s(?:ec(?:ond)?)?\Z")
_AMOUNT: Final = re.compile(r"(\d+)([km]?)b?\Z")


def _parse(text: str, context: ParseContext) -> PacketRate | ByteRate:
    octets = _BYTES.match(text)
    if octets:
        return ByteRate(int(octets[1]) * dict(_SIZES)[octets[2]])
    count, slash, unit = text.partition("/")
    found = [seconds for name, seconds in _SPELLINGS.items() if unit and name.startswith(unit.lower())]
    if (slash and not found) or not (count.isascii() and count.isdigit()):
        raise ModelError(f"{text!r} is not a rate")
    return PacketRate(int(count), found[0] if slash else 1)


def _parse_amount(text: str, context: ParseContext) -> int:
    found = _AMOUNT.match(text)
    if not found:
        raise ModelError(f"{text!r} is no number of packets or bytes")
    amount = number(found[1].lstrip("0") or "0", high=0xFFFFFFFFFFFFFFFF) * dict(_SIZES)[found[2]]
    if not 1 <= amount <= 0xFFFFFFFFFFFFFFFF or (text.isdigit() and amount > _BURST_MAX):
        raise ModelError(f"burst {text} is not between 1 and {_BURST_MAX}")
    return amount


RATE_CODEC: Final = Codec(
    parse=_parse, format=str, expected="PACKETS/UNIT with UNIT second, minute, hour or day, or BYTESb/s, kb/s or mb/s"
)
BURST_CODEC: Final = Codec(parse=_parse_amount, format=str, expected="a number of packets, or of bytes as in 400kb")


def parse_burst(rate: PacketRate | ByteRate, amount: int | None) -> int:
    """The burst that goes with the rate: packets, or how many seconds' worth of bytes."""
    if isinstance(rate, PacketRate):
        burst = BURST if amount is None else amount
        if burst > _BURST_MAX:
            raise ModelError(f"burst {burst} is not between 1 and {_BURST_MAX}")
        return burst
    if amount is None:
        return 0
    if amount < rate.second:
        raise ModelError(f"a burst of bytes can't be smaller than a second's worth, {rate.second}b")
    return -(-amount // rate.second) & _FULL


def byte_burst(rate: ByteRate, burst: int) -> tuple[str, bool]:
    """The burst as iptables-save prints it, and whether iptables would read that as another one; then it is exact.

    iptables 1.8.9 keeps no more than 32 bits of the bytes that it reads.
    """
    octets = rate.second * burst
    name, size = next((name, size) for name, size in _SIZES if octets >= size)
    rounded = octets // size * size
    lost = rounded < rate.second or -(-(rounded & _FULL) // rate.second) != burst
    return (f"{octets}b", True) if lost else (f"{octets // size}{name}b", False)


def read_packet_rate(limit: Any) -> PacketRate | None:
    """The rate of a limit in nft's JSON; None where it is none of packets."""
    if set(limit) - {"rate", "burst", "per", "inv"} or limit["per"] not in _SPELLINGS:
        return None
    return PacketRate(int(limit["rate"]), _SPELLINGS[limit["per"]])
