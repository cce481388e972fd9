"""meshfw as services of systemd: the units, and where they go."""
