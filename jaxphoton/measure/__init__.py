"""Measurements that a user can repeat: what the host costs and what the device does."""
