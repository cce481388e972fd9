"""The LOG, NFLOG and AUDIT targets: a record of the packet, and on to the next rule (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, listed, quoted
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Loss, Rule, Target, Twice, byte_length

PREFIX_BYTES: Final = 29  # linux/netfilter_ipv4/ipt_LOG.h, prefix[30] with the final NUL
GROUP_PREFIX_BYTES: Final = 63  # linux/netfilter/xt_NFLOG.h, prefix[64] with the final NUL
AUDIT_TYPES: Final = ("accept", "drop", "reject")
WARNING: Final = 4
LEVELS: Final = {
    "emerg": 0,
    "panic": 0,
    "alert": 1,
    "crit": 2,
    "error": 3,
    "warning": 4,
    "notice": 5,
    "info": 6,
    "debug": 7,
}
"""Levels of syslog(3) by the names that iptables reads."""


class Log(Target, frozen=True, kw_only=True):
    """LOG: a line with this prefix and level (0 to 7), and what more of the packet to show."""

    final: ClassVar[bool] = False
    prefix: str = ""
    level: int = WARNING
    tcp_sequence: bool = False
    tcp_options: bool = False
    ip_options: bool = False
    uid: bool = False
    macdecode: bool = False

    def __post_init__(self) -> None:
        _check_prefix(self.prefix, PREFIX_BYTES)
        if not 0 <= self.level <= 7:
            raise ModelError(f"log level {self.level} is not between 0 and 7")

    def twice(self) -> Twice | None:
        """Another line."""
        return Twice("each packet is logged twice")


class NfLog(Target, frozen=True, kw_only=True):
    """NFLOG: the packet, at most ``size`` bytes of it, to the programs that listen to a group, ``threshold`` at once.

    ``range`` is a number of bytes that iptables keeps and no kernel has ever looked at.
    """

    final: ClassVar[bool] = False
    prefix: str = ""
    group: int = 0
    size: int | None = None
    threshold: int = 0
    range: int = 0

    def __post_init__(self) -> None:
        _check_prefix(self.prefix, GROUP_PREFIX_BYTES)
        if not 0 <= self.group <= 0xFFFF or not 0 <= self.threshold <= 0xFFFF:
            raise ModelError("group and threshold of NFLOG are numbers from 0 to 65535")
        if not 0 <= (self.size or 0) <= 0xFFFFFFFF or not 0 <= self.range <= 0xFFFFFFFF:
            raise ModelError("size and range of NFLOG are numbers of 32 bits")
        if self.range and self.size is not None:
            raise ModelError("--nflog-range can't stand beside --nflog-size")

    def losses(self) -> Iterable[Loss]:
        """The range, which changes nothing."""
        return (_NO_RANGE,) if self.range else ()

    def twice(self) -> Twice | None:
        """Another record."""
        return Twice("each packet is logged twice")


_NO_RANGE: Final = Loss(
    frozenset({"nft", "native"}), "NFLOG --nflog-range: it has no effect, and nft does not keep it; use --nflog-size"
)


class Audit(Target, frozen=True):
    """AUDIT: a record for auditd(8); ``type``, accept, drop or reject, is what the rule's author says comes of it."""

    final: ClassVar[bool] = False
    type: str

    def __post_init__(self) -> None:
        if self.type not in AUDIT_TYPES:
            raise ModelError(f"audit type {self.type!r} is not one of {', '.join(AUDIT_TYPES)}")

    def losses(self) -> Iterable[Loss]:
        """The type, which no kernel since Linux 4.12 records."""
        return () if self.type == AUDIT_TYPES[0] else (_NO_TYPE,)

    def twice(self) -> Twice | None:
        """Another record."""
        return Twice("each packet is recorded twice")


_NO_TYPE: Final = Loss(
    frozenset({"native"}), "AUDIT --type: kernels record all types alike, and nft has one; read back it is accept"
)


def _check_prefix(prefix: str, longest: int) -> None:
    if byte_length(prefix) > longest:
        raise ModelError(f"a log prefix holds at most {longest} bytes")
    if "\n" in prefix or "\0" in prefix:
        raise ModelError("a log prefix can't hold a line end or NUL")


def _parse_level(text: str, context: ParseContext) -> int:
    if len(text) == 1 and text in "01234567":
        return int(text)
    if text not in LEVELS:
        raise ModelError(f"{text!r} is not a log level")
    return LEVELS[text]


def _prefix(longest: int) -> Codec:
    """A prefix, cut to what the kernel keeps, as iptables cuts it."""

    def parse(text: str, context: ParseContext) -> str:
        if not text:
            raise ModelError("a log prefix has at least one character")
        return text.encode()[:longest].decode(errors="ignore")

    return Codec(parse=parse, format=quoted, expected=f"a text of at most {longest} bytes")


_LEVEL: Final = Codec(parse=_parse_level, format=str, expected="a level from 0 to 7 or its name")


