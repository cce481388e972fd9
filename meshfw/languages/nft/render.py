"""A rule as nft text, in the very form in which nft lists it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError
from meshfw.extensions.extension import Extension, NftObject
from meshfw.extensions.language import Language
from meshfw.languages.nft.names import FAMILIES, KEYWORDS, NO_INTERFACE, PLAIN_NAMES, SPOKEN_NAMES, Names
from meshfw.model import (
    COMMENT_BYTES,
    Accept,
    Comment,
    Drop,
    Family,
    Goto,
    Hook,
    Interface,
    Jump,
    Match,
    Not,
    OpaqueMatch,
    OpaqueTarget,
    Packet,
    Return,
    Rule,
    SetRef,
    Target,
    format_address,
    matches_any,
    matches_none,
    stored_comment,
)

_FRAGMENT: Final = "ip frag-off & 8191"  # struct iphdr, IP_OFFSET
APPROXIMATED: Final = "approximated: "
"""What the warning of an approximation begins with."""
_METER: Final = re.compile(r"\bmeter (\S+) size ")
ONE_METER: Final = "nft keeps one meter of a name in a table, and rules can't share it"


class NftText(msgspec.Struct, frozen=True, gc=False):
    """A rule's text in the halves between which its counter stands, and the objects that it refers to.

    ``warnings`` say where the text holds another name or a shorter comment than the rule does.
    """

    head: str
    tail: str
    objects: tuple[NftObject, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.head}counter{self.tail}"

    @property
    def meters(self) -> tuple[str, ...]:
        """The names of its meters, of which a table holds one each."""
        return tuple(_METER.findall(self.head)) if "meter " in self.head else ()

    def claim_meters(self, taken: set[str]) -> None:
        """Add its meters to those of the rules before it in a table; ``InexpressibleError`` where one is there."""
        again = taken.intersection(self.meters)
        if again:
            raise InexpressibleError(f"meter {min(again)} is another rule's as well: {ONE_METER}")
        taken.update(self.meters)

    def counting_from(self, packets: int, octets: int) -> str:
        """The text with a counter that goes on from these numbers."""
        return f"{self.head}counter packets {packets} bytes {octets}{self.tail}"


def render_rule(
    rule: Rule,
    *,
    family: Family,
    language: Language,
    names: Names = PLAIN_NAMES,
    hook: Hook | None = None,
    approximate: bool = False,
) -> NftText:
    """The rule as nft lists it, for packets that come from a hook where that is known.

    With ``approximate`` what comes near takes the place of what can't be said, and a warning tells of it.

    Raises:
        InexpressibleError: where nft has no way to say it, with what and why.
    """
    base = _interface_conditions(rule)
    speaker = _Speaker(rule, family, hook, approximate=approximate)
    held = _match_statements(rule, language, names, speaker)
    if rule.protocol is not None:
        if isinstance(rule.protocol, Not):
            base.append(f"meta l4proto != {rule.protocol.value}")
        elif not _implies_protocol(rule, held):
            base.append(f"meta l4proto {rule.protocol}")
    base += _address_conditions(rule, family, names)
    if rule.fragment is not None:
        base.append(f"{_FRAGMENT} {'!=' if rule.fragment else '=='} 0")
    base.extend(text for _, text in held)
    if _needs_protocol_again(rule, family, held):
        base.append(f"meta l4proto {rule.protocol}")
    tail = _target_text(rule, language, names, speaker)
    comment = stored_comment(rule.comment)
    if comment:
        tail += f' comment "{comment}"'
    head = " ".join(base) + " " if base else ""
    warnings = (*speaker.approximations, *_warnings(rule, comment, names))
    text = NftText(head, tail, tuple(speaker.objects), warnings)
    if len(text.meters) > len(set(text.meters)):
        raise InexpressibleError(f"meter {text.meters[0]} twice: {ONE_METER}")
    return text


def render_on_hooks(
    rule: Rule,
    *,
    hooks: Collection[Hook],
    family: Family,
    language: Language,
    names: Names = PLAIN_NAMES,
    approximate: bool = False,
) -> NftText:
    """The rule as nft lists it, for packets that may come from any of these hooks.

    Raises:
        InexpressibleError: where nft has no way to say it, or says another thing on each hook.
    """
    render = partial(render_rule, rule, family=family, language=language, names=names, approximate=approximate)
    if not told_by_hook(rule, language) or not hooks:
        return render()
    texts = {str(text): text for text in (render(hook=hook) for hook in hooks)}
    if len(texts) > 1:
        where = " and from ".join(hook.upper() for hook in Hook if hook in hooks)
        which = " or ".join(f"'{text}'" for text in texts)
        raise InexpressibleError(f"packets come here from {where}, and nft says another thing for each: {which}")
    return next(iter(texts.values()))


def told_by_hook(rule: Rule, language: Language) -> bool:
    """Whether the hook that packets come from has a part in what nft says of a rule."""
    held = (rule.target, *rule.matches)
    found = (language.by_value.get(type(value)) for value in held)
    return any(extension is not None and extension.to_nft_on is not None for extension in found)


def _warnings(rule: Rule, comment: str, names: Names) -> Iterator[str]:
    if isinstance(rule.target, Jump | Goto):
        written = names.chain(rule.target.chain)
        if names is SPOKEN_NAMES and written != rule.target.chain:
            yield f"chain {rule.target.chain} is called {written}: nft's text can't say that name"
    if comment and comment != rule.comment:
        yield f"the comment is kept as {comment!r}: nft holds {COMMENT_BYTES} bytes without quotes and backslashes"


_HOST_MASKS: Final = {family: (1 << family.bits) - 1 for family in Family}


def _interface_conditions(rule: Rule) -> list[str]:
    """The conditions on interfaces, which iptables-nft's own rules begin with."""
    words = []
    if rule.in_interface is not None and not matches_any(rule.in_interface):
        words.append(_interface_condition("iifname", rule.in_interface))
    if rule.out_interface is not None and not matches_any(rule.out_interface):
        words.append(_interface_condition("oifname", rule.out_interface))
    return words


