"""The agent: the service that keeps a ruleset in place for years, woken by events and never by a poll."""
