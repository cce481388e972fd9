"""The backends: each keeps a ruleset in one kernel interface, behind the protocol of :mod:`meshfw.backend`."""
