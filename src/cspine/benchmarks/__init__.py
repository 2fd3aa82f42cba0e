"""Measurements that print tables: ours beside the floor and beside the usual way, in the same run."""
