"""Many requests at once on one device, decoded in a pipeline that never waits for the host.

`request`, `sequence`, `pages`, `prefix_cache`, `scheduler` and `slots` are host bookkeeping and never import jax;
`state`, `programs` and the arrays of `layout` and `control` are everything that crosses the jit boundary; `device`
compiles and launches; `pipeline` and `engine` are the loop, `errors` what it may raise.

Invariants: one thread owns all of it; page 0 belongs to nobody; programs are enqueued on one device queue, so a
page may be given to a new owner as soon as the last program that touches it has been enqueued; a sequence's row
and pages are released only when no launched step refers to it any more.
"""
