"""The firewall of a Kilo mesh node, made out of the mesh's own state."""
