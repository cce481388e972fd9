"""The only room that talks to the kernel: processes, libnftables, netlink, network namespaces and the instance lock."""
