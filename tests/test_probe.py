"""Laws of the probes of a configuration: two texts and a program, and nothing that a shell would read."""

from __future__ import annotations

import pytest

from meshfw.config import parse_config
from meshfw.errors import ConfigError
from meshfw.probe import ATTEMPTS, TIMEOUT, Probe, ProbeKind, Probing


def probing(text: str) -> Probing:
    return parse_config(f"[safety]\n{text}", file="f").safety


@pytest.mark.parametrize(
    ("text", "probes"),
    [
        ("", ()),
        ('probe = "ping 10.0.0.1"', (Probe(kind=ProbeKind.PING, host="10.0.0.1"),)),
        ('probe = " ping  fd00:0::1 "', (Probe(kind=ProbeKind.PING, host="fd00::1"),)),
        ('probe = "ping fe80::1%eth0"', (Probe(kind=ProbeKind.PING, host="fe80::1%eth0"),)),
        ('probe = "tcp gateway.example:22"', (Probe(kind=ProbeKind.TCP, host="gateway.example", port=22),)),
        ('probe = "tcp [fd00::1]:22"', (Probe(kind=ProbeKind.TCP, host="fd00::1", port=22),)),
        ('probe = ["/bin/check", "--fast"]', (Probe(kind=ProbeKind.COMMAND, argv=("/bin/check", "--fast")),)),
        (
            'probe = ["tcp 10.0.0.1:22", ["/bin/check"], "ping 10.0.0.1"]',
            (
                Probe(kind=ProbeKind.TCP, host="10.0.0.1", port=22),
                Probe(kind=ProbeKind.COMMAND, argv=("/bin/check",)),
                Probe(kind=ProbeKind.PING, host="10.0.0.1"),
            ),
        ),
    ],
)
def test_a_probe_is_one_of_two_texts_or_a_program(text: str, probes: tuple[Probe, ...]) -> None:
    assert probing(text) == Probing(probes=probes, attempts=ATTEMPTS, timeout=TIMEOUT)


def test_attempts_and_time_limit_are_the_configurations() -> None:
    assert probing("attempts = 1\ntimeout = 1") == Probing(attempts=1, timeout=1.0)
    assert probing("timeout = 0.5").timeout == 0.5


@pytest.mark.parametrize("text", ["ping 10.0.0.1", "tcp gateway:22", "tcp [fd00::1]:22"])
def test_a_probes_text_reads_back(text: str) -> None:
    (probe,) = probing(f'probe = "{text}"').probes
    assert str(probe) == text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("probe = 5", "safety.probe"),
        ('probe = ""', "safety.probe"),
        ("probe = []", "safety.probe"),
        ('probe = "ping"', "safety.probe"),
        ('probe = "ping gateway"', "safety.probe"),
        ('probe = "ping 10.0.0.1; reboot"', "safety.probe"),
        ('probe = "/bin/check --fast"', "safety.probe"),
        ('probe = "sh -c true"', "safety.probe"),
        ('probe = "tcp 10.0.0.1"', "safety.probe"),
        ('probe = "tcp :22"', "safety.probe"),
        ('probe = "tcp -x:22"', "safety.probe"),
        ('probe = "tcp fd00::1:22"', "safety.probe"),
        ('probe = "tcp [10.0.0.1]:22"', "safety.probe"),
        ('probe = "tcp 10.0.0.1:0"', "safety.probe"),
        ('probe = "tcp 10.0.0.1:65536"', "safety.probe"),
        ('probe = "tcp 10.0.0.1:²"', "safety.probe"),
        ('probe = ["check", "--fast"]', "safety.probe[1]"),
        ('probe = [["check"]]', "safety.probe[1]"),
        ("probe = [[]]", "safety.probe[1]"),
        ('probe = ["/bin/check", 5]', "safety.probe[2]"),
        ('probe = ["/bin/check", "a\\u0000b"]', "safety.probe[2]"),
        ('probe = ["ping 10.0.0.1", ["/bin/check", true]]', "safety.probe[2][2]"),
        ("attempts = 0", "safety.attempts"),
        ("attempts = 101", "safety.attempts"),
        ("attempts = 1.5", "safety.attempts"),
        ("timeout = 0", "safety.timeout"),
        ("timeout = -1.0", "safety.timeout"),
        ("timeout = nan", "safety.timeout"),
        ("timeout = 1e9", "safety.timeout"),
        ("attempts = 7\ntimeout = 20", "safety.timeout"),
        ("attempts = 100", "safety.attempts"),
        ("timeout = true", "safety.timeout"),
        ('timeout = "5s"', "safety.timeout"),
        ("probes = 1", "safety.probes"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_its_key(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        probing(text)
    assert (caught.value.file, caught.value.key) == ("f", key)
    assert caught.value.expected


def test_probes_take_two_minutes_at_most_with_their_pauses() -> None:
    assert probing("attempts = 1\ntimeout = 120").tries == 120
    assert probing("attempts = 3\ntimeout = 39").tries == 118
    with pytest.raises(ConfigError, match=r"3 attempts of 40 seconds, 0.5 apart, are 121 seconds; .* at most 120"):
        probing("attempts = 3\ntimeout = 40")


def test_safety_is_a_table() -> None:
    with pytest.raises(ConfigError, match="expected a table \\[safety\\]"):
        parse_config("safety = 5")
