"""How a child process is run: `frames` between it and its parent, `pipe`s that never wait for ever.

Children are new programs (`python -m ...`), never forks. Host only, the standard library alone.
"""
