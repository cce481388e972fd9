"""The built-in rule sources: the configuration's own tables, and dumps in the iptables-save format."""
