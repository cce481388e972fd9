"""A backend for iptables-legacy that works in process, through python-iptables."""
