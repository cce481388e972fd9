"""The rule languages: iptables' save and command-line language, and nft's."""
