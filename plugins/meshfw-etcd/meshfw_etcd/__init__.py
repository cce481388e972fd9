"""Rules from etcd: a source that follows the store, and the roll-out to a fleet of nodes."""
