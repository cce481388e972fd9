"""Packets as judge: several voices say what becomes of each probe under a ruleset, and have to agree.

The voices are the backends, each with its rules in the gateway of a topology of its own, and the evaluation of packets
(:mod:`meshfw.packet`), which may also say that it can't tell. A disagreement is shrunk until as few rules as possible,
mostly one, and one packet are left of it.

* ``frames``: probes as bytes, and back
* ``road``: a gateway under one backend, through which probes go; what became of each
* ``edges``: where the conditions of a rule begin and end, and probes on both sides of that
* ``connecting``: the states of probes, and what has to be sent before them
* ``making``: random rulesets, out of the rules of the language's own cases
* ``trial``: the voices over one ruleset, their disagreements, and the shrinking of these
* ``counting``: rules of iptables beside their translation, met equally often by the same packets
"""
