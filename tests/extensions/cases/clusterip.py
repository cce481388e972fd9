"""Cases: rules of CLUSTERIP."""

from __future__ import annotations

from tests.extensions.case import Case

NEW = "-j CLUSTERIP --new --hashmode sourceip --clustermac 01:AA:7B:47:F7:D7 --total-nodes 2 --local-node 1"
UNHELD = (
    Case("4", "filter/INPUT", f"-d 10.31.3.236 -i lo {NEW}", f"-d 10.31.3.236/32 -i lo {NEW} --hash-init 0", None),
    Case("4", "filter/INPUT", f"-d 10.31.3.236/32 {NEW} --hash-init 7", "", None),
    Case("4", "filter/INPUT", "-d 10.31.3.236/32 -j CLUSTERIP", "", None),
)
REFUSED = (
    (NEW, "with -d"),
    (f"-d 10.0.0.0/8 {NEW}", "with -d"),
    ("-d 10.0.0.1 -j CLUSTERIP --total-nodes 2", "--new"),
    ("-d 10.0.0.1 -j CLUSTERIP --new --total-nodes 2", "--hashmode"),
    (f"-d 10.0.0.1 {NEW.replace('01:AA', '02:AA')}", "multicast"),
    (f"-d 10.0.0.1 {NEW.replace('node 1', 'node 0')}", "--local-node"),
    (f"-d 10.0.0.1 {NEW.replace('sourceip', 'source')}", "source"),
)
EQUAL = ((f"-d 10.0.0.1 {NEW}", f"-d 10.0.0.1 {NEW.replace('AA', 'aa')} --hash-init 0"),)
DIFFERENT = ((f"-d 10.0.0.1 {NEW}", f"-d 10.0.0.1 {NEW} --hash-init 1"),)
UNSAYABLE = ((f"-d 10.0.0.1 {NEW}", "no such statement"),)
