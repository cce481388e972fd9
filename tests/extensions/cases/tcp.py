"""Cases: rules of tcp."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-p tcp --dport 22", "-p tcp -m tcp --dport 22", "tcp dport 22 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m tcp --sport 1024: ! --dport :1023",
        "-p tcp -m tcp --sport 1024:65535 ! --dport 0:1023",
        "tcp sport 1024-65535 tcp dport > 1023 counter",
    ),
    Case("46", "filter", "-p tcp --dport 80:80", "-p tcp -m tcp --dport 80", "tcp dport 80 counter"),
    Case("46", "filter", "-p tcp --dport : --sport 7", "-p tcp -m tcp --sport 7", "tcp sport 7 counter"),
    Case("46", "filter", "-p tcp -m tcp --destination-port ssh", "-p tcp -m tcp --dport 22", "tcp dport 22 counter"),
    Case(
        "46",
        "filter",
        "-p tcp --syn",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags syn / fin,syn,rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --syn",
        "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags != syn / fin,syn,rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags ALL NONE",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE",
        "tcp flags ! fin,syn,rst,psh,ack,urg counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags ALL NONE",
        "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE",
        "tcp flags fin,syn,rst,psh,ack,urg counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags SYN,FIN FIN,SYN",
        "-p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN",
        "tcp flags fin,syn / fin,syn counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags ack,rst rst,ack",
        "-p tcp -m tcp ! --tcp-flags RST,ACK RST,ACK",
        "tcp flags != rst,ack / rst,ack counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags RST RST",
        "-p tcp -m tcp --tcp-flags RST RST",
        "tcp flags & rst == rst counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags RST RST",
        "-p tcp -m tcp ! --tcp-flags RST RST",
        "tcp flags & rst != rst counter",
    ),
    Case(
        "46", "filter", "-p tcp --tcp-flags RST NONE", "-p tcp -m tcp --tcp-flags RST NONE", "tcp flags ! rst counter"
    ),
    Case(
        "46", "filter", "-p tcp ! --tcp-flags RST NONE", "-p tcp -m tcp ! --tcp-flags RST NONE", "tcp flags rst counter"
    ),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags ALL FIN,PSH,URG --dport 1:2",
        "-p tcp -m tcp --dport 1:2 --tcp-flags FIN,SYN,RST,PSH,ACK,URG FIN,PSH,URG",
        "tcp flags fin,psh,urg / fin,syn,rst,psh,ack,urg tcp dport 1-2 counter",
    ),
    Case("46", "filter", "-p tcp --tcp-flags NONE NONE", "-p tcp -m tcp", "meta l4proto 6 counter"),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-flags FIN,SYN ACK",
        "-p tcp -m tcp --tcp-flags FIN,SYN ACK",
        "tcp flags ack / fin,syn counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags SYN,FIN ACK",
        "-p tcp -m tcp ! --tcp-flags FIN,SYN ACK",
        "tcp flags != ack / fin,syn counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp ! --tcp-flags NONE NONE",
        "-p tcp -m tcp ! --tcp-flags NONE NONE",
        "tcp flags 0x0 counter",
    ),
    Case("46", "filter", "-p tcp --tcp-flags NONE SYN", "-p tcp -m tcp --tcp-flags NONE SYN", "tcp flags 0x0 counter"),
    Case("46", "filter", "-p tcp ! --dport :", "-p tcp -m tcp ! --dport 0:65535", "tcp dport != 0-65535 counter"),
    Case(
        "46",
        "filter",
        "-p tcp --tcp-option 5 --tcp-flags SYN SYN",
        "-p tcp -m tcp --tcp-option 5 --tcp-flags SYN SYN",
        "tcp flags & syn == syn tcp option sack exists counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --syn ! --tcp-option 8",
        "-p tcp -m tcp ! --tcp-option 8 --tcp-flags FIN,SYN,RST,ACK SYN",
        "tcp flags syn / fin,syn,rst,ack tcp option timestamp missing counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --dport 9 ! --tcp-option 6",
        "-p tcp -m tcp --dport 9 ! --tcp-option 6",
        "tcp dport 9 tcp option 6 missing counter",
    ),
)
EQUAL = (
    ("-p tcp --dport 1 -m tcp --dport 2", "-p tcp -m tcp --dport 2 -m tcp --dport 1"),
    ("-p tcp ! --tcp-flags SYN ALL", "-p tcp"),
)
DIFFERENT = (
    ("-p tcp ! --dport :", "-p tcp"),
    ("-p tcp ! --dport :", "-p tcp ! --sport :"),
    ("-p tcp --tcp-flags SYN ACK", "-p tcp"),
    ("-p tcp --tcp-option 253", "-p tcp --tcp-option 254"),
)
PACKETS = (
    "-p tcp --tcp-flags SYN SYN,ACK",
    "-p tcp ! --tcp-flags SYN SYN,ACK",
    "-p tcp ! --tcp-flags NONE NONE",
    "-p tcp --tcp-flags NONE SYN",
    "-p tcp ! --dport :",
    "-p tcp --tcp-option 253",
    "-p tcp ! --tcp-option 253",
    "-p tcp --dport 92 ! --tcp-option 254",
)
