"""Measurements that a user can repeat: what the host costs, and later what the device does."""
