"""Many requests at once on one device, decoded in a pipeline that never waits for the host.

`request`, `pages`, `scheduler`, `launch`, `pipeline` and `submissions` are host bookkeeping and never import jax;
`state`, `programs` and the arrays of `control` are everything that crosses the jit boundary; `compiled` holds the
programs, `device` runs them; `engine` is the loop. Of the model all of it knows `jaxphoton.models.protocol` alone.

Invariants: one thread owns all of it; page 0 belongs to nobody; programs are enqueued on one device queue, so a
page may be given to a new owner as soon as the last program that touches it has been enqueued; a sequence's row
and pages are released only when no launched step refers to it any more.
"""
