"""How child processes are run, whatever they do: image workers and engine workers alike.

`supervisor` keeps one child after the other, feeds it and listens to it; `assignments` knows which child has which
work, and takes it back from those that died; `child` is a parent's side of one, `parent` a child's side of it; between
them go messages, through `pipe`s that never wait for ever.

`peers` are no children: processes, also of other machines, that share one model; each has a `connection` to the first.

Children are new programs (`python -m ...`): never forks, which a process with jax cannot have, nor multiprocessing's,
which run an unguarded user script again. POSIX only, the standard library alone.
"""
