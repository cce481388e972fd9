"""Addresses as iptables reads them: short forms, masks, lists, and names where something resolves them.

Read as libxtables does (xtables.c, xtables_ipparse_multiple and its kin), for both of its backends.
"""

from __future__ import annotations

import re
from typing import Final

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.codecs import number
from meshfw.extensions.extension import Resolve
from meshfw.model import Family, Network, parse_address

_FULL: Final = {family: (1 << family.bits) - 1 for family in Family}
_HOST_NAME: Final = re.compile(r"(?=.*[A-Za-z])[\w-]+(?:\.[\w-]+)*\.?\Z", re.ASCII)
_NUMERIC: Final = re.compile(r"[0-9][0-9A-Fa-fXx]*(?:\.[0-9][0-9A-Fa-fXx]*){0,3}\Z", re.ASCII)


def parse_networks(text: str, *, family: Family, resolve: Resolve | None = None) -> tuple[Network, ...]:
    """The networks of one option's value: several are joined by commas, and a name may have several addresses.

    Host bits are masked off and what is then alike stays twice, as iptables has it.

    Raises:
        FamilyError: an address of the other family. ModelError: no address, or a name with nothing to resolve it.
    """
    found: list[Network] = []
    for part in text.split(","):
        found += _networks(part.lstrip(), family, resolve)
    return tuple(found)


def _networks(text: str, family: Family, resolve: Resolve | None) -> list[Network]:
    head, slash, tail = text.rpartition("/")
    if not slash:
        head, mask = tail, _FULL[family]
    else:
        if _of_the_other(head, family):
            other = next(held for held in Family if held is not family)
            raise FamilyError(f"{text} is an {other} address in an {family} rule")
        mask = _mask(tail, family, text)
        if not mask:
            return [Network(family, 0, 0)]  # iptables ignores what stands before /0
    return [Network(family, address & mask, mask) for address in _addresses(head, family, resolve)]


def _mask(text: str, family: Family, whole: str) -> int:
    if "." in text or ":" in text:
        try:
            found, mask = _full_ipv4(text) if "." in text and ":" not in text else parse_address(text)
        except ModelError:
            raise ModelError(f"{whole!r}: {text!r} is neither a prefix length nor a mask") from None
        if found is not family:
            raise FamilyError(f"{whole!r}: the mask is of the other family")
        return mask
    try:
        length = number(text)
    except ModelError:
        raise ModelError(f"{whole!r}: {text!r} is neither a prefix length nor a mask") from None
    if length > family.bits:
        raise ModelError(f"{whole!r}: prefix length {text} is more than {family.bits}")
    return _FULL[family] ^ (_FULL[family] >> length)


def _addresses(text: str, family: Family, resolve: Resolve | None) -> tuple[int, ...]:
    """The numbers of one address or name."""
    try:
        found, address = parse_address(text)
    except ModelError:
        if _NUMERIC.match(text):
            found, address = Family.IPV4, _short(text)
        elif _HOST_NAME.match(text):
            return _resolved(text, family, resolve)
        else:
            raise
    if found is not family:
        raise FamilyError(f"{text} is an {found} address in an {family} rule")
    return (address,)


def _resolved(name: str, family: Family, resolve: Resolve | None) -> tuple[int, ...]:
    if resolve is None:
        raise ModelError(f"host names are not looked up: {name!r}")
    addresses = resolve(name, family)
    if not addresses:
        raise ModelError(f"host {name} has no {family} address")
    return addresses


def _of_the_other(text: str, family: Family) -> bool:
    """Whether it is an address of the other family: ignored as well, it would put a rule into both by mistake."""
    try:
        return parse_address(text)[0] is not family
    except ModelError:
        return False


def _full_ipv4(text: str) -> tuple[Family, int]:
    parts = text.split(".")
    if len(parts) != 4:
        raise ModelError(f"{text!r} is no mask of four parts")
    return Family.IPV4, int.from_bytes(number(part, high=255) for part in parts)


def _short(text: str) -> int:
    """An IPv4 address of one to four parts, each decimal, 0x hex or 0 octal.

    Parts that are left out are 0 (``10.1`` is 10.1.0.0), as xtables_numeric_to_ipaddr reads them; where a part is too
    big for that, the last one fills the rest (``10.65537`` is 10.1.0.1), as inet_aton(3) does, which is asked next.
    """
    try:
        parts = [number(part) for part in text.split(".")]
        if max(parts) < 256:
            return int.from_bytes([*parts, 0, 0, 0][:4])
        *first, last = parts
        rest = 8 * (4 - len(first))
        if max(first, default=0) < 256 and last < 1 << rest:
            return int.from_bytes(first) << rest | last
    except ModelError:
        pass
    raise ModelError(f"{text!r} is not an IPv4 or IPv6 address")