def _address_conditions(rule: Rule, family: Family, names: Names) -> list[str]:
    words = []
    network = FAMILIES[family]
    if rule.source is not None and not matches_any(rule.source):
        words.append(_address_condition(f"{network} saddr", rule.source, names))
    if rule.destination is not None and not matches_any(rule.destination):
        words.append(_address_condition(f"{network} daddr", rule.destination, names))
    return words


def _address_condition(left: str, held: Any, names: Names) -> str:
    negated = type(held) is Not
    value = held.value if negated else held
    sign = " != " if negated else " "
    if type(value) is SetRef:
        return f"{left}{sign}@{names.set(value.name)}"
    address = format_address(value.address, value.family)
    if value.mask == _HOST_MASKS[value.family]:
        return f"{left}{sign}{address}"
    prefix = value.prefix
    if prefix is None:
        sign = "!=" if negated else "=="
        return f"{left} & {format_address(value.mask, value.family)} {sign} {address}"
    return f"{left}{sign}{address}/{prefix}"


def _interface_condition(left: str, held: Interface | Not[Interface]) -> str:
    negated = isinstance(held, Not)
    if matches_none(held):  # nft takes no negated "*"; iptables-nft has the same name that no interface can bear
        return f'{left} "{NO_INTERFACE}"'
    name = held.value.name if isinstance(held, Not) else held.name
    if "\\" in name:
        raise InexpressibleError(f"interface {name}: nft reads \\ as its own")
    text = f"{name[:-1]}*" if name.endswith("+") else f"{name[:-1]}\\*" if name.endswith("*") else name
    return f'{left} {"!= " if negated else ""}"{text}"'


class _Speaker:
    """What the extensions of one rule say in nft: their statements, and beside them objects and approximations."""

    def __init__(self, rule: Rule, family: Family, hook: Hook | None, *, approximate: bool) -> None:
        self._rule = rule
        self._family = family
        self._hook = hook
        self._approximate = approximate
        self.objects: list[NftObject] = []
        self.approximations: list[str] = []

    def said(self, extension: Extension, value: Match | Target) -> Iterator[str]:
        """The statements of a match or target."""
        try:
            statements = extension.nft_statements(value, self._family, self._rule, hook=self._hook)
        except InexpressibleError as error:
            if not (self._approximate and error.nearest):
                raise
            self.approximations.append(f"{APPROXIMATED}{error.reason}")
            statements = error.nearest
        if statements is None:
            kind = "target" if extension.is_target else "match"
            raise InexpressibleError(f"{kind} {extension.name} has no nft expression in this form")
        for statement in statements:
            if isinstance(statement, NftObject):
                self.objects.append(statement)
            else:
                yield statement


def _match_statements(rule: Rule, language: Language, names: Names, speaker: _Speaker) -> list[tuple[Match, str]]:
    """The statements of the rule's matches with the match each comes from."""
    held: list[tuple[Match, str]] = []
    for match in rule.matches:
        if isinstance(match, Comment):
            continue
        if isinstance(match, OpaqueMatch):
            raise InexpressibleError(f"match {match.name} has no typed value")
        said = speaker.said(language.by_value[type(match)], match)
        held.extend((match, _named_set(text, names)) for text in said)
    return _in_place(_told_apart(held)) if rule.stateful else _told_apart(held)


