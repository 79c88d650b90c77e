"""Checkpoints in few bits of other programs, shown as plain ones: `X.weight` in few bits beside `X.scale` and `X.zero`.

A module for each form; `opening` finds which one a checkpoint is in, and names those that are not read.
"""