def _save(value: Log, family: Family) -> Sequence[str]:
    words: list[str] = []
    if value.prefix:
        words += ["--log-prefix", quoted(value.prefix)]
    if value.level != WARNING:
        words += ["--log-level", str(value.level)]
    words += [option.name for option in _FLAGS if getattr(value, option.field)]
    return words


_FLAGS: Final = (
    Option("--log-tcp-sequence", "tcp_sequence", words=0),
    Option("--log-tcp-options", "tcp_options", words=0),
    Option("--log-ip-options", "ip_options", words=0),
    Option("--log-uid", "uid", words=0),
    Option("--log-macdecode", "macdecode", words=0),
)


def _save_group(value: NfLog, family: Family) -> Iterable[str]:
    if value.prefix:
        yield from ("--nflog-prefix", quoted(value.prefix))
    if value.group:
        yield from ("--nflog-group", str(value.group))
    if value.size is not None:
        yield from ("--nflog-size", str(value.size))
    elif value.range:
        yield from ("--nflog-range", str(value.range))
    if value.threshold:
        yield from ("--nflog-threshold", str(value.threshold))


_TYPE: Final = Codec(parse=lambda text, context: text.lower(), format=str, expected=f"one of {', '.join(AUDIT_TYPES)}")

_NFT_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_NFT_FLAGS: Final = {
    "tcp_sequence": "tcp sequence",
    "tcp_options": "tcp options",
    "ip_options": "ip options",
    "uid": "skuid",
    "macdecode": "ether",
}
"""nft's flags by field, in the order nft lists them."""


def _prefix_nft(prefix: str) -> str:
    if set(prefix) & {'"', "$"}:
        raise InexpressibleError(f"log prefix {prefix!r}: nft text can't hold a double quote or a dollar sign")
    return f' prefix "{prefix}"' if prefix else ""


def _to_nft(value: Log, family: Family, rule: Rule) -> Iterable[str]:
    text = f"log{_prefix_nft(value.prefix)}"
    if value.level != WARNING:
        text += f" level {_NFT_LEVELS[value.level]}"
    held = [name for field, name in _NFT_FLAGS.items() if getattr(value, field)]
    if len(held) == len(_NFT_FLAGS):
        held = ["all"]
    elif held[:2] == ["tcp sequence", "tcp options"]:
        held[:2] = ["tcp sequence,options"]
    yield text + "".join(f" flags {name}" for name in held)


def _group_nft(value: NfLog, family: Family, rule: Rule) -> Iterable[str]:
    text = f"log{_prefix_nft(value.prefix)} group {value.group}"
    if value.size is not None:
        text += f" snaplen {value.size}"
    yield text + (f" queue-threshold {value.threshold}" if value.threshold else "")


_NFT_GROUP: Final = {"prefix": "prefix", "group": "group", "snaplen": "size", "queue-threshold": "threshold"}
"""The fields of a log statement to a group."""


def _from_nft(body: Any, family: Family) -> Target | None:
    body = body or {}
    if "group" in body:
        known = set(body) <= set(_NFT_GROUP)
        return NfLog(**{field: body[name] for name, field in _NFT_GROUP.items() if name in body}) if known else None
    if body == {"level": "audit"}:
        return Audit("accept")
    level = body.get("level", "warn")
    if set(body) - {"prefix", "level", "flags"} or level not in _NFT_LEVELS:
        return None
    flags = listed(body.get("flags", []))
    fields = {field: name in flags or flags == ["all"] for field, name in _NFT_FLAGS.items()}
    if flags != ["all"] and sum(fields.values()) != len(flags):
        return None
    return Log(prefix=body.get("prefix", ""), level=_NFT_LEVELS.index(level), **fields)


EXTENSIONS: Final = (
    Extension(
        name="LOG",
        value=Log,
        options=(
            Option("--log-prefix", "prefix", _prefix(PREFIX_BYTES)),
            Option("--log-level", "level", _LEVEL),
            *_FLAGS,
        ),
        save=_save,
        to_nft=_to_nft,
        from_nft={"log": _from_nft},
    ),
    Extension(
        name="NFLOG",
        value=NfLog,
        options=(
            Option("--nflog-prefix", "prefix", _prefix(GROUP_PREFIX_BYTES)),
            Option("--nflog-group", "group", integer("a group from 0 to 65535", high=0xFFFF)),
            Option("--nflog-range", "range", integer("a number of bytes")),
            Option("--nflog-size", "size", integer("a number of bytes")),
            Option("--nflog-threshold", "threshold", integer("a number of packets up to 65535", high=0xFFFF)),
        ),
        save=_save_group,
        to_nft=_group_nft,
    ),
    Extension(
        name="AUDIT",
        value=Audit,
        options=(Option("--type", "type", _TYPE),),
        to_nft=lambda value, family, rule: ("log level audit",),
    ),
)