_FIELD: Final = re.compile(r"(\w+|@[nt]h) (?:\S+ )?(?:!= )?[^\s{}@/-]+\Z")
"""A field of a header that is compared with one value; or bits where they lie, ``@nh,64,32 0x5``."""
_PORT: Final = re.compile(r"\w+ [sd]port (?:!= )?(\d+)\Z")
_HEADERS: Final = frozenset("@nh @th tcp udp udplite sctp dccp icmp icmpv6 ah esp comp".split())


def _in_place(held: list[tuple[Match, str]]) -> list[tuple[Match, str]]:
    """The statements such that none goes before a match that counts.

    nft 1.0.6 loads neighbours of one header at once, also where something else stands between them: then ``tcp sport 5
    limit rate 3/hour tcp dport 7`` looks at both ports before it counts. A range of one port it loads by itself.
    """
    seen: set[str] = set()
    before: set[str] = set()
    kept = []
    for match, text in held:
        if match.stateful:
            before |= seen
        found = _FIELD.match(text.replace(",", " ", 1))
        header = found[1] if found and found[1] in _HEADERS else ""
        kept.append((match, _alone(text) if header in before else text))
        if header:
            seen.add(header)
    return kept


def _alone(text: str) -> str:
    """A condition on a port that nft loads by itself."""
    port = _PORT.match(text)
    if port is None:
        raise InexpressibleError(f"{text} behind a match that counts: nft 1.0.6 looks at it before that")
    return f"{text}-{port[1]}"


_NO_PORT: Final = re.compile(r"\w+ ([sd]port) != (\d+)\Z")


def _told_apart(held: list[tuple[Match, str]]) -> list[tuple[Match, str]]:
    """The statements such that a source and a destination port that are both excluded stay two conditions.

    nft 1.0.6 loads both ports at once where each is compared with one value, and so excludes none but packets that have
    both; a range it loads by itself.
    """
    found = [_NO_PORT.match(text) for _, text in held]
    if len({end[1] for end in found if end}) < 2:
        return held
    return [
        (match, f"{text}-{end[2]}" if end and end[1] == "sport" else text)
        for (match, text), end in zip(held, found, strict=True)
    ]


_SET: Final = re.compile(r'(?<= )@([^\s"]+)\Z')
"""A set's name behind a condition, and no part of a name in quotes."""


def _named_set(text: str, names: Names) -> str:
    return _SET.sub(lambda found: f"@{names.set(found[1])}", text) if "@" in text else text


_PRESENCE: Final = re.compile(r"(?:tcp option|sctp chunk) \S+ (?:exists|missing)\Z")
"""Whether an option or chunk is there: nft answers for packets that aren't TCP or SCTP as well."""


def _implies_protocol(rule: Rule, held: Sequence[tuple[Match, str]]) -> bool:
    """Whether nft tests the protocol by itself before anything that remembers: then a listing leaves the test out."""
    keyword = KEYWORDS.get(rule.protocol) if isinstance(rule.protocol, int) else None
    if keyword is None:
        return False
    for match, text in held:
        if text.startswith(keyword) and not _PRESENCE.match(text):
            return True
        if text.startswith("meter ") and f" {keyword}" in text:
            return True
        if match.stateful:
            return False
    return False


def _needs_protocol_again(rule: Rule, family: Family, held: Sequence[tuple[Match, str]]) -> bool:
    """Whether a TCP option's value is all that tells the protocol, and the target changes ports.

    nft 1.0.6 leaves the test of the protocol out of a listing in front of such a value, and wants it for the ports;
    behind the value it stays.
    """
    if rule.target is None or rule.protocol != _TCP or not _implies_protocol(rule, held):
        return False
    translation = rule.target.translation(Packet(family=family))
    if translation is None or translation.ports is None:
        return False
    return all(text.startswith("tcp option ") for _, text in held if text.startswith("tcp "))


_TCP: Final = 6


def _target_text(rule: Rule, language: Language, names: Names, speaker: _Speaker) -> str:
    match rule.target:
        case None:
            return ""
        case Accept():
            return " accept"
        case Drop():
            return " drop"
        case Return():
            return " return"
        case Jump(chain):
            return f" jump {names.chain(chain)}"
        case Goto(chain):
            return f" goto {names.chain(chain)}"
        case OpaqueTarget(name):
            raise InexpressibleError(f"target {name} has no typed value")
        case target:
            return "".join(f" {text}" for text in speaker.said(language.by_value[type(target)], target))
