"""The `jaxphoton` command: `main.py`, and one file a command.

A command's file has `add_parser(subparsers)` and `run(args) -> int`. Everything heavy (jax, Pillow, the model) is
imported inside `run`, so that `--help` answers at once. A fault of the user's is a `CommandError`: one line on
stderr, no traceback. Exit codes: 0 all done, 1 nothing could be done, 2 some images failed, 130 interrupted.
"""
