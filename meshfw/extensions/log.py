"""The LOG target: a line in the kernel's log, and on to the next rule (iptables-extensions(8), LOG)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import listed, quoted
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Rule, Target, byte_length

PREFIX_BYTES: Final = 29  # linux/netfilter_ipv4/ipt_LOG.h, prefix[30] with the final NUL
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
        if byte_length(self.prefix) > PREFIX_BYTES:
            raise ModelError(f"a log prefix holds at most {PREFIX_BYTES} bytes")
        if "\n" in self.prefix or "\0" in self.prefix:
            raise ModelError("a log prefix can't hold a line end or NUL")
        if not 0 <= self.level <= 7:
            raise ModelError(f"log level {self.level} is not between 0 and 7")


def _parse_level(text: str, context: ParseContext) -> int:
    if len(text) == 1 and text in "01234567":
        return int(text)
    if text not in LEVELS:
        raise ModelError(f"{text!r} is not a log level")
    return LEVELS[text]


def _parse_prefix(text: str, context: ParseContext) -> str:
    """The prefix, cut to what the kernel keeps, as iptables cuts it."""
    if not text:
        raise ModelError("a log prefix has at least one character")
    return text.encode()[:PREFIX_BYTES].decode(errors="ignore")


_PREFIX: Final = Codec(parse=_parse_prefix, format=quoted, expected=f"a text of at most {PREFIX_BYTES} bytes")
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

_NFT_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_NFT_FLAGS: Final = {
    "tcp_sequence": "tcp sequence",
    "tcp_options": "tcp options",
    "ip_options": "ip options",
    "uid": "skuid",
    "macdecode": "ether",
}
"""nft's flags by field, in the order nft lists them."""


def _to_nft(value: Log, family: Family, rule: Rule) -> Iterable[str]:
    text = "log"
    if value.prefix:
        if set(value.prefix) & {'"', "$"}:
            raise InexpressibleError(
                f"log prefix {value.prefix!r}: nft text can't hold a double quote or a dollar sign"
            )
        text += f' prefix "{value.prefix}"'
    if value.level != WARNING:
        text += f" level {_NFT_LEVELS[value.level]}"
    held = [name for field, name in _NFT_FLAGS.items() if getattr(value, field)]
    if len(held) == len(_NFT_FLAGS):
        held = ["all"]
    elif held[:2] == ["tcp sequence", "tcp options"]:
        held[:2] = ["tcp sequence,options"]
    yield text + "".join(f" flags {name}" for name in held)


def _from_nft(body: Any, family: Family) -> Log | None:
    body = body or {}
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
            Option("--log-prefix", "prefix", _PREFIX),
            Option("--log-level", "level", _LEVEL),
            *_FLAGS,
        ),
        save=_save,
        to_nft=_to_nft,
        from_nft={"log": _from_nft},
    ),
)
